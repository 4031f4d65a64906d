//! What was written while nobody listened: QEMU's logs, read once with every new link.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use tracing::{debug, info, warn};
use whydown_core::hypervisor::Server;
use whydown_core::log::Log;
use whydown_core::time::Wall;
use whydown_witness::libvirt::LibvirtProcess;
use whydown_witness::log;

use super::clock;
use super::hands::libvirt_since;

/// Since when nobody listens, and where the logs are.
pub struct Absence {
    since: Mutex<Option<Wall>>,
    logs: Option<PathBuf>,
    libvirt: LibvirtProcess,
}

impl Absence {
    /// `alive` is when a daemon before this one last listened; without one, nothing was missed.
    pub fn new(alive: Option<Wall>, logs: Option<PathBuf>, libvirt: LibvirtProcess) -> Self {
        Self { since: Mutex::new(alive), logs, libvirt }
    }

    /// Nobody listens from this moment on.
    pub fn began(&self, at: Wall) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(at);
    }

    /// Somebody listens again. Gives the logs that were written meanwhile, and who libvirt is now; blocks for as long as the logs
    /// take to read.
    pub fn ends(&self) -> (Vec<Log>, Option<Server>) {
        // Whose signals are libvirt's own must be known before they are read.
        let server = self.libvirt.look().unwrap_or_else(|error| {
            debug!(%error, "the kernel does not say who answers on libvirt's socket");
            None
        });
        (self.read(), server)
    }

    fn read(&self) -> Vec<Log> {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(since), Some(folder)) = (since, &self.logs) else { return Vec::new() };
        let now = clock::wall();
        // A clock that was set back since makes all files older.
        let scan = log::written_since(folder, since.min(now), &self.libvirt, now);
        if let Some(left_out) = scan.left_out {
            warn!("VMs that ran while whydown was not listening may be missing in its history: {left_out}");
        }
        let mut logs = scan.logs;
        for block in logs.iter_mut().flat_map(|log| &mut log.blocks) {
            block.facts.extend(libvirt_since(&block.facts));
        }
        info!(logs = logs.len(), "QEMU's logs of the time in which nobody listened were read");
        logs
    }
}
