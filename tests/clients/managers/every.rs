//! Every status and every cause, with much, little and nothing known of the VM, read by every engine that it is meant
//! for.

use whydown_core::cause::Cause;
use whydown_core::snapshot::{Snapshot, Status};
use whydown_wire::{Bodies, Generation, Range};

use crate::managers::reader::{Exit, Reader};
use crate::managers::samples::{NOW, bodies_for, down, host, id, snapshot, stats, vm};
use crate::managers::table::{Engine, TABLE};

const STATUSES: [(Status, &str); 10] = [
    (Status::Launching, "WaitForLaunch"),
    (Status::Up, "Up"),
    (Status::Paused, "Paused"),
    (Status::PausedIoError, "Paused"),
    (Status::Saving, "Saving State"),
    (Status::Restoring, "Restoring state"),
    (Status::MigrationSource, "Migration Source"),
    (Status::MigrationDestination, "Migration Destination"),
    (Status::PoweringDown, "Powering down"),
    (Status::Ending, "Powering down"),
];

/// All statuses, then all causes. What is known of a VM goes by its place, so `first` moves that on.
pub fn all(first: u32) -> Snapshot {
    let before = (0..first).map(|number| vm(number, Status::Up));
    let running = STATUSES.into_iter().zip(10..).map(|((status, _), number)| vm(number, status));
    let ended = Cause::ALL.into_iter().zip(100..).map(|(cause, number)| down(number, cause));
    snapshot(before.chain(running).chain(ended))
}

pub fn plain(bodies: &Bodies, range: Range) -> String {
    String::from_utf8(bodies.all_vm_stats(range, NOW).plain.to_vec()).expect("replies are UTF-8")
}

/// What the engine should have of an ending, if the host may tell it numbers in this range.
fn wanted(engine: &Engine, range: Range, cause: Cause) -> Exit {
    let row = cause.row();
    let told = if row.exit_reason <= range.highest() { row.exit_reason } else { row.classic_reason };
    Exit {
        code: row.exit_code.into(),
        reason: engine.highest.map_or(-1, |_| told.into()),
        message: cause.message(Some("internal error: x")),
    }
}

fn generation(word: &str) -> Generation {
    Generation::ALL.into_iter().find(|generation| generation.word() == word).expect("a profile of this name")
}

/// Each engine with each profile and each range that are meant for it.
pub fn meant() -> Vec<(&'static str, Generation, Range)> {
    let mut all = Vec::new();
    for (version, engine) in &TABLE.engine {
        for profile in &engine.profiles {
            for range in &engine.ranges {
                let range = Range::from_word(range).expect("a range of this name");
                all.push((version.as_str(), generation(profile), range));
            }
        }
    }
    all
}

#[test]
fn every_engine_reads_every_status_and_every_cause_without_loss() {
    let combinations = meant();
    assert!(combinations.len() >= 18, "{combinations:?}");
    for (version, generation, range) in combinations {
        for first in 0..3 {
            let at = format!("{version}, {generation:?}, {range:?}, {first}");
            let bodies = bodies_for(generation, all(first));
            let mut reader = Reader::new(version);
            let taken = reader.stats(&plain(&bodies, range)).unwrap_or_else(|why| panic!("{at}: {why}"));
            assert_eq!(taken.lost, Vec::<String>::new(), "{at}");
            assert_eq!(taken.vms.len(), bodies.snapshot().domains.len(), "{at}");
            for ((_, word), number) in STATUSES.into_iter().zip(10..) {
                let seen = &taken.vms[&id(number).to_string()];
                assert_eq!((seen.status.as_str(), &seen.exit), (word, &None), "{at}");
            }
            for (cause, number) in Cause::ALL.into_iter().zip(100..) {
                let seen = &taken.vms[&id(number).to_string()];
                let exit = wanted(&TABLE.engine[version], range, cause);
                assert_eq!((seen.status.as_str(), &seen.exit), ("Down", &Some(exit)), "{at}, {cause:?}");
            }
            // One at a time it is the same, and the time of a VM is not lower than the last one.
            for id in bodies.snapshot().domains.keys() {
                let one = bodies.vm_stats(*id, range, NOW);
                let one = reader.stats(std::str::from_utf8(&one).unwrap()).expect("it is read");
                assert_eq!((one.lost, one.vms.len()), (Vec::new(), 1), "{at}");
                assert_eq!(one.vms[&id.to_string()], taken.vms[&id.to_string()], "{at}");
            }
        }
    }
}

#[test]
fn every_engine_reads_both_forms_of_the_list() {
    for (version, generation, range) in meant() {
        for first in 0..3 {
            let at = format!("{version}, {generation:?}, {range:?}, {first}");
            let bodies = bodies_for(generation, all(first));
            let body = |full| String::from_utf8(bodies.list(full, None, range).plain.to_vec()).unwrap();
            let mut reader = Reader::new(version);
            let stats = reader.stats(&plain(&bodies, range)).expect("it is read");
            let (listed, lost) = reader.list(&body(false)).unwrap_or_else(|why| panic!("{at}: {why}"));
            assert_eq!(lost, Vec::<String>::new(), "{at}");
            let statuses = stats.vms.iter().map(|(id, seen)| (id.clone(), seen.status.clone()));
            assert_eq!(listed, statuses.collect(), "{at}: a status that differs costs a call for each VM");
            let (described, lost) = reader.described(&body(true)).unwrap_or_else(|why| panic!("{at}: {why}"));
            assert_eq!(lost, Vec::<String>::new(), "{at}");
            assert_eq!(described.len(), stats.vms.len(), "{at}");
            assert!(described.values().any(|(_, devices)| *devices > 0), "{at}");
        }
    }
}

#[test]
fn every_engine_reads_what_the_host_tells_of_itself() {
    let counts = bodies_for(Generation::Common, all(0)).counts();
    let stats = whydown_wire::host_stats(&host(), &stats(), counts);
    let bare = whydown_wire::host_stats(&Default::default(), &Default::default(), counts);
    let client = Some([192, 0, 2, 9].into());
    let capabilities: Vec<_> = Generation::ALL
        .into_iter()
        .flat_map(|generation| {
            [host(), whydown_wire::HostFacts::default()]
                .map(|facts| whydown_wire::capabilities(&facts, generation, client))
        })
        .collect();
    for reader in Reader::all() {
        for body in [&stats, &bare] {
            let lost = reader.host("host", std::str::from_utf8(body).unwrap());
            assert_eq!(lost, Ok(Vec::new()), "{}", reader.version);
        }
        for body in &capabilities {
            let lost = reader.host("capabilities", std::str::from_utf8(body).unwrap());
            assert_eq!(lost, Ok(Vec::new()), "{}", reader.version);
        }
    }
}
