//! Where the kernel put the memory of a process that a fault ended, by its `core_pattern`.
//!
//! The kernel writes a core before it tells of the end, so that it can be looked for as soon as the end is known. One that
//! goes to a program is that program's, which may take minutes over it: systemd's is known by where it puts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use whydown_core::evidence::{Fact, tame};

use crate::process::{boot_id, hosts_own_pids, read_start};

/// Bytes of the kernel's pattern.
const PATTERN_BYTES: u64 = 256;

/// Files of a folder that are looked at.
const ENTRIES: usize = 10_000;

/// A file that was written longer ago is the core of another process that had the same number.
const FRESH: Duration = Duration::from_secs(600);

/// Where systemd keeps cores.
const OF_SYSTEMD: &str = "/var/lib/systemd/coredump";

/// Where the memory of this process is, which a fault has just ended; `None` where nothing shows that it was written.
/// Reads a file of `/proc` and a folder.
pub fn of(pid: u32) -> Option<Fact> {
    if !hosts_own_pids() {
        return None;
    }
    let read = |name: &str| {
        let text = read_start(&format!("/proc/sys/kernel/{name}"), PATTERN_BYTES).ok()?;
        Some(String::from_utf8_lossy(&text).trim_end_matches('\n').to_owned())
    };
    let uses_pid = read("core_uses_pid").is_some_and(|number| number != "0");
    look(&read("core_pattern")?, uses_pid, Path::new(OF_SYSTEMD), pid, SystemTime::now())
}

fn look(pattern: &str, uses_pid: bool, systemds: &Path, pid: u32, now: SystemTime) -> Option<Fact> {
    // `@` is a socket of newer kernels', which names no program.
    if pattern.starts_with('@') {
        return None;
    }
    let Some(command) = pattern.strip_prefix('|') else {
        return dumped(newest(&Name::of(pattern, uses_pid, pid)?, now)?);
    };
    let by = command.split_ascii_whitespace().next()?;
    if by.ends_with("/systemd-coredump")
        && let Ok(boot) = boot_id()
    {
        let boot = boot.0.replace('-', "");
        let parts = vec!["core.".to_owned(), format!(".{boot}.{pid}."), String::new()];
        if let Some(file) = newest(&Name { folder: systemds.to_owned(), parts }, now) {
            return dumped(file);
        }
    }
    Some(Fact::CoreTaken { by: tame(by), pid })
}

fn dumped(file: PathBuf) -> Option<Fact> {
    Some(Fact::CoreDump { file: tame(file.to_str()?) })
}

/// A name in a folder: these parts, with anything between them.
struct Name {
    folder: PathBuf,
    parts: Vec<String>,
}

impl Name {
    /// By the kernel's pattern. libvirt runs QEMU in the root folder. Folders that the pattern makes up are not looked into.
    fn of(pattern: &str, uses_pid: bool, pid: u32) -> Option<Self> {
        let (folder, file) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        if file.is_empty() || folder.contains('%') {
            return None;
        }
        let mut parts = vec![String::new()];
        let mut has_pid = false;
        let mut characters = file.chars();
        while let Some(c) = characters.next() {
            let text = match (c, if c == '%' { characters.next() } else { None }) {
                ('%', Some('%')) => Some("%".to_owned()),
                ('%', Some('p' | 'P')) => {
                    has_pid = true;
                    Some(pid.to_string())
                }
                ('%', _) => None,
                (c, _) => Some(c.into()),
            };
            match (text, parts.last_mut()) {
                (Some(text), Some(last)) => last.push_str(&text),
                _ => parts.push(String::new()),
            }
        }
        if let Some(last) = parts.last_mut().filter(|_| uses_pid && !has_pid) {
            last.push_str(&format!(".{pid}"));
        }
        Some(Self { folder: Path::new("/").join(folder), parts })
    }

    fn fits(&self, name: &str) -> bool {
        let [first, rest @ ..] = &self.parts[..] else { return false };
        let Some(mut name) = name.strip_prefix(first.as_str()) else { return false };
        let Some((last, between)) = rest.split_last() else { return name.is_empty() };
        for part in between {
            match name.split_once(part.as_str()) {
                Some((_, after)) => name = after,
                None => return false,
            }
        }
        name.ends_with(last.as_str())
    }
}

/// The newest file of this name that was written just now.
fn newest(name: &Name, now: SystemTime) -> Option<PathBuf> {
    let entries = fs::read_dir(&name.folder).ok()?.flatten().take(ENTRIES);
    let fitting = entries.filter(|entry| entry.file_name().to_str().is_some_and(|file| name.fits(file)));
    let written = fitting.filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(|metadata| metadata.is_file() && metadata.len() > 0)?;
        let written = metadata.modified().ok()?;
        // One of the future was written before the clock was set back.
        let fresh = now.duration_since(written).is_ok_and(|age| age <= FRESH);
        fresh.then(|| (written, entry.path()))
    });
    written.max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(pattern: &str, uses_pid: bool) -> Option<Fact> {
        look(pattern, uses_pid, Path::new("/nowhere"), 77, SystemTime::now() + Duration::from_secs(1))
    }

    #[test]
    fn a_core_is_found_by_the_kernels_pattern_and_one_of_another_process_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().display();
        let put = |name: &str| fs::write(folder.path().join(name), "core").unwrap();
        put("core.78");
        put("core.qemu-system-x86.77.1700000000.x");
        assert_eq!(at(&format!("{here}/core"), true), None);
        assert_eq!(at(&format!("{here}/core.%p"), false), None);
        let file = Fact::CoreDump { file: format!("{here}/core.qemu-system-x86.77.1700000000.x") };
        assert_eq!(at(&format!("{here}/core.%e.%P.%t.x"), false), Some(file.clone()));
        assert_eq!(at(&format!("{here}/core.%e.%P.%t"), false), Some(file.clone()));
        assert_eq!(at(&format!("{here}/core.%e.%p.%t.y"), true), None);
        put("core.77");
        let file = Fact::CoreDump { file: format!("{here}/core.77") };
        assert_eq!(at(&format!("{here}/core"), true), Some(file));
        let old = fs::File::options().append(true).open(folder.path().join("core.77")).unwrap();
        old.set_modified(SystemTime::now() - FRESH * 2).unwrap();
        assert_eq!(at(&format!("{here}/core"), true), None);
        for odd in ["", "/", "%", "/tmp/%e/core", "@/run/x.socket", "|", "|  "] {
            assert_eq!(at(odd, false), None, "{odd}");
        }
    }

    #[test]
    fn a_program_that_takes_cores_is_named_and_systemds_is_known_by_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let pattern = "|/usr/lib/systemd/systemd-coredump %P %u %g %s %t %c %h";
        let ask = || look(pattern, true, folder.path(), 77, SystemTime::now() + Duration::from_secs(1));
        let by = "/usr/lib/systemd/systemd-coredump".to_owned();
        assert_eq!(ask(), Some(Fact::CoreTaken { by, pid: 77 }));
        let boot = boot_id().unwrap().0.replace('-', "");
        let name = format!("core.CPU\\x200\\x2fKVM.0.{boot}.77.1700000000000000.zst");
        fs::write(folder.path().join(&name), "core").unwrap();
        let file = folder.path().join(&name).display().to_string();
        assert_eq!(ask(), Some(Fact::CoreDump { file }));
        let by = "/usr/share/apport/apport".to_owned();
        assert_eq!(at("|/usr/share/apport/apport -p%p", true), Some(Fact::CoreTaken { by, pid: 77 }));
    }
}
