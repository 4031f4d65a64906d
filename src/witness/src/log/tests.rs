//! Recorded logs, forged logs, and any bytes at all.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;
use whydown_core::evidence::LogWord::{self, *};

use whydown_core::evidence::Sender;
use whydown_core::id::DomainId;
use whydown_core::lifecycle::attribution::{Marks, facts_of};

use super::*;

/// libvirt's first line of a block, and the end of the command line that follows it.
pub(super) fn begin(time: &str) -> String {
    format!(
        "2026-11-21 {time}+0000: starting up libvirt version: 9.0.0, package: 9.0.0-4+deb12u2 (Debian), qemu version: \
         7.2.22, kernel: 6.1, hostname: host\nLC_ALL=C \\\nPATH=/usr/bin \\\n/usr/bin/qemu-system-x86_64 \\\n-name \
         guest=w1,debug-threads=on \\\n-device '{{\"driver\":\"pvpanic\"}}' \\\n-msg timestamp=on\n"
    )
}

/// libvirt writes three digits of a second.
pub(super) fn libvirt(time: &str, said: &str) -> String {
    let (time, fraction) = time.split_once('.').unwrap();
    let time = format!("{time}.{:0<3.3}", fraction);
    format!("2026-11-21 {time}+0000: {said}\n")
}

pub(super) fn end(time: &str, word: &str) -> String {
    libvirt(time, &format!("shutting down, reason={word}"))
}

pub(super) fn qemu(time: &str, said: &str) -> String {
    format!("2026-11-21T{time}Z qemu-system-x86_64: {said}\n")
}

pub(super) fn term(time: &str, pid: u32, program: &str) -> String {
    qemu(time, &format!("terminating on signal 15 from pid {pid} ({program})"))
}

pub(super) fn at(time: &str) -> Wall {
    let moment: jiff::Timestamp = format!("2026-11-21T{time}Z").parse().unwrap();
    Wall(moment.as_nanosecond().try_into().unwrap())
}

pub(super) const NOW: Wall = Wall(i64::MAX);

const VM: DomainId = DomainId::from_bytes([1; 16]);

pub(super) fn seen(time: &str) -> Marks {
    Marks {
        domain: VM,
        started: at(time),
        seen_start: true,
        next_start: None,
        previous: None,
        failing: false,
    }
}

pub(super) fn found(time: &str) -> Marks {
    Marks { seen_start: false, ..seen(time) }
}

/// What the log of a domain says of one of its runs.
fn read_run(folder: &Path, name: &str, run: Marks) -> Vec<(Wall, Fact)> {
    facts_of(&read(folder, name, &LibvirtProcess::default(), NOW), run, NOW)
}

/// The log of a domain `w1`.
pub(super) struct Log(pub(super) TempDir);

impl Log {
    pub(super) fn of(text: impl AsRef<[u8]>) -> Self {
        let log = Self(tempfile::tempdir().unwrap());
        fs::write(log.0.path().join("w1.log"), text).unwrap();
        log
    }

    pub(super) fn with(self, backup: &str, text: &str) -> Self {
        fs::write(self.0.path().join(backup), text).unwrap();
        self
    }

    pub(super) fn read(&self, run: Marks) -> Vec<Fact> {
        read_run(self.0.path(), "w1", run).into_iter().map(|(_, fact)| fact).collect()
    }
}

pub(super) fn word(facts: &[Fact]) -> Option<(LogWord, Wall)> {
    facts.iter().find_map(|f| match f {
        Fact::LogEnd { word, at: Some(at) } => Some((*word, *at)),
        _ => None,
    })
}

fn words(facts: &[Fact]) -> Option<&str> {
    facts.iter().find_map(|f| match f {
        Fact::LogText(text) => Some(text.as_str()),
        _ => None,
    })
}

pub(super) fn unread(facts: &[Fact]) -> Option<&str> {
    match facts {
        [Fact::LogUnread(why)] => Some(why),
        _ => None,
    }
}

fn signal(pid: u32, program: &str, sender: Sender, time: &str) -> Fact {
    Fact::LogSignal { signal: 15, pid, program: program.into(), sender, at: Some(at(time)) }
}

