//! How a boot of the host ended that is over: whether it was shut down in good order, and since when.
//!
//! | who says it | what | since when |
//! |---|---|---|
//! | the journal of that boot | logind's word that it shuts the system down; systemd's that `shutdown.target` is reached | logind's word, or the stop of the target that was up |
//! | `/var/log/wtmp` | a record of a shutdown between that boot's beginning and the next's | is not said |
//!
//! Only fields of the journal that journald itself writes tell who speaks. Where both are silent nothing is said: a host
//! whose power is cut leaves no word, and nor does one that keeps neither.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use whydown_core::id::BootId;
use whydown_core::time::Wall;

use crate::journal;

/// Bytes of the journal's answer: some lines.
const JOURNAL_BYTES: u64 = 256 * 1024;

/// Where logins and boots are written down.
const WTMP: &str = "/var/log/wtmp";

/// Bytes of its end that are read: some thousand records.
const WTMP_BYTES: u64 = 1 << 20;

/// logind: the system is shut down now (`SD_MESSAGE_SHUTDOWN`).
const SHUTS_DOWN: &str = "98268866d1d54a499c4e98921d93bc40";

/// systemd: a unit has started, and a unit has stopped.
const STARTED: &str = "39f53479d3a045ac8e11786248231fbf";
const STOPPED: &str = "9d1aaa27d60140bd96365438aad20286";

/// A shutdown in good order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WentDown {
    /// When it began, where that is known.
    pub since: Option<Wall>,
    /// When the host was off, or nearly so.
    pub at: Wall,
    /// Who says so, in words for an administrator.
    pub by: String,
}

/// How this boot ended, in which something ran at that moment. `None` where nothing says that it was shut down. Blocks for as
/// long as the journal and the disk take, some seconds at most.
pub fn went_down(boot: &BootId, ran: Wall) -> Option<WentDown> {
    let by_journal = || if is_boot_id(boot) { of_journal(&ask(boot).ok()?) } else { None };
    let by_records = || {
        let records = end_of(Path::new(WTMP), RECORD as u64).ok()?;
        of_records(&records, ran)
    };
    by_journal().or_else(by_records)
}

