//! Records as the kernel wrote them (`records.txt`: Linux 6.18, with some paths shortened), and others that mean to
//! deceive. What comes over netlink for real is heard in `tests/host/signals` of the whole, which owns the host's audit.

use std::sync::mpsc::channel;

use proptest::prelude::*;
use whydown_core::lifecycle::Subject;

use super::record::{ANOM_ABEND, CONFIG_CHANGE, KINDS, OBJ_PID, SYSCALL};
use super::*;
use crate::source::Report;

/// Somewhat after what is recorded.
const CLOCK: Wall = Wall(1_795_279_700_000_000_000);

/// What the source tells of these lines, each a kind and its text.
#[derive(Debug)]
struct Told {
    reports: Vec<Report>,
    not_started: Vec<NotStarted>,
    names_senders: bool,
}

fn told_of(lines: &str, own_pid: Option<u32>) -> Told {
    let ((tell, reports), (fail, not_started)) = (channel(), channel());
    let names_senders = Arc::<AtomicBool>::default();
    let config = Config {
        libvirt: LibvirtProcess::new(own_pid, &[]),
        processes: Processes::new(None),
        clock: || CLOCK,
        names_senders: Arc::clone(&names_senders),
        not_started: Box::new(move |failed| fail.send(failed).unwrap()),
    };
    let mut ears =
        Ears::new(config, Sink::new(move |report| tell.send(report).unwrap()), Stop::new().unwrap());
    for line in lines.lines().filter(|line| !line.starts_with('#')) {
        let (kind, text) = line.split_once(' ').unwrap();
        ears.read(kind.parse().unwrap(), text);
    }
    drop(ears);
    Told {
        reports: reports.iter().collect(),
        not_started: not_started.iter().collect(),
        names_senders: names_senders.load(Ordering::Relaxed),
    }
}

/// Of these, the facts with their processes.
fn facts(lines: &str, own_pid: Option<u32>) -> Vec<(u32, Fact)> {
    let seen = told_of(lines, own_pid).reports.into_iter().filter_map(|report| match report {
        Report::Observed { subject: Subject::Pid(pid), fact, .. } => Some((pid, fact)),
        _ => None,
    });
    seen.collect()
}

/// The recorded scene that begins with this title.
fn scene(title: &str) -> &'static str {
    let all = include_str!("records.txt");
    let (_, scene) = all.split_once(&format!("# {title}\n")).expect("it is recorded");
    scene.split("# ").next().unwrap()
}

fn sent(signal: i32, code: i32, pid: u32, program: &str, exe: &str, sender: Sender) -> Fact {
    let audit = Some(Audited::Process { exe: exe.into(), uid: 0, login: None });
    Fact::Signalled { signal, code, pid, program: program.into(), sender, audit }
}

const STAMP: &str = "audit(1795279680.000:77):";

/// A record of `kill`, as the kernel writes it, by a program that is called this.
fn kill_by(name: &str) -> String {
    format!(
        "1300 {STAMP} arch=c000003e syscall=62 success=yes exit=0 a0=7 a1=9 a2=0 a3=0 items=0 ppid=1 pid=5 auid=1000 uid=0 \
         gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=3 comm={name} exe={name} subj=a key={name}\n"
    )
}

#[test]
fn a_kill_is_told_with_its_sender_and_the_login_behind_it() {
    let killed = scene("a user who logged in as 4321 kills, as root");
    let told = told_of(killed, None);
    let [Report::Observed { subject: Subject::Pid(7075), at, fact }] = &told.reports[..] else {
        panic!("{told:?}")
    };
    assert!(told.names_senders);
    assert_eq!(*at, Wall(1_795_279_679_468_000_000), "the kernel's own time");
    let audit = Some(Audited::Process { exe: "/usr/bin/kill".into(), uid: 0, login: Some(4321) });
    let (program, sender) = ("kill".to_owned(), Sender::Outside);
    assert_eq!(*fact, Fact::Signalled { signal: 9, code: 0, pid: 7091, program, sender, audit });
    let python = "/usr/bin/python3.11";
    let by_pidfd = (9747, sent(9, 0, 9750, "python3", python, Sender::Outside));
    assert_eq!(facts(scene("a kill by pidfd"), None), [by_pidfd]);
}

