//! Bodies of a hundred megabytes, announced or not.

use crate::attacker::{Attacker, xml};
use crate::host::{CONNECTIONS, CROWDED_KIB, Host, LIMITS, LISTENERS, Listener, REQUEST_BYTES};

const HUGE: usize = 100_000_000;

/// What the kernel and TLS may hold of what was sent and never read.
const IN_FLIGHT: usize = 16 << 20;

/// Sends pieces until the other side has had enough; how much that was.
fn pour(attacker: &mut Attacker, piece: &[u8]) -> usize {
    let mut sent = 0;
    while sent < HUGE && attacker.send(piece) {
        sent += piece.len();
    }
    sent
}

#[test]
fn a_body_of_a_hundred_megabytes_is_refused_before_it_has_come() {
    let host = Host::start(LIMITS);
    let padding = vec![b' '; 64 << 10];
    let chunk = [format!("{:x}\r\n", padding.len()).as_bytes(), &padding, b"\r\n"].concat();
    host.under_attack(|host| {
        for listener in LISTENERS {
            for (headers, piece) in [
                (format!("Content-Length: {HUGE}\r\n"), &padding),
                (format!("Content-Length: {HUGE}\r\nExpect: 100-continue\r\n"), &padding),
                ("Transfer-Encoding: chunked\r\n".to_owned(), &chunk),
                (format!("Content-Encoding: gzip\r\nContent-Length: {HUGE}\r\n"), &padding),
                ("Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n".to_owned(), &chunk),
            ] {
                let mut attacker = host.connect(listener);
                assert!(attacker.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")));
                let sent = pour(&mut attacker, piece);
                assert!(sent < REQUEST_BYTES + IN_FLIGHT, "{listener:?} {headers}: took {sent} bytes");
                // Whoever goes on sending may lose the answer to the reset; whoever waits for it gets it.
                let said = attacker.rest();
                assert!(
                    said.is_empty() || said.starts_with("HTTP/1.1 413"),
                    "{listener:?} {headers}: {said}"
                );
            }
            let mut waits = host.connect(listener);
            let announced = format!(
                "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {HUGE}\r\n\r\n"
            );
            let answer = waits.ask(announced);
            assert_eq!(answer.status, 413, "{listener:?}");
            assert!(answer.text().contains(&REQUEST_BYTES.to_string()), "{}", answer.text());
        }
    });
}

#[test]
fn as_many_large_bodies_as_there_are_connections_stay_within_the_bound() {
    let host = Host::start(LIMITS);
    // At one listener they are dense: each takes as long to read as a request can. At the others they are only long.
    let start = xml("list", "<param><value><array><data>");
    let dense = start.clone() + &"<value/>".repeat((REQUEST_BYTES - start.len()) / 8);
    let long = start.clone() + &" ".repeat(REQUEST_BYTES - start.len());
    let call = |listener| if listener == Listener::Plain { &dense } else { &long };
    host.under_attack_within(CROWDED_KIB, |host| {
        // All but one place at every listener: that one is the honest manager's.
        let mut crowd = Vec::new();
        for listener in LISTENERS {
            for _ in 1..CONNECTIONS {
                let (mut attacker, call) = (host.connect(listener), call(listener));
                let head =
                    format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", call.len());
                // What finds no room is refused before it has come whole.
                let _ = attacker.send(head) && attacker.send(&call[..call.len() - 1]);
                crowd.push((attacker, call));
            }
        }
        // All of them end at once, or have been given up by now.
        for (attacker, call) in &mut crowd {
            let _ = attacker.send(&call[call.len() - 1..]);
        }
        for (attacker, _) in &mut crowd {
            let answer = attacker.response();
            assert!(answer.is_none_or(|answer| matches!(answer.status, 200 | 408 | 503)));
        }
    });
}
