//! The readers can fail: what is not meant for an engine, it loses, as it did.

use whydown_core::cause::Cause;
use whydown_core::snapshot::Status;
use whydown_wire::{Generation, Range};

use crate::managers::every::{all, plain};
use crate::managers::reader::Reader;
use crate::managers::samples::{bodies_for, down, id, snapshot, vm};

/// A host whose VMs ended by each number above 8, and one VM that runs.
fn above_eight() -> String {
    let causes = [
        Cause::UnknownVanished,
        Cause::DestroyedAtStart,
        Cause::HostShutdown,
        Cause::PostcopyFailed,
        Cause::DestroyedOnReboot,
        Cause::PausedTooLong,
    ];
    let ended = causes.into_iter().zip(1..).map(|(cause, number)| down(number, cause));
    let bodies = bodies_for(Generation::Common, snapshot([vm(0, Status::Up)].into_iter().chain(ended)));
    plain(&bodies, Range::Full)
}

#[test]
fn reasons_above_what_an_engine_knows_harm_it_as_they_did() {
    let body = above_eight();
    let read = |version| Reader::new(version).stats(&body);

    let oldest = read("3.4").expect("it discards what it does not know");
    assert_eq!((oldest.vms.len(), oldest.lost.len()), (7, 0));

    let nulls = read("3.5").expect("it goes on");
    assert_eq!((nulls.vms.len(), nulls.lost.len()), (7, 6), "{:?}", nulls.lost);
    assert!(nulls.vms.values().filter_map(|vm| vm.exit.as_ref()).all(|exit| exit.reason == 0));

    for version in ["3.6", "4.0"] {
        let why = read(version).expect_err("the whole host is lost to it");
        assert!(why.contains("ends the batch"), "{version}: {why}");
    }

    let without = read("4.1").expect("it goes on");
    assert_eq!(without.lost.len(), 2, "13 and 14: {:?}", without.lost);
    assert!(!without.vms.contains_key(&id(5).to_string()) && without.vms.contains_key(&id(4).to_string()));

    let today = read("4.2").expect("it knows all");
    let reasons: Vec<_> = today.vms.values().filter_map(|vm| Some(vm.exit.as_ref()?.reason)).collect();
    assert_eq!((reasons, today.lost.len()), (vec![9, 10, 11, 12, 13, 14], 0));
}

#[test]
fn the_range_for_four_one_is_too_wide_for_those_before() {
    let body = plain(&bodies_for(Generation::Common, all(0)), Range::V4_1);
    for version in ["3.6", "4.0"] {
        assert!(Reader::new(version).stats(&body).is_err(), "{version}");
    }
    assert!(!Reader::new("3.5").stats(&body).unwrap().lost.is_empty());
}

#[test]
fn a_profile_for_later_engines_breaks_off_the_oldest() {
    let body = plain(&bodies_for(Generation::V4_0, all(0)), Range::Classic);
    for version in ["3.4", "3.5"] {
        let why = Reader::new(version).stats(&body).expect_err("disks are missing where none were sampled");
        assert!(why.contains("disks is missing"), "{version}: {why}");
    }
}

/// What is put in the place of what, and which engines then lose the reply (all others at least name it, or do not
/// read it).
type Spoiled = (&'static str, &'static str, &'static [&'static str]);

const ALL: &[&str] = &["3.4", "3.5", "3.6", "4.0", "4.1", "4.2"];

const FROM_3_5: &[&str] = &["3.5", "3.6", "4.0", "4.1", "4.2"];

const SPOILED: &[Spoiled] = &[
    ("<value><int>0</int></value>", "<value><i8>0</i8></value>", ALL),
    ("<value><int>0</int></value>", "<value><boolean>0</boolean></value>", ALL),
    ("<value><int>0</int></value>", "<value><int>4294967296</int></value>", ALL),
    ("<name>exitCode</name><value><int>1</int>", "<name>exitCode</name><value><int>2</int>", ALL),
    (
        "<name>exitReason</name><value><int>2</int>",
        "<name>exitReason</name><value><string></string>",
        FROM_3_5,
    ),
    (
        "<name>exitReason</name><value><int>2</int>",
        "<name>exitReason</name><value><double>2.0</double>",
        FROM_3_5,
    ),
    ("<name>exitMessage</name><value><string>", "<name>exitMessage</name><value><string>\u{1}", ALL),
    ("<name>exitMessage</name><value><string>", "<name>exitMessage</name><value><string>&#1;", ALL),
    ("<name>pauseCode</name><value><string>NOERR</string>", "<name>pauseCode</name><value><int>0</int>", ALL),
    (
        "<name>kvmEnable</name><value><string>true</string>",
        "<name>kvmEnable</name><value><boolean>1</boolean>",
        ALL,
    ),
    (
        "<name>guestCPUCount</name><value><int>-1</int>",
        "<name>guestCPUCount</name><value><double>1.0</double>",
        ALL,
    ),
    ("<name>appsList</name>", "<name>vmId</name>", ALL),
];

#[test]
fn one_wrong_value_of_one_vm_loses_all_vms_of_the_host() {
    let good = plain(&bodies_for(Generation::Common, all(0)), Range::Classic);
    for (number, (from, to, losers)) in SPOILED.iter().enumerate() {
        // The writer's own spaces are no part of what is replaced.
        assert!(good.contains(from), "{number}: nothing in the reply is {from}");
        let bad = good.replacen(from, to, 1);
        for mut reader in Reader::all() {
            let lost = reader.stats(&bad).is_err();
            assert_eq!(lost, losers.contains(&reader.version), "{number}: {to}, {}", reader.version);
        }
    }
}

#[test]
fn a_status_time_must_be_no_int_and_never_go_back() {
    let body = |status_time| {
        let vm = whydown_core::snapshot::DomainPublic { status_time, ..vm(1, Status::Up) };
        plain(&bodies_for(Generation::Common, snapshot([vm])), Range::Classic)
    };
    let (first, second) = (body(1000), body(2000));
    for mut reader in Reader::all() {
        let late = reader.version >= "3.6";
        assert_eq!(reader.stats(&second).expect("it is read").vms.len(), 1);
        let back = reader.stats(&first).expect("it is read");
        assert_eq!((back.vms.is_empty(), back.lost.len()), (late, usize::from(late)), "{}", reader.version);
        let text = "<name>statusTime</name><value><string>2000</string>";
        assert!(second.contains(text));
        let int = second.replace(text, "<name>statusTime</name><value><int>2000</int>");
        assert_eq!(reader.stats(&int).is_err(), late, "{}", reader.version);
    }
}

#[test]
fn an_entry_without_a_status_or_an_exit_code_is_taken_for_a_clean_shutdown_and_named() {
    let good = plain(&bodies_for(Generation::Common, snapshot([down(1, Cause::GuestPanic)])), Range::Classic);
    let bad = good.replace("<name>exitCode</name>", "<name>was</name>");
    for mut reader in Reader::all() {
        let taken = reader.stats(&bad).expect("it is read");
        assert_eq!(taken.vms[&id(1).to_string()].exit.as_ref().map(|exit| exit.code), Some(0));
        assert_eq!(taken.lost, ["down.exitCode is missing"]);
    }
}