#[test]
fn every_recorded_ending_is_read_in_either_order() {
    let libvirtd = |time| signal(7371, "/usr/sbin/libvirtd", Sender::Libvirt, time);
    let t15 = |time| term(time, 7371, "/usr/sbin/libvirtd");
    let ended = |word, time| Fact::LogEnd { word, at: Some(at(time)) };
    let (early, late) = ("10:05:00.163646", "10:05:00.401");
    for (log, facts) in [
        (t15(early) + &end(late, "destroyed"), vec![libvirtd(early), ended(Destroyed, late)]),
        (t15(early) + &end(late, "shutdown"), vec![libvirtd(early), ended(Shutdown, late)]),
        (end(late, "crashed") + &t15("10:05:00.402"), vec![ended(Crashed, late), libvirtd("10:05:00.402")]),
        (end(late, "saved") + &t15("10:05:00.402"), vec![ended(Saved, late), libvirtd("10:05:00.402")]),
        (
            libvirt(early, "initiating migration") + &end(late, "migrated") + &t15("10:05:00.402"),
            vec![ended(Migrated, late), libvirtd("10:05:00.402")],
        ),
        (end(late, "from snapshot"), vec![ended(FromSnapshot, late)]),
        // What another libvirt found later hides no word of the one that ended it.
        (
            end("10:05:00.163", "saved") + &t15("10:05:00.2") + &end(late, "unknown"),
            vec![
                ended(Saved, "10:05:00.163"),
                libvirtd("10:05:00.2"),
                Fact::LogText("2026-11-21 10:05:00.401+0000: shutting down, reason=unknown".into()),
            ],
        ),
        (end(late, "daemon"), vec![ended(Daemon, late)]),
        (
            term(early, 9044, "") + &end(late, "shutdown"),
            vec![signal(9044, "", Sender::Outside, early), ended(Shutdown, late)],
        ),
        (term(early, 1, "/sbin/init"), vec![signal(1, "/sbin/init", Sender::Init, early), Fact::LogSilent]),
        (libvirt(early, "Domain id=1 is tainted: custom-monitor"), vec![Fact::LogSilent]),
        ("char device redirected to /dev/pts/0 (label charserial0)\n".into(), vec![Fact::LogSilent]),
        (
            qemu(early, "load of migration failed: Invalid argument")
                + &end(late, "failed")
                + "fake: failure\n",
            vec![
                ended(Failed, late),
                Fact::LogText(
                    "2026-11-21T10:05:00.163646Z qemu-system-x86_64: load of migration failed: Invalid \
                     argument\nfake: failure"
                        .into(),
                ),
            ],
        ),
    ] {
        assert_eq!(Log::of(begin("10:04:50.163") + &log).read(seen("10:04:50.5")), facts, "{log}");
    }
}

#[test]
fn every_fact_has_the_time_of_its_line_or_of_the_reading() {
    let log = Log::of(begin("10:00:00.100") + "words\n" + &term("10:05:00.1", 7, "x"));
    let times: Vec<Wall> =
        read_run(log.0.path(), "w1", seen("10:00:01")).into_iter().map(|(time, _)| time).collect();
    assert_eq!(times, [at("10:05:00.1"), NOW, NOW]);
}

/// No process has it: the kernel gives none above 2^22.
const GONE: u32 = 1 << 23;

#[test]
fn a_senders_name_tells_who_it_is() {
    for (pid, program, who) in [
        (GONE, "/usr/sbin/libvirtd", Sender::Libvirt),
        (GONE, "virtqemud", Sender::Libvirt),
        (42, "whatever", Sender::Libvirt),
        (1, "", Sender::Init),
        (1, "/process", Sender::Init),
        (GONE, "/lib/systemd/systemd-shutdown", Sender::Outside),
        (GONE, "/sbin/init", Sender::Outside),
        (GONE, "/lib/systemd/systemd", Sender::Manager),
        // This one runs, and is another program than it says.
        (std::process::id(), "/lib/systemd/systemd", Sender::Outside),
        (std::process::id(), "/usr/sbin/libvirtd", Sender::Outside),
        (900, "/usr/bin/python3", Sender::Outside),
        (900, "/usr/sbin/libvirtd-not", Sender::Outside),
        (900, "", Sender::Outside),
    ] {
        assert_eq!(
            claimed(pid, program, &LibvirtProcess::new(Some(42), &[]), Duration::ZERO),
            who,
            "{pid} {program}"
        );
    }
    // This process began after that: it is not the one that had its number.
    let long_ago = Duration::from_secs(1 << 40);
    assert_eq!(
        claimed(std::process::id(), "libvirtd", &LibvirtProcess::default(), long_ago),
        Sender::Libvirt
    );
    assert_eq!(claimed(42, "virsh", &LibvirtProcess::default(), Duration::ZERO), Sender::Outside);
    // An earlier daemon of ours; where libvirt is not in it, it has no business with QEMU.
    assert_eq!(
        claimed(GONE + 1, "/usr/sbin/whydownd", &LibvirtProcess::new(Some(42), &[]), Duration::ZERO),
        Sender::Libvirt
    );
    assert_eq!(
        claimed(GONE + 1, "/usr/sbin/whydownd", &LibvirtProcess::default(), Duration::ZERO),
        Sender::Outside
    );
}

