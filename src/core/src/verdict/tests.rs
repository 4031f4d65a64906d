//! The table is whole: every setting, every combination of clues, exactly one row.

use std::collections::BTreeSet;

use super::*;
use crate::cause::Cause;
use crate::evidence::Deaf;
use crate::hypervisor::{Happening, StopDetail};

fn rows_of(setting: Setting) -> Vec<&'static Row> {
    ROWS.iter().filter(|row| row.setting == setting).collect()
}

#[test]
fn every_setting_ends_in_exactly_one_row_without_a_clue() {
    for setting in Setting::ALL {
        let rows = rows_of(setting);
        let without: Vec<_> = rows.iter().filter(|row| row.clue.is_none()).collect();
        assert_eq!(without.len(), 1, "{setting:?}");
        assert!(rows.last().is_some_and(|row| row.clue.is_none()), "{setting:?}");
    }
}

#[test]
fn the_walk_over_all_combinations_finds_exactly_one_row_and_reaches_every_row() {
    let mut reached = BTreeSet::new();
    for setting in Setting::ALL {
        let rows = rows_of(setting);
        let clues: Vec<Clue> = rows.iter().filter_map(|row| row.clue).collect();
        for combination in 0..1u32 << clues.len() {
            let seen =
                |clue: Clue| clues.iter().position(|c| *c == clue).is_some_and(|i| combination >> i & 1 == 1);
            // A row fits when its own clue is seen and no clue of a row before it.
            let fitting: Vec<_> = rows
                .iter()
                .enumerate()
                .filter(|(i, row)| {
                    row.clue.is_none_or(seen) && rows[..*i].iter().all(|r| !r.clue.is_some_and(seen))
                })
                .collect();
            assert_eq!(fitting.len(), 1, "{setting:?} {combination:b}");
            let chosen = table::choose(setting, seen);
            assert_eq!(chosen.label, fitting[0].1.label);
            reached.insert(chosen.label);
        }
    }
    let all: BTreeSet<_> = ROWS.iter().map(|row| row.label).collect();
    assert_eq!(all.len(), ROWS.len(), "labels are unique");
    assert_eq!(reached, all);
}

#[test]
fn no_clue_stands_twice_in_a_setting() {
    for setting in Setting::ALL {
        let clues: Vec<_> = rows_of(setting).iter().filter_map(|row| row.clue).collect();
        let distinct: BTreeSet<_> = clues.iter().collect();
        assert_eq!(clues.len(), distinct.len(), "{setting:?}");
    }
}

#[test]
fn every_cause_of_the_table_can_be_decided() {
    let decided: BTreeSet<Cause> = ROWS.iter().map(|row| row.cause).collect();
    let all: BTreeSet<Cause> = Cause::ALL.iter().copied().collect();
    assert_eq!(decided, all);
}

#[test]
fn unknown_causes_are_never_more_than_unknown_and_others_never_less_than_probable() {
    for row in ROWS {
        let unknown = matches!(row.cause, Cause::UnknownEnded | Cause::UnknownVanished);
        assert_eq!(row.certainty == Certainty::Unknown, unknown, "{}", row.label);
    }
}

#[test]
fn what_was_not_heard_is_never_certain() {
    let mut dossier = Dossier::default();
    let at = Wall::from_millis(1_000_000);
    dossier.add(at, Fact::Gap { from: at, to: at, why: Deaf::DaemonAway });
    dossier.add(at, Fact::Host(Happening::Stopped(StopDetail::Migrated)));
    assert_eq!(decide(&dossier, at).certainty, Certainty::Probable, "an ending in a gap's shadow");
    let late = at.after(limits::GAP_SHADOW).after(std::time::Duration::from_millis(1));
    assert_eq!(decide(&dossier, late).certainty, Certainty::Certain, "an ending behind the shadow");
}

#[test]
fn an_empty_dossier_is_unknown() {
    let verdict = decide(&Dossier::default(), Wall(0));
    assert_eq!((verdict.cause, verdict.certainty), (Cause::UnknownEnded, Certainty::Unknown));
}
