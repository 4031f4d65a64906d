//! One host between two polls: what a reply changes, and what it must not.

use std::collections::{BTreeMap, BTreeSet};

use crate::fleet::News;
use crate::memory::Told;
use crate::read::{Exit, Reading, Vm};

/// A time that goes back by more than an hour, in milliseconds: no picture is that old. The host's clock was ahead and has
/// been corrected.
const CORRECTED_MS: i64 = 3_600_000;

/// What is known of one host.
#[derive(Debug, Default)]
pub(crate) struct Known {
    answers: Option<bool>,
    vms: BTreeMap<String, Told>,
    /// The last `statusTime` of each VM since the host answers without a break. After a break it may have been booted
    /// anew, and with it the zero of its times.
    times: BTreeMap<String, i64>,
    stale: BTreeSet<String>,
    broken: Vec<String>,
}

impl Known {
    /// A host of which this was told before.
    pub(crate) fn of(vms: BTreeMap<String, Told>) -> Self {
        Self { vms, ..Self::default() }
    }

    /// What a good reply changes.
    pub(crate) fn take(&mut self, reading: Reading) -> Vec<News> {
        let mut news = Vec::new();
        if self.answers != Some(true) {
            news.push(News::Answers { vms: reading.vms.len(), broken: reading.broken.len() });
            self.answers = Some(true);
        }
        let mut before = std::mem::take(&mut self.vms);
        let mut times = std::mem::take(&mut self.times);
        let mut stale = BTreeSet::new();
        for Vm { id, status, status_time, exit } in reading.vms {
            let (was, last) = (before.remove(&id), times.remove(&id));
            if status_time
                .zip(last)
                .is_some_and(|(time, last)| (last.saturating_sub(CORRECTED_MS)..last).contains(&time))
            {
                // An older picture than one seen before: it says nothing.
                if !self.stale.contains(&id) {
                    news.push(News::Stale { vm: id.clone() });
                }
                self.times.extend(last.map(|last| (id.clone(), last)));
                self.vms.extend(was.map(|was| (id.clone(), was)));
                stale.insert(id);
                continue;
            }
            self.times.extend(status_time.or(last).map(|time| (id.clone(), time)));
            match (&was, &exit) {
                (Some(Told { exit: Some(old), .. }), Some(new)) if old.is_the_ending(new) => {}
                (_, Some(exit)) => news.push(News::Ended { vm: id.clone(), exit: exit.clone() }),
                (Some(Told { status: old, .. }), None) if *old == status => {}
                (_, None) => news.push(News::Status { vm: id.clone(), status: status.clone() }),
            }
            self.vms.insert(id, Told { status, exit });
        }
        self.stale = stale;
        let broken: Vec<String> = reading.broken.iter().map(ToString::to_string).collect();
        let fresh = broken.iter().filter(|what| !self.broken.contains(what));
        news.extend(fresh.map(|what| News::Broken { what: what.clone(), count: broken.len() }));
        self.broken = broken;
        for (id, kept) in before {
            // It is there, but cannot be read: neither gone nor changed.
            if reading.broken.iter().any(|bad| bad.id.as_ref() == Some(&id)) {
                self.times.extend(times.remove(&id).map(|time| (id.clone(), time)));
                self.vms.insert(id, kept);
            } else {
                news.push(News::Gone { vm: id });
            }
        }
        news
    }

    /// What a failed poll changes: nothing about VMs.
    pub(crate) fn fail(&mut self, why: String) -> Vec<News> {
        let told = self.answers == Some(false);
        self.answers = Some(false);
        self.times.clear();
        if told { Vec::new() } else { vec![News::Silent { why }] }
    }

    /// The VMs that are Down, with their endings.
    pub(crate) fn down(&self) -> impl Iterator<Item = (&String, &Exit)> {
        self.vms.iter().filter_map(|(id, vm)| Some((id, vm.exit.as_ref()?)))
    }
}
