//! What runs are made of, as managers are told as long as they are shown: kept with the run, so that it is known of one that
//! has ended, and by whoever begins after us.
//!
//! Of a new run nobody has read a document yet. Until then it is told what it was to be made of, where it was started here,
//! or else what the domain's last run was made of.

use std::sync::Arc;

use super::engine::Engine;
use crate::id::{DomainId, RunId};
use crate::record::Keep;
use crate::sample::Devices;
use crate::time::{Mono, Now};

impl Engine {
    /// The document of this run says so, of which the reading began then. Several read it, each in its own time: what one
    /// read before a device was plugged in does not take it out again.
    pub(super) fn made(&mut self, now: Now, id: RunId, devices: Arc<Devices>, read: Mono) {
        let (domain, known) = if let Some(run) = self.runs.get_mut(&id) {
            if read < run.made_read {
                return;
            }
            run.made_read = read;
            (run.start.domain, &mut run.made)
        } else if let Some(down) = self.down.values_mut().find(|down| down.ending.run == id) {
            (down.ending.domain, &mut down.made)
        } else {
            return;
        };
        if known.as_ref() != Some(&devices) {
            *known = Some(Arc::clone(&devices));
            self.keep_beside(Keep::Made(id, devices));
            self.touch(now, domain);
        }
    }

    /// What the domain's last run is or was made of.
    pub(super) fn made_before(&self, domain: DomainId) -> Option<Arc<Devices>> {
        let run = self.current.get(&domain).and_then(|id| self.runs.get(id));
        match run {
            Some(run) => run.made.clone(),
            None => self.down.get(&domain)?.made.clone(),
        }
    }
}
