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
