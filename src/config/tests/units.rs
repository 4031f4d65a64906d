//! The files in `systemd/`, judged by systemd's own tools and held to the configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use super::World;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(shipped(name)).expect("a shipped file")
}

fn run(tool: &str, arguments: &[&str], input: Option<&str>) -> Output {
    let mut command = Command::new(tool);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(
        input.map_or_else(Stdio::null, |name| fs::File::open(shipped(name)).expect("a shipped file").into()),
    );
    command.output().unwrap_or_else(|why| panic!("{tool}: {why}; install the package systemd"))
}

/// Everything that `systemd-analyze verify` says of the unit, with this text changed in it, and with the drop-in.
fn verify(change: (&str, &str), embed: bool) -> String {
    let dir = TempDir::new().expect("a temporary directory");
    let unit = dir.path().join("whydown.service");
    let (from, to) = change;
    let changed = text("whydown.service").replace("/usr/bin/whydownd", "/bin/sh").replace(from, to);
    fs::write(&unit, changed).expect("a file");
    if embed {
        let drop_in = dir.path().join("whydown.service.d");
        fs::create_dir(&drop_in).expect("a directory");
        fs::copy(shipped("whydown-embed.conf"), drop_in.join("embed.conf")).expect("a copy");
    }
    let said = run("systemd-analyze", &["verify", "--man=no", unit.to_str().expect("text")], None);
    format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr))
}

#[test]
fn systemd_has_nothing_to_say_against_the_unit() {
    assert_eq!(verify(("", ""), false), "");
    assert_eq!(verify(("", ""), true), "");
}

#[test]
fn systemd_has_nothing_to_say_against_the_sockets() {
    let dir = TempDir::new().expect("a temporary directory");
    let socket = |from: &str, to: &str| {
        // The service must be there: a socket without one is refused.
        let service = text("whydown.service").replace("/usr/bin/whydownd", "/bin/sh");
        fs::write(dir.path().join("whydown.service"), service).expect("a file");
        let unit = dir.path().join("whydown.socket");
        fs::write(&unit, text("whydown.socket").replace(from, to)).expect("a file");
        let said = run("systemd-analyze", &["verify", "--man=no", unit.to_str().expect("text")], None);
        String::from_utf8_lossy(&said.stderr).into_owned()
    };
    assert_eq!(socket("", ""), "");
    assert!(socket("SocketMode=0660", "SocketMod=0660").contains("SocketMod"));
}

#[test]
fn the_sockets_of_systemd_are_those_of_the_default_configuration() {
    let settings = World::new().right().settings;
    let unit = text("whydown.socket");
    let of = |key: &str| -> Vec<String> {
        unit.lines().filter_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.to_owned())).collect()
    };
    let addresses = settings.xmlrpc.listen.iter().chain(&settings.tls.listen).map(|at| at.to_string());
    let all: Vec<String> =
        std::iter::once(settings.socket.path.display().to_string()).chain(addresses).collect();
    assert_eq!(of("ListenStream"), all);
    assert_eq!(of("SocketMode"), [settings.socket.mode.to_string()]);
    let service = text("whydown.service");
    for (socket, of_service) in [("SocketGroup", "Group"), ("DirectoryMode", "RuntimeDirectoryMode")] {
        let line = format!("{of_service}={}", of(socket)[0]);
        assert!(service.lines().any(|found| found == line), "{line}");
    }
    // Stopping the service must not take the directory from under the socket that systemd still holds.
    assert!(service.lines().any(|line| line == "RuntimeDirectoryPreserve=yes"));
}

#[test]
fn systemd_would_have_said_what_is_wrong_with_the_unit() {
    assert!(verify(("RestartSec=", "RestartSecs="), false).contains("RestartSecs"));
    assert!(verify(("KillMode=process", "KillMode=most"), false).contains("most"));
}

#[test]
fn the_drop_in_for_the_embedded_driver_takes_every_restriction_back() {
    let unit = text("whydown.service");
    let drop_in = text("whydown-embed.conf");
    let names = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect()
    };
    let hardening = unit.split_once("# Hardening for a client").expect("the heading").1;
    let hardening = hardening.split_once("[Install]").expect("the end").0;
    let set_back = names(&drop_in);
    let restricting: Vec<String> =
        names(hardening).into_iter().filter(|name| !name.starts_with('#')).collect();
    assert!(restricting.len() > 15, "{restricting:?}");
    for name in restricting.iter().filter(|name| *name != "SystemCallErrorNumber") {
        assert!(set_back.contains(name), "{name} would be inherited by QEMU");
    }
}

