//! A control group with little memory, in which the kernel kills for lack of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait::wait_for;
use crate::{Error, Qemu, Result};

/// A control group of the host. Dropping it waits a moment for its last process, and removes it.
#[derive(Debug)]
pub struct MemoryGroup {
    folder: PathBuf,
}

impl MemoryGroup {
    /// Makes one that may hold `bytes`, of version 1 or 2, whichever has the host's memory. `name` is made unique by our
    /// process id.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where this is not root, or the host has no memory control groups.
    pub fn make(name: &str, bytes: u64) -> Result<Self> {
        let name = format!("whydown-test-{}-{name}", std::process::id());
        let (old, new) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (root, limit) = if old.join("memory.limit_in_bytes").exists() {
            (old, "memory.limit_in_bytes")
        } else {
            // Where it is on already the kernel takes it again.
            let _ = fs::write(new.join("cgroup.subtree_control"), "+memory");
            (new, "memory.max")
        };
        let group = Self { folder: root.join(name) };
        fs::create_dir(&group.folder)
            .and_then(|()| fs::write(group.folder.join(limit), bytes.to_string()))
            .map_err(Error::file("make, as root, the memory control group", &group.folder))?;
        // Where the group may swap, it would take its time to run out.
        let _ = fs::write(group.folder.join("memory.swap.max"), "0");
        Ok(group)
    }

    /// What this QEMU asks for from now on counts here.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it is gone.
    pub fn take(&self, qemu: &Qemu) -> Result<()> {
        let processes = self.folder.join("cgroup.procs");
        fs::write(&processes, qemu.pid().to_string()).map_err(Error::file("write to", &processes))
    }

    /// The file that takes the number of a process which is to count here.
    pub fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Whether no process is in it.
    pub fn is_empty(&self) -> bool {
        fs::read_to_string(self.folder.join("cgroup.procs")).is_ok_and(|left| left.trim().is_empty())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The kernel lets it go when the last process in it is reaped.
        let removed = || (fs::remove_dir(&self.folder).is_ok() || !self.folder.exists()).then_some(());
        let _ = wait_for("the group's end", Duration::from_secs(5), removed);
    }
}
