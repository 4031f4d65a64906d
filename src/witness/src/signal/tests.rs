//! Real signals between real processes, and a tracefs of this test's own.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use whydown_core::lifecycle::Subject;

use super::*;
use crate::source::Report;

/// For what takes milliseconds, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);

const CLOCK: Wall = Wall(1_000_000_000_000_000_000);

fn config(root: &Path, own_pid: Option<u32>) -> Config {
    let (libvirt, processes) = (LibvirtProcess::new(own_pid, &[]), Processes::new(None));
    Config { root: root.into(), libvirt, processes, clock: || CLOCK }
}

fn sink() -> (Sink, Receiver<Report>) {
    let (tell, told) = channel();
    (Sink::new(move |report| drop(tell.send(report))), told)
}

/// A folder with tracefs on it.
struct Tracefs(tempfile::TempDir);

impl Tracefs {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let done =
            Command::new("mount").args(["-t", "tracefs", "tracefs"]).arg(folder.path()).output().unwrap();
        assert!(
            done.status.success(),
            "these tests need root, and a kernel with tracefs: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Self(folder)
    }

    fn instances(&self) -> Vec<String> {
        let all = fs::read_dir(self.0.path().join("instances")).unwrap();
        all.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn trace(&self, own_pid: Option<u32>) -> (Source, Receiver<Report>) {
        let (sink, told) = sink();
        let source = start(config(self.0.path(), own_pid), sink);
        assert!(!source.has_ended());
        (source, told)
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(self.0.path()).status().unwrap().success());
    }
}

/// A process that calls itself QEMU, and runs this shell script.
fn qemu(folder: &Path, script: &str) -> Child {
    let program = folder.join("qemu-whydown-test");
    if !program.exists() {
        fs::copy("/bin/sh", &program).unwrap();
    }
    let child = Command::new(program)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It bears its new name a moment after it has begun.
    let (name, deadline) = (format!("/proc/{}/comm", child.id()), Instant::now() + PATIENCE);
    while fs::read_to_string(&name).is_ok_and(|name| !name.starts_with("qemu")) {
        assert!(Instant::now() < deadline, "it never began");
        std::thread::yield_now();
    }
    child
}

/// What is told of this process next.
fn next_of(told: &Receiver<Report>, process: u32) -> (Wall, Fact) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match told.recv_timeout(left).expect("the signal is told") {
            Report::Observed { subject: Subject::Pid(pid), at, fact } if pid == process => return (at, fact),
            Report::Unavailable { why } => panic!("{why}"),
            _ => {}
        }
    }
}

#[test]
fn a_signal_is_told_with_its_sender_and_the_time() {
    let (tracefs, folder) = (Tracefs::mount(), tempfile::tempdir().unwrap());
    let (_trace, told) = tracefs.trace(None);
    let me = std::process::id();
    let mine = fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned();
    for signal in [9, 11, 15] {
        let mut child = qemu(folder.path(), "read x");
        let by_us = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), by_us).unwrap();
        let (at, fact) = next_of(&told, child.id());
        let program = mine.clone();
        assert_eq!(
            fact,
            Fact::Signalled { signal, code: 0, pid: me, program, sender: Sender::Outside, audit: None }
        );
        let age = CLOCK.0 - at.0;
        assert!((0..i64::try_from(PATIENCE.as_nanos()).unwrap()).contains(&age), "{age} ns old");
        child.wait().unwrap();
    }
}

#[test]
fn a_sender_that_is_gone_at_once_is_known_by_its_name() {
    let (tracefs, folder) = (Tracefs::mount(), tempfile::tempdir().unwrap());
    let (_trace, told) = tracefs.trace(None);
    let mut child = qemu(folder.path(), "read x");
    let mut kill = Command::new("/bin/kill");
    let mut kill = kill.arg0("kill").args(["-9", &child.id().to_string()]).spawn().unwrap();
    let by = kill.id();
    kill.wait().unwrap();
    let (_, fact) = next_of(&told, child.id());
    let program = "kill".to_owned();
    assert_eq!(
        fact,
        Fact::Signalled { signal: 9, code: 0, pid: by, program, sender: Sender::Outside, audit: None }
    );
    child.wait().unwrap();
}

