//! Every layer overrides the lower ones, key by key.

use std::path::Path;
use std::time::Duration;

use super::super::Change;
use super::World;

#[test]
fn every_layer_overrides_the_lower_ones() {
    let filter = |world: &World| {
        let loaded = world.right();
        let origin = loaded
            .changes()
            .first()
            .map(|change| change.origin.replace(world.dir.path().to_str().unwrap(), ""));
        (loaded.settings.log.filter, origin)
    };
    let mut world = World::new();
    assert_eq!(filter(&world), ("info".into(), None));
    world = world.file("whydown.toml", "[log]\nfilter = 'a=warn'\n");
    assert_eq!(filter(&world), ("a=warn".into(), Some("/etc/whydown/whydown.toml:2:10".into())));
    world = world.file("conf.d/10-first.toml", "log.filter = 'b=warn'\n");
    assert_eq!(filter(&world), ("b=warn".into(), Some("/etc/whydown/conf.d/10-first.toml:1:14".into())));
    world = world.file("conf.d/9-later.toml", "\n\nlog = { filter = 'c=warn' }\n");
    assert_eq!(filter(&world), ("c=warn".into(), Some("/etc/whydown/conf.d/9-later.toml:3:18".into())));
    world = world.variable("WHYDOWN_LOG__FILTER", "d=warn");
    assert_eq!(filter(&world), ("d=warn".into(), Some("environment variable WHYDOWN_LOG__FILTER".into())));
    world = world.flags(&["--log", "e=warn"]);
    assert_eq!(filter(&world), ("e=warn".into(), Some("flag --log".into())));
}

#[test]
fn a_layer_leaves_the_keys_alone_that_it_does_not_name() {
    let world = World::new()
        .file("whydown.toml", "[libvirt]\nkeepalive_interval_s = 7\nkeepalive_count = 8\n")
        .file("conf.d/a.toml", "[libvirt]\nkeepalive_count = 9\n");
    let libvirt = world.right().settings.libvirt;
    assert_eq!((libvirt.keepalive_interval, libvirt.keepalive_count), (Duration::from_secs(7), 9));
    assert_eq!(libvirt.reconnect_min, Duration::from_millis(200));
}

