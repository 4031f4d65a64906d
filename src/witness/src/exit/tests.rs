//! Real processes, ended in real ways.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use whydown_core::evidence::Fact;
use whydown_core::lifecycle::Subject;

use super::*;
use crate::process::{alive, identify};
use crate::source::Report;

/// For what takes milliseconds, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);

const CLOCK: Wall = Wall(4711);

fn config() -> Config {
    Config { processes: Processes::new(None), clock: || CLOCK }
}

fn start() -> (ExitWatch, Receiver<Report>) {
    let (tell, told) = channel();
    (ExitWatch::start(config(), Sink::new(move |report| drop(tell.send(report)))), told)
}

/// The next end that is told. Where its memory was written is the machine's own affair.
fn next(told: &Receiver<Report>) -> (Process, Wall, ExitStatus) {
    loop {
        if let Report::Observed { subject: Subject::Process(process), at, fact: Fact::Exit(status) } =
            told.recv_timeout(PATIENCE).unwrap()
        {
            return (process, at, status);
        }
    }
}

/// Whether the kernel's process events are heard here.
fn hears_events(told: &Receiver<Report>) -> bool {
    match told.try_recv() {
        Ok(Report::Unavailable { .. }) => false,
        other => other.is_err(),
    }
}

fn watched(watch: &ExitWatch) -> usize {
    watch.shared.as_ref().unwrap().watched()
}

fn sleeper() -> (Child, Process) {
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    let process = identify(child.id()).unwrap();
    (child, process)
}

fn shell(script: &str) -> (Child, Process) {
    let child = Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    let process = identify(child.id()).unwrap();
    (child, process)
}

#[test]
fn a_killed_process_is_told_with_its_signal() {
    let (watch, told) = start();
    let (mut child, process) = sleeper();
    assert_eq!(watch.watch(process).unwrap(), Watching::Begun);
    assert_eq!(watch.watch(process).unwrap(), Watching::AlreadySo);
    assert_eq!(watched(&watch), 1);
    child.kill().unwrap();
    assert_eq!(next(&told), (process, CLOCK, ExitStatus::Signal(9)));
    assert_eq!(watched(&watch), 0);
    assert!(!alive(process));
    child.wait().unwrap();
}

#[test]
fn a_process_that_exits_is_told_with_its_code() {
    let (watch, told) = start();
    for (script, status) in [
        ("read x; exit 0", ExitStatus::Code(0)),
        ("read x; exit 3", ExitStatus::Code(3)),
        ("read x; kill -SEGV $$", ExitStatus::Signal(11)),
    ] {
        let (mut child, process) = shell(script);
        watch.watch(process).unwrap();
        drop(child.stdin.take());
        assert_eq!(next(&told), (process, CLOCK, status), "{script}");
        child.wait().unwrap();
    }
}

#[test]
fn a_stranger_reaped_at_once_is_told_with_its_status_where_the_kernel_tells_us() {
    let (watch, told) = start();
    if !hears_events(&told) {
        eprintln!("the kernel's process events are not ours here: only that it is told is tested");
        return;
    }
    for _ in 0..20 {
        // Its parent waits for it, and reaps it as fast as any can.
        let script = "exec 3<&0; sh -c 'read x <&3; kill -9 $$' & echo $!; wait";
        let mut parent = Command::new("sh");
        let parent = parent.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut parent = parent.spawn().unwrap();
        let mut pid = String::new();
        BufReader::new(parent.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        let process = identify(pid.trim().parse().unwrap()).unwrap();
        watch.watch(process).unwrap();
        drop(parent.stdin.take());
        assert_eq!(next(&told), (process, CLOCK, ExitStatus::Signal(9)));
        parent.wait().unwrap();
    }
}

#[test]
fn many_that_end_together_are_each_told_once() {
    let (watch, told) = start();
    let mut sleepers: Vec<_> = (0..200).map(|_| sleeper()).collect();
    for (_, process) in &sleepers {
        watch.watch(*process).unwrap();
    }
    for (child, _) in &mut sleepers {
        child.kill().unwrap();
    }
    let mut pids: Vec<u32> = sleepers
        .iter()
        .map(|_| next(&told))
        .inspect(|(_, _, status)| assert_eq!(*status, ExitStatus::Signal(9)))
        .map(|(process, _, _)| process.pid)
        .collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), sleepers.len());
    assert_eq!(watched(&watch), 0);
    for (mut child, _) in sleepers {
        child.wait().unwrap();
    }
    assert!(told.try_iter().all(|report| matches!(report, Report::Unavailable { .. })));
}

