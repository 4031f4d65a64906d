//! Sources of evidence that die while the daemon runs. On the machine itself, where the kernel's words are about our own pids.

use std::fs::File;
use std::process::Command;

use serde_json::{Value, json};
use whydown_lab::{Launch, Result, Whydownd, lab_dir, run, wait_until};

use super::world::PATIENCE;

/// What this command of `whydown` gives. Its exit status is part of its answer.
fn ask(daemon: &Whydownd, command: &str) -> Value {
    let mut whydown = Command::new(env!("CARGO_BIN_EXE_whydown"));
    whydown.arg("--socket").arg(daemon.socket_path()).args(["--json", command]);
    serde_json::from_slice(&whydown.output().expect("whydown runs").stdout).expect("JSON")
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array().is_some_and(|words| words.iter().any(|one| one == word))
}

#[test]
fn a_source_that_dies_while_the_daemon_runs_is_named_with_the_causes_that_suffer() -> Result<()> {
    let folder = lab_dir()?;
    // In the stead of the kernel's log, as long as this test keeps its other end open.
    let log = folder.path().join("kmsg");
    run(Command::new("mkfifo").arg(&log), PATIENCE)?;
    let other_end = File::options().read(true).write(true).open(&log).expect("a pipe");
    let program = folder.path().join("with-pipe");
    let text = format!(
        "#!/bin/sh\nexec unshare --mount sh -c 'mount --bind \"$0\" /dev/kmsg && exec \"$@\"' {} {} \"$@\"\n",
        log.display(),
        env!("CARGO_BIN_EXE_whydownd")
    );
    std::fs::write(&program, text).expect("a file");
    run(Command::new("chmod").arg("755").arg(&program), PATIENCE)?;
    let daemon =
        Whydownd::start(Launch::new(&program, folder.path().join("d"), "test:///default").tracefs())?;
    let finding = || {
        let doctor = ask(&daemon, "doctor");
        let all = doctor["findings"].as_array().expect("a list");
        let finding = all.iter().find(|one| one["about"] == "kernel-log").expect("it is there").clone();
        (finding, doctor)
    };
    assert_eq!(ask(&daemon, "health")["unavailable_sources"], json!([]));
    let (fine, doctor) = finding();
    assert_eq!(fine["level"], "fine", "{fine:#}");
    assert!(has(&doctor["can_tell"], "oom-killed"), "{doctor:#}");

    drop(other_end);
    let unavailable = || ask(&daemon, "health")["unavailable_sources"].clone();
    wait_until("health names it", PATIENCE, || unavailable() != json!([]));
    let all = unavailable();
    let [one] = &all.as_array().expect("a list")[..] else { panic!("{all:#}") };
    assert_eq!(one["name"], "kernel-log", "{all:#}");
    assert_eq!(one["gives"], "out-of-memory kills", "{all:#}");
    assert!(one["since"].is_string() && one["why"].as_str().is_some_and(|why| !why.is_empty()), "{all:#}");
    let (cannot, doctor) = finding();
    assert_eq!(cannot["level"], "cannot", "{cannot:#}");
    assert_eq!(cannot["causes"], json!(["process-killed", "oom-killed"]), "{cannot:#}");
    assert!(has(&doctor["cannot_tell"], "oom-killed"), "{doctor:#}");
    Ok(())
}
