//! Whether the file at the path is still the one that is open: others may remove, replace or cut it, or its log.
//!
//! Looking costs three questions to the file system's cache. The file is never opened for it: closing any handle of it
//! would let go of the locks that SQLite holds on it. Its log may be: no lock lies on that.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::Errno;

use crate::history::beside;
use crate::store::Failure;

/// What stands at a path: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark(u64, u64);

impl Mark {
    fn of(found: &Metadata) -> Self {
        Self(found.dev(), found.ino())
    }
}

/// What is wrong with the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("it was removed while in use")]
    Gone,
    #[error("another file was put in its place")]
    Other,
    #[error("a link was put in its place")]
    Link,
    #[error("it was cut while in use")]
    Cut,
    #[error("its log was cut while in use")]
    LogCut,
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
    /// So does its log.
    log_length: u64,
    index: Option<Mark>,
}

/// How a log of SQLite's begins, but for the last bit.
const LOG_MAGIC: u32 = 0x377f_0682;

/// Bytes before its first frame.
const LOG_HEADER: u64 = 32;

/// Bytes of a frame before its page.
const FRAME_HEADER: u64 = 24;

/// Of what is there itself. A link is none of ours: what it leads to has its log elsewhere, and can be exchanged unseen.
fn metadata(path: &Path) -> Option<Metadata> {
    std::fs::symlink_metadata(path).ok()
}

/// Whether a link lies there.
pub(crate) fn is_link(path: &Path) -> bool {
    metadata(path).is_some_and(|found| found.is_symlink())
}

fn mark(path: &Path) -> Option<Mark> {
    metadata(path).as_ref().map(Mark::of)
}

