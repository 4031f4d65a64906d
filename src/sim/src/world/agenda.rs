//! What is to come, by told time, and by the order of writing down where times are equal.

use std::collections::BTreeMap;

use whydown_core::hypervisor::HostEvent;
use whydown_core::id::DomainId;
use whydown_core::lifecycle::{Input, Question};
use whydown_core::time::Mono;

use crate::ways::Act;

/// One thing to come. What belongs to a daemon or a session names it, and is lost with it.
#[derive(Debug, Clone)]
pub(super) enum Due {
    /// The truth changes.
    Happens(DomainId, Act),
    /// libvirt reports to whoever is connected.
    Report(HostEvent),
    /// An event of this session, heard at that moment, reaches the engine.
    Hear(u32, HostEvent, Mono),
    /// This daemon's engine is told.
    Tell(u32, Input),
    /// This daemon's hands do what was asked.
    Carry(u32, Question),
    /// This daemon's ledger tries to write.
    Commit(u32),
}

#[derive(Debug, Default)]
pub(super) struct Agenda {
    entries: BTreeMap<(Mono, u64), Due>,
    written: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: Mono, due: Due) {
        self.written += 1;
        self.entries.insert((at, self.written), due);
    }

    pub(super) fn next_at(&self) -> Option<Mono> {
        self.entries.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn pop(&mut self) -> Option<Due> {
        self.entries.pop_first().map(|(_, due)| due)
    }

    pub(super) fn any(&self, wanted: impl Fn(&Due) -> bool) -> bool {
        self.entries.values().any(wanted)
    }

    /// Takes out what `wanted` accepts, in order.
    pub(super) fn take(&mut self, wanted: impl Fn(&Due) -> bool) -> Vec<Due> {
        let keys: Vec<_> = self.entries.iter().filter(|(_, due)| wanted(due)).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| self.entries.remove(&key)).collect()
    }
}
