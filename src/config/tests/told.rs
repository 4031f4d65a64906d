//! What `--check-config` tells of a right configuration.

use super::super::{Report, check};
use super::World;

#[test]
fn a_right_configuration_is_told_with_the_origin_of_what_was_changed() {
    let world = World::new()
        .file("whydown.toml", "[deciding]\nheartbeat_s = 31\nsettle_ms = 300\n[log]\nfilter = \"off\"\n")
        .variable("WHYDOWN_XMLRPC__FULL_FOR", "unix,::ffff:10.0.0.1")
        .flags(&["--log", "debug"]);
    let report = check(&world.sources);
    assert_eq!(report.exit_code(), 0);
    let text = report.text();
    assert!(
        text.starts_with("configuration is right\n# /run/whydown/whydown.sock: root, the daemon's user"),
        "{text}"
    );
    assert!(text.contains("# plain TCP at 127.0.0.1:54321: nobody may act, and everybody"), "{text}");
    assert!(text.contains("\n\n[libvirt]\nuri = \"qemu:///system\"\n"), "{text}");
    let commented: Vec<&str> = text.lines().filter(|line| line.contains("  # ")).collect();
    let file = world.path("whydown.toml");
    let expected = [
        "log_dir = \"\"  # from libvirt.uri: /var/log/libvirt/qemu".to_owned(),
        "run_dir = \"\"  # from libvirt.uri: /run/libvirt/qemu".to_owned(),
        format!("heartbeat_s = 31  # {}:2:15", file.display()),
        "full_for = [\"unix\", \"10.0.0.1\"]  # environment variable WHYDOWN_XMLRPC__FULL_FOR".to_owned(),
        "filter = \"debug\"  # flag --log".to_owned(),
    ];
    assert_eq!(commented, expected, "settle_ms was set to its default, which is no change");
}

#[test]
fn what_the_listeners_let_in_is_told_before_the_daemon_runs_with_it() {
    let told = |text: &str| check(&World::new().file("whydown.toml", text).sources).text();
    let wide = told("xmlrpc.plain_may_act = true\nsocket.users = ['proxy']\ncreate.allow = ['hostdev']\n");
    for line in [
        "# plain TCP at 127.0.0.1:54321: everybody who reaches it may act and read everything",
        "the daemon's user and group, proxy may act",
        "# create.allow: whoever may act may have on this host, by a document: hostdev",
    ] {
        assert!(wide.contains(line), "{line}: {wide}");
    }
    let old = told("create.folders = ['/srv/vms', '/usr/share/OVMF', '/']\n");
    let line = "may have programs and settings of this host written, by a document: /usr/share/OVMF, /\n";
    assert!(old.contains(line), "{old}");
    assert!(!wide.contains("create.folders"), "{wide}");
    let tls = told("tls.listen = ['[::]:1']\ntls.actors = ['engine']\nxmlrpc.listen = []\n");
    assert!(tls.contains("# TLS at [::]:1: engine may act") && !tls.contains("# plain TCP"), "{tls}");
}

#[test]
fn what_is_told_can_be_used_as_a_file_and_means_the_same() {
    let world = World::new()
        .file("whydown.toml", "[libvirt]\nuri = 'qemu:///embed?root=/x'\nlog_dir = '/a\"b\\ c'\n")
        .variable("WHYDOWN_XMLRPC__LISTEN", "[::1]:1,127.0.0.1:2")
        .variable("WHYDOWN_SOCKET__MODE", "600");
    let report = check(&world.sources);
    let text = report.text();
    let told = text.strip_prefix("configuration is right\n").expect("the first line");
    let again = World::new().file("whydown.toml", told).right();
    let Report::Right(first) = report else { panic!("{text}") };
    assert_eq!(again.settings, first.settings);
}