#[test]
fn a_list_is_replaced_as_a_whole_in_every_layer() {
    let listen = |world: &World| {
        world.right().settings.xmlrpc.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    let mut world =
        World::new().file("whydown.toml", "xmlrpc.listen = ['127.0.0.1:1', '127.0.0.1:2', '[::1]:3']");
    assert_eq!(listen(&world), "127.0.0.1:1 127.0.0.1:2 [::1]:3");
    world = world.file("conf.d/a.toml", "xmlrpc.listen = ['127.0.0.1:4']");
    assert_eq!(listen(&world), "127.0.0.1:4");
    world = world.variable("WHYDOWN_XMLRPC__LISTEN", "127.0.0.1:5, [::1]:6");
    assert_eq!(listen(&world), "127.0.0.1:5 [::1]:6");
    world = world.flags(&["--listen", "127.0.0.1:0", "--listen=[::1]:0"]);
    assert_eq!(listen(&world), "127.0.0.1:0 [::1]:0");
}

#[test]
fn an_empty_variable_is_an_empty_list() {
    let world = World::new().variable("WHYDOWN_XMLRPC__LISTEN", "");
    assert!(world.right().settings.xmlrpc.listen.is_empty());
}

#[test]
fn every_flag_sets_its_key() {
    let flags = [
        "--connect",
        "test:///default",
        "--state-dir=/s",
        "--listen=127.0.0.1:9",
        "--socket=/r/s",
        "--log",
        "off",
    ];
    let loaded = World::new().flags(&flags).right();
    let set: Vec<(String, String, String)> =
        loaded.changes().into_iter().map(|Change { key, value, origin }| (key, value, origin)).collect();
    let expected = [
        ("libvirt.uri", "\"test:///default\"", "flag --connect"),
        ("state.dir", "\"/s\"", "flag --state-dir"),
        ("xmlrpc.listen", "[\"127.0.0.1:9\"]", "flag --listen"),
        ("socket.path", "\"/r/s\"", "flag --socket"),
        ("log.filter", "\"off\"", "flag --log"),
    ]
    .map(|(key, value, origin)| (key.to_owned(), value.to_owned(), origin.to_owned()));
    assert_eq!(set, expected);
}

#[test]
fn a_named_file_takes_the_place_of_the_usual_one_and_brings_its_own_conf_d() {
    let other = World::new()
        .file("mine.toml", "[deciding]\nheartbeat_s = 5\n")
        .file("conf.d/a.toml", "[deciding]\nsettle_ms = 6\n");
    let world = World::new()
        .file("whydown.toml", "[deciding]\nsettle_snapshot_ms = 7\nsettle_ms = 7\n")
        .flags(&["--config", other.path("mine.toml").to_str().expect("text")]);
    let deciding = world.right().settings.deciding;
    assert_eq!(deciding.heartbeat, Duration::from_secs(5));
    assert_eq!(deciding.settle, Duration::from_millis(6));
    assert_eq!(deciding.settle_snapshot, Duration::from_millis(5000));
}

#[test]
fn only_visible_toml_files_of_conf_d_count() {
    let world = World::new()
        .file("conf.d/.hidden.toml", "[nonsense")
        .file("conf.d/whydown.toml.bak", "[nonsense")
        .file("conf.d/README", "[nonsense");
    assert_eq!(world.right().changes(), []);
}

#[test]
fn the_null_device_is_an_empty_file() {
    let world = World::new().flags(&["--config", "/dev/null"]);
    std::os::unix::fs::symlink("/dev/null", world.path("conf.d/off.toml")).expect("a link");
    // conf.d beside /dev/null is /dev/conf.d, and there is none.
    assert_eq!(world.right().changes(), []);
    let mut world = World::new();
    std::os::unix::fs::symlink("/dev/null", world.path("conf.d/off.toml")).expect("a link");
    world = world.file("whydown.toml", "");
    assert_eq!(world.right().changes(), []);
}

#[test]
fn directories_follow_from_the_uri_unless_they_are_set() {
    let dirs = |world: World| {
        let libvirt = world.right().settings.libvirt;
        (libvirt.log_dir, libvirt.run_dir)
    };
    let both = |log: &str, run: &str| (Some(log.into()), Some(run.into()));
    let uri = |uri: &str| World::new().flags(&["--connect", uri]);
    assert_eq!(dirs(World::new()), both("/var/log/libvirt/qemu", "/run/libvirt/qemu"));
    assert_eq!(dirs(uri("qemu:///embed?root=/a%20b")), both("/a b/log/qemu", "/a b/run/qemu"));
    assert_eq!(dirs(uri("test:///default")), (None, None));
    let session = uri("qemu:///session").variable("HOME", "/home/u");
    assert_eq!(dirs(session), both("/home/u/.cache/libvirt/qemu/log", "/home/u/.cache/libvirt/qemu/run"));
    let session =
        uri("qemu:///session").variable("XDG_CACHE_HOME", "/c").variable("XDG_RUNTIME_DIR", "/run/user/7");
    assert_eq!(dirs(session), both("/c/libvirt/qemu/log", "/run/user/7/libvirt/qemu/run"));
    let set = World::new().file("whydown.toml", "libvirt = { log_dir = '/l', run_dir = '/r' }");
    assert_eq!(dirs(set), both("/l", "/r"));
    assert_eq!(Path::new("/a b"), super::super::embed_root("qemu:///embed?root=/a%20b").expect("a root"));
}

#[test]
fn libvirts_sockets_follow_from_the_uri_and_the_users_variables() {
    let sockets = |uri: &str, variables: &[(&str, &str)]| {
        let mut world = World::new().flags(&["--connect", uri]).variable("HOME", "/home/u");
        for (name, value) in variables {
            world = world.variable(name, value);
        }
        world.right().settings.libvirt.uri.sockets().to_vec()
    };
    let below = |folder: &str| ["virtqemud-sock", "libvirt-sock"].map(|name| Path::new(folder).join(name));
    assert_eq!(sockets("qemu:///system", &[]), [below("/run/libvirt"), below("/var/run/libvirt")].concat());
    assert_eq!(sockets("qemu+unix:///system?socket=/s%20t", &[]), [Path::new("/s t")]);
    let named = [("XDG_RUNTIME_DIR", "/run/user/7")];
    assert_eq!(sockets("qemu:///session", &named), below("/run/user/7/libvirt"));
    // As libvirt has it without a runtime directory, or with one that is none.
    for none in [&[][..], &[("XDG_RUNTIME_DIR", "")], &[("XDG_RUNTIME_DIR", "here")]] {
        assert_eq!(sockets("qemu:///session", none), below("/home/u/.cache/libvirt"), "{none:?}");
    }
    for inside in ["qemu:///embed?root=/r", "test:///default"] {
        assert!(sockets(inside, &named).is_empty(), "{inside}");
    }
}

#[test]
fn variables_of_others_and_our_own_switches_are_no_settings() {
    let world =
        World::new().variable("WHYDOWN_FIX", "1").variable("XWHYDOWN_LOG__FILTER", "=").variable("PATH", "");
    assert_eq!(world.right().changes(), []);
}
