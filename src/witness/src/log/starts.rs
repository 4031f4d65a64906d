//! Starts of several domains in one log, and many logs.

use std::fs;
use std::os::unix::fs::symlink;

use whydown_core::evidence::Fact;
use whydown_core::evidence::LogWord::{Destroyed, Failed, Shutdown};
use whydown_core::id::DomainId;
use whydown_core::lifecycle::attribution::Marks;
use whydown_core::time::Wall;

use super::tests::{Log, NOW, at, begin, end, found, libvirt, qemu, seen, unread, word};
use super::{LibvirtProcess, Scan, read, written_since};

/// A start with its domain in its command line.
fn begin_of(time: &str, uuid: &str) -> String {
    begin(&format!("{time}00")).replace("-msg", &format!("-uuid {uuid} \\\n-msg"))
}

const A: &str = "0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a";
const B: &str = "0b0b0b0b-0b0b-0b0b-0b0b-0b0b0b0b0b0b";

#[test]
fn every_start_is_told_with_the_domain_that_its_command_line_names() {
    let quoted = "-name 'guest=x\n-uuid 00000000-0000-0000-0000-000000000000 \\\ny' \\\n";
    let second =
        begin_of("10:20:00.0", B).replace("-msg", &format!("{quoted}-uuid {A} \\\n-incoming defer \\\n-msg"));
    let log = Log::of(
        begin_of("10:00:00.0", A) + &end("10:10:00.0", "shutdown") + &second + &end("10:30:00.0", "failed"),
    );
    let told = read(log.0.path(), "w1", &LibvirtProcess::default(), NOW);
    let of = |text: &str| Some(text.parse::<DomainId>().unwrap());
    let [first, second] = &told.blocks[..] else { panic!("{told:?}") };
    assert_eq!((first.domain, first.began, first.incoming), (of(A), Some(at("10:00:00.0")), false));
    assert_eq!((first.ended, first.farewell()), (Some(at("10:10:00.0")), Some((Shutdown, at("10:10:00.0")))));
    assert_eq!((second.domain, second.incoming), (of(B), true), "its first -uuid is libvirt's");
    assert_eq!((second.ended, second.farewell()), (None, Some((Failed, at("10:30:00.0")))));
}

#[test]
fn a_block_of_another_domain_with_the_same_name_is_nobody_elses() {
    let log = Log::of(
        begin_of("10:00:00.0", A)
            + &end("10:10:00.0", "shutdown")
            + &begin_of("10:20:00.0", B)
            + &end("10:30:00.0", "destroyed"),
    );
    let [a, b] = [A, B].map(|uuid| uuid.parse::<DomainId>().unwrap());
    let of = |domain, time| log.read(Marks { domain, ..found(time) });
    assert_eq!(word(&of(a, "10:05:00")), Some((Shutdown, at("10:10:00.0"))));
    assert_eq!(word(&of(b, "10:25:00")), Some((Destroyed, at("10:30:00.0"))));
    assert!(unread(&of(a, "10:25:00")).is_some() && unread(&of(b, "10:05:00")).is_some());
}

#[test]
fn logs_that_were_written_since_are_found_whatever_lies_beside_them() {
    let log = Log::of(begin_of("10:00:00.0", A)).with("w2.log.1", &begin_of("10:00:00.0", B));
    let folder = log.0.path();
    for beside in ["w3.log.gz", "w3.txt", "log", ".log.x", "w3.log.", "w4"] {
        fs::write(folder.join(beside), begin_of("10:00:00.0", B)).unwrap();
    }
    symlink(folder.join("w4"), folder.join("link.log")).unwrap();
    fs::create_dir(folder.join("folder.log")).unwrap();
    let now = Wall(jiff::Timestamp::now().as_nanosecond().try_into().unwrap());
    let names = |scan: Scan| {
        assert_eq!(scan.left_out, None);
        let mut names: Vec<_> = scan.logs.into_iter().map(|log| (log.name, log.blocks.len())).collect();
        names.sort();
        names
    };
    let both = vec![("w1".to_owned(), 1), ("w2".to_owned(), 1)];
    assert_eq!(names(written_since(folder, now, &LibvirtProcess::default(), now)), both);
    let long_ago = fs::File::options().append(true).open(folder.join("w1.log")).unwrap();
    long_ago.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(names(written_since(folder, now, &LibvirtProcess::default(), now)), both[1..]);
    assert_eq!(names(written_since(&folder.join("missing"), now, &LibvirtProcess::default(), now)), []);
}

#[test]
fn what_lies_beyond_the_bound_is_said_and_what_was_written_last_is_read_first() {
    let log = Log::of("");
    let many = "x\n".repeat(200 << 10);
    for number in 0..200 {
        fs::write(log.0.path().join(format!("n{number:03}.log")), begin_of("10:00:00.0", A) + &many).unwrap();
    }
    let scan = written_since(log.0.path(), Wall(0), &LibvirtProcess::default(), NOW);
    assert!(scan.left_out.is_some_and(|said| said.contains("more logs")), "{}", scan.logs.len());
    assert!((100..200).contains(&scan.logs.len()), "{}", scan.logs.len());
    assert!(scan.logs.iter().any(|log| log.name == "n199") && scan.logs.iter().all(|log| log.name != "n000"));
}

#[test]
fn a_command_line_tells_of_a_watchdog_that_powers_off_and_of_a_guest_that_cannot_panic() {
    let of = |arguments: &str, word: &str| {
        let begin = begin("10:00:00.000").replace("-device '{\"driver\":\"pvpanic\"}'", arguments);
        let facts = Log::of(begin + &end("10:10:00.2", word)).read(seen("10:00:00.4"));
        (facts.contains(&Fact::WatchdogPowersOff), facts.contains(&Fact::CannotPanic))
    };
    let watchdog = "-device '{\"driver\":\"ib700\",\"id\":\"watchdog0\"}' \\\n-watchdog-action";
    for (arguments, word, told) in [
        ("-m 2", "crashed", (false, true)),
        ("-m 2", "shutdown", (false, false)),
        ("-device '{\"driver\":\"pvpanic\"}'", "crashed", (false, false)),
        ("-device pvpanic-pci", "crashed", (false, false)),
        ("-cpu host,hv-crash", "crashed", (false, false)),
        ("-name guest=pvpanic", "crashed", (false, true)),
        (&format!("{watchdog} poweroff"), "crashed", (true, true)),
        (&format!("{watchdog} reset"), "shutdown", (false, false)),
        (&format!("{watchdog} poweroff \\\n-watchdog-action none"), "shutdown", (false, false)),
    ] {
        assert_eq!(of(arguments, word), told, "{arguments}");
    }
    // Of a command line that was not read whole nothing is known to be missing.
    let cut = Log::of(qemu("10:05:00.0", "x") + &end("10:10:00.2", "crashed")).read(seen("10:00:00.4"));
    assert!(!cut.contains(&Fact::CannotPanic), "{cut:?}");
}

#[test]
fn what_libvirt_writes_of_a_panic_is_a_panic_unless_its_guest_may_have_written_it() {
    let said = "panic hyper-v: arg1='0x1', arg2='0x2', arg3='0x3', arg4='0x4', arg5='0x5'";
    let of = |arguments: &str| {
        let begin = begin("10:00:00.000").replace("-device '{\"driver\":\"pvpanic\"}'", arguments);
        let text = begin + &libvirt("10:09:59.000", said) + &end("10:10:00.2", "crashed");
        Log::of(text).read(seen("10:00:00.4")).contains(&Fact::LogPanic(said.into()))
    };
    assert!(of("-m 2"));
    assert!(!of("-serial stdio"));
}
