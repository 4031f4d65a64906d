//! Every mistake is told, all at once, each with its place, its key and what would be right.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;

use clap::Parser;

use super::super::{Flags, Sources, check};
use super::World;

#[test]
fn a_file_with_five_mistakes_gives_five_findings() {
    let world = World::new().file(
        "whydown.toml",
        "[libvirt]
keepalive_count = 0
keepalive_interval = 5
[xmlrpc]
exit_reasons = \"ful\"
full_for = [\"10.0.0.1\", \"10.0.0\"]
[sokcet]
path = \"/x\"
",
    );
    assert_eq!(
        world.wrong(),
        [
            "whydown.toml:2:19: libvirt.keepalive_count: 0: this is too little; allowed: 1 to 100 probes",
            "whydown.toml:3:1: libvirt.keepalive_interval: there is no such key; \
             did you mean libvirt.keepalive_interval_s?",
            "whydown.toml:5:16: xmlrpc.exit_reasons: \"ful\": there is no such choice; \
             allowed: \"classic\" or \"4.1\" or \"full\"",
            "whydown.toml:6:25: xmlrpc.full_for: \"10.0.0\": this is not an IP address; \
             allowed: up to 256 different IP addresses without port, or \"unix\"",
            "whydown.toml:7:2: sokcet: there is no such section; did you mean socket?",
        ]
    );
}

#[test]
fn mistakes_of_all_layers_are_told_together_also_where_a_higher_layer_hides_them() {
    let world = World::new()
        .file("whydown.toml", "[log]\nfilter = 5\n")
        .file("conf.d/a.toml", "[deciding]\nsettle_ms = -1\n")
        .variable("WHYDOWN_LOG__FILTER", "info")
        .variable("WHYDOWN_LEDGER__MEMORY_MAX_OPS", "many")
        .flags(&["--socket", "here"]);
    assert_eq!(
        world.wrong(),
        [
            "whydown.toml:2:10: log.filter: 5 is a whole number; allowed: a tracing filter",
            "conf.d/a.toml:2:13: deciding.settle_ms: -1: this is too little; allowed: 0 to 10000 milliseconds",
            "environment variable WHYDOWN_LEDGER__MEMORY_MAX_OPS: ledger.memory_max_ops: \"many\" is text; \
             allowed: 100 to 1000000 changes",
            "flag --socket: socket.path: \"here\": this path is relative; \
             allowed: an absolute path of at most 107 bytes",
        ]
    );
}

#[test]
fn a_wrong_variable_is_told_with_the_right_one() {
    let one = |name: &str| World::new().variable(name, "x").wrong().join("\n");
    let tells =
        |name: &str, meant: &str| format!("environment variable {name}: there is no such setting{meant}");
    assert_eq!(
        one("WHYDOWN_XMLRPC_LISTEN"),
        tells("WHYDOWN_XMLRPC_LISTEN", "; did you mean WHYDOWN_XMLRPC__LISTEN?")
    );
    assert_eq!(
        one("WHYDOWN_xmlrpc__listen"),
        tells("WHYDOWN_xmlrpc__listen", "; did you mean WHYDOWN_XMLRPC__LISTEN?")
    );
    assert_eq!(one("WHYDOWN_"), tells("WHYDOWN_", ""));
    assert_eq!(one("WHYDOWN_FROBNICATION_OF_THINGS"), tells("WHYDOWN_FROBNICATION_OF_THINGS", ""));
}

#[test]
fn a_wrong_name_is_told_with_what_was_probably_meant() {
    let cases = [
        ("[xmlrpc]\nlisten_to = []", "xmlrpc.listen_to: there is no such key; did you mean xmlrpc.listen?"),
        (
            "[xmlrpc]\nsettle_ms = 1",
            "xmlrpc.settle_ms: there is no such key; did you mean deciding.settle_ms?",
        ),
        ("settle_ms = 1", "settle_ms: there is no such key; did you mean deciding.settle_ms?"),
        ("[xmlrpc]\nqwertzuiop = 1", "xmlrpc.qwertzuiop: there is no such key"),
        ("[XMLRPC]\nlisten = []", "XMLRPC: there is no such section; did you mean xmlrpc?"),
        ("[xmlrpc.listen]\nat = 1", "xmlrpc.listen: [xmlrpc.listen] is a table; allowed: up to 16"),
        ("xmlrpc = 4", "xmlrpc: this is a section, and was set to a whole number"),
        ("[[xmlrpc]]\nlisten = []", "xmlrpc: this is a section, and was set to a list"),
        ("[log]\n'a\\nb' = 1", "log.a\\nb: there is no such key"),
        ("[log]\n\"a\\nb\" = 1", "log.a\u{fffd}b: there is no such key"),
    ];
    for (text, expected) in cases {
        let wrong = World::new().file("whydown.toml", text).wrong();
        assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
        assert!(wrong[0].contains(&format!(": {expected}")), "{text}: {wrong:?}");
    }
}

#[test]
fn what_is_not_toml_is_told_with_line_and_column_once_for_each_place() {
    let wrong = World::new().file("whydown.toml", "[log]\nfilter = \n\n[xmlrpc\nnonsense = 5\n").wrong();
    assert!(wrong.len() >= 2, "{wrong:?}");
    assert!(
        wrong[0].starts_with("whydown.toml:2:") && wrong[0].contains(": this is not TOML: "),
        "{wrong:?}"
    );
    assert!(wrong[1].starts_with("whydown.toml:4:"), "{wrong:?}");
    assert!(!wrong.iter().any(|line| line.contains("no such")), "guesses about a broken file: {wrong:?}");

    let twice = World::new().file("conf.d/a.toml", "[log]\nfilter = 'a'\nfilter = 'b'\n").wrong();
    assert_eq!(twice, ["conf.d/a.toml:3:1: this is not TOML: duplicate key"]);
    let wide = World::new().file("conf.d/a.toml", "[log] # é\nfilter = 'é' é\n").wrong();
    assert!(wide[0].starts_with("conf.d/a.toml:2:1"), "columns are characters: {wide:?}");
}

#[test]
fn what_is_no_readable_file_is_told_as_what_it_is() {
    let world = World::new().file("whydown.toml", [b'#', 0xff, b'\n']);
    assert_eq!(world.wrong(), ["whydown.toml: this is not UTF-8, from byte 2 on"]);

    let world = World::new();
    fs::create_dir(world.path("whydown.toml")).expect("a directory");
    fs::create_dir(world.path("conf.d/a.toml")).expect("a directory");
    symlink("nowhere", world.path("conf.d/b.toml")).expect("a link");
    symlink("c.toml", world.path("conf.d/c.toml")).expect("a link");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        world.path("conf.d/d.toml"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .expect("a pipe");
    symlink("/dev/zero", world.path("conf.d/e.toml")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(world.path("conf.d/f.toml")).expect("a socket");
    let wrong = world.wrong();
    let expected = [
        "whydown.toml: this is a directory, and should be a file",
        "conf.d/a.toml: this is a directory, and should be a file",
        "conf.d/b.toml: this is a link to nothing, and should be a file",
        "conf.d/c.toml: this cannot be read: Too many levels of symbolic links (os error 40)",
        "conf.d/d.toml: this is a pipe, and should be a file",
        "conf.d/e.toml: this is a device, and should be a file",
        "conf.d/f.toml: this is a socket, and should be a file",
    ];
    assert_eq!(wrong, expected);

    let world = World::new();
    fs::remove_dir(world.path("conf.d")).expect("an empty directory");
    assert_eq!(world.file("conf.d", "").wrong(), ["conf.d: this is not a directory"]);
}

#[test]
fn files_have_a_largest_size_and_conf_d_a_largest_number() {
    let world = World::new().file("whydown.toml", "#".repeat(1 << 20));
    assert_eq!(world.right().changes(), []);
    let world = world.file("whydown.toml", "#".repeat((1 << 20) + 1));
    assert_eq!(world.wrong(), ["whydown.toml: this has more than 1048576 bytes"]);

    let mut world = World::new();
    for at in 0..256 {
        world = world.file(&format!("conf.d/{at}.toml"), "");
    }
    assert_eq!(world.right().changes(), []);
    assert_eq!(world.file("conf.d/more.toml", "").wrong(), ["conf.d: this has more than 256 files"]);
}

#[test]
fn a_file_of_nothing_but_mistakes_is_told_to_the_last_one() {
    let many = 2_000;
    let lines: String = (0..many).map(|at| format!("k{at} = [1, 2, 3]\n")).collect();
    let wrong = World::new().file("whydown.toml", format!("[xmlrpc]\n{lines}")).wrong();
    assert_eq!(wrong.len(), many);
    assert_eq!(wrong[many - 1], "whydown.toml:2001:1: xmlrpc.k1999: there is no such key");
    let one_line: Vec<String> = (0..many).map(|at| format!("k{at} = 1")).collect();
    let wrong = World::new().file("whydown.toml", format!("xmlrpc = {{ {} }}", one_line.join(", "))).wrong();
    assert_eq!(wrong.len(), many);
}

#[test]
fn a_missing_file_is_a_mistake_only_if_it_was_named() {
    assert!(load_nothing().is_ok());
    let world = World::new();
    let missing = world.path("missing.toml");
    let world = world.flags(&["--config", missing.to_str().expect("text")]);
    assert_eq!(world.wrong(), ["missing.toml: there is no such file"]);
}

fn load_nothing() -> Result<(), super::super::Mistakes> {
    let empty = tempfile::TempDir::new().expect("a temporary directory");
    let sources = Sources { root: empty.path().to_owned(), ..Sources::default() };
    super::super::load(&sources).map(|_| ())
}

#[test]
fn bytes_that_are_no_text_are_mistakes_of_their_variable_or_flag() {
    let mut world = World::new().variable("WHYDOWN_STATE__DIR", OsString::from_vec(vec![b'/', 0xff]));
    world.sources.environment.push((OsString::from_vec(b"WHYDOWN_\xff".to_vec()), "x".into()));
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let words = ["whydownd", "--socket"].map(OsString::from).into_iter().chain([bytes(b"/a\xff")]);
    let words =
        words.chain(["--listen", "127.0.0.1:1", "--listen"].map(OsString::from)).chain([bytes(b"\xff")]);
    world.sources.flags = Flags::try_parse_from(words).expect("flags that clap takes");
    assert_eq!(
        world.wrong(),
        [
            "environment variable WHYDOWN_STATE__DIR: state.dir: this is not UTF-8, from byte 2 on",
            "environment variable WHYDOWN_\u{fffd}: there is no such setting",
            "flag --listen: xmlrpc.listen: this is not UTF-8, from byte 1 on",
            "flag --socket: socket.path: this is not UTF-8, from byte 3 on",
        ]
    );
}

#[test]
fn listening_beyond_loopback_is_refused_until_it_is_meant() {
    for address in ["0.0.0.0:54321", "[::]:54321", "192.0.2.1:1", "[::ffff:192.0.2.1]:1"] {
        let wrong = World::new().flags(&["--listen", address]).wrong();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        let begin = format!("flag --listen: xmlrpc.listen: {address} is beyond loopback");
        assert!(wrong[0].starts_with(&begin), "{wrong:?}");
        assert!(wrong[0].ends_with("set xmlrpc.insecure_listen_anywhere = true"), "{wrong:?}");

        let meant = World::new()
            .flags(&["--listen", address])
            .file("whydown.toml", "xmlrpc.insecure_listen_anywhere = true");
        assert_eq!(meant.right().settings.xmlrpc.listen, [address.parse().expect("an address")]);
    }
    for address in ["127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        World::new().flags(&["--listen", address]).right();
    }
}

#[test]
fn a_port_with_tls_is_no_port_without() {
    let clash = |plain: &str, secured: &str| {
        World::new()
            .flags(&["--listen", plain])
            .variable("WHYDOWN_TLS__LISTEN", secured)
            .variable("WHYDOWN_XMLRPC__INSECURE_LISTEN_ANYWHERE", "true")
    };
    for (plain, secured) in [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("127.0.0.1:1", "0.0.0.0:1"),
        ("127.0.0.1:1", "[::]:1"),
        ("0.0.0.0:1", "192.0.2.1:1"),
    ] {
        let wrong = clash(plain, secured).wrong();
        let begin = "environment variable WHYDOWN_TLS__LISTEN: tls.listen: ";
        let why = format!("{begin}{secured} has the port of {plain} in xmlrpc.listen");
        assert!(wrong.len() == 1 && wrong[0].starts_with(&why), "{wrong:?}");
    }
    for (plain, secured) in
        [("127.0.0.1:1", "0.0.0.0:2"), ("127.0.0.1:1", "192.0.2.1:1"), ("127.0.0.1:0", "127.0.0.1:0")]
    {
        clash(plain, secured).right();
    }
    // TLS needs no leave to go beyond loopback, and VDSM's port is free for it once plain text gives it up.
    let settings = World::new()
        .file("whydown.toml", "xmlrpc.listen = []\ntls.listen = ['0.0.0.0:54321', '[::]:54321']")
        .right()
        .settings;
    assert_eq!(settings.tls.listen.len(), 2);
}

#[test]
fn a_mistake_in_a_key_brings_no_second_one_about_its_pair() {
    let world = World::new().flags(&["--listen", "0.0.0.0:1"]).file(
        "whydown.toml",
        "[xmlrpc]\ninsecure_listen_anywhere = 'yes'\n[libvirt]\nreconnect_max_ms = 1\n",
    );
    let wrong = world.wrong();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].contains("xmlrpc.insecure_listen_anywhere: 'yes' is text; allowed: true or false"));
    assert!(wrong[1].contains("libvirt.reconnect_max_ms: 1: this is too little"));
}

#[test]
fn keys_that_do_not_go_together_are_blamed_on_the_one_that_was_set() {
    let cases = [
        ("libvirt.reconnect_max_ms = 100", "libvirt.reconnect_max_ms"),
        ("libvirt.reconnect_min_ms = 6000", "libvirt.reconnect_min_ms"),
        ("deciding.settle_ms = 5001", "deciding.settle_ms"),
        ("deciding.settle_snapshot_ms = 299", "deciding.settle_snapshot_ms"),
    ];
    for (text, key) in cases {
        let wrong = World::new().file("whydown.toml", text).wrong();
        assert_eq!(wrong.len(), 1, "{text}: {wrong:?}");
        assert!(
            wrong[0].starts_with("whydown.toml:1:") && wrong[0].contains(&format!(": {key}: ")),
            "{wrong:?}"
        );
        assert!(wrong[0].contains(" is above "), "{wrong:?}");
    }
}

#[test]
fn a_session_without_a_home_cannot_be_derived() {
    let wrong = World::new().flags(&["--connect", "qemu:///session"]).wrong();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].starts_with("flag --connect: libvirt.log_dir: XDG_CACHE_HOME or HOME should be set"));
    assert!(wrong[1].starts_with("flag --connect: libvirt.run_dir: XDG_RUNTIME_DIR, XDG_CACHE_HOME or HOME"));
}

#[test]
fn the_report_of_mistakes_counts_them_and_exits_as_the_daemon_would() {
    let world =
        World::new().variable("WHYDOWN_LOG__TARGET", "paper").flags(&["--log", "infoo", "--check-config"]);
    assert!(world.sources.flags.check_config);
    let report = check(&world.sources);
    assert_eq!(report.exit_code(), 78);
    assert_eq!(
        report.text(),
        "the configuration has 2 mistakes:
  environment variable WHYDOWN_LOG__TARGET: log.target: \"paper\": there is no such choice; \
         allowed: \"auto\" or \"journald\" or \"stderr\"
  flag --log: log.filter: \"infoo\": \"infoo\" is no level; did you mean \"info\"?; allowed: a tracing filter
"
    );
}