#[test]
fn a_process_that_is_not_the_one_meant_is_refused() {
    let (watch, told) = start();
    let (mut child, process) = sleeper();
    for wrong in [
        Process { start_ticks: process.start_ticks + 1, ..process },
        Process { pid: 0, ..process },
        Process { pid: u32::MAX, ..process },
        Process { pid: i32::MAX as u32, ..process },
    ] {
        assert!(matches!(watch.watch(wrong), Err(WatchError::Gone(who)) if who == wrong), "{wrong:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(watch.watch(process), Err(WatchError::Gone(_))));
    assert_eq!(watched(&watch), 0);
    assert!(told.try_iter().all(|report| matches!(report, Report::Unavailable { .. })));
}

#[test]
fn a_process_that_is_dead_but_not_reaped_is_told_at_once() {
    let (watch, told) = start();
    let (mut child, process) = sleeper();
    child.kill().unwrap();
    let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
    rustix::process::waitid(rustix::process::WaitId::Pid(Pid::from_child(&child)), options).unwrap();
    watch.watch(process).unwrap();
    assert_eq!(next(&told), (process, CLOCK, ExitStatus::Signal(9)));
    child.wait().unwrap();
}

#[test]
fn no_more_than_the_bound_are_watched() {
    let shared = Shared::open(1).unwrap();
    let me = identify(std::process::id()).unwrap();
    let pidfd = || pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).unwrap();
    assert!(matches!(shared.add(me, pidfd(), true), Ok(Watching::Begun)));
    let other = Process { start_ticks: 1, ..me };
    assert!(matches!(shared.add(other, pidfd(), true), Err(watch::NotAdded::Full(1))));
}

#[test]
fn dropping_the_watch_ends_its_thread_and_leaves_the_processes_alone() {
    let (watch, told) = start();
    let (mut child, process) = sleeper();
    watch.watch(process).unwrap();
    drop(watch);
    // The thread held the other end.
    let rest: Vec<Report> = told.iter().collect();
    assert!(rest.iter().all(|report| matches!(report, Report::Unavailable { .. })), "{rest:?}");
    assert!(alive(process));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_watch_that_dies_later_says_so() {
    let (tell, told) = channel();
    let fails = move |report| match report {
        Report::Observed { .. } => panic!("this listener fails on purpose"),
        report => drop(tell.send(report)),
    };
    let watch = ExitWatch::start(config(), Sink::new(fails));
    let (mut child, process) = sleeper();
    watch.watch(process).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = std::time::Instant::now() + PATIENCE;
    let me = identify(std::process::id()).unwrap();
    while !matches!(watch.watch(me), Err(WatchError::Ended)) {
        assert!(std::time::Instant::now() < deadline, "it never ended");
        std::thread::yield_now();
    }
    let last = told.try_iter().last();
    assert!(matches!(&last, Some(Report::Unavailable { why }) if why.contains("bug")), "{last:?}");
}

#[test]
fn process_events_that_break_off_are_told_and_ends_are_still_seen() {
    let (tell, told) = channel();
    let sink = Sink::new(move |report| drop(tell.send(report)));
    let shared = Arc::new(Shared::open(1).unwrap());
    // What stands in for the socket has something to read, and cannot be read as one.
    let broken = rustix::event::eventfd(1, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let connector = connector::Connector::over(broken);
    shared.hear(&connector).unwrap();
    let ears = Ears::new(Arc::clone(&shared), Some(connector), config(), sink.clone());
    let source = Source::run("exit-watch", &sink, Arc::clone(&shared), move || ears.listen());
    let first = told.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(&first, Report::Unavailable { why } if why.contains("process events")), "{first:?}");
    let watch = ExitWatch { shared: Some(shared), source };
    let (mut child, process) = sleeper();
    watch.watch(process).unwrap();
    child.kill().unwrap();
    assert_eq!(next(&told), (process, CLOCK, ExitStatus::Signal(9)));
    child.wait().unwrap();
}

#[test]
fn a_raw_status_is_a_code_or_a_signal() {
    for (raw, wanted) in [
        (0, ExitStatus::Code(0)),
        (0x100, ExitStatus::Code(1)),
        (0xff00, ExitStatus::Code(255)),
        (9, ExitStatus::Signal(9)),
        (0x8b, ExitStatus::Signal(11)),
    ] {
        assert_eq!(status(raw), wanted);
    }
}
