//! Those who speak another language, at the wrong listener.

use crate::attacker::{Attacker, post, xml};
use crate::host::{Host, LISTENERS, Listener};

/// The first bytes of a TLS 1.2 ClientHello.
const HELLO: &[u8] =
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a\x5a";

#[test]
fn who_speaks_no_http_is_closed_at_once_without_a_word() {
    // Far longer than a test waits: only a quick close passes.
    let host = Host::start("header_timeout_s = 600\nidle_timeout_s = 600\n");
    host.under_attack(|host| {
        for listener in LISTENERS {
            for first in [
                &b"CONNECT\naccept-version:1.2\nhost:h\n\n\0"[..],
                b"STOMP\naccept-version:1.2\n\n\0",
                HELLO,
                b"SSH-2.0-OpenSSH_9.2\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\0\0\0\0\0\0\0\0",
                b"{\"jsonrpc\":\"2.0\"}\n",
                b"<?xml version='1.0'?><methodCall/>",
                b"\r\n\r\n\r\n\r\n",
                b"post / HTTP/1.1\r\n\r\n",
            ] {
                // Inside TLS, where there is TLS.
                let mut stranger = host.connect(listener);
                assert!(stranger.send(first));
                assert_eq!(stranger.rest(), "", "{listener:?}: {first:?}");
            }
        }
    });
}

/// virt-who 0.28 takes an orderly end for nothing to read yet, and reads again for ever.
#[test]
fn who_speaks_stomp_is_cut_and_who_speaks_http_is_not() {
    let host = Host::start("header_timeout_s = 600\nidle_timeout_s = 600\n");
    for listener in [Listener::Plain, Listener::Tls] {
        for first in [
            &b"CONNECT\naccept-version:1.2\nhost:h\n\n\0"[..],
            b"STOMP\naccept-version:1.2\nheart-beat:0,5000\n\n\0",
        ] {
            let mut stranger = host.connect(listener);
            assert!(stranger.send(first));
            assert!(stranger.is_reset(), "{listener:?}: {first:?}");
        }
        let mut known = host.connect(listener);
        assert_eq!(known.ask(post(xml("ping", ""))).status, 200);
        // At TLS's own listener, without TLS.
        let mut bare = Attacker::raw(&host, Listener::Tls).expect("it may connect");
        assert!(bare.send(b"CONNECT\naccept-version:1.2\nhost:h\n\n\0"));
        assert!(bare.is_reset());
        // An end of which nothing need be said is orderly.
        let goodbye = b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        let mut leaving = host.connect(listener);
        assert!(leaving.send(goodbye));
        assert!(!leaving.is_reset(), "{listener:?}");
    }
}

#[test]
fn plain_http_at_the_listener_of_tls_is_closed_at_once() {
    let host = Host::start("header_timeout_s = 600\nidle_timeout_s = 600\n");
    host.under_attack(|host| {
        for first in [&post(xml("ping", ""))[..], b"CONNECT\n\n\0", b"G", b"\0", b"\x80\x2e\x01\x00\x02"] {
            let mut stranger = Attacker::raw(host, Listener::Tls).expect("it may connect");
            assert!(stranger.send(first));
            assert!(!stranger.rest().starts_with("HTTP"), "{first:?}");
        }
        // It begins as TLS and goes on as nonsense: told in TLS's own words, if at all, and closed.
        let mut broken = Attacker::raw(host, Listener::Tls).expect("it may connect");
        assert!(broken.send([HELLO, &[0xFF; 600]].concat()));
        assert!(!broken.rest().contains("HTTP"));
    });
}

#[test]
fn who_leaves_before_having_said_anything_is_let_go() {
    let host = Host::start("header_timeout_s = 600\nidle_timeout_s = 600\n");
    let before = host.open_files();
    host.under_attack(|host| {
        for listener in LISTENERS {
            for first in ["", "P", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab"] {
                let mut leaving = Attacker::raw(host, listener).expect("it may connect");
                assert!(leaving.send(first));
                leaving.send_end();
                let said = leaving.rest();
                assert!(
                    said.is_empty() || said.starts_with("HTTP/1.1 400"),
                    "{listener:?} {first:?}: {said}"
                );
            }
        }
    });
    whydown_lab::wait_until("all places are free again", crate::attacker::PATIENCE, || {
        host.open_files() <= before
    });
}
