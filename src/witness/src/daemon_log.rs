//! What libvirt's own daemon says of an error: in the journal, or in a file of its own.
//!
//! libvirt writes many errors without the domain's name. So whoever asks says how long before and after a moment counts,
//! and by which words an error is known to be about a domain: its own, and those of what it needs. What else one thread
//! wrote at that moment is about the same.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use whydown_core::evidence::tame;
use whydown_core::time::Wall;

use crate::journal;

/// The journal's number of errors; what is worse has a lower one.
const PRIORITY_ERROR: u8 = 3;

/// Bytes of the end of the file, or of the journal's answer, that are read.
const BYTES: u64 = 256 * 1024;

/// Seconds in which the journal is asked for what was written earlier.
const RECEIVED_WITHIN_S: i64 = 60;

/// Where systemd's journal is, if there is one.
const JOURNAL: &str = "/run/systemd/journal";

/// What starts an error's line in a file, behind the thread's number.
const ERROR: &str = ": error : ";

/// And a warning's.
const WARNING: &str = ": warning : ";

/// A line of libvirt's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// When it was written.
    pub at: Wall,
    /// By which of libvirt's threads; the journal does not keep that.
    pub thread: Option<u32>,
    /// Whether it is an error, and no warning.
    pub error: bool,
    /// Its words.
    pub text: String,
}

/// Where libvirt's daemon writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonLog {
    /// systemd's journal.
    Journal,
    /// This file.
    File(PathBuf),
}

impl DaemonLog {
    /// Whether there is such a thing here, in words if not.
    pub fn trouble(&self) -> Option<String> {
        match self {
            Self::Journal if !Path::new(JOURNAL).is_dir() => {
                Some("this host has no journal of systemd's".into())
            }
            Self::Journal if journal::program().is_none() => Some("there is no journalctl".into()),
            Self::Journal => None,
            Self::File(path) => open(path).err().map(|error| format!("{}: {error}", path.display())),
        }
    }

    /// The errors and warnings that it wrote from one moment to another, the oldest first. Blocks for as long as that takes, some
    /// seconds at most.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn errors(&self, from: Wall, to: Wall) -> io::Result<Vec<Said>> {
        let all = match self {
            Self::Journal => of_journal(&ask_journal(from, to)?),
            Self::File(path) => of_file(&end_of(path)?),
        };
        Ok(all.into_iter().filter(|said| (from..=to).contains(&said.at)).collect())
    }

    /// Waits until the journal has taken in what was written until now; false where there is nothing to wait for. Blocks for
    /// some milliseconds, and for some seconds at most where the journal is busy: what it has by then must do.
    pub fn catch_up(&self) -> bool {
        let Self::Journal = self else { return false };
        let Some(program) = journal::program() else { return false };
        // Its output ends with it.
        let child = Command::new(program)
            .arg("--sync")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else { return false };
        let mut child = journal::Reaped(child);
        if let Some(output) = child.0.stdout.take() {
            let wait = Timespec::try_from(journal::PATIENCE).ok();
            let _ = poll(&mut [PollFd::new(&output, PollFlags::IN)], wait.as_ref());
        }
        true
    }
}

