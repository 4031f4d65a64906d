//! Clients that take their time: for the handshake, the header, the body, the next request, or the answer.

use std::time::{Duration, Instant};

use crate::attacker::{Attacker, PATIENCE, get, post, xml};
use crate::host::{CONNECTIONS, Host, LIMITS, LISTENERS, Listener, MEMORY_KIB, other_vm};

/// Between two bytes of a slow sender: well within any limit that begins anew with each byte.
const DRIP: Duration = Duration::from_millis(50);

/// Bytes of requests whose answers fill every buffer between the two, many times over.
const ASKED_IN_VAIN: usize = 64 << 20;

/// Sends `start`, then one byte now and then, until the other side closes. What it said.
fn drip(mut attacker: Attacker, start: &str, byte: u8) -> String {
    let begun = Instant::now();
    assert!(attacker.send(start));
    while attacker.send([byte]) {
        assert!(begun.elapsed() < PATIENCE, "{start:?}: it is listened to for ever");
        std::thread::sleep(DRIP);
    }
    attacker.rest()
}

#[test]
fn who_is_slow_is_given_up_however_it_is_slow() {
    let host = Host::start(LIMITS);
    let announced = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n<methodCall>";
    let chunked = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n";
    // How it begins, the byte that follows again and again, and whether it may be told that its body is late: not that it
    // hears it, for it goes on sending.
    let slow = [
        ("", b'\n', false),
        ("POST / HTTP/1.1\r\nX: ", b'x', false),
        ("GET /v1/", b'x', false),
        (announced, b' ', true),
        (chunked, b' ', true),
    ];
    host.under_attack(|host| {
        std::thread::scope(|scope| {
            for listener in LISTENERS {
                for ((start, byte, late), later) in
                    slow.into_iter().flat_map(|case| [(case, false), (case, true)])
                {
                    scope.spawn(move || {
                        let mut attacker = host.connect(listener);
                        if later {
                            assert_eq!(attacker.ask(post(xml("ping", ""))).code(), 0);
                        }
                        let said = drip(attacker, start, byte);
                        let as_meant = said.is_empty() || late && said.starts_with("HTTP/1.1 408");
                        assert!(as_meant, "{listener:?} {start:?}: {said}");
                    });
                }
            }
            // A handshake that never ends: a record of which the rest comes byte by byte.
            scope.spawn(|| {
                let attacker = Attacker::raw(host, Listener::Tls).expect("it may connect");
                assert_eq!(drip(attacker, "\u{16}\u{3}\u{1}\u{1}", 1), "");
            });
        });
    });
}

#[test]
fn who_says_nothing_at_all_is_closed_and_so_is_who_stops_half_way() {
    let host = Host::start(LIMITS);
    let ping = String::from_utf8(post(xml("ping", ""))).expect("a request is text");
    host.under_attack(|host| {
        let mut silent = Vec::new();
        for listener in LISTENERS {
            for start in ["", "P", "POST / HTTP/1.1\r\n", &ping[..ping.len() - 1], &ping] {
                let mut attacker = host.connect(listener);
                assert!(attacker.send(start));
                silent.push((listener, start.to_owned(), attacker));
            }
            silent.push((
                listener,
                "without a handshake".into(),
                Attacker::raw(host, listener).expect("it may connect"),
            ));
        }
        for (listener, start, attacker) in &mut silent {
            let said = attacker.rest();
            let whole = *start == ping;
            let as_meant = match said.get(9..12) {
                None => !whole,
                Some("200") => whole,
                Some(status) => status == "408" && start.contains("Length"),
            };
            assert!(as_meant, "{listener:?} {start:?}: {said}");
        }
    });
}

#[test]
fn who_never_reads_its_answers_is_given_up() {
    let host = Host::start(LIMITS);
    let requests: Vec<u8> = post(xml("system.listMethods", "")).repeat(100);
    host.under_attack(|host| {
        std::thread::scope(|scope| {
            for listener in LISTENERS {
                for _ in 0..2 {
                    let requests = &requests;
                    scope.spawn(move || {
                        let mut attacker = host.connect(listener);
                        attacker.take_little();
                        // It asks and asks: once its answers find no room, nobody hears it any more.
                        let mut sent = 0;
                        while attacker.send(requests) {
                            sent += requests.len();
                            assert!(sent < ASKED_IN_VAIN, "{listener:?}: it is answered for ever");
                        }
                    });
                }
            }
        });
    });
}

#[test]
fn who_watches_and_never_reads_holds_nobody_up() {
    let host = Host::start(LIMITS);
    host.under_attack(|host| {
        let mut watching: Vec<Attacker> = Vec::new();
        for listener in LISTENERS {
            for _ in 0..10 {
                let mut watcher = host.connect(listener);
                assert!(watcher.send(get("/v1/watch")));
                watching.push(watcher);
            }
        }
        for listener in LISTENERS {
            let answer = host.connect(listener).ask(get("/v1/domains"));
            assert_eq!(answer.status, 200, "{listener:?}");
        }
        watching.into_iter().for_each(Attacker::reset);
    });
}

/// VMs of a host whose whole list has more than a megabyte.
const MANY_VMS: usize = 1000;

/// What the daemon may hold of requests and answers, as `docs/operating.md` says.
const HELD_KIB: u64 = 64 << 10;

#[test]
fn who_takes_large_answers_in_drop_by_drop_takes_little_memory_and_loses_the_oldest() {
    // Nobody is given up for slowness alone.
    let limits = LIMITS.replace("write_timeout_s = 2", "write_timeout_s = 600");
    let host = Host::start_with(&limits, MANY_VMS);
    let ids: String = (0..MANY_VMS).map(|n| format!("<value>{}</value>", other_vm(n))).collect();
    let all = format!(
        "<param><value>true</value></param><param><value><array><data>{ids}</data></array></value></param>"
    );
    // An answer of its own for each: none is shared.
    let list = post(xml("list", &all));
    let whole = host.connect(Listener::Unix).ask(&list);
    assert!(whole.text().contains(&other_vm(MANY_VMS - 1)));
    let held = CONNECTIONS * LISTENERS.len() * whole.body.len();
    assert!(held > (2 * HELD_KIB as usize) << 10, "{held} bytes are no attack");
    host.under_attack_within(MEMORY_KIB + HELD_KIB, |host| {
        let mut slow = Vec::new();
        for listener in LISTENERS {
            for _ in 2..CONNECTIONS {
                let mut attacker = host.connect(listener);
                attacker.take_little();
                assert!(attacker.send(&list));
                assert_eq!(attacker.peek_status(), 200);
                slow.push(attacker);
            }
        }
        let first = slow.first_mut().expect("there are many");
        assert!(first.response().is_none(), "the oldest is cut");
        let last = slow.last_mut().expect("there are many").response().expect("the newest is not");
        assert!(last.text().contains(&other_vm(MANY_VMS - 1)));
    });
    assert!(host.log().contains("too slowly"), "{}", host.log());
}
