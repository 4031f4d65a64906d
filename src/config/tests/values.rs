//! What single values may be.

use super::super::key::KEYS;
use super::super::rule::Rule;
use super::super::{Client, ConnectUri, ExitReasons, UriError, embed_root};
use super::World;

#[test]
fn every_number_may_be_its_bounds_and_nothing_beyond() {
    // Pairs of keys have an order of their own, so only the finding about the bound counts here.
    let about = |key: &str, number: i128| {
        let (section, name) = key.split_once('.').expect("a full key");
        let world = World::new().file("whydown.toml", format!("[{section}]\n{name} = {number}\n"));
        world.load().err().is_some_and(|mistakes| mistakes.to_string().contains("this is too "))
    };
    for key in KEYS {
        let Rule::Number { min, max, .. } = key.rule else { continue };
        let (min, max) = (i128::from(min), i128::from(max));
        let beyond = [min - 1, max + 1, i128::from(i64::MAX), i128::from(i64::MIN)];
        assert!(beyond.into_iter().all(|number| about(&key.full(), number)), "{}", key.full());
        assert!(!about(&key.full(), min) && !about(&key.full(), max), "{}", key.full());
    }
}

#[test]
fn a_number_beyond_sixty_four_bits_is_too_much_and_not_something_else() {
    let wrong = World::new().file("whydown.toml", "ledger.endings_max_count = 99999999999999999999").wrong();
    assert!(wrong[0].contains("99999999999999999999: this is too much; allowed: 1 to 10000000"), "{wrong:?}");
    let wrong = World::new().file("whydown.toml", "ledger.endings_max_count = -99999999999999999999").wrong();
    assert!(wrong[0].contains("this is too little"), "{wrong:?}");
    let hex = World::new().file("whydown.toml", "ledger.endings_max_count = 0xffff").right();
    assert_eq!(hex.settings.ledger.endings_max_count, 65_535);
}

#[test]
fn a_uri_is_what_libvirt_takes_on_this_host() {
    let good = [
        "qemu:///system",
        "qemu:///session",
        "qemu+unix:///system?socket=/run/x",
        "qemu:///embed?root=/a/b",
        "qemu:///embed?x=1&root=%2Fa",
        "test:///default",
        "test:///tmp/test.xml",
        "ch:///system",
    ];
    for uri in good {
        assert_eq!(ConnectUri::parse(uri).map(|uri| uri.to_string()), Ok(uri.to_owned()));
    }
    let bad = [
        ("", UriError::NoScheme),
        ("qemu", UriError::NoScheme),
        ("/system", UriError::NoScheme),
        ("://", UriError::NoScheme),
        ("1qemu:///system", UriError::NoScheme),
        ("qemu://other/system", UriError::Host("other".into())),
        ("qemu+ssh://root@other/system", UriError::Host("root@other".into())),
        ("qemu:///", UriError::Path("/".into())),
        ("qemu://", UriError::Path(String::new())),
        ("qemu:///sytem", UriError::Path("/sytem".into())),
        ("qemu:///embed", UriError::NoRoot),
        ("qemu:///embed?root=", UriError::NoRoot),
        ("qemu:///embed?Root=/a", UriError::NoRoot),
        ("qemu:///embed?root=%00", UriError::NoRoot),
        ("qemu:///embed?root=a/b", UriError::RelativeRoot("a/b".into())),
        ("qemu:///embed?root=%2e%2fa", UriError::RelativeRoot("./a".into())),
        ("qemu+unix:///embed?root=/a", UriError::Transport),
        ("qemu:///embed?root=/a b", UriError::Character(' ')),
        ("qemu:///system\n", UriError::Character('\n')),
        ("qemu:///embed?root=/é", UriError::Character('é')),
    ];
    for (uri, why) in bad {
        assert_eq!(ConnectUri::parse(uri), Err(why), "{uri}");
    }
}

#[test]
fn only_an_embedded_driver_has_a_root() {
    assert_eq!(embed_root("qemu:///embed?root=/a/b#x"), Some("/a/b".into()));
    assert_eq!(embed_root("qemu:///embed?y=1;root=/a%3Fb&root=/c"), Some("/a?b".into()));
    for uri in [
        "qemu:///system?root=/a",
        "test:///embed?root=/a",
        "qemu://h/embed?root=/a",
        "qemu:///embed?root=a",
        "",
    ] {
        assert_eq!(embed_root(uri), None, "{uri}");
    }
}

#[test]
fn a_socket_mode_is_octal_and_never_lets_others_write() {
    let mode = |text: &str| World::new().variable("WHYDOWN_SOCKET__MODE", text).load();
    for (text, bits) in [("0660", 0o660), ("600", 0o600), ("0664", 0o664), ("0770", 0o770)] {
        assert_eq!(mode(text).unwrap_or_else(|wrong| panic!("{wrong}")).settings.socket.mode.bits(), bits);
    }
    for text in ["", "0", "66", "0666", "0o660", "+660", "0060", "0460", "4660", "1777", "0680", "00660"] {
        assert!(mode(text).is_err(), "{text}");
    }
    let number = World::new().file("whydown.toml", "socket.mode = 0o660").wrong();
    assert!(number[0].contains("0o660 is a whole number; allowed: an octal number in quotes"), "{number:?}");
}

