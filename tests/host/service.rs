//! The unit under a real systemd: it starts with all its restrictions, and they take nothing from it that it needs.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use whydown_lab::{Launch, Result, Whydownd, lab_dir, run, wait_until};

use super::world::{PATIENCE, World};

/// Does under the unit's restrictions what the witnesses do, each step with a word of its own.
const PROBE: &str = r#"
try() { word=$1; shift; if said=$("$@" 2>&1); then echo "$word: may"; else echo "$word: may not: $said"; fi; }
traces=/sys/kernel/tracing/instances/probe-$$
try make-traces mkdir "$traces"
try filter-traces sh -c "echo 'sig==9' >$traces/events/signal/signal_generate/filter"
try switch-traces sh -c "echo 1 >$traces/events/signal/signal_generate/enable"
try read-traces timeout 5 head -c 0 "$traces/trace_pipe"
try remove-traces rmdir "$traces"
try kernel-log dd if=/dev/kmsg of=/dev/null bs=8192 count=1
try systemd-speaks sh -c 'systemctl is-system-running | grep -q .'
for file in /run/libvirt/qemu/*.pid; do read -r qemu rest <"$file" || :; done
# Field 28, the start of its stack, is zero for whoever has not the right to look.
try look-into-qemu sh -c "sed 's/.*) //' /proc/$qemu/stat | cut -d ' ' -f 26 | grep -qv '^0$'"
try qemu-log head -c 1 /var/log/libvirt/qemu/probed.log
try keep-state touch /var/lib/whydown/probe
try write-etc touch /etc/probe
try write-usr touch /usr/probe
try write-tunable sh -c 'echo 1 >/proc/sys/kernel/printk_ratelimit'
try write-log sh -c 'echo x >/dev/kmsg'
try open-disk-device mknod /var/lib/whydown/probe-device b 7 0
"#;

#[test]
fn the_unit_starts_with_its_restrictions_and_they_take_nothing_that_it_needs() -> Result<()> {
    let world = World::start()?;
    let host = &world.host;
    let (guest, _line) = world.up("probed", true)?;

    for (property, value) in [
        ("ActiveState", "active"),
        ("SubState", "running"),
        ("Type", "notify"),
        ("Result", "success"),
        ("StatusText", "watching"),
        ("NRestarts", "0"),
    ] {
        assert_eq!(world.unit("whydown", property)?, value, "{property}: {}", host.said());
    }
    assert_eq!(host.run(&["systemctl", "--failed", "--no-legend"])?, "");
    // The kernel speaks of the machine's pids, and this host has its own: the witnesses that hear the kernel must say so
    // rather than take one process for another. All others hear.
    let health = world.whydown(&["health"])?;
    let unavailable = health["unavailable_sources"].as_array().expect("a list");
    let elsewhere =
        |one: &Value| one["why"].as_str().is_some_and(|why| why.contains("not the host's own pid namespace"));
    assert!(unavailable.iter().all(elsewhere), "{health:#}");
    assert_eq!(unavailable.len(), 4, "{health:#}");
    // Its exit status is 1, as it has found something.
    let doctor = host.try_run(&["whydown", "--json", "doctor"])?;
    let doctor: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    for finding in doctor["findings"].as_array().expect("a list") {
        let of_the_kernel = ["exit-status", "signals", "audit", "kernel-log", "exit-reasons"];
        let fine = finding["level"] == "fine";
        assert!(
            finding["about"] != "systemd"
                || finding["what"].as_str().is_some_and(|what| what.contains("bus"))
        );
        assert!(fine || of_the_kernel.iter().any(|name| finding["about"] == *name), "{finding:#}");
    }
    let seen = host.run(&["whydown", "hosts", "--once", "http://127.0.0.1:54321/"])?;
    assert!(seen.contains(&format!("{}  Up", guest.uuid_text())), "{seen}");

    // The same restrictions around another program.
    let unit = host.run(&["cat", "/lib/systemd/system/whydown.service"])?;
    let unit = unit
        .replace("Type=notify", "Type=oneshot")
        .replace("NotifyAccess=main", "")
        .replace("Restart=always", "Restart=no")
        .replace(
            "ExecStart=/usr/bin/whydownd",
            "ExecStart=/bin/sh /etc/whydown/probe.sh\nStandardOutput=file:/run/probe.out",
        );
    host.write_inside("/etc/systemd/system/probe.service", &unit)?;
    host.write_inside("/etc/whydown/probe.sh", PROBE)?;
    host.run(&["systemctl", "daemon-reload"])?;
    host.run(&["systemctl", "start", "probe"])?;
    let said = host.run(&["cat", "/run/probe.out"])?;
    for needed in [
        "make-traces",
        "filter-traces",
        "switch-traces",
        "read-traces",
        "remove-traces",
        "kernel-log",
        "systemd-speaks",
        "look-into-qemu",
        "qemu-log",
        "keep-state",
    ] {
        assert!(said.lines().any(|line| line == format!("{needed}: may")), "{needed}: {said}");
    }
    for refused in ["write-etc", "write-usr", "write-tunable", "write-log", "open-disk-device"] {
        assert!(said.contains(&format!("{refused}: may not")), "{refused}: {said}");
    }

    // A reload changes nothing, a restart is a gap and not an end.
    let run = world.whydown(&["why", guest.uuid_text()])?["domain"]["run"].clone();
    let pid = world.unit("whydown", "MainPID")?;
    host.run(&["systemctl", "reload", "whydown"])?;
    assert_eq!(world.unit("whydown", "MainPID")?, pid);
    host.run(&["systemctl", "restart", "whydown"])?;
    assert_ne!(world.unit("whydown", "MainPID")?, pid);
    assert_eq!(world.whydown(&["why", guest.uuid_text()])?["domain"]["run"], run);

    // A daemon that hangs is ended and started again.
    host.write_inside(
        "/etc/systemd/system/whydown.service.d/soon.conf",
        "[Service]\nWatchdogSec=3s\nRestartSec=100ms\n",
    )?;
    host.run(&["systemctl", "daemon-reload"])?;
    host.run(&["systemctl", "restart", "whydown"])?;
    let pid = world.unit("whydown", "MainPID")?;
    host.run(&["kill", "-s", "STOP", &pid])?;
    wait_until("the watchdog bites", PATIENCE, || {
        world.unit("whydown", "NRestarts").is_ok_and(|count| count == "1")
            && world.unit("whydown", "ActiveState").is_ok_and(|state| state == "active")
    });
    assert_eq!(world.whydown(&["why", guest.uuid_text()])?["domain"]["run"], run);
    assert_eq!(host.run(&["virsh", "-q", "domstate", "probed"])?, "running");

    // A bus that goes away is named, and heard again when it is back.
    let missed = || {
        let health = world.whydown(&["health"]).unwrap_or_default();
        health["unavailable_sources"].as_array().map(|all| all.iter().any(|one| one["name"] == "systemd"))
    };
    assert_eq!(missed(), Some(false));
    host.run(&["systemctl", "stop", "dbus.socket", "dbus.service"])?;
    wait_until("the bus is missed", PATIENCE, || missed() == Some(true));
    let doctor = host.try_run(&["whydown", "--json", "doctor"])?;
    let doctor: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let of_it = |finding: &&Value| finding["about"] == "systemd";
    let finding = doctor["findings"].as_array().expect("a list").iter().find(of_it).expect("it is there");
    assert_eq!(finding["level"], "note", "{finding:#}");
    assert!(finding["what"].as_str().is_some_and(|what| what.contains("systemctl is run")), "{finding:#}");
    host.run(&["systemctl", "start", "dbus.socket", "dbus.service"])?;
    wait_until("the bus is heard again", PATIENCE, || missed() == Some(false));

    // A configuration that is wrong is told, and not tried again and again.
    host.write_inside("/etc/whydown/conf.d/wrong.toml", "[xmlrpc]\nlisen = []\n")?;
    assert!(host.run(&["systemctl", "restart", "whydown"]).is_err());
    for (property, value) in [("ActiveState", "failed"), ("ExecMainStatus", "78"), ("NRestarts", "0")] {
        assert_eq!(world.unit("whydown", property)?, value, "{property}");
    }
    std::fs::remove_file(host.path("/etc/whydown/conf.d/wrong.toml")).expect("it was written");
    host.run(&["systemctl", "start", "whydown"])?;
    assert_eq!(world.whydown(&["why", guest.uuid_text()])?["domain"]["run"], run);
    Ok(())
}

/// On the machine itself, where the kernel's words are about our own pids.
#[test]
fn the_capabilities_of_the_unit_are_enough_for_every_witness() -> Result<()> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/whydown.service");
    let unit = std::fs::read_to_string(unit).expect("a shipped file");
    let set = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=CAP_")).expect("the set");
    let set = set.to_lowercase().replace(" cap_", ",+");
    let folder = lab_dir()?;
    let limited = folder.path().join("limited");
    let program = env!("CARGO_BIN_EXE_whydownd");
    let text =
        format!("#!/bin/sh\nexec setpriv --bounding-set=-all,+{set} --no-new-privs {program} \"$@\"\n");
    std::fs::write(&limited, text).expect("a file");
    run(Command::new("chmod").arg("755").arg(&limited), PATIENCE)?;
    let daemon =
        Whydownd::start(Launch::new(&limited, folder.path().join("d"), "test:///default").tracefs())?;
    let mut health = Command::new(env!("CARGO_BIN_EXE_whydown"));
    health.arg("--socket").arg(daemon.socket_path()).args(["--json", "health"]);
    let health: Value = serde_json::from_slice(&run(&mut health, PATIENCE)?.stdout).expect("JSON");
    assert_eq!(health["unavailable_sources"], json!([]), "{health:#}");
    Ok(())
}
