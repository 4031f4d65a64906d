//! The kernel's audit as a witness, with real rules, real machines and no trace beside it.
//!
//! There is one audit a host, so these tests wait for each other. Where the kernel keeps its audit from us, as in most
//! containers, they say so, and hold whydown to saying so as well.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use whydown_core::evidence::{Audited, ExitStatus, Fact, Sender};
use whydown_core::lifecycle::Subject;
use whydown_core::time::Wall;
use whydown_lab::{Audit, Error, Guest, Launch, Libvirtd, Result, Signal, lab_dir, wait_until};
use whydown_witness::audit::{Config, start};
use whydown_witness::libvirt::LibvirtProcess;
use whydown_witness::processes::Processes;
use whydown_witness::source::{Report, Sink, Source};

use crate::signals::doctor::{finding, read};
use whydown_lab::host::{Held, Host, PATIENCE, says, told};

/// Nobody has it.
const STRANGER: &str = "61234";

/// The rules for the calls that have the signal in the second place, and for this signal.
fn rule(signal: i32) -> String {
    format!("-a always,exit -F arch=b64 -S kill,pidfd_send_signal -F a1={signal}")
}

/// The audit, switched on; `None` where the kernel keeps it from us, and from whydown too.
fn ours() -> Result<Option<Audit>> {
    let said = match Audit::on() {
        Err(Error::Refused { said, .. }) => said,
        other => return other.map(Some),
    };
    eprintln!("the kernel keeps its audit from us here ({said}): only that it is told is tested");
    let host = Host::start_as("refused", "", Launch::audit)?;
    assert!(is_unavailable(&host, ""), "the audit cannot be switched on, and whydown says nothing of it");
    Ok(None)
}

fn is_unavailable(host: &Host, why: &str) -> bool {
    let health = host.whydown(&["--json", "health"]).expect("the daemon answers");
    let unavailable = health["unavailable_sources"].as_array().expect("a list");
    unavailable
        .iter()
        .any(|one| one["name"] == "audit" && one["why"].as_str().is_some_and(|said| said.contains(why)))
}

/// Sends a signal from a process that is young enough for the audit: it does not see those that are older than it is.
/// Gives its pid.
fn kill(signal: i32, pid: u32) -> u32 {
    let mut command = Command::new("/bin/kill");
    let mut kill =
        command.args([format!("-{signal}"), pid.to_string()]).spawn().expect("procps is installed");
    assert!(kill.wait().expect("it ends").success());
    kill.id()
}

/// The source itself, in this process.
fn listen() -> (Source, Receiver<Report>) {
    let (tell, told) = channel();
    let config = Config {
        libvirt: LibvirtProcess::default(),
        processes: Processes::new(None),
        clock: now,
        names_senders: Arc::default(),
        not_started: Box::new(drop),
    };
    let source = start(config, Sink::new(move |report| drop(tell.send(report))));
    assert!(!source.has_ended(), "we may listen");
    (source, told)
}

fn now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Wall(i64::try_from(since.as_nanos()).expect("before 2262"))
}

/// What is told of this process next.
fn next_of(told: &Receiver<Report>, process: u32) -> Fact {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match told.recv_timeout(left).expect("it is told") {
            Report::Observed { subject: Subject::Pid(pid), at, fact } if pid == process => {
                let apart = now().since(at).max(at.since(now()));
                assert!(apart < PATIENCE, "{apart:?} apart: {fact:?}");
                return fact;
            }
            Report::Unavailable { why } => panic!("{why}"),
            _ => {}
        }
    }
}

/// A process that calls itself QEMU and runs this shell script, in a group of its own.
fn qemu(folder: &Path, script: &str) -> Held {
    let program = folder.join("qemu-whydown-test");
    if !program.exists() {
        fs::copy("/bin/sh", &program).expect("a copy");
    }
    let mut command = Command::new(program);
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let child = command.spawn().expect("it starts");
    // It bears its new name a moment after it has begun.
    wait_until("it has begun", PATIENCE, || name(&child).starts_with("qemu"));
    Held(child)
}

fn name(child: &Child) -> String {
    fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap_or_default()
}

/// How often this stands in the evidence, as counted.
fn times(ending: &Value, words: &str) -> u64 {
    let pieces = ending["evidence"].as_array().expect("a list").iter();
    let of_it = pieces.filter(|piece| piece["what"].as_str().is_some_and(|what| what.contains(words)));
    of_it.map(|piece| piece["times"].as_u64().expect("a number")).sum()
}

