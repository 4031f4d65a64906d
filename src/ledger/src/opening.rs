//! Opening the file: as it is, in place of a damaged one, or not now.

use std::path::PathBuf;

use whydown_core::record::{Ending, Recovered, RunStart};
use whydown_core::time::Wall;

use crate::damage;
use crate::error::{Salvaged, Trouble};
use crate::known::SETTLED;
use crate::recovery;
use crate::schema;
use crate::settings::Settings;
use crate::shared::{Counters, Shared};
use crate::store::{Failure, Store};

/// What was found when the ledger was opened.
pub(crate) struct Start {
    pub shared: Shared,
    pub store: Option<Store>,
    pub recovered: Recovered,
    /// The newest endings, for [`Known`](crate::known::Known).
    pub newest: Vec<Ending>,
    /// How ended runs began, for the same.
    pub starts: Vec<RunStart>,
    pub trouble: Option<Trouble>,
}

/// Opens the file for the first time.
pub(crate) fn start(settings: Settings) -> Start {
    let path = settings.path.clone();
    let (mut newest, mut starts) = (Vec::new(), Vec::new());
    let opened = open_or_replace(&settings, true).and_then(|(mut store, replaced)| {
        recovery::sweep_fragments(store.db())?;
        let recovered = recovery::recover(store.db())?;
        store.reserve_runs(recovered.last_run)?;
        newest = recovery::newest(store.db(), SETTLED)?;
        let ended = newest.iter().chain(&recovered.unacknowledged).map(|ending| ending.run);
        starts = recovery::starts(store.db(), ended.collect())?;
        Ok((store, replaced, recovered))
    });
    let (store, recovered, trouble, failing) = match opened {
        Ok((store, None, recovered)) => (Some(store), recovered, None, None),
        Ok((store, Some(replaced), recovered)) => {
            let Replaced { moved_to, reason, salvaged } = replaced;
            (Some(store), recovered, Some(Trouble::Damaged { path, moved_to, reason, salvaged }), None)
        }
        Err(failure) => {
            let now = (settings.clock)();
            let mut recovered = recovery::read_unwritable(&path, recovery::recover).unwrap_or_default();
            // No number could be reserved: those of an earlier daemon that could not write either are passed over.
            recovered.last_run = recovered.last_run.max(run_floor(now));
            let reason = failure.to_string();
            let trouble = match failure {
                Failure::Newer { found } => Trouble::Newer { path, found, known: schema::CURRENT },
                Failure::Foreign => Trouble::Foreign { path },
                _ => Trouble::Unavailable { path, reason: reason.clone() },
            };
            (None, recovered, Some(trouble), Some((reason, now)))
        }
    };
    let damaged = match &trouble {
        Some(Trouble::Damaged { moved_to, .. }) => Some(moved_to.clone()),
        _ => None,
    };
    let mut health = Counters { damaged, ..Counters::default() };
    if let Some(Trouble::Damaged { salvaged, .. }) = &trouble {
        health.unreadable = salvaged.lost as u64;
    }
    if let Some(store) = &store {
        health.lost_until = store.lost_until().unwrap_or_default();
        (health.endings, health.evidence) = (store.endings, store.facts);
    }
    let shared = Shared::new(settings, failing, health);
    Start { shared, store, recovered, newest, starts, trouble }
}

/// Higher than any run number ever given, if numbers were counted from one or from an earlier such floor.
fn run_floor(now: Wall) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(0)
}

/// A damaged file was replaced.
pub(crate) struct Replaced {
    /// Where it lies now.
    pub moved_to: PathBuf,
    reason: String,
    pub salvaged: Salvaged,
}

/// Opens the file; a damaged one is replaced first, once.
pub(crate) fn open_or_replace(
    settings: &Settings,
    thorough: bool,
) -> Result<(Store, Option<Replaced>), Failure> {
    let path = &settings.path;
    let reason = match Store::open(path, thorough, &settings.uptime) {
        Ok(store) => return Ok((store, None)),
        Err(Failure::Damaged(reason)) => reason,
        Err(other) => return Err(other),
    };
    let now = (settings.clock)();
    tracing::error!(path = %path.display(), reason, "the ledger is damaged: saving what can be read");
    let (moved_to, salvaged) = damage::replace(path, now, run_floor(now), &settings.uptime)?;
    tracing::error!(
        path = %path.display(), moved_to = %moved_to.display(), %salvaged, "began a fresh ledger in place of a damaged one"
    );
    match Store::open(path, false, &settings.uptime) {
        Ok(store) => Ok((store, Some(Replaced { moved_to, reason, salvaged }))),
        Err(Failure::Damaged(again)) => {
            Err(Failure::Unavailable(format!("its fresh file is damaged too: {again}")))
        }
        Err(other) => Err(other),
    }
}
