//! Which VM somebody means by a name or a UUID.
//!
//! Names are given again, may look like a UUID, and may hide characters, which people see and give back as numbers. Of
//! several the one is meant that has this UUID; then one that runs; then one that ran, before one that never came up; then
//! the one that began last.

use std::cmp::Reverse;
use std::sync::Arc;

use whydown_core::cause::Cause;
use whydown_core::id::DomainId;
use whydown_core::snapshot::{DomainPublic, Snapshot, Status};
use whydown_ledger::Query;

use crate::visible::meant;

/// What somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meant {
    /// As a UUID, if it is one.
    pub id: Option<DomainId>,
    /// As a name: as it was said, and with the characters whose numbers were given.
    pub names: Vec<String>,
}

impl Meant {
    /// By these words.
    pub fn by(words: &str) -> Self {
        let mut names = vec![words.to_owned(), meant(words)];
        names.dedup();
        Self { id: words.parse().ok(), names }
    }

    /// Those that are shown, the one that is meant first.
    pub fn shown(&self, snapshot: &Snapshot) -> Vec<Arc<DomainPublic>> {
        let fits =
            |domain: &&Arc<DomainPublic>| Some(domain.domain) == self.id || self.names.contains(&domain.name);
        let mut all: Vec<_> = snapshot.domains.values().filter(fits).cloned().collect();
        all.sort_by_key(|domain| {
            let up = domain.ending.is_none() && domain.status != Status::Launching;
            let ran =
                domain.ending.as_deref().is_some_and(|ending| !NEVER_RAN.contains(&ending.verdict.cause));
            // Numbers are given as runs are found, and one that nobody heard is found late.
            Reverse((Some(domain.domain) == self.id, up, ran, domain.started, domain.run))
        });
        all
    }

    /// Where to look for its endings, in this order, until there are some: under what is a UUID, which may be a name.
    pub fn queries(&self) -> impl Iterator<Item = Query> {
        let by_id = self.id.map(|id| Query { domain: Some(id), ..Query::default() });
        let by_name = |name: &String| Query { name: Some(name.clone()), ..Query::default() };
        by_id.into_iter().chain(self.names.iter().map(by_name))
    }
}

/// Causes of runs that ended before their VM was up.
pub const NEVER_RAN: [Cause; 5] = [
    Cause::StartFailed,
    Cause::StartFailedSilent,
    Cause::RestoreFailed,
    Cause::DestroyedAtStart,
    Cause::IncomingMigrationFailed,
];

#[cfg(test)]
mod tests {
    use super::*;
    use whydown_core::id::RunId;
    use whydown_core::snapshot::Link;
    use whydown_core::time::Wall;

    #[test]
    fn of_two_that_ran_under_one_name_the_one_that_began_last_is_meant_whatever_its_number() {
        let vm = |number: u8, run: u64, started: i64| DomainPublic {
            domain: DomainId::from_bytes([number; 16]),
            name: "twin".into(),
            run: RunId(run),
            status: Status::Up,
            started: Wall::from_millis(started),
            pid: None,
            io_error: None,
            paused_by: None,
            watchdog: None,
            ending: None,
            durable: true,
            status_time: 0,
            made: None,
        };
        let domains = [vm(1, 9, 1_000), vm(2, 5, 2_000)].map(|vm| (vm.domain, Arc::new(vm))).into();
        let snapshot = Snapshot { generation: 1, link: Link::Up, settled: true, domains };
        let shown = Meant::by("twin").shown(&snapshot);
        assert_eq!(shown[0].domain, DomainId::from_bytes([2; 16]));
    }

    #[test]
    fn a_name_may_look_like_a_uuid_and_hidden_characters_are_given_back_as_numbers() {
        let id = "6695eb01-f6a4-8304-79aa-97f2502e193f";
        let meant = Meant::by(id);
        assert!(meant.id.is_some() && meant.names == [id]);
        let asked: Vec<_> = meant.queries().map(|query| (query.domain, query.name)).collect();
        assert_eq!(asked, [(meant.id, None), (None, Some(id.to_owned()))]);
        let hidden = Meant::by("a\\u{202e}b");
        assert_eq!(
            (hidden.id, hidden.names),
            (None, vec!["a\\u{202e}b".to_owned(), "a\u{202e}b".to_owned()])
        );
    }
}
