//! Which logs were written since a moment: what ran while nobody listened is told by them alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use whydown_core::log::Log;
use whydown_core::time::Wall;

use super::tail;
use crate::libvirt::LibvirtProcess;

/// Files of the folder that are looked at. libvirt keeps the log of every name that ever ran.
const ENTRIES: usize = 200_000;

/// Bytes of one log that are read here: several dozen starts. A QEMU that writes more says the same thing all the time.
const LOG_BYTES: u64 = 256 << 10;

/// Bytes of all logs together, the last written first: a thousand starts take some ten megabytes.
const ALL_BYTES: u64 = 32 << 20;

/// The clock may have been corrected a little since a file was written.
const SLACK: Duration = Duration::from_secs(600);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// The logs that were written since, each with its last starts.
    pub logs: Vec<Log>,
    /// What could not be looked at, in words, if there is any.
    pub left_out: Option<String>,
}

/// The logs in `folder` that were written since `since`, rotated parts included. Bounded in files and bytes; what lies
/// beyond is said. `libvirt` and `now` as for [`super::read`].
pub fn written_since(folder: &Path, since: Wall, libvirt: &LibvirtProcess, now: Wall) -> Scan {
    let mut scan = Scan::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Before libvirt's first start of a VM there is none.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return scan,
        Err(error) => {
            scan.left_out = Some(format!("{}: {error}", folder.display()));
            return scan;
        }
    };
    let mut wanted: BTreeMap<String, SystemTime> = BTreeMap::new();
    for (looked_at, entry) in entries.flatten().enumerate() {
        if looked_at >= ENTRIES {
            scan.left_out = Some(format!("{} holds more than {ENTRIES} files", folder.display()));
            break;
        }
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(log_name) else { continue };
        let Ok(metadata) = entry.metadata() else { continue };
        let Ok(written) = metadata.modified() else { continue };
        if metadata.is_file() && was_written_since(&metadata, since) {
            let newest = wanted.entry(name.to_owned()).or_insert(written);
            *newest = written.max(*newest);
        }
    }
    let mut wanted: Vec<(SystemTime, String)> = wanted.into_iter().map(|(name, at)| (at, name)).collect();
    wanted.sort_unstable_by(|a, b| b.cmp(a));
    let mut room = ALL_BYTES;
    for (read, (_, name)) in wanted.iter().enumerate() {
        if room < LOG_BYTES {
            let rest = wanted.len() - read;
            scan.left_out = Some(format!("{rest} more logs were written since; there was no room for them"));
            break;
        }
        // One that cannot be read tells of no run.
        if let Ok(tail) = tail::read_at_most(folder, name, LOG_BYTES) {
            room -= (tail.bytes.len() as u64).min(room);
            let blocks = super::told(name, &tail.bytes, libvirt, now);
            scan.logs.push(Log { name: name.clone(), blocks, unread: None });
        }
    }
    scan
}

/// `NAME` of `NAME.log` and `NAME.log.0`.
fn log_name(file: &str) -> Option<&str> {
    let (stem, last) = file.rsplit_once('.')?;
    match last {
        "log" => Some(stem),
        number if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            stem.strip_suffix(".log")
        }
        _ => None,
    }
}

/// Whether the file was written since, as far as its date tells.
pub(super) fn was_written_since(metadata: &fs::Metadata, since: Wall) -> bool {
    metadata.modified().is_ok_and(|written| wall(written.checked_add(SLACK).unwrap_or(written)) >= since)
}

fn wall(at: SystemTime) -> Wall {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