#[test]
fn a_run_gets_its_own_part_and_no_other() {
    let log = Log::of(
        begin("10:00:00.100")
            + &end("10:01:00.000", "shutdown")
            + &begin("10:01:00.500")
            + &end("10:01:00.900", "crashed")
            + &begin("10:01:01.100")
            + &end("10:30:00.000", "saved")
            + &begin("11:00:00.000"),
    );
    assert_eq!(word(&log.read(seen("10:00:00.400"))), Some((Shutdown, at("10:01:00.000"))));
    assert_eq!(word(&log.read(seen("10:01:00.800"))), Some((Crashed, at("10:01:00.900"))));
    assert_eq!(word(&log.read(seen("10:01:01.400"))), Some((Saved, at("10:30:00.000"))));
    assert_eq!(word(&log.read(found("10:20:00"))), Some((Saved, at("10:30:00.000"))));
    assert_eq!(log.read(found("11:20:00")), [Fact::LogSilent]);
    // Nothing began there: the runs before had ended.
    assert!(unread(&log.read(seen("10:40:00"))).is_some());
    assert!(unread(&log.read(found("10:40:00"))).is_some());
    assert!(unread(&log.read(seen("09:00:00"))).is_some());
}

#[test]
fn a_run_whose_guest_took_minutes_to_get_its_memory_is_found() {
    let log = Log::of(begin("10:00:00.000") + &end("10:30:00.000", "destroyed"));
    assert_eq!(word(&log.read(seen("10:06:00"))), Some((Destroyed, at("10:30:00"))));
    assert!(unread(&log.read(seen("10:20:00"))).is_some(), "a start ten minutes after its line is another's");
}

#[test]
fn a_next_run_is_never_taken_for_this_one() {
    // The clock was set back an hour between the two.
    let log = Log::of(
        begin("10:00:00.000") + "first\n" + &begin("09:30:00.000") + &end("09:40:00.000", "destroyed"),
    );
    let run = Marks { next_start: Some(at("09:30:00.400")), ..found("10:10:00") };
    assert_eq!(log.read(run), [Fact::LogSilent, Fact::LogText("first".into())]);
    assert_eq!(log.read(seen("10:00:00.400")), [Fact::LogSilent, Fact::LogText("first".into())]);
    assert_eq!(word(&log.read(seen("09:30:00.400"))), Some((Destroyed, at("09:40:00"))));
}

#[test]
fn a_clock_set_back_during_a_run_does_not_hide_its_end() {
    let log = Log::of(begin("10:00:00.000") + &end("09:10:00.000", "destroyed"));
    assert_eq!(word(&log.read(seen("10:00:00.400"))), Some((Destroyed, at("09:10:00"))));
    assert_eq!(word(&log.read(found("10:05:00"))), Some((Destroyed, at("09:10:00"))));
}

#[test]
fn a_start_stamped_a_little_early_is_found() {
    let log = Log::of(begin("10:00:02.000") + &end("10:10:00.000", "destroyed"));
    assert_eq!(word(&log.read(seen("10:00:00"))), Some((Destroyed, at("10:10:00"))));
}

#[test]
fn a_later_start_that_failed_before_qemu_ran_is_not_this_runs_end() {
    let log =
        Log::of(begin("10:00:00.000") + &end("10:10:00.000", "shutdown") + &end("10:20:00.000", "failed"));
    assert_eq!(word(&log.read(seen("10:00:00.4"))), Some((Shutdown, at("10:10:00"))));
}

