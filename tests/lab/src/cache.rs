//! What libvirt learned about QEMU by probing it (0.6 to 8 s), kept between tests.
//!
//! libvirt checks each entry against the QEMU binary itself, so a stale one costs time and nothing else.
//! For the same reason every failure here is ignored: a test without the cache is slower, not wrong.

use std::fs;
use std::path::{Path, PathBuf};

const CAPABILITIES: &str = "qemu/capabilities";

/// Gives a libvirt cache directory what earlier tests learned.
pub(crate) fn fill(cache: &Path) {
    copy_new(&shared(), &cache.join(CAPABILITIES));
}

/// Keeps what a libvirt cache directory has learned, for later tests.
pub(crate) fn keep(cache: &Path) {
    copy_new(&cache.join(CAPABILITIES), &shared());
}

/// Copies the entries that are new or differ. Each appears whole or not at all, also when tests run in parallel.
fn copy_new(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    if fs::create_dir_all(to).is_err() {
        return;
    }
    for entry in entries.flatten() {
        if entry.path().extension().is_none_or(|extension| extension != "xml") {
            continue;
        }
        let Ok(content) = fs::read(entry.path()) else { continue };
        let target = to.join(entry.file_name());
        if fs::read(&target).is_ok_and(|existing| existing == content) {
            continue;
        }
        if let Ok(whole) = tempfile::NamedTempFile::new_in(to)
            && fs::write(whole.path(), content).is_ok()
        {
            let _ = whole.persist(target);
        }
    }
}

/// One directory per user in Cargo's target directory, or in the system's temporary one outside Cargo.
fn shared() -> PathBuf {
    let name = format!("lab-capabilities-{}", rustix::process::geteuid().as_raw());
    let target = std::env::current_exe().ok().and_then(|program| {
        let profile = program.ancestors().find(|path| path.join(".fingerprint").is_dir())?;
        Some(profile.parent()?.join("tmp"))
    });
    target.unwrap_or_else(std::env::temp_dir).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab_dir;

    #[test]
    fn entries_are_copied_whole_and_changed_ones_again_and_nothing_else() {
        let directory = lab_dir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("a.xml"), "one").unwrap();
        fs::write(from.join("a.lock"), "no").unwrap();
        copy_new(&from, &to);
        fs::write(from.join("a.xml"), "two").unwrap();
        copy_new(&from, &to);
        let names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.xml"]);
        assert_eq!(fs::read_to_string(to.join("a.xml")).unwrap(), "two");
    }
}
