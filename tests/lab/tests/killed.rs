//! A test that is killed cannot drop its handles; still nothing of it stays.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use whydown_lab::{Result, lab_dir, wait_until};

const LIMIT: Duration = Duration::from_secs(90);

fn hold_a_guest(directory: &Path) -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lab-guest"))
        .arg(directory)
        .arg("held")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let pid = lines.filter_map(|line| line.strip_prefix("pid ").map(str::to_owned)).next();
    (child, pid.expect("lab-guest says the pid of its QEMU"))
}

fn is_gone(directory: &Path, pid: &str) -> bool {
    // An ended process that is not reaped yet has no command line.
    !directory.join("libvirt").exists()
        && std::fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
}

#[test]
fn what_a_killed_process_has_started_is_cleared_away() -> Result<()> {
    let directory = lab_dir()?;
    let (mut child, pid) = hold_a_guest(directory.path());
    let main = std::fs::read_to_string(directory.path().join("libvirt/main.pid")).unwrap();
    assert!(!is_gone(directory.path(), &pid));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("QEMU and its directory are gone", LIMIT, || is_gone(directory.path(), &pid));
    wait_until("libvirtd is gone", LIMIT, || is_gone(directory.path(), &main));
    Ok(())
}

#[test]
fn a_held_guest_is_gone_when_its_input_ends() -> Result<()> {
    let directory = lab_dir()?;
    let (mut child, pid) = hold_a_guest(directory.path());
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    assert!(is_gone(directory.path(), &pid));
    Ok(())
}
