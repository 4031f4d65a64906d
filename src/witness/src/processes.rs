//! What is known of the processes that run VMs: whose threads they have, in which units they run, and which of them are QEMU.
//! The sources ask it whom they speak of.

use std::path::PathBuf;

use whydown_core::lifecycle::Subject;

use crate::emulators::Emulators;
use crate::threads::Threads;
use crate::units::Units;

/// Shared by all sources and by whoever learns of processes. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Processes {
    /// Whose threads signals are sent to.
    pub threads: Threads,
    /// In which units of systemd they run.
    pub units: Units,
    /// Which of them are QEMU, and what began to run and has not come up.
    pub emulators: Emulators,
}

impl Processes {
    /// Of nobody yet. `run_dir` is libvirt's folder of pid files; without one no start is known to be libvirt's.
    pub fn new(run_dir: Option<PathBuf>) -> Self {
        Self { threads: Threads::default(), units: Units::default(), emulators: Emulators::new(run_dir) }
    }

    /// Whom a word on the thread or process with this number is about.
    pub(crate) fn subject_of_thread(&self, thread: u32) -> Subject {
        self.emulators.subject(self.threads.process_of(thread))
    }
}
