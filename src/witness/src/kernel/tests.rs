//! The real device, as far as this machine lets us at it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use whydown_core::lifecycle::Subject;

use super::*;
use crate::source::Report;

/// For what takes milliseconds, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(20);

fn config(device: &Path, since: Option<Wall>, clock: fn() -> Wall) -> Config {
    Config { device: device.into(), since, processes: Processes::new(None), clock }
}

fn sink() -> (Sink, Receiver<Report>) {
    let (tell, told) = channel();
    (Sink::new(move |report| drop(tell.send(report))), told)
}

fn follow_kernel(since: Option<Wall>, clock: fn() -> Wall) -> (Source, Receiver<Report>) {
    let (sink, told) = sink();
    (start(config(Path::new(DEVICE), since, clock), sink), told)
}

#[test]
fn the_source_starts_and_stops_or_says_why_it_cannot() {
    let (source, told) = follow_kernel(None, || Wall(4711));
    if source.has_ended() {
        let Ok(Report::Unavailable { why }) = told.recv() else { panic!("it says nothing") };
        assert!(!hosts_own_pids() || fs::File::open(DEVICE).is_err(), "{why}");
    }
    drop(source);
    // The thread held the other end: it is gone when this is over.
    while told.recv_timeout(PATIENCE).is_ok() {}
}

#[test]
fn what_is_no_kernel_log_is_unavailable_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kmsg");
    let (none, told) = sink();
    assert!(start(config(&path, None, || Wall(1)), none).has_ended());
    assert!(matches!(told.recv(), Ok(Report::Unavailable { .. })));
    // One that ends while it is followed.
    fs::write(&path, "").unwrap();
    let (sink, told) = sink();
    let source = start(config(&path, Some(Wall(0)), || Wall(1)), sink);
    let told: Vec<_> = told.iter().collect();
    assert!(matches!(&told[..], [Report::Unavailable { .. }]), "{told:?}");
    drop(source);
}

#[test]
fn where_we_may_write_to_the_kernels_log_our_own_lines_are_not_believed() {
    let Some((log, mut writer)) = open(Path::new("/dev/kmsg"), SeekFrom::End(0))
        .ok()
        .zip(fs::OpenOptions::new().write(true).open("/dev/kmsg").ok())
    else {
        eprintln!("/dev/kmsg is not ours to write here: only the parser is tested");
        return;
    };
    let mark = format!("Out of memory: Killed process {} (whydown-test) total-vm:1kB", std::process::id());
    // Without the line break the kernel would wait for more of the line.
    io::Write::write_all(&mut writer, format!("<3>{mark}\n").as_bytes()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut record = [0; RECORD_BYTES];
    loop {
        assert!(Instant::now() < deadline, "the line never came back");
        let mut awaited = [PollFd::new(&log, PollFlags::IN)];
        poll(&mut awaited, Some(&rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
        let Ok(length) = rustix::io::read(&log, &mut record) else { continue };
        if String::from_utf8_lossy(&record[..length]).contains(&mark) {
            assert_eq!(oom_killed(&record[..length]), None);
            return;
        }
    }
}

/// A control group with little memory, removed in the end.
struct SmallGroup(PathBuf);

impl SmallGroup {
    /// `None` where we may not make one.
    fn make() -> Option<Self> {
        let name = format!("whydown-test-{}", std::process::id());
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
            ("/sys/fs/cgroup/unified", "memory.max"),
        ] {
            let group = Self(PathBuf::from(root).join(&name));
            if fs::create_dir(&group.0).is_ok() && fs::write(group.0.join(limit), "16777216").is_ok() {
                // Where the group may swap, it would take its time to die.
                let _ = fs::write(group.0.join("memory.swap.max"), "0");
                return Some(group);
            }
        }
        None
    }
}

impl Drop for SmallGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn where_we_may_make_a_control_group_a_process_killed_for_memory_is_told_by_pid() {
    let (log, told) = follow_kernel(None, || Wall(4711));
    let Some(group) = SmallGroup::make().filter(|_| !log.has_ended()) else {
        eprintln!("no kernel log or no control group is ours here: only the parser is tested");
        return;
    };
    // It enters the group itself, and tail keeps all of a line that never ends.
    let script = format!("echo $$ > {}/cgroup.procs && exec tail /dev/zero", group.0.display());
    let mut child =
        Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let status = child.wait().unwrap();
    let mut lines = Vec::new();
    while lines.len() < 2 {
        match told.recv_timeout(PATIENCE) {
            Ok(Report::Observed { subject: Subject::Pid(pid), at, fact: Fact::OomKilled { line } })
                if pid == child.id() =>
            {
                assert_eq!(at, Wall(4711));
                lines.push(line);
            }
            Ok(_) => {}
            Err(error) => panic!("{error}: {status}, {lines:?}"),
        }
    }
    assert!(lines[0].starts_with("oom-kill:constraint=CONSTRAINT_MEMCG"), "{lines:?}");
    assert!(lines[1].starts_with("Memory cgroup out of memory: Killed process"), "{lines:?}");
    drop(log);

    // Whoever comes later, and was there before, hears it too; whoever listened after it does not.
    let now: fn() -> Wall = || Wall::from_millis(1_763_690_000_000);
    for (since, heard) in [(Duration::from_secs(60), 2), (Duration::ZERO, 0)] {
        let (log, told) = follow_kernel(Some(now().before(since)), now);
        let again: Vec<_> = told
            .try_iter()
            .filter_map(|word| match word {
                Report::Observed { subject: Subject::Pid(pid), at, fact: Fact::OomKilled { line } }
                    if pid == child.id() =>
                {
                    Some((at, line))
                }
                _ => None,
            })
            .collect();
        assert_eq!(again.len(), heard, "{since:?}: {again:?}");
        assert!(again.iter().all(|(at, _)| *at <= now() && now().since(*at) < since), "{again:?}");
        assert!(again.iter().map(|(_, line)| line).eq(lines.iter().take(heard)), "{again:?}");
        drop(log);
    }
}
