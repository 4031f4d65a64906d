//! More clients than there are places.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use crate::attacker::{Attacker, PATIENCE, post, xml};
use crate::host::{CONNECTIONS, Host, LIMITS, LISTENERS, Listener};
use whydown_lab::wait_until;

/// At each listener.
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
            for listener in LISTENERS {
                for _ in 0..MANY {
                    let mut attacker = Attacker::raw(host, listener).expect("the backlog is long enough");
                    // With TLS this is no handshake: half open, or nonsense.
                    let _ = attacker.send(start);
                    crowd.push(attacker);
                }
            }
            // At three listeners, each with one more that was accepted only to be closed.
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
    for listener in LISTENERS {
        let mut inside: Vec<Attacker> = (0..20).map(|_| host.connect(listener)).collect();
        for client in &mut inside {
            assert_eq!(client.ask(post(xml("ping", ""))).code(), 0);
        }
        for _ in 0..200 {
            assert_eq!(
                Attacker::raw(&host, listener).expect("the backlog is long enough").rest(),
                "",
                "{listener:?}"
            );
        }
        // The other listeners have places of their own.
        for other in LISTENERS.into_iter().filter(|other| *other != listener) {
            assert!(host.connect(other).asks("ping").contains("<int>0</int>"), "{other:?}");
        }
        for client in &mut inside {
            assert_eq!(client.ask(post(xml("ping", ""))).code(), 0);
        }
        drop(inside.pop());
        wait_until("a place is free", PATIENCE, || {
            Attacker::connect(&host, listener)
                .is_ok_and(|mut next| next.send(post(xml("ping", ""))) && next.response().is_some())
        });
    }
}

/// Connections that an unprivileged user of this host opens and says nothing on, until this is dropped.
struct Nobodys(Child);

impl Nobodys {
    fn hold(addresses: &[SocketAddr], each: usize) -> Self {
        const SCRIPT: &str = "each=$0
for port; do for ((n = 0; n < each; n++)); do exec {held}<>/dev/tcp/127.0.0.1/$port; done; done
echo held; read -r";
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "bash", "-c", SCRIPT]);
        command.arg(each.to_string()).args(addresses.iter().map(|address| address.port().to_string()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash runs");
        let mut line = String::new();
        let said = child.stdout.as_mut().expect("it is piped");
        BufReader::new(said).read_line(&mut line).expect("it says when it holds them");
        assert_eq!(line, "held\n");
        Self(child)
    }
}

impl Drop for Nobodys {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_many_of_one_user_keep_no_other_out() {
    let host = Host::start("max_connections = 20\nheader_timeout_s = 600\nidle_timeout_s = 600\n");
    let _crowd = Nobodys::hold(&[host.plain, host.secured], 60);
    for listener in [Listener::Plain, Listener::Tls] {
        let mut managers: Vec<Attacker> = (0..10).map(|_| host.connect(listener)).collect();
        for manager in &mut managers {
            assert_eq!(manager.ask(post(xml("ping", ""))).code(), 0, "{listener:?}");
        }
        for manager in &mut managers {
            assert_eq!(manager.ask(post(xml("ping", ""))).code(), 0, "{listener:?}: who is in stays in");
        }
    }
}

#[test]
fn a_lack_of_file_descriptors_is_said_once_and_ends_with_what_is_idle() {
    let host = Host::start("header_timeout_s = 600\nidle_timeout_s = 600\n");
    let mut inside: Vec<Attacker> = LISTENERS.into_iter().map(|listener| host.connect(listener)).collect();
    // Of these, 128 are not for connections: libvirt's client ends the daemon where it gets none.
    let limit = host.open_files() + 128 + 20;
    host.limit_open_files(limit);
    let crowd = Nobodys::hold(&[host.plain, host.secured], 120);
    wait_until("it is said", PATIENCE, || host.whole_log().contains("connections cannot be accepted"));
    assert!(host.open_files() <= limit - 100, "{} of {limit} are taken", host.open_files());
    for client in &mut inside {
        assert_eq!(client.ask(post(xml("ping", ""))).code(), 0);
    }
    for listener in LISTENERS {
        wait_until("a newcomer is answered", PATIENCE, || {
            let answer = Attacker::connect(&host, listener)
                .ok()
                .and_then(|mut new| new.send(post(xml("ping", ""))).then(|| new.response()).flatten());
            answer.is_some_and(|answer| answer.code() == 0)
        });
    }
    drop(crowd);
    let said = host.whole_log().matches("connections cannot be accepted").count();
    assert!(said <= 2 * LISTENERS.len(), "it is said {said} times");
}

#[test]
fn the_nonsense_of_one_peer_is_logged_a_few_times_and_then_counted() {
    let host = Host::start(LIMITS);
    let nonsense = post("<methodCall>").repeat(100);
    let mut attacker = host.connect(Listener::Plain);
    for _ in 0..50 {
        assert!(attacker.send(&nonsense));
        for _ in 0..100 {
            assert_eq!(attacker.response().expect("an answer").code(), -400);
        }
    }
    wait_until("the rest is counted", PATIENCE, || host.whole_log().contains("more lines on what came from"));
    let said = host.whole_log().matches("a call that cannot be read").count();
    assert!((1..1000).contains(&said), "{said} lines");
}

#[test]
fn thousands_of_connections_that_are_cut_leave_nothing_behind() {
    let host = Host::start(LIMITS);
    let ping = post(xml("ping", ""));
    let destroy = post(xml("getVmStats", &crate::attacker::param("x")));
    let before = host.open_files();
    host.under_attack(|host| {
        for listener in [Listener::Plain, Listener::Tls, Listener::Unix] {
            for number in 0..MANY {
                let mut attacker = Attacker::raw(host, listener).expect("the backlog is long enough");
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
