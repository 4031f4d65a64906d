//! Which of the starts that failed history has already: each of them once, however its ending became known.

use std::time::Duration;

use whydown_core::cause::Cause;
use whydown_core::evidence::{Fact, LogWord};
use whydown_core::limits;
use whydown_core::record::Ending;
use whydown_core::time::Wall;
use whydown_core::verdict::Setting;

use super::{Attempt, TO_THE_AUDIT};

/// A start that we asked for, or of which an event told, is dated this much before its farewell at most: libvirt clears up in
/// between, which takes seconds on a host that is busy.
pub(super) const SAME: Duration = Duration::from_secs(10);

/// What history has of one domain, as far as it can be about starts that failed.
pub(super) struct Told(Vec<Known>);

struct Known {
    started: Wall,
    ended: Wall,
    came_up: bool,
    /// It was looked for, and dated by what was found.
    looked_for: bool,
    farewell: Option<Wall>,
    audited: Option<Wall>,
    /// Nothing said why it failed.
    silent: bool,
}

/// What history has of a start that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Has {
    /// Nothing.
    Nothing,
    /// That it failed, and not why.
    Silent,
    /// All there is to tell.
    All,
}

impl Told {
    /// By the endings of one domain.
    pub fn of(endings: &[Ending]) -> Self {
        Self(endings.iter().map(Known::of).collect())
    }

    /// What it has of this one. Of those of which no farewell is known it stands for one.
    pub fn has(&mut self, attempt: &Attempt) -> Has {
        match self.0.iter_mut().find(|known| known.is(attempt)) {
            Some(known) => {
                known.farewell = known.farewell.or(attempt.farewell());
                known.audited = known.audited.or(attempt.audited.map(|word| word.at));
                if known.silent { Has::Silent } else { Has::All }
            }
            None => Has::Nothing,
        }
    }
}

impl Known {
    fn of(ending: &Ending) -> Self {
        let find = |wanted: &dyn Fn(&Fact) -> bool| ending.evidence.iter().find(|piece| wanted(&piece.fact));
        let farewell = ending.evidence.iter().rev().find_map(|piece| match piece.fact {
            Fact::LogEnd { word: LogWord::Failed, at } => at,
            _ => None,
        });
        Self {
            started: ending.started,
            ended: ending.ended.latest(),
            came_up: Setting::NotStarted.rows().all(|row| row.label != ending.verdict.row),
            looked_for: find(&|fact| matches!(fact, Fact::StartFailed { .. })).is_some(),
            farewell,
            audited: find(&|f| matches!(f, Fact::StartFailed { told_by } if told_by == TO_THE_AUDIT))
                .map(|e| e.first),
            silent: ending.verdict.cause == Cause::StartFailedSilent,
        }
    }

    fn is(&self, attempt: &Attempt) -> bool {
        match (self.farewell, attempt.farewell()) {
            (Some(its), Some(this)) => return its == this,
            _ if self.audited.is_some() && self.audited == attempt.audited.map(|word| word.at) => {
                return true;
            }
            _ => {}
        }
        if self.came_up {
            // Its own QEMU's farewell: it began while that lived.
            return attempt.began().is_some_and(|began| (began..=attempt.at).contains(&self.started));
        }
        let dated = self.farewell.or(self.audited).is_some();
        let (before, after) = match (self.looked_for, dated) {
            (true, true) => (limits::CLOCK_GRACE, limits::CLOCK_GRACE),
            // By when it was found.
            (true, false) => (SAME, limits::CLOCK_GRACE),
            (false, _) => (limits::CLOCK_GRACE, SAME),
        };
        (self.started.before(before)..=self.ended.after(after)).contains(&attempt.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whydown_witness::log::Failure;

    fn at(millis: i64) -> Wall {
        Wall::from_millis(1_763_690_000_000 + millis)
    }

    fn known(started: i64, ended: i64) -> Known {
        let (started, ended) = (at(started), at(ended));
        Known {
            started,
            ended,
            came_up: false,
            looked_for: false,
            farewell: None,
            audited: None,
            silent: false,
        }
    }

    fn logged(began: Option<i64>, ended: i64) -> Attempt {
        let failure = Failure { at: at(ended), began: began.map(at), domain: None, facts: Vec::new() };
        Attempt { at: at(ended), logged: Some(failure), audited: None }
    }

    #[test]
    fn a_start_of_which_an_event_told_without_its_farewell_stands_for_one_and_no_more() {
        let mut told = Told(vec![known(0, 10)]);
        assert_eq!(told.has(&logged(Some(-50), 400)), Has::All);
        assert_eq!(told.has(&logged(Some(-50), 400)), Has::All, "it is known by its farewell now");
        assert_eq!(told.has(&logged(Some(500), 900)), Has::Nothing, "that is another");
        assert_eq!(Told(vec![known(0, 10)]).has(&logged(None, 20_000)), Has::Nothing);
        let mut silent = Told(vec![Known { silent: true, ..known(0, 10) }]);
        assert_eq!(silent.has(&logged(Some(-50), 400)), Has::Silent, "why it failed may still be found");
    }

    #[test]
    fn one_that_was_found_by_its_farewell_is_that_one_alone() {
        let mut told = Told(vec![Known { farewell: Some(at(10)), looked_for: true, ..known(0, 10) }]);
        assert_eq!((told.has(&logged(None, 11)), told.has(&logged(None, 10))), (Has::Nothing, Has::All));
    }

    #[test]
    fn a_run_that_came_up_has_the_farewell_to_its_own_qemu_and_to_no_start_before_or_after_it() {
        let run = || Told(vec![Known { came_up: true, ..known(1_000, 5_000) }]);
        assert_eq!(run().has(&logged(Some(900), 5_010)), Has::All);
        for other in [logged(Some(100), 800), logged(Some(5_100), 5_300)] {
            assert_eq!(run().has(&other), Has::Nothing);
        }
        assert_eq!(run().has(&logged(None, 5_010)), Has::Nothing, "libvirt refused that one before QEMU ran");
    }
}
