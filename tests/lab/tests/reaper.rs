//! The reaper: how orphans end is written down.

use std::process::Command;
use std::time::Duration;

use whydown_lab::{Result, lab_dir};

#[test]
fn the_reaper_tells_how_each_orphan_ended_and_gives_the_main_code() -> Result<()> {
    let directory = lab_dir()?;
    let log = directory.path().join("log");
    // Two orphans: one exits with 3, one is killed by itself. Both outlive the main process, which exits with 7.
    let script = "(sh -c 'sleep 0.2; exit 3' &) ; (sh -c 'sleep 0.2; kill -9 $$' &) ; exit 7";
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab-reaper"));
    let error = whydown_lab::run(command.arg(&log).args(["sh", "-c", script]), Duration::from_secs(60));
    let error = error.expect_err("the main process exits with 7");
    assert!(
        matches!(&error, whydown_lab::Error::Refused { status, .. } if status.code() == Some(7)),
        "{error}"
    );
    let log = std::fs::read_to_string(&log).unwrap();
    assert_eq!(log.lines().filter(|line| line.ends_with(" exit 7 (main)")).count(), 1, "{log}");
    assert_eq!(log.lines().filter(|line| line.ends_with(" exit 3")).count(), 1, "{log}");
    assert_eq!(log.lines().filter(|line| line.ends_with(" signal 9")).count(), 1, "{log}");
    Ok(())
}

#[test]
fn where_nobody_reaps_the_lab_says_so_instead_of_waiting_forty_seconds_a_machine() -> Result<()> {
    let directory = lab_dir()?;
    // 36 is PR_SET_CHILD_SUBREAPER: orphans become this Python's, which waits for lab-guest alone.
    let code = "import ctypes, subprocess, sys
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0
ended = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
print(ended.returncode, ended.stderr)";
    let path = directory.path().to_string_lossy();
    let said = whydown_lab::python(code, &[env!("CARGO_BIN_EXE_lab-guest"), &path, "never"])?;
    assert!(said.starts_with("1 "), "{said}");
    assert!(said.contains("orphaned processes are not reaped here"), "{said}");
    assert!(said.contains("tini -s -- cargo test"), "{said}");
    Ok(())
}