/// The last of these errors that says why something failed: libvirt reports what it only works around as an error, too.
/// Those that name something of `its_own`, or were written by a thread that had done so, come before others; whether any others
/// count, as nobody else has said why, `anyones` tells.
pub fn telling<'a>(said: &'a [Said], its_own: &[String], anyones: bool) -> Option<&'a Said> {
    const NOISE: [&str; 4] = [
        "dmidecode",
        "At least one cgroup controller is required",
        "Unable to read from monitor",
        "End of file while reading data",
    ];
    let names_it = |one: &Said| its_own.iter().any(|word| one.text.contains(word.as_str()));
    let is_noise = |one: &Said| NOISE.iter().any(|noise| one.text.contains(noise));
    let errors = || said.iter().enumerate().rev().filter(|(_, one)| one.error && !is_noise(one));
    // One thread starts all that libvirt starts by itself, one after the other, and names each that failed: what it said before
    // it came to this one is about others.
    let of_another = |one: &Said| one.text.contains(AUTOSTART) && !names_it(one);
    let of_its_thread = |at: usize, one: &Said| {
        one.thread.is_some()
            && said[..at].iter().any(|before| before.thread == one.thread && names_it(before))
    };
    let its = || errors().filter(|(_, one)| !of_another(one));
    let own =
        errors().find(|(_, one)| names_it(one)).or_else(|| its().find(|(at, one)| of_its_thread(*at, one)));
    own.or_else(|| if anyones { its().next() } else { None }).map(|(_, one)| one)
}

/// libvirt's words for what it should start by itself and cannot.
const AUTOSTART: &str = "Failed to autostart VM '";

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

fn end_of(path: &Path) -> io::Result<String> {
    let mut file = open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `2026-11-28 05:30:13.171+0000: 28327: error : virFunction:1283 : Cannot access …`
fn of_file(text: &str) -> Vec<Said> {
    let read = |line: &str| {
        let split = [(ERROR, true), (WARNING, false)]
            .into_iter()
            .filter_map(|(level, error)| line.split_once(level).map(|(head, rest)| (head, rest, error)));
        // What a line says may look like another's beginning.
        let (head, rest, error) = split.min_by_key(|(head, ..)| head.len())?;
        let (stamp, thread) = head.rsplit_once(": ")?;
        let at = jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%S%.3f%z", stamp).ok()?.to_timestamp().ok()?;
        let (place, said) = rest.split_once(" : ")?;
        let is_place = place.rsplit_once(':').is_some_and(|(_, number)| number.parse::<u32>().is_ok());
        let at = Wall(i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX));
        is_place.then(|| Said { at, thread: thread.parse().ok(), error, text: tame(said) })
    };
    text.lines().filter_map(read).collect()
}

fn ask_journal(from: Wall, to: Wall) -> io::Result<String> {
    // Whole seconds, and those in which it received things: the journal is asked for more, and what does not fit is left out.
    let second = |at: Wall, more: i64| format!("@{}", at.as_millis().div_euclid(1000) + more);
    let (since, until) = (second(from, 0), second(to, RECEIVED_WITHIN_S));
    journal::ask(
        &[
            "--output-fields=MESSAGE,PRIORITY,_SOURCE_REALTIME_TIMESTAMP",
            "--priority=warning",
            "--lines=200",
            &format!("--since={since}"),
            &format!("--until={until}"),
            "_COMM=libvirtd",
            "+",
            "_COMM=virtqemud",
        ],
        BYTES,
    )
}

