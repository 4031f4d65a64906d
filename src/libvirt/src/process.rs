//! Which QEMU process stands behind a domain: libvirt's pid file, held against what `/proc` says of that process.
//!
//! Reads files only; never asks libvirt, and never takes a process that does not name the domain for its own.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};
use whydown_core::hypervisor::Process;

/// Bytes of a QEMU command line that are searched for its name, which comes first.
const COMMAND_LINE_BYTES: u64 = 64 * 1024;

/// Bytes of a pid file or a `stat` file that are read.
const SMALL_FILE_BYTES: u64 = 4096;

/// A moment on the scale of a process's start time: clock ticks since the host's boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BootTicks(u64);

impl BootTicks {
    /// Now.
    pub(crate) fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let per_second = rustix::param::clock_ticks_per_second();
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
        Self(seconds * per_second + nanoseconds * per_second / 1_000_000_000)
    }
}

/// Where the processes of one libvirt can be found.
#[derive(Debug, Clone)]
pub(crate) struct Processes {
    run_dir: Option<PathBuf>,
}

impl Processes {
    /// With libvirt's run directory; without one nothing is found.
    pub(crate) fn new(run_dir: Option<PathBuf>) -> Self {
        Self { run_dir }
    }

    /// The process that runs the domain `name` now.
    pub(crate) fn of(&self, name: &str) -> Option<Process> {
        let directory = self.run_dir.as_deref()?;
        let files = [file_of(directory, &escaped(name), "pid")?, file_of(directory, name, "pid")?];
        let pid: u32 = files.iter().find_map(|file| read_text(file))?.trim().parse().ok()?;
        // The start time is read on both sides of the name: a number that was reused in between would show.
        let start_ticks = start_ticks(pid)?;
        let process = Process { pid, start_ticks };
        (runs(pid, name) && self::start_ticks(pid)? == start_ticks).then_some(process)
    }

    /// The process that ran the domain `name` at the moment `at`: one that started later belongs to a later run.
    pub(crate) fn of_run_at(&self, name: &str, at: BootTicks) -> Option<Process> {
        self.of(name).filter(|process| BootTicks(process.start_ticks) <= at)
    }
}

/// The file that libvirt keeps for a domain, unless its name is none that a file can have.
pub(crate) fn file_of(directory: &Path, name: &str, extension: &str) -> Option<PathBuf> {
    let plain = !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\0', '\u{FFFD}']);
    plain.then(|| directory.join(format!("{name}.{extension}")))
}

/// The name as libvirt writes it into the name of a pid file, and of no other: with the escapes of XML.
/// Old versions write it as it is.
fn escaped(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for letter in name.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn read_bytes(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn read_text(path: &Path) -> Option<String> {
    Some(String::from_utf8_lossy(&read_bytes(path, SMALL_FILE_BYTES)?).into_owned())
}

fn start_ticks(pid: u32) -> Option<u64> {
    start_ticks_of(&read_text(Path::new(&format!("/proc/{pid}/stat")))?)
}

/// Field 22 of a `stat` line. Field 2 is the program's name in brackets and may itself hold brackets and blanks.
fn start_ticks_of(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

fn runs(pid: u32, name: &str) -> bool {
    let path = PathBuf::from(format!("/proc/{pid}/cmdline"));
    read_bytes(&path, COMMAND_LINE_BYTES).is_some_and(|line| names(&line, name))
}

/// Whether a command line holds the argument `guest=NAME`, in QEMU's notation where a comma is written twice.
fn names(command_line: &[u8], name: &str) -> bool {
    let wanted = name.replace(',', ",,");
    command_line.split(|byte| *byte == 0).any(|argument| {
        let Some(rest) = argument.strip_prefix(b"guest=").and_then(|a| a.strip_prefix(wanted.as_bytes()))
        else {
            return false;
        };
        rest.is_empty() || (rest.starts_with(b",") && !rest.starts_with(b",,"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_program_name() {
        let line = "7 (a) S (b) R) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 9 9";
        assert_eq!(start_ticks_of(line), Some(4242));
        assert_eq!(start_ticks_of("7 (a) S 1"), None);
        assert_eq!(start_ticks_of(""), None);
    }

    #[test]
    fn only_the_whole_name_is_the_domains_name() {
        let line = |argument: &str| format!("/usr/bin/qemu\0-name\0{argument}\0-S\0").into_bytes();
        assert!(names(&line("guest=a,debug-threads=on"), "a"));
        assert!(names(&line("guest=a"), "a"));
        assert!(names(&line("guest=a,,b,debug-threads=on"), "a,b"));
        assert!(!names(&line("guest=a,,b,debug-threads=on"), "a"));
        assert!(!names(&line("guest=ab,debug-threads=on"), "a"));
        assert!(!names(&line("x,guest=a,debug-threads=on"), "a"));
        assert!(!names(b"", "a"));
    }

    #[test]
    fn a_name_that_leaves_the_directory_has_no_file() {
        let directory = Path::new("/run/libvirt/qemu");
        assert_eq!(file_of(directory, "a b", "pid"), Some("/run/libvirt/qemu/a b.pid".into()));
        for name in ["", ".", "..", "../x", "a/b", "a\0", "a\u{FFFD}"] {
            assert_eq!(file_of(directory, name, "pid"), None, "{name:?}");
        }
    }

    #[test]
    fn a_pid_file_of_a_process_that_is_no_qemu_of_that_name_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let processes = Processes::new(Some(directory.path().to_owned()));
        assert_eq!(processes.of("a"), None);
        std::fs::write(directory.path().join("a.pid"), format!("{}\n", std::process::id())).unwrap();
        assert_eq!(processes.of("a"), None);
        std::fs::write(directory.path().join("a.pid"), "-1").unwrap();
        assert_eq!(processes.of("a"), None);
    }

    #[test]
    fn a_process_that_names_the_domain_is_its_process_but_not_that_of_an_earlier_moment() {
        let directory = tempfile::tempdir().unwrap();
        let before = BootTicks(BootTicks::now().0 - 1);
        let name = "a & <b> \"c\" 'd'";
        // The shell itself carries the name among its arguments and waits on its input.
        let mut child = std::process::Command::new("sh")
            .args(["-c", "read line", "sh", &format!("guest={name},debug-threads=on")])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // As a libvirt of today names it.
        let file = directory.path().join("a &amp; &lt;b&gt; &quot;c&quot; &apos;d&apos;.pid");
        std::fs::write(&file, child.id().to_string()).unwrap();
        let processes = Processes::new(Some(directory.path().to_owned()));
        // The kernel lets the parent go on a moment before the child's arguments can be read.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        let found = loop {
            match processes.of(name) {
                Some(found) => break found,
                None => assert!(std::time::Instant::now() < until, "the child is not found"),
            }
            std::thread::yield_now();
        };
        assert_eq!(found.pid, child.id());
        assert_eq!(processes.of_run_at(name, BootTicks::now()), Some(found));
        assert_eq!(processes.of_run_at(name, before), None);
        std::fs::rename(&file, directory.path().join(format!("{name}.pid"))).unwrap();
        assert_eq!(processes.of(name), Some(found), "as an old one does");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(processes.of(name), None);
    }
}
