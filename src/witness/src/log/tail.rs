//! Reading the end of a log that others write, rotate, remove or replace by something else meanwhile.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use whydown_core::limits;

/// Bytes of a domain's log, over all its rotated parts, that are read from the end. A run's block is 4 KiB and what its
/// QEMU says; virtlogd keeps parts of 2 MiB, and a QEMU that fills one says the same thing all the time.
pub const TAIL_BYTES: u64 = 1 << 20;

/// Rotated parts that are looked for: `NAME.log.0` to `NAME.log.9`. virtlogd keeps three, logrotate four, of which it
/// compresses all but the first; compressed parts are not read.
pub const BACKUPS: u32 = 10;

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    #[error("the domain's name cannot be the name of a file")]
    Name,
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: not a regular file")]
    NotAFile { path: PathBuf },
}

/// The end of a log. Its first line is whole.
pub(super) struct Tail {
    pub(super) bytes: Vec<u8>,
}

/// Reads at most [`TAIL_BYTES`].
pub(super) fn read(folder: &Path, name: &str) -> Result<Tail, TailError> {
    read_at_most(folder, name, TAIL_BYTES)
}

/// Reads at most so many bytes. Rotated parts are read only as far as the newer ones leave room, and only the newest
/// part must be readable: without the others its lines still stand.
pub(super) fn read_at_most(folder: &Path, name: &str, bytes: u64) -> Result<Tail, TailError> {
    if name.is_empty() || name.len() > limits::NAME_BYTES || name.contains(['/', '\0']) {
        return Err(TailError::Name);
    }
    let mut parts = Vec::new();
    let mut room = bytes;
    let mut missing = match part(&folder.join(format!("{name}.log")), room) {
        Ok(newest) => {
            parts.push(newest);
            None
        }
        // Between the two steps of a rotation there is no newest part.
        Err(TailError::Io { path, source }) if source.kind() == io::ErrorKind::NotFound => {
            Some(TailError::Io { path, source })
        }
        Err(error) => return Err(error),
    };
    for number in 0..BACKUPS {
        room -= parts.last().map_or(0, |part| part.bytes.len() as u64).min(room);
        if room == 0 || parts.last().is_some_and(|part| part.cut) {
            break;
        }
        if let Ok(older) = part(&folder.join(format!("{name}.log.{number}")), room) {
            missing = None;
            parts.push(older);
        }
    }
    if let Some(error) = missing {
        return Err(error);
    }
    let cut = parts.last().is_some_and(|oldest| oldest.cut);
    let mut bytes: Vec<u8> = parts.into_iter().rev().flat_map(|part| part.bytes).collect();
    if cut {
        let whole = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |end| end + 1);
        bytes.drain(..whole);
    }
    Ok(Tail { bytes })
}

struct Part {
    bytes: Vec<u8>,
    /// Its beginning was left out.
    cut: bool,
}

/// Opens a plain file, and nothing else.
pub(super) fn open(path: &Path) -> Result<File, TailError> {
    let failed = |source: io::Error| TailError::Io { path: path.to_owned(), source };
    // NONBLOCK, so that a pipe put there cannot hold us; NOFOLLOW, so that a link put there cannot lead us elsewhere.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|e| failed(e.into()))?);
    match file.metadata().map_err(failed)?.is_file() {
        true => Ok(file),
        false => Err(TailError::NotAFile { path: path.to_owned() }),
    }
}

fn part(path: &Path, room: u64) -> Result<Part, TailError> {
    let failed = |source: io::Error| TailError::Io { path: path.to_owned(), source };
    let mut file = open(path)?;
    let metadata = file.metadata().map_err(failed)?;
    let begin = metadata.len().saturating_sub(room);
    file.seek(SeekFrom::Start(begin)).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(room).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Part { bytes, cut: begin > 0 })
}