impl Place {
    /// Of a file that has just been opened; `None` if nothing is there.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = metadata(path)?;
        Some(Self {
            path: path.to_owned(),
            file: Mark::of(&found),
            length: found.len(),
            log: mark(&beside(path, "-wal")),
            log_length: metadata(&beside(path, "-wal")).map_or(0, |log| log.len()),
            index: mark(&beside(path, "-shm")),
        })
    }

    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether all is where it was.
    pub(crate) fn look(&self) -> Result<(), Wrong> {
        let found = metadata(&self.path).ok_or(Wrong::Gone)?;
        self.is_ours(&found)?;
        if found.len() < self.length {
            return Err(Wrong::Cut);
        }
        let log = metadata(&beside(&self.path, "-wal"));
        let index = || mark(&beside(&self.path, "-shm"));
        if self.log.is_some() && log.as_ref().map(Mark::of) != self.log
            || self.index.is_some() && index() != self.index
        {
            return Err(Wrong::LogGone);
        }
        if log.map_or(0, |log| log.len()) < self.log_length { Err(Wrong::LogCut) } else { Ok(()) }
    }

    fn is_ours(&self, found: &Metadata) -> Result<(), Wrong> {
        match Mark::of(found) == self.file {
            true => Ok(()),
            false if found.is_symlink() => Err(Wrong::Link),
            false => Err(Wrong::Other),
        }
    }

    /// Whether nothing at all is in its log.
    pub(crate) fn log_is_empty(&self) -> bool {
        metadata(&beside(&self.path, "-wal")).is_some_and(|log| log.len() == 0)
    }

    /// Its log has become shorter, and that is right.
    pub(crate) fn note_log(&mut self) {
        self.log_length = metadata(&beside(&self.path, "-wal")).map_or(0, |log| log.len());
    }

    /// After something of ours was written: it may be longer, and shorter only down to the `bytes` that are in it.
    /// The same of its log, down to `log_kept`.
    pub(crate) fn note_length(
        &mut self,
        bytes: impl FnOnce() -> Option<u64>,
        log_kept: u64,
    ) -> Result<(), Wrong> {
        let found = metadata(&self.path).ok_or(Wrong::Gone)?;
        self.is_ours(&found)?;
        let shorter = found.len() < self.length;
        if shorter && bytes().is_none_or(|bytes| found.len() < bytes) {
            return Err(Wrong::Cut);
        }
        self.length = found.len();
        self.note_log_length(log_kept)
    }

    /// SQLite makes its log shorter only when it begins it anew, and then down to `kept` bytes. One that others cut and SQLite
    /// went on with has nothing where it should begin, or where what was written last should stand.
    fn note_log_length(&mut self, kept: u64) -> Result<(), Wrong> {
        let path = beside(&self.path, "-wal");
        let found = metadata(&path);
        let length = found.as_ref().map_or(0, |log| log.len());
        if length < self.log_length.min(kept) {
            return Err(Wrong::LogCut);
        }
        if length > LOG_HEADER
            && found.as_ref().map(Mark::of) == self.log
            && let Ok(log) = File::open(&path)
            && has_a_gap(&log, self.log_length, length) == Ok(true)
        {
            return Err(Wrong::LogCut);
        }
        self.log_length = length;
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

/// Whether something was taken out of a log before its last writing, from which on it was `before` bytes long and is now
/// `length`. A log that has grown was written through to its end in one go, and each frame of that bears the same salts as
/// the log's beginning; where SQLite writes behind the end of what others cut, zeros stand in between.
fn has_a_gap(log: &File, before: u64, length: u64) -> Result<bool, Errno> {
    let mut header = [0; LOG_HEADER as usize];
    if !reads(log, &mut header, 0)? {
        return Ok(false);
    }
    let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if number(0) & !1 != LOG_MAGIC {
        return Ok(true);
    }
    let frame = FRAME_HEADER + u64::from(number(8));
    if length <= before || before < LOG_HEADER + frame || !(before - LOG_HEADER).is_multiple_of(frame) {
        return Ok(false);
    }
    let mut last = [0; FRAME_HEADER as usize];
    Ok(reads(log, &mut last, before - frame)? && last[8..16] != header[16..24])
}

/// Whether there was enough to fill it.
fn reads(log: &File, bytes: &mut [u8], at: u64) -> Result<bool, Errno> {
    Ok(rustix::io::pread(log, &mut *bytes, at)? == bytes.len())
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

/// Nothing but a plain file is opened: to open or read a FIFO or a device may wait for ever, and a link leads to a file whose
/// log is elsewhere. What is not there may come.
pub(crate) fn only_plain_files(path: &Path) -> Result<(), Failure> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let path = beside(path, suffix);
        if let Some(found) = metadata(&path).filter(|found| !found.is_file()) {
            let what = if found.is_symlink() { "a link and no plain file" } else { "no plain file" };
            return Err(Failure::Unavailable(format!("{} is {what}", path.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use rusqlite::Connection;

    use super::*;

    /// A log of several commits, and more of them.
    fn filled(path: &Path) -> Connection {
        let db = Connection::open(path).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.execute_batch("CREATE TABLE t (a TEXT)").unwrap();
        for _ in 0..4 {
            more(&db);
        }
        db
    }

    fn more(db: &Connection) {
        db.execute("INSERT INTO t VALUES (?1)", ["x".repeat(9000)]).unwrap();
    }

    #[test]
    fn a_log_that_was_cut_just_before_it_was_written_is_known_by_the_gap() {
        const FRAME: u64 = 4096 + FRAME_HEADER;
        for frames in [0, 1, 3, 5] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger.db");
            let db = filled(&path);
            let mut place = Place::of(&path).unwrap();
            more(&db);
            assert_eq!(place.note_length(|| None, u64::MAX), Ok(()), "nobody cut it");
            let log = File::options().write(true).open(beside(&path, "-wal")).unwrap();
            // All looked whole; it is cut now, and SQLite writes on where it had ended.
            let end = place.log_length;
            assert!(end > LOG_HEADER + 6 * FRAME);
            log.set_len(LOG_HEADER + frames * FRAME).unwrap();
            more(&db);
            assert!(beside(&path, "-wal").metadata().unwrap().len() > end);
            assert_eq!(place.note_length(|| None, u64::MAX), Err(Wrong::LogCut), "{frames} frames are left");
        }
    }

    #[test]
    fn a_log_that_begins_anew_and_grows_beyond_what_it_was_has_no_gap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.db");
        let db = filled(&path);
        let mut place = Place::of(&path).unwrap();
        let before = place.log_length;
        db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())).unwrap();
        while place.log_length <= before {
            more(&db);
            assert_eq!(place.note_length(|| None, u64::MAX), Ok(()));
        }
        let begins = |at| {
            let mut bytes = [0; 8];
            File::open(beside(&path, "-wal")).unwrap().read_exact_at(&mut bytes, at).unwrap();
            bytes
        };
        assert_eq!(
            begins(16),
            begins(LOG_HEADER + 8),
            "the salts of its first frame are those of its beginning"
        );
    }
}
