//! Whether the file at the path is still the one that is open: others may remove, replace or cut it, or its log.
//!
//! Looking costs two questions to the file system's cache. The file is never opened for it: closing any handle of it
//! would let go of the locks that SQLite holds on it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use crate::history::beside;
use crate::store::Failure;

/// What stands at a path: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(u64, u64);

/// What is wrong with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("it was removed while in use")]
    Gone,
    #[error("another file was put in its place")]
    Other,
    #[error("it was cut while in use")]
    Cut,
    #[error("its log was removed while in use")]
    LogGone,
}

/// The file that is open, by what stands at its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    path: PathBuf,
    file: Mark,
    /// It only becomes shorter by our own hand.
    length: u64,
    log: Option<Mark>,
    index: Option<Mark>,
}

fn metadata(path: &Path) -> Option<Metadata> {
    std::fs::metadata(path).ok()
}

fn mark(path: &Path) -> Option<Mark> {
    metadata(path).map(|found| Mark(found.dev(), found.ino()))
}

impl Place {
    /// Of a file that has just been opened; `None` if nothing is there.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = metadata(path)?;
        Some(Self {
            path: path.to_owned(),
            file: Mark(found.dev(), found.ino()),
            length: found.len(),
            log: mark(&beside(path, "-wal")),
            index: mark(&beside(path, "-shm")),
        })
    }

    /// Whether all is where it was.
    pub(crate) fn look(&self) -> Result<(), Wrong> {
        let found = metadata(&self.path).ok_or(Wrong::Gone)?;
        if Mark(found.dev(), found.ino()) != self.file {
            return Err(Wrong::Other);
        }
        if found.len() < self.length {
            return Err(Wrong::Cut);
        }
        let same =
            |suffix: &str, was: Option<Mark>| was.is_none() || mark(&beside(&self.path, suffix)) == was;
        if same("-wal", self.log) && same("-shm", self.index) { Ok(()) } else { Err(Wrong::LogGone) }
    }

    /// After something of ours was written: it may be longer, and shorter only down to the `bytes` that are in it.
    pub(crate) fn note_length(&mut self, bytes: impl FnOnce() -> Option<u64>) -> Result<(), Wrong> {
        let found = metadata(&self.path).ok_or(Wrong::Gone)?;
        if Mark(found.dev(), found.ino()) != self.file {
            return Err(Wrong::Other);
        }
        let shorter = found.len() < self.length;
        if shorter && bytes().is_none_or(|bytes| found.len() < bytes) {
            return Err(Wrong::Cut);
        }
        self.length = found.len();
        Ok(())
    }

    /// Takes the names of our log away: SQLite would take it for the log of the file that comes in our place. Whoever has
    /// it open goes on with it.
    pub(crate) fn leave_log(&self) {
        for (suffix, ours) in [("-wal", self.log), ("-shm", self.index)] {
            let path = beside(&self.path, suffix);
            if ours.is_some()
                && mark(&path) == ours
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(file = %path.display(), %error, "the log of the replaced ledger stays");
            }
        }
    }
}

/// A log whose rights are wrong, as those of the ledger once were: SQLite gives its log those of the file when it makes it, and
/// never again. It is given them now. What we may not even change is removed where nothing can be in it: SQLite makes it anew.
///
/// To be called while nothing of ours has the file open.
pub(crate) fn heal_log(path: &Path) {
    let Some(file) = metadata(path).filter(|file| file.is_file() && may_use(path)) else { return };
    let log_is_empty = metadata(&beside(path, "-wal")).is_none_or(|log| log.len() == 0);
    for side in ["-wal", "-shm"].map(|suffix| beside(path, suffix)) {
        if !metadata(&side).is_some_and(|found| found.is_file()) || may_use(&side) {
            continue;
        }
        let given = std::fs::set_permissions(&side, file.permissions());
        if given.is_ok() && may_use(&side) {
            tracing::warn!(file = %side.display(), "its rights were wrong; it has those of the ledger now");
        } else if log_is_empty {
            match std::fs::remove_file(&side) {
                Ok(()) => tracing::warn!(file = %side.display(), "its rights were wrong; it is made anew"),
                Err(error) => {
                    tracing::warn!(file = %side.display(), %error, "its rights are wrong, and it stays")
                }
            }
        }
    }
}

fn may_use(path: &Path) -> bool {
    may(path, Access::READ_OK | Access::WRITE_OK)
}

fn may(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS) != Err(Errno::ACCESS)
}

/// Which of the files may not be used, or the folder, if that is so.
pub(crate) fn forbidden(path: &Path) -> Option<String> {
    let files = ["", "-wal", "-shm"].map(|suffix| (beside(path, suffix), Access::READ_OK | Access::WRITE_OK));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_owned);
    let folder = folder.map(|folder| (folder, Access::WRITE_OK | Access::EXEC_OK));
    files.into_iter().chain(folder).find(|(path, access)| !may(path, *access)).map(|(path, _)| {
        let rights = metadata(&path).map_or_else(String::new, |found| {
            format!(" (mode {:04o}, owner {})", found.mode() & 0o7777, found.uid())
        });
        format!("{} may not be written{rights}", path.display())
    })
}

/// Nothing but a plain file is opened: to open or read a FIFO or a device may wait for ever. What is not there may come.
pub(crate) fn only_plain_files(path: &Path) -> Result<(), Failure> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = beside(path, suffix);
        if metadata(&path).is_some_and(|found| !found.is_file()) {
            return Err(Failure::Unavailable(format!("{} is no plain file", path.display())));
        }
    }
    Ok(())
}
