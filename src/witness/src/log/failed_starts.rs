//! Starts that failed, in a row and alone, and which logs tell of them.

use std::fs;

use whydown_core::evidence::{Fact, StartedFor};
use whydown_core::time::Wall;

use super::tests::{Log, at, begin, end, term};
use super::{Failure, Failures, Grown, LibvirtProcess, failures};

fn of(log: &Log) -> Failures {
    failures(log.0.path(), "w1", &LibvirtProcess::default(), Wall(0)).unwrap()
}

fn words(failure: &Failure) -> Option<&str> {
    failure.facts.iter().find_map(|(_, fact)| match fact {
        Fact::LogText(text) => Some(text.as_str()),
        _ => None,
    })
}

fn in_use(time: &str) -> String {
    format!("2026-11-21T{time}00Z qemu-system-x86_64: -vnc 127.0.0.1:99: Address already in use {time}\n")
}

#[test]
fn each_start_that_failed_is_told_with_its_own_words_and_those_that_libvirt_refused_with_none() {
    // A run, two refusals, two starts that QEMU gave up, one more refusal, and a run that goes on.
    let log = Log::of(
        begin("10:00:00.000")
            + &end("10:10:00.000", "shutdown")
            + &end("10:11:00.000", "failed")
            + &end("10:11:00.100", "failed")
            + &begin("10:12:00.000")
            + &in_use("10:12:00.1000")
            + &end("10:12:00.200", "failed")
            + &begin("10:12:00.300")
            + &in_use("10:12:00.4000")
            + &end("10:12:00.500", "failed")
            + &end("10:12:01.000", "failed")
            + &begin("10:12:02.000"),
    );
    let found = of(&log);
    let told: Vec<_> =
        found.last.iter().map(|one| (one.at, one.began, words(one).map(|w| w.contains("in use")))).collect();
    assert_eq!(
        told,
        [
            (at("10:11:00.000"), None, None),
            (at("10:11:00.100"), None, None),
            (at("10:12:00.200"), Some(at("10:12:00.000")), Some(true)),
            (at("10:12:00.500"), Some(at("10:12:00.300")), Some(true)),
            (at("10:12:01.000"), None, None),
        ]
    );
    assert!(words(&found.last[2]).unwrap().ends_with("10:12:00.1000"), "{found:?}");
    assert!(words(&found.last[3]).unwrap().ends_with("10:12:00.4000"), "{found:?}");
    assert!(failures(log.0.path(), "w2", &LibvirtProcess::default(), Wall(0)).is_err());
}

#[test]
fn of_a_start_that_is_tried_for_ever_the_last_ones_are_told_and_the_others_counted() {
    let many: String =
        (0..500).map(|n| end(&format!("10:{:02}:{:02}.000", n / 60, n % 60), "failed")).collect();
    let found = of(&Log::of(begin("09:00:00.000") + &end("09:01:00.000", "shutdown") + &many));
    assert_eq!((found.last.len(), found.more.len()), (64, 436));
    assert_eq!(found.last.last().map(|last| last.at), Some(at("10:08:19.000")));
}

#[test]
fn what_a_qemu_was_started_for_is_told_as_far_as_the_log_shows_it() {
    let waiting = |time: &str| {
        begin(time).replace("-msg", "-incoming defer \\\n-msg")
            + &end(&time.replace(".000", ".500"), "failed")
    };
    let log = Log::of(
        waiting("10:00:00.000")
            + &begin("10:10:00.000")
            + &end("10:20:00.000", "saved")
            + &waiting("10:30:00.000")
            + &waiting("10:31:00.000")
            + &begin("10:40:00.000")
            + &end("10:41:00.000", "failed"),
    );
    let what = |one: &Failure| {
        one.facts.iter().find_map(|(_, fact)| match fact {
            Fact::StartedFor { what, .. } => Some(*what),
            _ => None,
        })
    };
    let told: Vec<_> = of(&log).last.iter().map(what).collect();
    assert_eq!(told, [Some(StartedFor::Either), Some(StartedFor::Restore), Some(StartedFor::Restore), None]);
}

#[test]
fn neither_a_guest_that_writes_into_the_log_nor_the_name_of_a_sender_makes_starts_that_failed() {
    let lies = end("10:00:01.000", "failed") + &end("09:00:00.000", "failed");
    let spoken = begin("10:00:00.000").replace("-msg", "-chardev stdio,id=c \\\n-msg");
    for log in [
        spoken.clone() + &lies,
        spoken + &lies + &end("10:10:00.000", "destroyed"),
        begin("10:00:00.000")
            + term("10:00:00.500000", 77, &format!("x\n{lies}y")).as_str()
            + &end("10:10:00.000", "shutdown"),
    ] {
        assert_eq!(of(&Log::of(&log)), Failures::default(), "{log}");
    }
}

#[test]
fn a_log_that_has_got_a_farewell_to_a_start_is_looked_at_and_one_that_only_grows_is_not() {
    let log = Log::of(begin("10:00:00.000")).with("w2.log", &end("10:00:00.000", "failed"));
    let folder = log.0.path();
    let mut grown = Grown::default();
    let news = |grown: &mut Grown| {
        let mut names = grown.with_failures(folder, Wall(0));
        names.sort();
        names
    };
    assert_eq!(news(&mut grown), ["w2"]);
    assert!(news(&mut grown).is_empty());
    let write = |name: &str, more: &str| {
        let path = folder.join(name);
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, before + more).unwrap();
    };
    write("w1.log", "a chatty guest\n");
    assert!(news(&mut grown).is_empty());
    // libvirt writes a line at once, and a disk need not.
    let farewell = end("10:01:00.000", "failed");
    let (first, rest) = farewell.split_at(farewell.len() - 5);
    write("w1.log", first);
    assert!(news(&mut grown).is_empty());
    write("w1.log", rest);
    assert_eq!(news(&mut grown), ["w1"]);
    // Moved away and begun anew, and one that is new.
    fs::rename(folder.join("w1.log"), folder.join("w1.log.0")).unwrap();
    write("w1.log", "");
    write("w3.log", &farewell);
    assert_eq!(news(&mut grown), ["w1", "w3"]);
    // Nothing that was written long before.
    grown.forget();
    assert!(grown.with_failures(folder, Wall(i64::MAX)).is_empty());
}