#[test]
fn who_may_not_signal_is_not_told_to_have_done_it() {
    assert_eq!(facts(scene("a stranger may not kill"), None), []);
    let group = scene("a stranger signals its group: one of it may not be signalled");
    assert!(group.contains("opid=7141") && group.contains("success=yes"), "{group}");
    assert_eq!(facts(group, None), []);
    // Had it been root's, all of the group would have got it.
    let roots = group.replace("euid=61234", "euid=0");
    assert_eq!(facts(&roots, None).len(), 1);
    // And its own it may signal.
    assert_eq!(facts(&group.replace("ouid=0", "ouid=61234"), None).len(), 1);
}

#[test]
fn an_end_by_its_own_hand_is_its_own() {
    let itself = facts(scene("a process aborts by kill"), None);
    let exe = "/tmp/tmphpwr61ci/qemu-whydown-test";
    let abort = (7153, sent(6, 0, 7153, "qemu-whydown-te", exe, Sender::Itself));
    assert_eq!(itself, [abort, (7153, Fact::Exit(ExitStatus::Signal(6)))]);
    assert_eq!(facts(scene("another by abort"), None), [], "and others' crashes are nobody's business");
    let as_qemu = scene("another by abort").replace("comm=\"python3\"", "comm=\"CPU 0/TCG\"");
    let as_qemu = as_qemu.replace("/usr/bin/python3.11", "/usr/bin/qemu-system-x86_64");
    assert_eq!(facts(&as_qemu, None).len(), 2, "a thread of any name, by its program");
}

#[test]
fn names_that_had_to_be_hidden_are_read() {
    let crashed = scene("a crash of a program called `qemu a\"b` and a letter more");
    assert_eq!(facts(crashed, None), [(7173, Fact::Exit(ExitStatus::Signal(11)))]);
    let (_, record) = parse(ANOM_ABEND, crashed.trim_end().split_once(' ').unwrap().1).unwrap();
    let Record::Ended { name, exe, .. } = record else { panic!("{record:?}") };
    assert_eq!((&*name, &*exe), ("qemu a\"b ä", "/tmp/tmphpwr61ci/qemu a\"b ä"));
}

#[test]
fn what_the_sandbox_forbids_is_the_kernels_signal() {
    let [(7208, forbidden), (7208, Fact::Exit(ExitStatus::Signal(31)))] =
        &facts(scene("a sandbox forbids"), None)[..]
    else {
        panic!("a signal and an end")
    };
    let audit = Some(Audited::Sandbox { call: 110, arch: 0xc000_003e });
    let (program, sender) = (String::new(), Sender::Kernel);
    assert_eq!(*forbidden, Fact::Signalled { signal: 31, code: 1, pid: 0, program, sender, audit });
    let one_thread = scene("a sandbox forbids").replace("code=0x80000000", "code=0x0");
    assert_eq!(facts(&one_thread, None).len(), 1, "a thread that ends is not the process");
}

