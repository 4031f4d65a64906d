//! How much room is left for a disk of a VM, and whether there is an image at all.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use whydown_core::hypervisor::Process;

/// Bytes that are free for everybody on the file system of this file, as its QEMU sees it; `None` if it is no file, or
/// cannot be looked at. QEMU may have mounts of its own.
pub fn free(qemu: Option<Process>, file: &Path) -> Option<u64> {
    let below = file.strip_prefix("/").ok()?;
    let of_qemu = qemu.map(|qemu| PathBuf::from(format!("/proc/{}/root", qemu.pid)).join(below));
    [of_qemu.as_deref(), Some(file)].into_iter().flatten().find_map(room)
}

fn room(file: &Path) -> Option<u64> {
    // It opens nothing that waits: a pipe is refused by what follows.
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(file, flags, Mode::empty()).ok()?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&opened).ok()?.st_mode);
    if !kind.is_file() {
        return None;
    }
    let system = rustix::fs::fstatvfs(&opened).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}

/// Storage that does not answer so soon may have it.
const LOOK_PATIENCE: Duration = Duration::from_secs(2);

/// Whether there is nothing at this path, as far as we see.
pub async fn is_missing(path: String) -> bool {
    let look = tokio::task::spawn_blocking(move || Path::new(&path).try_exists());
    matches!(tokio::time::timeout(LOOK_PATIENCE, look).await, Ok(Ok(Ok(false))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_room_and_what_is_none_has_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("disk");
        std::fs::write(&file, "x").unwrap();
        let me = whydown_witness::process::identify(std::process::id());
        assert!(free(None, &file).is_some() && free(me, &file).is_some());
        for none in [folder.path(), Path::new("/dev/null"), Path::new("/nowhere"), Path::new("nbd:x")] {
            assert_eq!(free(me, none), None, "{none:?}");
        }
    }
}