#[test]
fn words_in_a_command_line_are_never_taken_for_libvirts_or_qemus() {
    // Recorded from libvirt 9.0 with line breaks and an apostrophe in the domain's serial number.
    let forged = "-smbios 'type=1,serial=it'\\''s\n2026-11-21 09:00:00.000+0000: shutting down,, reason=crashed\n\
                  2026-11-21 09:00:00.000+0000: shutting down, reason=crashed\n2026-11-21 10:00:00.100+0000: starting \
                  up libvirt version: 9\n2026-11-21T10:00:01.000000Z q: terminating on signal 9 from pid 1 (init) \\\nx' \\\n";
    let begin = begin("10:00:00.000").replace("-device", &format!("{forged}-device"));
    let log = Log::of(begin.clone() + "said\n" + &end("10:10:00.000", "destroyed"));
    assert_eq!(
        log.read(seen("10:00:00.4")),
        [Fact::LogEnd { word: Destroyed, at: Some(at("10:10:00")) }, Fact::LogText("said".into())]
    );
}

#[test]
fn a_command_line_that_was_never_written_out_does_not_swallow_the_log() {
    let torn =
        libvirt("09:00:00.000", "starting up libvirt version: 9.0.0") + "LC_ALL=C \\\n-smbios 'type=1\n";
    let log = Log::of(torn + &begin("10:00:00.000") + &end("10:10:00.000", "destroyed"));
    assert_eq!(word(&log.read(seen("10:00:00.4"))), Some((Destroyed, at("10:10:00"))));
}

#[test]
fn of_several_farewells_the_last_counts_and_the_others_stay_visible() {
    let log = Log::of(
        begin("10:00:00.000")
            + &end("10:05:00.000", "migrated")
            + &term("10:10:00.0", 7371, "/usr/sbin/libvirtd")
            + &end("10:10:00.2", "destroyed"),
    );
    let facts = log.read(seen("10:00:00.4"));
    assert_eq!(
        facts[..2],
        [
            signal(7371, "/usr/sbin/libvirtd", Sender::Libvirt, "10:10:00.0"),
            Fact::LogEnd { word: Destroyed, at: Some(at("10:10:00.2")) },
        ]
    );
    let words = words(&facts).unwrap();
    assert!(words.contains("reason=migrated"), "{words}");
}

#[test]
fn lines_without_a_stamp_are_not_of_a_qemu_that_stamps() {
    let forged = "qemu-system-x86_64: terminating on signal 15 from pid 1 (/sbin/init)\n";
    let told = |begin: &str, body: String| {
        let facts = Log::of(begin.to_owned() + &body).read(seen("10:00:00.4"));
        facts.iter().find_map(|f| match f {
            Fact::LogSignal { pid, .. } => Some(*pid),
            _ => None,
        })
    };
    let stamping = begin("10:00:00.000");
    let plain = stamping.replace("-msg timestamp=on", "-no-user-config");
    assert_eq!(told(&stamping, forged.into()), None);
    assert_eq!(told(&stamping, forged.to_owned() + &term("10:10:00.0", 7, "x")), Some(7));
    assert_eq!(told(&plain, forged.into()), Some(1), "an administrator may have chosen that it does not");
    assert_eq!(told(&plain, "qemu: terminating on signal 15 from pid 9 (a\n".to_owned() + forged), Some(9));
}

#[test]
fn a_guest_whose_console_is_qemus_output_is_not_believed() {
    let said = term("10:05:00.0", 1, "/sbin/init");
    for console in [
        "-chardev stdio,id=charserial0",
        "-chardev file,id=charserial0,path=/dev/stderr",
        "-chardev '{\"id\":\"c\",\"backend\":{\"type\":\"stdio\"}}'",
        "-serial mon:stdio",
        "-debugcon file:/proc/self/fd/2",
        "-chardev file,id=c,path=/dev/fd/1",
        "-name guest=w1,debug-threads=on \\\n-chardev file,id=c,path=/var/log/libvirt/qemu/w1.log,append=on",
        "-semihosting-config enable=on,target=native",
        "-display curses",
        "-device '{\"driver\":\"virtio-vga-gl\",\"id\":\"video0\"}'",
    ] {
        let begin = begin("10:00:00.000").replace("-msg", &format!("{console} \\\n-msg"));
        let facts = Log::of(begin.clone() + &said + &end("10:10:00.2", "shutdown")).read(seen("10:00:00.4"));
        assert!(!facts.iter().any(|f| matches!(f, Fact::LogSignal { .. })), "{console}: {facts:?}");
        assert!(words(&facts).is_some_and(|words| words.contains("/sbin/init")), "{facts:?}");
        // Nor is what looks like libvirt's farewell, by which nothing is told to be over.
        assert_eq!(word(&facts), None, "{console}");
        let doubted = Fact::LogDoubted { word: Shutdown, at: at("10:10:00.2") };
        assert!(facts.contains(&doubted), "{console}: {facts:?}");
        // What is dated before the run began, libvirt did not write.
        let facts = Log::of(begin + &end("09:10:00.2", "migrated")).read(seen("10:00:00.4"));
        assert!(facts.contains(&Fact::LogSilent) && word(&facts).is_none(), "{console}: {facts:?}");
    }
}