#[test]
fn what_a_process_does_to_itself_is_its_own_and_what_libvirt_does_is_libvirts() {
    let (tracefs, folder) = (Tracefs::mount(), tempfile::tempdir().unwrap());
    let (_trace, told) = tracefs.trace(Some(std::process::id()));
    let mut aborts = qemu(folder.path(), "kill -ABRT $$; read x");
    let (_, fact) = next_of(&told, aborts.id());
    assert!(matches!(fact, Fact::Signalled { signal: 6, sender: Sender::Itself, .. }), "{fact:?}");
    aborts.wait().unwrap();
    // This process stands for the one that embeds libvirt: its SIGTERM is nothing to tell, its SIGKILL is.
    let mut child = qemu(folder.path(), "trap '' TERM; echo; read x; read x");
    let pid = rustix::process::Pid::from_child(&child);
    let mut ready = [0];
    child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let (_, fact) = next_of(&told, child.id());
    assert!(matches!(fact, Fact::Signalled { signal: 9, sender: Sender::Libvirt, .. }), "{fact:?}");
    child.wait().unwrap();
}

#[test]
fn a_fault_is_the_kernels_whatever_the_thread_is_called() {
    let (tracefs, folder) = (Tracefs::mount(), tempfile::tempdir().unwrap());
    let (_trace, told) = tracefs.trace(None);
    // A page of the program's own file is gone: reading it is SIGBUS, and not from anybody.
    let file = folder.path().join("page");
    fs::write(&file, [1; 4096]).unwrap();
    let script = format!(
        "import mmap\nf=open({:?},'r+b')\nm=mmap.mmap(f.fileno(),4096)\nf.truncate(0)\nprint(m[0])",
        file.to_str().unwrap()
    );
    let mut child = Command::new("python3").args(["-c", &script]).spawn().unwrap();
    let (_, fact) = next_of(&told, child.id());
    let Fact::Signalled { signal: 7, code, pid: 0, sender: Sender::Kernel, .. } = fact else {
        panic!("{fact:?}")
    };
    assert!(code > 0);
    child.wait().unwrap();
}

#[test]
fn other_programs_signals_wake_nobody() {
    let (tracefs, folder) = (Tracefs::mount(), tempfile::tempdir().unwrap());
    let (_trace, told) = tracefs.trace(None);
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    let mut child = qemu(folder.path(), "read x");
    child.kill().unwrap();
    let heard: Vec<u32> = std::iter::from_fn(|| told.recv_timeout(PATIENCE).ok())
        .filter_map(|word| match word {
            Report::Observed { subject: Subject::Pid(pid), .. } => Some(pid),
            _ => None,
        })
        .take_while(|pid| *pid != child.id())
        .collect();
    assert!(!heard.contains(&other.id()), "{heard:?}");
    child.wait().unwrap();
}

#[test]
fn nothing_is_left_behind_and_what_a_killed_daemon_left_is_removed() {
    let tracefs = Tracefs::mount();
    let opened = open(tracefs.0.path()).unwrap();
    let folder = opened.0.path().to_owned();
    let trace = follow(opened, config(tracefs.0.path(), None), sink().0);
    let mine = format!("{}-", std::process::id());
    let ours = |all: &[String]| all.iter().filter(|name| name.contains(&mine)).count();
    let before = ours(&tracefs.instances());
    assert!(before >= 1);
    // No process has this pid and start.
    let left = tracefs.0.path().join("instances/whydown-2-1-0");
    fs::create_dir(&left).unwrap();
    let strange = tracefs.0.path().join("instances/whydown-strangers");
    let _ = fs::create_dir(&strange);
    let (second, _told) = tracefs.trace(None);
    assert!(!left.exists(), "left by a daemon that is gone");
    assert!(strange.exists(), "not ours");
    fs::remove_dir(&strange).unwrap();
    assert!(folder.exists());
    drop(trace);
    assert!(!folder.exists());
    drop(second);
}

#[test]
fn a_folder_without_tracefs_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    for root in [folder.path().to_owned(), folder.path().join("nowhere")] {
        let (sink, told) = sink();
        assert!(start(config(&root, None), sink).has_ended());
        let Ok(Report::Unavailable { why }) = told.recv() else { panic!("it says nothing") };
        assert!(why.contains("mount -t tracefs tracefs"), "{why}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