#[test]
fn a_listening_address_has_numbers_and_a_port() {
    let cases = [
        ("localhost:54321", "this is a name: write 127.0.0.1:54321 or [::1]:54321"),
        ("127.0.0.1", "the port is missing"),
        ("::1", "the port is missing"),
        ("127.0.0.1:65536", "this is not an IP address with a port"),
        (":1", "this is not an IP address with a port"),
        ("127.0.0.1:1,127.0.0.1:2", "this is not an IP address with a port"),
    ];
    for (text, why) in cases {
        let wrong = World::new().flags(&["--listen", text]).wrong();
        assert!(
            wrong.len() == 1 && wrong[0].contains(&format!("xmlrpc.listen: {text:?}: {why}; ")),
            "{wrong:?}"
        );
    }
    let twice = World::new().variable("WHYDOWN_XMLRPC__LISTEN", "127.0.0.1:1, 127.0.0.1:01").wrong();
    assert!(twice[0].contains("this is there twice"), "{twice:?}");
    let many: Vec<String> = (1..=17).map(|port| format!("127.0.0.1:{port}")).collect();
    let wrong = World::new().variable("WHYDOWN_XMLRPC__LISTEN", many.join(",")).wrong();
    assert!(wrong.len() == 1 && wrong[0].contains("these are 17 entries"), "{wrong:?}");
    World::new().variable("WHYDOWN_XMLRPC__LISTEN", many[1..].join(",")).right();
}

#[test]
fn a_holder_is_a_whole_name_or_everybody() {
    let actors = |text: &str| World::new().file("whydown.toml", format!("tls.actors = [{text:?}]"));
    for name in ["*", "engine.example.org", "spiffe://a/b", "the engine", "host*"] {
        if name == "host*" {
            let wrong = actors(name).wrong();
            assert!(wrong[0].contains("names are compared whole"), "{wrong:?}");
        } else {
            assert_eq!(actors(name).right().settings.tls.actors, [name]);
        }
    }
    for (name, why) in [("", "this is empty"), (" a", "blanks around"), ("a\tb", "control characters")] {
        let wrong = actors(name).wrong();
        assert!(wrong.len() == 1 && wrong[0].contains(why), "{name:?}: {wrong:?}");
    }
    assert!(actors(&"x".repeat(257)).wrong()[0].contains("this has 257 bytes"));
    let defaults = World::new().right().settings;
    assert!(
        defaults.tls.listen.is_empty() && defaults.tls.actors.is_empty() && !defaults.xmlrpc.plain_may_act
    );
}

#[test]
fn the_socket_path_fits_into_a_socket_address() {
    let path = |length: usize| format!("/{}", "s".repeat(length - 1));
    assert_eq!(
        World::new().flags(&["--socket", &path(107)]).right().settings.socket.path.as_os_str().len(),
        107
    );
    let wrong = World::new().flags(&["--socket", &path(108)]).wrong();
    assert!(
        wrong[0].contains("this has 108 bytes; allowed: an absolute path of at most 107 bytes"),
        "{wrong:?}"
    );
    assert!(World::new().flags(&["--socket", "/run/whydown/"]).wrong()[0].contains("this names a directory"));
}

#[test]
fn a_filter_that_is_nearly_a_level_was_meant_as_one() {
    for good in [
        "info",
        "INFO",
        "off",
        "info,whydown=debug",
        "whydown::daemon",
        "hyper=warn,error",
        "[span{a=1}]=debug",
    ] {
        World::new().flags(&["--log", good]).right();
    }
    for bad in ["", " ", "inof", "debgu", "warn,debg", "whydown=loud", "a=b=c"] {
        let wrong = World::new().variable("WHYDOWN_LOG__FILTER", bad).wrong();
        assert!(wrong.len() == 1 && wrong[0].contains("log.filter: "), "{bad}: {wrong:?}");
    }
}

#[test]
fn exit_reasons_are_classic_but_for_the_clients_that_can_read_more() {
    let world = World::new().file("whydown.toml", "xmlrpc.full_for = ['10.0.0.1', '2001:db8::1']");
    let xmlrpc = world.right().settings.xmlrpc;
    let from = |address: &str| xmlrpc.exit_reasons_for(Client::Address(address.parse().expect("an address")));
    assert_eq!(from("10.0.0.1"), ExitReasons::Full);
    assert_eq!(from("::ffff:10.0.0.1"), ExitReasons::Full);
    assert_eq!(from("2001:db8::1"), ExitReasons::Full);
    assert_eq!(from("10.0.0.2"), ExitReasons::Classic);
    assert_eq!(xmlrpc.exit_reasons_for(Client::Unix), ExitReasons::Classic);
    let full = World::new().variable("WHYDOWN_XMLRPC__EXIT_REASONS", "full").right().settings.xmlrpc;
    assert_eq!(full.exit_reasons_for(Client::Unix), ExitReasons::Full);
    let twelve = World::new().variable("WHYDOWN_XMLRPC__EXIT_REASONS", "4.1").right().settings.xmlrpc;
    assert_eq!(twelve.exit_reasons_for(Client::Unix), ExitReasons::V4_1);
    let wrong = World::new().variable("WHYDOWN_XMLRPC__FULL_FOR", "10.0.0.1:5").wrong();
    assert!(wrong[0].contains("leave it out"), "{wrong:?}");
}