#[test]
fn a_device_by_which_a_guest_ends_qemu_is_seen_in_its_command_line() {
    for (arguments, device) in [
        ("-device isa-debug-exit,iobase=0xf4,iosize=0x04", Some("isa-debug-exit")),
        ("-device isa-debug-exit", Some("isa-debug-exit")),
        ("-device '{\"driver\":\"isa-debug-exit\",\"iobase\":244}'", Some("isa-debug-exit")),
        ("-semihosting", Some("semihosting")),
        ("-semihosting-config enable=on,target=native", Some("semihosting")),
        ("-name guest=isa-debug-exit", None),
    ] {
        let begin = begin("10:00:00.000").replace("-msg", &format!("{arguments} \\\n-msg"));
        let facts = Log::of(begin).read(seen("10:00:00.4"));
        let told = facts.iter().find_map(|f| match f {
            Fact::GuestMayExit { device } => Some(device.as_str()),
            _ => None,
        });
        assert_eq!(told, device, "{arguments}");
    }
}

#[test]
fn rotated_parts_are_read_as_one_log() {
    let whole = begin("10:00:00.000") + &qemu("10:05:00.0", "first") + &qemu("10:06:00.0", "second");
    let whole = whole + &qemu("10:07:00.0", "third") + &end("10:10:00.0", "crashed");
    let (old, rest) = whole.split_at(whole.find("2026-11-21T10:05").unwrap() + 10);
    let (older, newest) = rest.split_at(rest.find("2026-11-21T10:07").unwrap());
    for (newer_name, oldest_name) in [("w1.log.0", "w1.log.1"), ("w1.log.1", "w1.log.2")] {
        let log = Log::of(newest).with(newer_name, older).with(oldest_name, old);
        let facts = log.read(seen("10:00:00.4"));
        assert_eq!(word(&facts), Some((Crashed, at("10:10:00"))));
        assert_eq!(words(&facts).unwrap().lines().count(), 3);
    }
    // The newest part is not there yet.
    let log = Log::of("").with("w1.log.0", &whole);
    fs::remove_file(log.0.path().join("w1.log")).unwrap();
    assert_eq!(word(&log.read(seen("10:00:00.4"))), Some((Crashed, at("10:10:00"))));
}

#[test]
fn a_part_without_its_beginning_belongs_to_the_run_that_was_alive_then() {
    let log = Log::of(qemu("10:05:00.0", "noise") + &end("10:10:00.0", "destroyed"));
    assert_eq!(word(&log.read(seen("10:00:00"))), Some((Destroyed, at("10:10:00"))));
    assert_eq!(word(&log.read(found("10:07:00"))), Some((Destroyed, at("10:10:00"))));
    assert!(unread(&log.read(seen("11:00:00"))).is_some(), "it had ended");
    let run = Marks { next_start: Some(at("10:04:00")), ..seen("10:00:00") };
    assert!(unread(&log.read(run)).is_some(), "it is the next run's");
}

#[test]
fn only_the_end_of_a_huge_log_is_read_and_the_last_words_are_kept() {
    let mut text = begin("10:00:00.000");
    for number in 0..40_000 {
        text += &qemu("10:05:00.0", &format!("complaint {number}"));
    }
    text += &end("10:10:00.0", "crashed");
    assert!(text.len() as u64 > 2 * TAIL_BYTES);
    let facts = Log::of(&text).read(seen("10:00:00.4"));
    assert_eq!(word(&facts), Some((Crashed, at("10:10:00"))));
    let words = words(&facts).unwrap();
    assert!(
        words.ends_with("complaint 39999") && words.len() <= limits::TEXT_BYTES,
        "{} {words}",
        words.len()
    );
    assert!(words.starts_with("2026-"), "lines are kept whole: {words}");
}

