//! A generated file is compared with what its source gives now.

use std::path::{Path, PathBuf};

/// The root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a file with what it is made from; with `WHYDOWN_FIX=1` it is written instead.
///
/// # Panics
/// If it differs.
pub fn check(path: impl AsRef<Path>, wanted: &str) {
    let full = root().join(path.as_ref());
    let found = std::fs::read_to_string(&full).unwrap_or_default();
    if found == wanted {
        return;
    }
    if std::env::var_os("WHYDOWN_FIX").is_some() {
        std::fs::create_dir_all(full.parent().expect("a file lies in a folder"))
            .expect("the folder can be made");
        std::fs::write(&full, wanted).expect("the file can be written");
        return;
    }
    let line = found.lines().zip(wanted.lines()).position(|(a, b)| a != b).unwrap_or(0) + 1;
    panic!("{} differs from its source at line {line}: run tests/fix.sh", path.as_ref().display());
}