#[test]
fn whoever_kills_a_vm_is_named_with_the_user_who_once_logged_in() -> Result<()> {
    let Some(mut audit) = ours()? else { return Ok(()) };
    let host = Host::start_as("audited", "", Launch::audit)?;
    // The doctor's own words are what the administrator's tool takes.
    let told_before = read(&host, &["--json"]);
    assert_eq!(finding(&told_before, "signals")["level"], "cannot", "{told_before:#}");
    let advice = finding(&told_before, "audit");
    assert_eq!(advice["level"], "note", "{advice:#}");
    audit.add(advice["add"].as_str().expect("rules"))?;

    let killed = host.guest("killed")?;
    let _a = host.up(&killed)?;
    let kill = fs::canonicalize("/bin/kill").expect("procps is installed");
    let script = format!(
        "echo 4321 >/proc/self/loginuid && exec {} -9 {}",
        kill.display(),
        host.libvirtd.qemu("killed")?.pid()
    );
    let mut child = Command::new("/bin/sh").args(["-c", &script]).spawn().expect("a shell");
    let by = child.id();
    assert!(child.wait().expect("it ends").success());
    let ending = host.check(&killed, &told("process-killed", 1, 2), "certain")?;
    let words = format!(
        "SIGKILL from process {by}, \"kill\": somebody on the host; the audit names \"{}\" of user 0, logged in as user 4321",
        kill.display()
    );
    assert!(says(&ending["because"], &words), "{ending:#}");
    assert_eq!(ending["despite"].as_array().map(Vec::len), Some(0), "{ending:#}");

    let told_after = read(&host, &["--json"]);
    assert_eq!(finding(&told_after, "audit")["level"], "fine", "{told_after:#}");
    let signals = finding(&told_after, "signals");
    assert_eq!(signals["level"], "note", "{signals:#}");

    // libvirt kills what does not run, and is known by its program whatever its threads are called.
    let stuck = host.guest("stuck")?;
    let _b = host.up(&stuck)?;
    host.libvirtd.qemu("stuck")?.signal(Signal::STOP)?;
    host.libvirtd.destroy("stuck")?;
    let ending = host.check(&stuck, &told("outside-destroyed", 1, 2), "certain")?;
    assert!(says(&ending["evidence"], "libvirt itself; the audit names"), "{ending:#}");
    assert!(!says(&ending["evidence"], "somebody on the host"), "{ending:#}");
    Ok(())
}

#[test]
fn what_the_trace_and_the_audit_tell_is_one_signal() -> Result<()> {
    let Some(mut audit) = ours()? else { return Ok(()) };
    audit.add(&rule(9))?;
    let host = Host::start_as("both", "", |launch| launch.tracefs().audit())?;
    let killed = host.guest("killed")?;
    let _a = host.up(&killed)?;
    kill(9, host.libvirtd.qemu("killed")?.pid());
    let ending = host.check(&killed, &told("process-killed", 1, 2), "certain")?;
    assert_eq!(times(&ending, "SIGKILL from process"), 1, "{ending:#}");
    assert_eq!(ending["despite"].as_array().map(Vec::len), Some(0), "{ending:#}");
    Ok(())
}

#[test]
fn a_crash_is_told_and_with_a_rule_who_is_behind_it() -> Result<()> {
    let Some(mut audit) = ours()? else { return Ok(()) };
    let (_witness, heard) = listen();
    let host = Host::start_as("crashes", "", Launch::audit)?;
    let crashed = host.guest("crashed")?;
    let _a = host.up(&crashed)?;
    let qemu = host.libvirtd.qemu("crashed")?;
    qemu.signal(Signal::SEGV)?;
    assert_eq!(next_of(&heard, qemu.pid()), Fact::Exit(ExitStatus::Signal(11)));
    let ending = host.check(&crashed, &told("qemu-crashed", 1, 2), "probable")?;
    assert_eq!(times(&ending, "the process was killed by signal 11"), 1, "{ending:#}");

    audit.add(&rule(11))?;
    let faulted = host.guest("faulted")?;
    let _b = host.up(&faulted)?;
    let by = kill(11, host.libvirtd.qemu("faulted")?.pid());
    let ending = host.check(&faulted, &told("process-terminated", 1, 11), "certain")?;
    let by = format!("SIGSEGV from process {by}, \"kill\": somebody on the host; the audit names ");
    assert!(says(&ending["because"], &by), "{ending:#}");
    Ok(())
}

