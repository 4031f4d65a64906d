//! The endings lab: real VMs ended in every known way, and what whydown, and others, tell of it.
//!
//! ```text
//! Case (data + action) ─▶ Trial (× kind) ─▶ prepare ─▶ act ─▶ check ─▶ Row ─▶ Report
//!                                             │                │
//!                        Host: libvirtd + whydownd + recorder  └─ whydown why, history, XML-RPC, THE TABLE,
//!                                                                 VDSM's, Nova's and Masakari's rules
//! ```
//!
//! A wrong answer that is told as certain is a failure of the product; an honest *unknown* or *probable* is judged apart,
//! where the case says that no evidence can exist. It never imitates a part that can run.

pub mod case;
pub mod cases;
pub mod elsewhere;
pub mod host;
pub mod judge;
pub mod recorder;
pub mod report;
pub mod runner;
pub mod scene;
pub mod table;
pub mod trial;

use case::Case;
use trial::Trial;

/// The trials of the cases that `wanted` accepts.
pub fn trials(wanted: impl Fn(&Case) -> bool) -> Vec<Trial> {
    let mut all = Vec::new();
    for case in cases::all().into_iter().filter(|case| wanted(case)) {
        for kind in case.kinds {
            all.push(Trial { case: case.clone(), kind: *kind });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::case::Expect;

    #[test]
    fn names_are_unique_and_fit_into_a_socket_path() {
        let mut seen = BTreeSet::new();
        for trial in trials(|_| true) {
            assert!(trial.name().len() <= 60, "{}", trial.name());
            assert!(seen.insert(trial.name()), "{}: twice", trial.name());
        }
    }

    #[test]
    fn every_cause_that_a_case_expects_is_in_the_table() {
        let table = table::Table::read().unwrap();
        for case in cases::all() {
            for kind in case.kinds {
                let ends = [Some(case.expect), case.there].into_iter().flatten().map(|expect| expect(*kind));
                for end in ends {
                    if let Expect::Ending(cause, _) = end {
                        assert!(table.row(cause).is_some(), "{}: {cause}", case.name);
                    }
                }
            }
            for cause in case.also.iter().chain(case.honest.iter().map(|honest| &honest.cause)) {
                assert!(table.row(cause).is_some(), "{}: {cause}", case.name);
            }
        }
    }
}