#[test]
fn the_kernel_takes_no_guest_for_memory_that_we_took() {
    // Spared as we are, only a bound of our own makes us the one to be killed. Guests of the embedded driver would be
    // under the same bound, and inherit that they are spared.
    let (unit, drop_in) = (text("whydown.service"), text("whydown-embed.conf"));
    let value = |text: &str, name: &str| -> Option<String> {
        text.lines()
            .filter_map(|line| line.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, v)| v.to_owned())
    };
    assert_eq!(value(&unit, "OOMScoreAdjust").as_deref(), Some("-500"));
    assert_eq!(value(&unit, "MemoryMax").as_deref(), Some("1G"));
    assert_eq!(value(&unit, "OOMPolicy").as_deref(), Some("continue"));
    assert_eq!(value(&drop_in, "OOMScoreAdjust").as_deref(), Some("0"));
    assert_eq!(value(&drop_in, "MemoryMax").as_deref(), Some("infinity"));
}

#[test]
fn what_keeps_guests_alive_and_the_order_at_shutdown_is_in_the_unit() {
    let unit = text("whydown.service");
    let has = |line: &str| unit.lines().any(|found| found == line);
    for line in [
        "Type=notify",
        "NotifyAccess=main",
        "KillMode=process",
        "OOMPolicy=continue",
        "Before=libvirt-guests.service",
        "After=libvirtd.service libvirtd.socket virtqemud.service virtqemud.socket",
        "After=dbus.service",
        "RestartPreventExitStatus=78",
        "ExecReload=/bin/kill -HUP $MAINPID",
        // Not the folder above, which ProtectKernelTunables makes read-only whatever else is said of it (tests/host).
        "ReadWritePaths=-/sys/kernel/tracing/instances",
    ] {
        assert!(has(line), "{line}");
    }
    assert!(!unit.lines().any(|line| line.starts_with("Wants=") || line.starts_with("Requires=")));
}

#[test]
fn the_directories_of_the_unit_are_those_of_the_default_configuration() {
    let settings = World::new().right().settings;
    let unit = text("whydown.service");
    let of = |key: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{key} is missing")).to_owned()
    };
    assert_eq!(settings.state.dir, Path::new("/var/lib").join(of("StateDirectory")));
    assert_eq!(settings.socket.path.parent(), Some(Path::new("/run").join(of("RuntimeDirectory")).as_path()));
    for (dir, mode) in
        [("/var/lib/whydown", of("StateDirectoryMode")), ("/run/whydown", of("RuntimeDirectoryMode"))]
    {
        let tmpfiles = text("whydown.tmpfiles");
        let line =
            tmpfiles.lines().find(|line| line.split_whitespace().nth(1) == Some(dir)).expect("its line");
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields, ["d", dir, &mode, "root", &of("Group"), "-"]);
    }
}

#[test]
fn the_group_and_the_directories_are_made() {
    let root = TempDir::new().expect("a temporary directory");
    fs::create_dir(root.path().join("etc")).expect("a directory");
    fs::write(root.path().join("etc/group"), "root:x:0:\n").expect("a file");
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").expect("a file");
    let at = format!("--root={}", root.path().display());

    let said = run("systemd-sysusers", &[&at, "--dry-run", "-"], Some("whydown.sysusers"));
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.contains("Creating group 'whydown'"), "{words}");

    // The group of the directories must be known to the tool, and only root may give directories away.
    fs::write(root.path().join("etc/group"), "root:x:0:\nwhydown:x:995:\n").expect("a file");
    let said = run("systemd-tmpfiles", &[&at, "--create", "--dry-run", "-"], Some("whydown.tmpfiles"));
    let words = String::from_utf8_lossy(&said.stderr);
    if words.contains("unrecognized option") {
        // Older tools cannot pretend. Cleaning reads and judges every line, too, and removes nothing without an age.
        let said = run("systemd-tmpfiles", &[&at, "--clean", "-"], Some("whydown.tmpfiles"));
        assert!(said.status.success() && said.stderr.is_empty(), "{}", String::from_utf8_lossy(&said.stderr));
    } else {
        assert!(said.status.success(), "{words}");
    }
}