#[test]
fn libvirt_is_known_by_its_process_or_its_program_whatever_its_threads_are_called() {
    let ended = scene("libvirt within whydownd ends its QEMU");
    assert_eq!(facts(ended, Some(9602)), [], "its SIGTERM is nothing to tell");
    let killed = ended.replace("a1=f ", "a1=9 ");
    let of = |by, own_pid| match &facts(&killed.replace("/usr/bin/whydownd", by), own_pid)[..] {
        [(9491, Fact::Signalled { sender, .. })] => *sender,
        other => panic!("{other:?}"),
    };
    assert_eq!(of("/usr/bin/whydownd", Some(9602)), Sender::Libvirt);
    assert_eq!(of("/usr/bin/whydownd", Some(1)), Sender::Libvirt, "the one before us");
    assert_eq!(of("/usr/sbin/libvirtd", None), Sender::Libvirt);
    assert_eq!(of("/usr/lib/systemd/systemd", None), Sender::Manager, "it is not process 1");
    assert_eq!(of("/usr/bin/whydownd", None), Sender::Outside);
    // A new version is installed while the old one runs: the kernel marks its file.
    let replaced: String = b"/usr/sbin/libvirtd (deleted)".iter().map(|byte| format!("{byte:02X}")).collect();
    let replaced = killed.replace("\"/usr/bin/whydownd\"", &replaced);
    assert!(matches!(&facts(&replaced, None)[..], [(_, Fact::Signalled { sender: Sender::Libvirt, .. })]));
    // A thread that calls itself libvirtd is not.
    let liar = killed.replace("comm=\"qemu-event\"", "comm=\"libvirtd\"");
    assert!(matches!(&facts(&liar, None)[..], [(_, Fact::Signalled { sender: Sender::Outside, .. })]));
}

#[test]
fn the_audit_tells_when_it_is_switched_off_and_listeners_are_no_facts() {
    let told = told_of(scene("switched off"), None);
    assert_eq!(told.reports, [Report::Unavailable { why: SILENT.into() }]);
    assert!(!told.names_senders);
    let refused = told_of(&scene("switched off").replace("res=1", "res=0"), None);
    assert_eq!(refused.reports, [], "that was refused");
    assert_eq!(told_of(scene("a listener comes, and goes"), None).reports, []);
}

#[test]
fn records_of_another_event_and_other_calls_name_nobody() {
    let target = format!("1318 {STAMP} opid=7 oauid=-1 ouid=0 oses=-1 obj=a ocomm=\"qemu-system-x86\"\n");
    let one = kill_by("\"x\"") + &target;
    assert_eq!(facts(&one, None).len(), 1);
    assert_eq!(facts(&target, None), [], "who sent it was not heard");
    assert_eq!(facts(&(kill_by("\"x\"") + &target.replace(":77)", ":78)")), None), []);
    assert_eq!(facts(&one.replace("syscall=62", "syscall=59"), None), [], "another call");
    assert_eq!(facts(&one.replace("a1=9", "a1=a"), None), [], "a signal that ends nothing");
    assert_eq!(facts(&one.replace("qemu-system", "other"), None), [], "another program");
    let i386 = one.replace("c000003e", "40000003").replace("syscall=62", "syscall=37");
    assert_eq!(facts(&i386, None), facts(&one, None));
    assert_eq!(facts(&one.replace("arch=c000003e", "arch=28"), None), [], "an architecture without a table");
}

#[test]
fn events_that_are_never_complete_take_no_room() {
    let many: String =
        (0..10_000).map(|serial| kill_by("\"x\"").replace(":77)", &format!(":{serial})"))).collect();
    let target = |serial| {
        format!("1318 {STAMP} opid=7 oauid=-1 ouid=0 oses=-1 ocomm=\"qemu\"\n").replace(":77)", serial)
    };
    assert_eq!(facts(&(many.clone() + &target(":9999)")), None).len(), 1);
    assert_eq!(facts(&(many + &target(":1)")), None), []);
}

