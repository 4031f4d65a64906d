//! More clients than there are places.

use crate::attacker::{Attacker, PATIENCE, post, xml};
use crate::host::{CONNECTIONS, DOORS, Door, Host, LIMITS};
use whydown_lab::wait_until;

/// At each door.
const MANY: usize = 1000;

/// Connections that are given back, at the latest when their time is over.
fn places_come_free(host: &Host, before: usize) {
    wait_until("all places are free again", PATIENCE, || host.open_files() <= before);
}

#[test]
fn thousands_that_say_nothing_or_half_a_thing_take_no_more_than_the_places_there_are() {
    let host = Host::start(LIMITS);
    let ping = post(xml("ping", ""));
    for start in [&b""[..], b"PO", b"POST / HTTP/1.1\r\nHost: localhost\r\n", &ping[..ping.len() - 10]] {
        let before = host.open_files();
        host.under_attack(|host| {
            let mut crowd: Vec<Attacker> = Vec::new();
            for door in DOORS {
                for _ in 0..MANY {
                    let mut attacker = Attacker::raw(host, door).expect("the backlog is long enough");
                    // With TLS this is no handshake: half open, or nonsense.
                    let _ = attacker.send(start);
                    crowd.push(attacker);
                }
            }
            // At three doors, each with one more that was accepted only to be closed.
            let most = before + 3 * (CONNECTIONS + 1);
            assert!(host.open_files() <= most, "{} files are open", host.open_files());
            for attacker in &mut crowd {
                let said = attacker.rest();
                assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
            }
        });
        places_come_free(&host, before);
    }
}

#[test]
fn one_more_than_the_limit_is_closed_at_once_and_who_is_in_stays_in() {
    // Far longer than a test waits: whoever is closed here is closed for the number alone.
    let host = Host::start("max_connections = 20\nheader_timeout_s = 600\nidle_timeout_s = 600\n");
    for door in DOORS {
        let mut inside: Vec<Attacker> = (0..20).map(|_| host.connect(door)).collect();
        for client in &mut inside {
            assert_eq!(client.ask(post(xml("ping", ""))).code(), 0);
        }
        for _ in 0..200 {
            assert_eq!(
                Attacker::raw(&host, door).expect("the backlog is long enough").rest(),
                "",
                "{door:?}"
            );
        }
        // The other doors have places of their own.
        for other in DOORS.into_iter().filter(|other| *other != door) {
            assert!(host.connect(other).asks("ping").contains("<int>0</int>"), "{other:?}");
        }
        for client in &mut inside {
            assert_eq!(client.ask(post(xml("ping", ""))).code(), 0);
        }
        drop(inside.pop());
        wait_until("a place is free", PATIENCE, || {
            Attacker::connect(&host, door)
                .is_ok_and(|mut next| next.send(post(xml("ping", ""))) && next.response().is_some())
        });
    }
}

#[test]
fn thousands_of_connections_that_are_cut_leave_nothing_behind() {
    let host = Host::start(LIMITS);
    let ping = post(xml("ping", ""));
    let destroy = post(xml("getVmStats", &crate::attacker::param("x")));
    let before = host.open_files();
    host.under_attack(|host| {
        for door in [Door::Plain, Door::Tls, Door::Unix] {
            for number in 0..MANY {
                let mut attacker = Attacker::raw(host, door).expect("the backlog is long enough");
                // Nothing, half a request, a whole one whose answer finds nobody, and one behind the other.
                let _ = match number % 4 {
                    0 => true,
                    1 => attacker.send(&ping[..20]),
                    2 => attacker.send(&ping),
                    _ => attacker.send(destroy.repeat(20)),
                };
                attacker.reset();
            }
        }
    });
    places_come_free(&host, before);
}