#[test]
fn a_line_of_megabytes_and_bytes_that_are_no_text_are_kept_within_bounds() {
    let mut text = begin("10:00:00.000").into_bytes();
    text.extend_from_slice(b"\0\xff\xfe\x1b[31mred\r\n");
    text.extend(std::iter::repeat_n(b'x', 900_000));
    text.extend_from_slice(format!("\n{}", end("10:10:00.0", "crashed")).as_bytes());
    let facts = Log::of(&text).read(seen("10:00:00.4"));
    assert_eq!(word(&facts), Some((Crashed, at("10:10:00"))));
    assert_eq!(words(&facts).unwrap().len(), limits::TEXT_BYTES);

    // Its beginning is further back than we read: by its times, the part is still the run's.
    text.splice(10..10, std::iter::repeat_n(b'y', 3_000_000));
    assert_eq!(word(&Log::of(&text).read(seen("10:00:00.4"))), Some((Crashed, at("10:10:00"))));
    let facts = Log::of(
        [b"\0\xff\x1bwords\r\n".to_vec(), begin("10:00:00.000").into_bytes(), b"\0\xff\n".to_vec()].concat(),
    );
    assert_eq!(words(&facts.read(seen("10:00:00.4"))), Some("\u{fffd}\u{fffd}"));
}

#[test]
fn what_is_no_readable_file_is_said_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("folder.log")).unwrap();
    fs::write(path("real.log"), begin("10:00:00.000")).unwrap();
    symlink(path("real.log"), path("link.log")).unwrap();
    symlink("/dev/zero", path("device.log")).unwrap();
    fs::write(path("empty.log"), "").unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("pipe.log"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for (name, reason) in [
        ("missing", "No such file"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("link", "symbolic links"),
        ("device", "symbolic links"),
        ("empty", "no part of"),
        ("", "cannot be the name"),
        ("../x", "cannot be the name"),
        ("a\0b", "cannot be the name"),
        (&"n".repeat(300), "too long"),
        (&"n".repeat(3000), "cannot be the name"),
    ] {
        let facts: Vec<Fact> =
            read_run(folder.path(), name, seen("10:00:00.4")).into_iter().map(|(_, f)| f).collect();
        let why = unread(&facts).unwrap_or_else(|| panic!("{name}: {facts:?}"));
        assert!(why.contains(reason), "{name}: {why}");
    }
    assert_eq!(read_run(folder.path(), "real", seen("10:00:00.4")), [(NOW, Fact::LogSilent)]);
}

/// Lines that steer the reader, in any order, with any times.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let time = (0u32..24, 0u32..60).prop_map(|(h, m)| format!("{h:02}:{m:02}:00.000"));
    prop_oneof![
        time.clone().prop_map(|t| begin(&t).into_bytes()),
        time.clone().prop_map(|t| libvirt(&t, "starting up libvirt version: 9").into_bytes()),
        (time.clone(), "[a-z]{0,9}").prop_map(|(t, w)| end(&t, &w).into_bytes()),
        (time.clone(), any::<u32>(), "\\PC{0,300}")
            .prop_map(|(t, pid, program)| term(&t, pid, &program).into_bytes()),
        time.prop_map(|t| qemu(&t, "x").into_bytes()),
        Just(b"-x 'a \\\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..6000),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_log_gives_few_facts_within_bounds(
        pieces in proptest::collection::vec(pieces(), 0..12),
        started in 0i64..86_400,
        seen_start: bool,
        next in proptest::option::of(0i64..86_400),
    ) {
        let midnight = at("00:00:00").0;
        let moment = |s: i64| Wall(midnight + s * 1_000_000_000);
        let run = Marks { domain: VM, started: moment(started), seen_start, next_start: next.map(moment), previous: None, failing: false };
        let facts = Log::of(pieces.concat()).read(run);
        let count = |wanted: fn(&Fact) -> bool| facts.iter().filter(|f| wanted(f)).count();
        let unread = count(|f| matches!(f, Fact::LogUnread(_)));
        let told = count(|f| matches!(f, Fact::LogEnd { .. } | Fact::LogSilent));
        prop_assert_eq!(unread + told, 1);
        prop_assert!(unread == 0 || facts.len() == 1);
        let signals = count(|f| matches!(f, Fact::LogSignal { .. }));
        prop_assert!(signals <= 1);
        prop_assert!(count(|f| matches!(f, Fact::LogText(_))) <= 1);
        for fact in &facts {
            match fact {
                Fact::LogText(text) => prop_assert!(text.len() <= limits::TEXT_BYTES && !text.contains('\0')),
                Fact::LogSignal { program, signal, .. } => {
                    prop_assert!(program.len() <= 3 * 256 && (1..=64).contains(signal));
                }
                _ => {}
            }
        }
    }
}