#[test]
fn libvirts_word_on_a_start_that_failed_is_read_whatever_the_domain_is_called() {
    let uuid = "0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a";
    let record = |op: &str, reason: &str, vm: &str, res: &str| {
        format!(
            "2500 {STAMP} pid=7000 uid=0 auid=4294967295 ses=4294967295 subj=unconfined msg='virt=qemu op={op} \
             reason={reason} vm={vm} uuid={uuid} vm-pid=-1 exe=\"/usr/sbin/libvirtd\" hostname=? addr=? terminal=? \
             res={res}'\n"
        )
    };
    let told = |line: String| match &told_of(&line, None).not_started[..] {
        [] => None,
        [NotStarted { domain, name, started_for, .. }] => {
            Some((domain.to_string(), name.clone(), *started_for))
        }
        other => panic!("{other:?}"),
    };
    let named = |name: &str, what| Some((uuid.to_owned(), name.to_owned(), what));
    assert_eq!(told(record("start", "booted", "\"web\"", "failed")), named("web", None));
    let arrival = Some(StartedFor::Migration);
    assert_eq!(told(record("start", "migrated", "\"web\"", "failed")), named("web", arrival));
    // `a uuid=x'` in hexadecimal.
    assert_eq!(
        told(record("start", "restored", "6120757569643D7827", "failed")),
        named("a uuid=x'", Some(StartedFor::Restore))
    );
    for other in [
        record("start", "booted", "\"web\"", "success"),
        record("stop", "failed", "\"web\"", "failed"),
        record("start", "from-snapshot", "\"web\"", "failed"),
        record("start", "migrated", "\"web\"", "success"),
        record("start", "booted", "\"web\"", "failed").replace("pid=7000", "pid=1"),
        record("start", "booted", "\"web\"", "failed").replace(uuid, "x"),
    ] {
        assert_eq!(told(other.clone()), None, "{other}");
    }
}

#[test]
fn a_label_cannot_name_another_process() {
    let label = "a pid=1 comm=\"x\" exe=\"y\" sig=9";
    let lies = format!(
        "1701 {STAMP} auid=1 uid=1 gid=1 ses=1 subj={label} pid=7 comm=\"q\" exe=\"/qemu\" sig=11 res=1"
    );
    assert_eq!(facts(&lies, None), [(7, Fact::Exit(ExitStatus::Signal(11)))]);
    let lies =
        format!("1318 {STAMP} opid=7 oauid=-1 ouid=0 oses=-1 obj=b ocomm=\"z\" opid=1 ocomm=\"qemu\"\n");
    assert!(matches!(&facts(&(kill_by("\"x\"") + &lies), None)[..], [(7, _)]));
}

#[test]
fn a_time_that_cannot_be_right_is_ours() {
    let at = |millis| moment(Stamp { millis, serial: 1 }, CLOCK);
    let now = u64::try_from(CLOCK.0).unwrap() / 1_000_000;
    assert_eq!(at(now - 59_000), Wall(CLOCK.0 - 59_000_000_000));
    for wrong in [now - 61_000, now + 1, 0, u64::MAX] {
        assert_eq!(at(wrong), CLOCK, "{wrong}");
    }
}

proptest! {
    #[test]
    fn any_record_is_read_without_panic(text in "\\PC{0,200}") {
        for kind in KINDS {
            let _ = parse(kind, &text);
            let _ = parse(kind, &format!("{STAMP} {text}"));
        }
    }

    #[test]
    fn whatever_it_is_called_a_program_is_its_own_process(name in proptest::collection::vec(any::<u8>(), 0..40)) {
        let hidden: String = name.iter().map(|byte| format!("{byte:02X}")).collect();
        let line = kill_by(&hidden);
        let Some((_, Record::Sending(sending))) = parse(SYSCALL, line.trim_end().split_once(' ').unwrap().1) else {
            panic!("{line}")
        };
        prop_assert_eq!((sending.pid, sending.signal, sending.login), (5, 9, Some(1000)));
        let target = format!("{STAMP} opid=7 oauid=-1 ouid=107 oses=-1 ocomm={hidden}");
        let read = parse(OBJ_PID, &target);
        let its_own = matches!(read, Some((_, Record::Target { pid: 7, uid: 107, .. })));
        prop_assert!(its_own, "{:?}", read);
        prop_assert!(parse(CONFIG_CHANGE, &target).is_none());
    }
}