#[test]
fn what_a_process_does_to_itself_is_its_own() -> Result<()> {
    let Some(mut audit) = ours()? else { return Ok(()) };
    audit.add(&rule(6))?;
    let (folder, (_witness, heard)) = (lab_dir()?, listen());
    let mut aborts = qemu(folder.path(), "read x; kill -ABRT $$; read x");
    let pid = aborts.0.id();
    aborts.0.stdin.as_mut().expect("a pipe").write_all(b"\n").expect("written");
    let Fact::Signalled { signal: 6, pid: by, sender: Sender::Itself, .. } = next_of(&heard, pid) else {
        panic!("it aborts itself")
    };
    assert_eq!(by, pid);
    assert_eq!(next_of(&heard, pid), Fact::Exit(ExitStatus::Signal(6)));
    Ok(())
}

#[test]
fn what_a_sandbox_forbids_is_told_even_by_an_audit_that_is_switched_off() -> Result<()> {
    let Some(audit) = ours()? else { return Ok(()) };
    audit.switch(false)?;
    let (_witness, heard) = listen();
    // `getppid` is forbidden, and ends it.
    let script = "import ctypes, os, struct\n\
        libc = ctypes.CDLL(None)\n\
        libc.prctl(15, b'qemu-sandboxed', 0, 0, 0)\n\
        libc.prctl(38, 1, 0, 0, 0)\n\
        program = [(0x20, 0, 0, 0), (0x15, 0, 1, 110), (6, 0, 0, 0x80000000), (6, 0, 0, 0x7fff0000)]\n\
        bytes = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *one) for one in program))\n\
        filter = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(program), ctypes.addressof(bytes)))\n\
        assert libc.prctl(22, 2, filter, 0, 0) == 0\n\
        os.getppid()\n";
    let child = Command::new("python3").args(["-c", script]).spawn().expect("python3 is installed");
    let mut child = Held(child);
    let fact = next_of(&heard, child.0.id());
    let audit = Some(Audited::Sandbox { call: 110, arch: 0xc000_003e });
    let (program, sender) = (String::new(), Sender::Kernel);
    assert_eq!(fact, Fact::Signalled { signal: 31, code: 1, pid: 0, program, sender, audit });
    let status = child.0.wait().expect("it ends");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(31));
    Ok(())
}

#[test]
fn whoever_may_not_signal_a_vm_is_not_said_to_have_done_it() -> Result<()> {
    let Some(mut audit) = ours()? else { return Ok(()) };
    audit.add(&rule(15))?;
    let (folder, (_witness, heard)) = (lab_dir()?, listen());
    let mut qemu = qemu(folder.path(), "trap '' TERM; echo; read x; read x");
    let group = i32::try_from(qemu.0.id()).expect("a pid");
    qemu.0.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("it is ready");
    // In its group, and of another user: the kernel records all whom it asked about.
    let mut stranger = Command::new("setpriv");
    stranger.args(["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups", "--", "/bin/sh", "-c"]);
    let status = stranger.arg("trap '' TERM; kill -TERM 0").process_group(group).status();
    assert!(status.expect("util-linux is installed").success());
    let by = kill(15, qemu.0.id());
    let Fact::Signalled { signal: 15, pid, audit: Some(Audited::Process { uid: 0, exe, .. }), .. } =
        next_of(&heard, qemu.0.id())
    else {
        panic!("root's signal is told, and no other")
    };
    assert!(exe.ends_with("/kill") && pid == by, "{exe} {pid}");
    Ok(())
}

#[test]
fn an_audit_that_is_switched_off_is_named_until_it_is_heard() -> Result<()> {
    let Some(mut audit) = ours()? else { return Ok(()) };
    audit.switch(false)?;
    let host = Host::start_as("off", "", Launch::audit)?;
    wait_until("health names it", PATIENCE, || is_unavailable(&host, "switched off (enabled 0)"));
    let told = read(&host, &["--json"]);
    assert_eq!(finding(&told, "audit")["level"], "note", "{told:#}");
    audit.switch(true)?;
    audit.add(&rule(9))?;
    wait_until("it is heard", PATIENCE, || !is_unavailable(&host, ""));
    audit.switch(false)?;
    wait_until("it is off again", PATIENCE, || is_unavailable(&host, "switched off (enabled 0)"));
    Ok(())
}