/// Whether it is one as the kernel gives them. Anything else could be read by `journalctl` as a number of boots back.
pub fn is_boot_id(boot: &BootId) -> bool {
    const LENGTH: usize = 36;
    boot.0.len() == LENGTH && boot.0.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

fn ask(boot: &BootId) -> io::Result<String> {
    let id: String = boot.0.chars().filter(char::is_ascii_hexdigit).collect();
    journal::ask(
        &[
            &format!("--boot={id}"),
            "--output-fields=MESSAGE_ID,UNIT,_SOURCE_REALTIME_TIMESTAMP",
            "--lines=200",
            "_SYSTEMD_UNIT=systemd-logind.service",
            &format!("MESSAGE_ID={SHUTS_DOWN}"),
            "+",
            "_PID=1",
            "UNIT=shutdown.target",
            "+",
            "_PID=1",
            "UNIT=multi-user.target",
            "+",
            "_PID=1",
            "UNIT=graphical.target",
        ],
        JOURNAL_BYTES,
    )
}

/// Of one boot, the oldest first.
fn of_journal(text: &str) -> Option<WentDown> {
    let (mut stopped, mut since, mut reached): (Option<Wall>, Option<Wall>, Option<Wall>) =
        (None, None, None);
    for line in text.lines() {
        let Ok(entry) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let Some(at) = journal::time(&entry) else { continue };
        let word = |name: &str| entry[name].as_str().unwrap_or_default();
        match (word("MESSAGE_ID"), word("UNIT")) {
            (SHUTS_DOWN, _) => since = since.or(Some(at)),
            (STARTED, "shutdown.target") => reached = Some(at),
            // Up again after a stop that was none of the system: as after a rescue.
            (STARTED, _) => stopped = None,
            (STOPPED, "multi-user.target" | "graphical.target") => stopped = stopped.or(Some(at)),
            _ => {}
        }
    }
    let at = reached.or(since)?;
    let since = [since, stopped].into_iter().flatten().min();
    Some(WentDown { since, at, by: "the journal of that boot says so".into() })
}

/// Bytes of a record, and where in it the seconds of its time are: `struct utmp` of the C library. It keeps times in 32 bits
/// where a 32-bit processor may have to read them too.
const SHORT_TIMES: bool = cfg!(any(target_arch = "x86_64", target_arch = "x86", target_arch = "powerpc64"));
const RECORD: usize = if SHORT_TIMES { 384 } else { 400 };
const TIME: usize = if SHORT_TIMES { 340 } else { 344 };

const USER: std::ops::Range<usize> = 44..76;

/// Kinds of records.
const RUN_LEVEL: i16 = 1;
const BOOT: i16 = 2;

/// The last record of a shutdown between that moment and the next boot, if there was a next one.
fn of_records(records: &[u8], ran: Wall) -> Option<WentDown> {
    let mut down = None;
    for record in records.chunks_exact(RECORD) {
        let Some(at) = seconds(record).and_then(|seconds| seconds.checked_mul(1_000_000_000)).map(Wall)
        else {
            continue;
        };
        let name = record[USER].split(|byte| *byte == 0).next().unwrap_or_default();
        match i16::from_ne_bytes([record[0], record[1]]) {
            _ if at < ran => {}
            RUN_LEVEL if name == b"shutdown" => down = Some(at),
            BOOT => {
                let by = format!("its record in {WTMP} says so");
                return down.map(|at| WentDown { since: None, at, by });
            }
            _ => {}
        }
    }
    None
}

fn seconds(record: &[u8]) -> Option<i64> {
    let bytes = &record[TIME..];
    match SHORT_TIMES {
        // Unsigned, so that they last until 2106.
        true => Some(i64::from(u32::from_ne_bytes(bytes[..4].try_into().ok()?))),
        false => Some(i64::from_ne_bytes(bytes[..8].try_into().ok()?)),
    }
}

/// The end of a file, from the beginning of a record on.
fn end_of(path: &Path, record: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(WTMP_BYTES).div_ceil(record) * record;
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(WTMP_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Wall {
        Wall::from_millis(second * 1000)
    }

    fn entry(second: i64, id: &str, unit: &str) -> String {
        format!(
            "{{\"__REALTIME_TIMESTAMP\":\"{}\",\"MESSAGE_ID\":\"{id}\",\"UNIT\":\"{unit}\"}}\n",
            second * 1_000_000
        )
    }

    #[test]
    fn a_boot_that_was_shut_down_says_since_when() {
        let up = entry(10, STARTED, "multi-user.target");
        let stopped = entry(100, STOPPED, "multi-user.target");
        let (logind, off) = (entry(99, SHUTS_DOWN, ""), entry(130, STARTED, "shutdown.target"));
        for (said, wanted) in [
            (format!("{up}{logind}{stopped}{off}"), Some((Some(99), 130))),
            (format!("{up}{stopped}{off}"), Some((Some(100), 130))),
            (format!("{up}{logind}"), Some((Some(99), 99))),
            (off.clone(), Some((None, 130))),
            // It was stopped for something else, and came up again.
            (format!("{}{up}{off}", entry(5, STOPPED, "multi-user.target")), Some((None, 130))),
            (format!("{up}{stopped}"), None),
            (up.clone(), None),
            (String::new(), None),
            ("[]\nnonsense\n{}\n".into(), None),
        ] {
            let told = of_journal(&said).map(|down| (down.since, down.at));
            assert_eq!(told, wanted.map(|(since, off)| (since.map(at), at(off))), "{said}");
        }
    }

    fn record(kind: i16, user: &str, second: i64) -> Vec<u8> {
        let mut record = vec![0; RECORD];
        record[..2].copy_from_slice(&kind.to_ne_bytes());
        record[USER.start..USER.start + user.len()].copy_from_slice(user.as_bytes());
        let time = second.to_ne_bytes();
        // The same in both, where the processor puts the low byte first.
        record[TIME..TIME + 4].copy_from_slice(&time[..4]);
        record
    }

    #[test]
    fn the_shutdown_that_counts_lies_between_the_run_and_the_next_boot() {
        let boot = |second| record(BOOT, "reboot", second);
        let down = |second| record(RUN_LEVEL, "shutdown", second);
        for (records, wanted) in [
            (vec![boot(10), down(100), boot(200)], Some(100)),
            (vec![boot(10), down(100), boot(200), down(300), boot(400)], Some(100)),
            // Power was cut.
            (vec![boot(10), boot(200), down(300), boot(400)], None),
            (vec![down(5), boot(10), record(7, "shutdown", 60), boot(200)], None),
            // What is not over has no end.
            (vec![boot(10), down(100)], None),
            (vec![], None),
        ] {
            let told = of_records(&records.concat(), at(50));
            assert_eq!(told.map(|down| down.at), wanted.map(at));
        }
        let mut torn = [boot(10), down(100), boot(200)].concat();
        torn.truncate(torn.len() - 7);
        assert_eq!(of_records(&torn, at(50)), None);
    }

    #[test]
    fn only_the_end_of_a_long_file_is_read_and_from_a_records_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wtmp");
        let whole: Vec<u8> = (0..6000).flat_map(|second| record(RUN_LEVEL, "shutdown", second)).collect();
        std::fs::write(&path, &whole).unwrap();
        let end = end_of(&path, RECORD as u64).unwrap();
        assert!(end.len() as u64 <= WTMP_BYTES && whole.ends_with(&end));
        assert_eq!(end.len() % RECORD, 0);
        assert!(end_of(folder.path(), RECORD as u64).is_err());
    }
}