/// One JSON object a line.
fn of_journal(text: &str) -> Vec<Said> {
    let read = |line: &str| {
        let entry: serde_json::Value = serde_json::from_str(line).ok()?;
        let error = entry["PRIORITY"].as_str()?.parse::<u8>().ok()? <= PRIORITY_ERROR;
        let text = tame(entry["MESSAGE"].as_str()?);
        Some(Said { at: journal::time(&entry)?, thread: None, error, text })
    };
    text.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
2026-11-28 05:30:13.071+0000: 28327: warning : qemuDomainObjTaintMsg:6603 : Domain id=4 name='x' is tainted
2026-11-28 05:30:13.171+0000: 28327: error : virStorageSourceReportBrokenChain:1283 : Cannot access storage file '/a: error : b:1 : c': No such file or directory
2026-11-28 05:30:14.504+0000: 28325: error : virCgroupDetectControllers:451 : At least one cgroup controller is required: No such device or address
what: error : is no line of libvirt's
";

    #[test]
    fn errors_of_a_file_are_read_with_their_moment_and_the_one_that_tells_is_chosen() {
        let at = |millis: i64| Wall::from_millis(1_795_843_813_000 + millis);
        let all = of_file(FILE);
        assert_eq!(all.len(), 3, "{all:?}");
        let text = "Cannot access storage file '/a: error : b:1 : c': No such file or directory";
        let error = Said { at: at(171), thread: Some(28327), error: true, text: text.to_owned() };
        assert_eq!(all[1], error);
        assert_eq!(telling(&all, &[], true), Some(&error));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libvirtd.log");
        std::fs::write(&path, FILE).unwrap();
        let log = DaemonLog::File(path);
        assert_eq!(log.trouble(), None);
        assert_eq!(log.errors(at(0), at(1_000)).unwrap().len(), 2);
        assert_eq!(log.errors(at(172), at(1_000)).unwrap(), []);
        let none = DaemonLog::File(folder.path().join("none"));
        assert!(none.trouble().is_some_and(|why| why.contains("none")));
        assert!(DaemonLog::File(folder.path().into()).errors(at(0), at(1)).is_err());
    }

    #[test]
    fn of_several_starts_that_fail_at_once_each_has_its_own_error() {
        let said = |thread: u32, error: bool, text: &str| Said {
            at: Wall(0),
            thread: Some(thread),
            error,
            text: text.into(),
        };
        let all = [
            said(1, true, "Cannot access storage file '/images/a.img': No such file or directory"),
            said(2, false, "Domain id=7 name='b' uuid=x is tainted: host-cpu"),
            said(2, true, "unsupported configuration: no such thing"),
            said(3, true, "internal error: something else"),
        ];
        let of = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            telling(&all, &words, true).map(|said| said.text.as_str())
        };
        assert_eq!(of(&["'a'", "/images/a.img"]), Some(all[0].text.as_str()));
        assert_eq!(of(&["'b'", "/images/b.img"]), Some(all[2].text.as_str()));
        assert_eq!(of(&["'c'"]), Some(all[3].text.as_str()), "nothing tells which");
        assert_eq!(telling(&all, &["'c'".into()], false), None, "QEMU has said why");
        let text = "internal error: Failed to autostart VM 'c': Cannot access storage file '/c': No such file or directory";
        let auto = [said(5, true, text)];
        let before = [
            all[2].clone(),
            said(2, true, "Unknown CPU model X"),
            said(2, false, "Domain id=8 name='d' is tainted"),
        ];
        assert_eq!(telling(&before, &["'d'".into()], false), None, "its thread was at another then");
        assert_eq!(telling(&auto, &["'d'".into()], true), None, "it is about another");
        assert_eq!(telling(&auto, &["'c'".into()], true), Some(&auto[0]));
        assert_eq!(of_file("2026-11-28 05:30:13.171+0000: 7: warning : f:1 : a: error : b:2 : c").len(), 1);
    }

    #[test]
    fn errors_of_the_journal_are_read_line_by_line() {
        let text = "{\"PRIORITY\":\"3\",\"MESSAGE\":\"internal error: Unknown CPU model X\",\"__REALTIME_TIMESTAMP\":\"1795843813171000\"}\n\
                    {\"MESSAGE\":[1,2],\"__REALTIME_TIMESTAMP\":\"1\"}\nnonsense\n";
        let words = "internal error: Unknown CPU model X".to_owned();
        let said = Said { at: Wall::from_millis(1_795_843_813_171), thread: None, error: true, text: words };
        assert_eq!(of_journal(text), std::slice::from_ref(&said));
        let late = "{\"PRIORITY\":\"3\",\"MESSAGE\":\"internal error: Unknown CPU model X\",\
                    \"__REALTIME_TIMESTAMP\":\"1795843815000000\",\
                    \"_SOURCE_REALTIME_TIMESTAMP\":\"1795843813171000\"}";
        assert_eq!(of_journal(late), [said], "the journal may be late");
    }
}