#[test]
fn without_the_right_to_listen_health_says_which() -> Result<()> {
    let host = Host::start_as("noright", "", |launch| launch.audit().without_capability("audit_read"))?;
    assert!(is_unavailable(&host, ""), "it has no right");
    let silent = Host::start_as("unwanted", "", |launch| launch)?;
    assert!(!is_unavailable(&silent, ""), "what nobody wants is not missed");
    Ok(())
}

#[test]
fn a_start_that_libvirt_refuses_is_told_by_its_own_record_where_nothing_else_is_left() -> Result<()> {
    let Some(_audit) = ours()? else { return Ok(()) };
    let host = Host::start_as("refusing", "", Launch::audit)?;
    wait_until("the audit is heard", PATIENCE, || !is_unavailable(&host, ""));
    // libvirt forgets a transient domain at once, and QEMU never ran: no event, no state, no part of a log.
    for name in ["gone", "again"] {
        let guest = host.guest(name)?;
        fs::remove_file(guest.image_path()).expect("removed");
        assert!(host.libvirtd.create(&guest).is_err());
        let ending = host.check(&guest, &told("start-failed", 1, 1), "probable")?;
        assert!(says(&ending["because"], "libvirt told the kernel's audit so"), "{ending:#}");
        let log = fs::read_to_string(host.libvirtd.log_path()).unwrap_or_default();
        assert!(
            ending["message"].as_str().is_some_and(|said| said.contains("Cannot access")),
            "{ending:#} {log}"
        );
        assert_eq!(host.past(&guest)?.len(), 1);
    }
    // One that stays is told once, by both.
    let guest = host.guest("stays")?;
    host.libvirtd.define(&guest)?;
    fs::remove_file(guest.image_path()).expect("removed");
    assert!(host.libvirtd.start_domain("stays").is_err());
    let ending = host.check(&guest, &told("start-failed", 1, 1), "probable")?;
    assert!(says(&ending["because"], "libvirt told the kernel's audit so"), "{ending:#}");
    assert!(host.libvirtd.start_domain("stays").is_err());
    wait_until("it is told again", PATIENCE, || host.past(&guest).is_ok_and(|past| past.len() >= 2));
    // What we ask for ourselves is told as our own, once.
    let ours = host.guest("ours")?;
    fs::remove_file(ours.image_path()).expect("removed");
    assert_eq!(host.create(&ours)?, 0);
    let ending = host.check(&ours, &told("start-failed", 1, 1), "certain")?;
    assert!(!says(&ending["because"], "the kernel's audit"), "{ending:#}");
    assert_eq!((host.past(&guest)?.len(), host.past(&ours)?.len()), (2, 1));
    Ok(())
}

/// Of several libvirts on one kernel, as where some run in containers, all tell the one audit.
#[test]
fn a_start_that_another_libvirt_refuses_is_no_vm_of_this_host() -> Result<()> {
    let Some(_audit) = ours()? else { return Ok(()) };
    let folder = lab_dir()?;
    let elsewhere = Libvirtd::start(folder.path().join("o"), "elsewhere")?;
    let refuse = |name: &str, by: &Libvirtd| -> Result<Guest> {
        let guest = Guest::new(folder.path(), name)?;
        fs::remove_file(guest.image_path()).expect("removed");
        assert!(by.create(&guest).is_err());
        Ok(guest)
    };
    let mut host = Host::start_as("here", "", Launch::audit)?;
    wait_until("the audit is heard", PATIENCE, || !is_unavailable(&host, ""));
    for turn in 0..2 {
        let theirs = refuse(&format!("theirs{turn}"), &elsewhere)?;
        let ours = refuse(&format!("ours{turn}"), &host.libvirtd)?;
        // What the audit tells comes in its order.
        host.check(&ours, &told("start-failed", 1, 1), "probable")?;
        assert!(host.past(&theirs)?.is_empty() && host.why(&theirs).is_none());
        // A libvirtd that has only just begun is ours, and the other one still is not.
        host.libvirtd.kill_9()?;
        let links = host.links();
        host.libvirtd.start_again()?;
        host.wait_link(links);
    }
    Ok(())
}
