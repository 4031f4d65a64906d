//! HTTP that says two things at once, or nothing that can be understood: no request may be hidden in another.

use crate::attacker::{get, post, xml};
use crate::host::{Host, LIMITS, LISTENERS};

/// A call whose answer nobody mistakes for that to `ping`.
fn hidden() -> String {
    String::from_utf8(post(xml("system.listMethods", ""))).expect("a request is text")
}

/// A ping as one chunk, and the end.
fn chunked() -> String {
    let ping = xml("ping", "");
    format!("{:x}\r\n{ping}\r\n0\r\n\r\n", ping.len())
}

#[test]
fn a_request_that_is_not_clear_is_400_or_closed_and_hides_no_other() {
    let host = Host::start(LIMITS);
    let ping = xml("ping", "");
    let length = ping.len();
    let line = |headers: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}{}", hidden())
    };
    let unclear = [
        line(&format!("Content-Length: {length}\r\nContent-Length: 0\r\n"), &ping),
        line(&format!("Content-Length: 0\r\nContent-Length: {length}\r\n"), &ping),
        line("Content-Length: -1\r\n", &ping),
        line(&format!("Content-Length: +{length}\r\n"), &ping),
        line(&format!("Content-Length: {length}, 0\r\n"), &ping),
        line(&format!("Content-Length: 0x{length:x}\r\n"), &ping),
        line("Content-Length: 99999999999999999999999\r\n", &ping),
        line(&format!("Content-Length : {length}\r\n"), &ping),
        line(&format!("Content-Length: \r\n {length}\r\n"), &ping),
        line("Transfer-Encoding: xchunked\r\n", &chunked()),
        line("Transfer-Encoding: chunked, identity\r\n", &chunked()),
        line(&format!("Transfer-Encoding: identity\r\nContent-Length: {length}\r\n"), &ping),
        line("Transfer-Encoding\u{b}: chunked\r\n", &chunked()),
        line("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"),
        line("Transfer-Encoding: chunked\r\n", "-1\r\n"),
        line("Transfer-Encoding: chunked\r\n", "zz\r\n"),
        line("Transfer-Encoding: chunked\r\n", &format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(100_000))),
        line("Transfer-Encoding: chunked\r\n", &format!("0\r\n{}\r\n", "X: y\r\n".repeat(20_000))),
        line("no colon\r\n", ""),
        line("X: \0\r\n", ""),
        format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{}{}", chunked(), hidden()),
        format!("POST / HTTP/9.9\r\n\r\n{}", hidden()),
        format!("POST  /  HTTP/1.1\r\n\r\n{}", hidden()),
        format!("POST /\r\n\r\n{}", hidden()),
        format!("POST /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000)),
        format!("POST / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000)),
        format!("POST / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(70_000)),
    ];
    host.under_attack(|host| {
        for listener in LISTENERS {
            for request in &unclear {
                let mut attacker = host.connect(listener);
                let _ = attacker.send(request);
                let said = attacker.rest();
                let first: String = request.chars().take(200).collect();
                let refused =
                    ["", "HTTP/1.1 400", "HTTP/1.0 400", "HTTP/1.1 414", "HTTP/1.1 431", "HTTP/1.1 413"];
                let as_meant = refused
                    .iter()
                    .any(|start| said.is_empty() || !start.is_empty() && said.starts_with(start));
                assert!(as_meant, "{listener:?}: {first:?}\n{said}");
                assert!(
                    !said.contains("getAllVmStats"),
                    "{listener:?}: the hidden request was answered: {first:?}"
                );
            }
        }
    });
}

#[test]
fn a_length_beside_chunks_has_no_meaning_and_nothing_is_read_behind_them() {
    let host = Host::start(LIMITS);
    host.under_attack(|host| {
        for listener in LISTENERS {
            for (first, second) in [
                ("Content-Length: 3", "Transfer-Encoding: chunked"),
                ("Transfer-Encoding: chunked", "Content-Length: 3"),
                ("Transfer-Encoding: chunked", "Content-Length: 100000"),
            ] {
                let mut attacker = host.connect(listener);
                let both =
                    format!("POST / HTTP/1.1\r\nHost: localhost\r\n{first}\r\n{second}\r\n\r\n{}", chunked());
                assert!(attacker.send(both + &hidden()));
                let answer = attacker.response().expect("an answer to the chunks");
                assert_eq!((answer.status, answer.code()), (200, 0), "{listener:?} {first}, {second}");
                // Who frames it otherwise, such as a proxy before us, cannot have sent anything else along.
                assert_eq!(attacker.rest(), "", "{listener:?} {first}, {second}");
            }
        }
    });
}

#[test]
fn unusual_but_clear_requests_are_answered() {
    let host = Host::start(LIMITS);
    let ping = xml("ping", "");
    let length = ping.len();
    for listener in LISTENERS {
        let mut same_twice = host.connect(listener);
        let twice =
            format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\nContent-Length: {length}\r\n\r\n{ping}");
        assert_eq!(same_twice.ask(twice).code(), 0);
        // Without a length there is no body, and what follows is the next request.
        let mut without = host.connect(listener);
        assert_eq!(without.ask("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n").code(), -400);
        assert_eq!(without.ask(post(&ping)).code(), 0);
        let mut careful = host.connect(listener);
        let head = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        );
        assert!(careful.send(head));
        assert!(careful.more(), "it is told to go on before it has sent anything");
        assert_eq!(careful.ask(&ping).code(), 0);
        let mut old = host.connect(listener);
        let request = format!("POST /RPC2 HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{ping}");
        assert!(old.send(request) && old.rest().starts_with("HTTP/1.0 200"));
    }
}

#[test]
fn hundreds_of_requests_at_once_are_answered_in_their_order() {
    let host = Host::start(LIMITS);
    host.under_attack(|host| {
        for listener in LISTENERS {
            let mut attacker = host.connect(listener);
            let names = ["ping", "shutdown", "list", "destroy", "nonsense"];
            let help = |n: usize| xml("system.methodHelp", &crate::attacker::param(names[n % names.len()]));
            let requests: Vec<u8> = (0..500).flat_map(|n| post(help(n))).collect();
            let mut apart = host.connect(listener);
            let expected = [0, 1, 2, 3, 4].map(|n| apart.ask(post(help(n))).text().to_owned());
            assert!(attacker.send(requests));
            for n in 0..500 {
                let answer = attacker.response().unwrap_or_else(|| panic!("{listener:?}: no answer to {n}"));
                assert_eq!(answer.text(), expected[n % names.len()], "{listener:?}: answer {n}");
            }
            assert_eq!(attacker.ask(get("/v1/health")).status, 200);
        }
    });
}
