//! What libvirt told the kernel's audit of starts that failed, until it is looked at.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use whydown_core::evidence::StartedFor;
use whydown_core::id::DomainId;
use whydown_core::time::Wall;
use whydown_witness::audit::NotStarted;

/// Domains of which the audit may tell between two looks; the others are found by libvirt's state and by QEMU's logs.
const DOMAINS: usize = 4096;

/// Starts of one domain that it may tell of; then the oldest gives way.
const OF_A_DOMAIN: usize = 64;

/// One word of libvirt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
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
        let NotStarted { domain, name, started_for, at } = start;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < DOMAINS || told.contains_key(&domain) {
            let words = told.entry(domain).or_default();
            words.name = name;
            if words.told.len() == OF_A_DOMAIN {
                words.told.pop_front();
            }
            words.told.push_back(Word { at, started_for });
        }
        drop(told);
        self.news.notify_one();
    }

    pub(super) fn take(&self) -> HashMap<DomainId, Words> {
        std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
