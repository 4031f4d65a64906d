//! What libvirt told the kernel's audit of starts that failed, until it is looked at.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tracing::debug;
use whydown_core::evidence::StartedFor;
use whydown_core::id::DomainId;
use whydown_core::time::Wall;
use whydown_witness::audit::NotStarted;
use whydown_witness::libvirt::LibvirtProcess;

/// Domains of which the audit may tell between two looks; the others are found by libvirt's state and by QEMU's logs.
const DOMAINS: usize = 4096;

/// Starts of one domain that it may tell of; then the oldest gives way.
const OF_A_DOMAIN: usize = 64;

/// One word of a libvirt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Its process. Of several libvirts on one kernel all tell the one audit.
    pub by: u32,
    /// When.
    pub at: Wall,
    /// For whose memory it was to start, if for one.
    pub started_for: Option<StartedFor>,
}

/// What was told of one domain, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// Its name.
    pub name: String,
    /// Each start.
    pub told: VecDeque<Word>,
}

/// See the module page. Cheap to clone.
#[derive(Clone, Default)]
pub struct Audited {
    told: Arc<Mutex<HashMap<DomainId, Words>>>,
    pub(super) news: Arc<Notify>,
}

impl Audited {
    /// This domain's start has failed.
    pub fn note(&self, start: NotStarted) {
        let NotStarted { by, domain, name, started_for, at } = start;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < DOMAINS || told.contains_key(&domain) {
            let words = told.entry(domain).or_default();
            words.name = name;
            if words.told.len() == OF_A_DOMAIN {
                words.told.pop_front();
            }
            words.told.push_back(Word { by, at, started_for });
        }
        drop(told);
        self.news.notify_one();
    }

    pub(super) fn take(&self) -> HashMap<DomainId, Words> {
        std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What our libvirt told the audit: others on the same kernel, as in containers, tell it of VMs of theirs. Where it is not
/// known which process ours is, all stay, and count only for a start of which QEMU's log tells.
pub(super) fn of(libvirt: &LibvirtProcess, mut told: HashMap<DomainId, Words>) -> HashMap<DomainId, Words> {
    if told.values().flat_map(|words| &words.told).any(|word| !libvirt.is(word.by))
        && let Err(error) = libvirt.look()
    {
        debug!(%error, "the kernel does not say who answers on libvirt's socket");
    }
    if libvirt.is_known() {
        told.values_mut().for_each(|words| words.told.retain(|word| libvirt.is(word.by)));
        told.retain(|_, words| !words.told.is_empty());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_libvirt_told_is_about_no_vm_of_ours() {
        let audited = Audited::default();
        let id = |number| DomainId::from_bytes([number; 16]);
        let word = |by| Word { by, at: Wall(1), started_for: None };
        for (domain, by) in [(1, 7), (1, 8), (2, 8)] {
            let Word { at, started_for, .. } = word(by);
            audited.note(NotStarted { by, domain: id(domain), name: "vm".into(), started_for, at });
        }
        let told = audited.take();
        let all = of(&LibvirtProcess::new(None, &[]), told.clone());
        assert_eq!((all[&id(1)].told.len(), all.len()), (2, 2), "nobody knows whose they are");
        let ours = of(&LibvirtProcess::new(Some(7), &[]), told);
        assert_eq!(ours.keys().collect::<Vec<_>>(), [&id(1)]);
        assert_eq!(ours[&id(1)].told, [word(7)]);
    }
}
