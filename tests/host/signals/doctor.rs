//! `whydown doctor` beside a real libvirtd: what a host and a definition can tell, and what to add.

use std::process::{Command, Output};

use serde_json::Value;
use whydown_lab::{Launch, Result, WatchdogAction};

use crate::signals::tracing_host;
use whydown_lab::host::Host;

/// Its status is part of the answer.
fn doctor(host: &Host, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
    command.arg("--socket").arg(host.daemon.socket_path()).arg("doctor").args(arguments);
    command.output().expect("whydown runs")
}

pub fn read(host: &Host, arguments: &[&str]) -> Value {
    let done = doctor(host, arguments);
    let told: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let cannot = told["cannot_tell"].as_array().expect("a list").len();
    assert_eq!(done.status.code(), Some(i32::from(cannot > 0)), "{told:#}");
    let can = told["can_tell"].as_array().expect("a list").len();
    assert_eq!(
        can + cannot,
        whydown_core::cause::Cause::ALL.len(),
        "each cause stands in one of both lists: {told:#}"
    );
    told
}

pub fn finding(told: &Value, about: &str) -> Value {
    let all = told["findings"].as_array().expect("a list");
    all.iter().find(|one| one["about"] == about).cloned().unwrap_or(Value::Null)
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|words| words.iter().any(|one| one == word))
}

#[test]
fn the_doctor_tells_what_a_host_and_a_vm_cannot_tell_and_what_to_add() -> Result<()> {
    let host = tracing_host("doctor")?;
    let told = read(&host, &["--json"]);
    for well in [
        "libvirt",
        "ledger",
        "qemu-events",
        "qemu-log",
        "libvirt-log",
        "exit-status",
        "signals",
        "kernel-log",
    ] {
        assert_eq!(finding(&told, well)["level"], "fine", "{well}: {told:#}");
    }
    assert!(told["vm"].is_null() && finding(&told, "panic-device").is_null(), "{told:#}");
    assert!(told["libvirt"].as_str().is_some_and(|version| version.split('.').count() == 3), "{told:#}");

    let whole = host.guest("whole")?.watchdog(WatchdogAction::Poweroff);
    let _a = host.up_persistent(&whole)?;
    let told = read(&host, &["whole", "--json"]);
    assert_eq!(told["vm"]["name"], "whole");
    assert_eq!(finding(&told, "panic-device")["level"], "fine", "{told:#}");
    assert_eq!(finding(&told, "persistent")["level"], "fine");
    assert!(finding(&told, "watchdog").is_null(), "{told:#}");
    assert!(has(&told["can_tell"], "guest-panic"), "{told:#}");

    let bare = host.guest("bare")?.panic_device(false);
    let _b = host.up(&bare)?;
    let told = read(&host, &[bare.uuid_text(), "--json"]);
    let panic = finding(&told, "panic-device");
    assert_eq!(panic["level"], "cannot", "{told:#}");
    assert!(has(&panic["causes"], "guest-panic") && has(&told["cannot_tell"], "guest-panic"), "{told:#}");
    assert!(panic["add"].as_str().is_some_and(|add| add.contains("<panic model='isa'/>")), "{panic:#}");
    assert_eq!(finding(&told, "persistent")["level"], "cannot", "it is transient");
    assert_eq!(finding(&told, "watchdog")["level"], "note");

    let said = doctor(&host, &["bare"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.status.code(), Some(1), "{text}");
    assert!(text.contains("concerns: destroyed-on-reboot, guest-panic"), "{text}");
    assert!(text.contains("<panic model='isa'/>"), "{text}");
    assert_eq!(doctor(&host, &["nobody"]).status.code(), Some(4));
    Ok(())
}

#[test]
fn a_host_that_traces_nothing_is_told_so_and_what_looks_alike_then() -> Result<()> {
    let nowhere = |launch: Launch| launch.environment("WHYDOWN_LIBVIRT__DAEMON_LOG", "/nowhere/libvirtd.log");
    let host = Host::start_as("blind", "", nowhere)?;
    let told = read(&host, &["--json"]);
    let log = finding(&told, "libvirt-log");
    assert_eq!(log["level"], "note", "{told:#}");
    let what = log["what"].as_str().expect("a text");
    assert!(what.contains("/nowhere/libvirtd.log") && what.contains("not why"), "{what}");
    let signals = finding(&told, "signals");
    assert_eq!(signals["level"], "cannot", "{told:#}");
    for cause in ["process-killed", "oom-killed", "qemu-crashed", "process-terminated"] {
        assert!(has(&signals["causes"], cause) && has(&told["cannot_tell"], cause), "{cause}: {told:#}");
    }
    assert!(signals["add"].as_str().is_some_and(|add| add.contains("tracefs = ")), "{signals:#}");
    Ok(())
}
