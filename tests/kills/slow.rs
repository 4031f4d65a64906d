//! A disk whose syncs take as long as the test says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use whydown_lab::{Launch, Result, run};

/// The library to be loaded before the daemon's, and the file that says how slow the disk is now.
pub struct SlowDisk {
    library: PathBuf,
    told: PathBuf,
}

impl SlowDisk {
    /// Compiled in this folder.
    pub fn new(folder: &Path) -> Result<Self> {
        let (library, told) = (folder.join("slow_sync.so"), folder.join("slow_sync"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kills/slow_sync.c");
        let mut compile = Command::new("cc");
        compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
        let done = run(&mut compile, Duration::from_secs(60))?;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let disk = Self { library, told };
        disk.set(0);
        Ok(disk)
    }

    pub fn under(&self, launch: Launch) -> Launch {
        let text = |path: &Path| path.to_str().expect("a path of the test").to_owned();
        launch
            .environment("LD_PRELOAD", &text(&self.library))
            .environment("SLOW_SYNC_FILE", &text(&self.told))
    }

    /// Every sync takes so many milliseconds from now on.
    pub fn set(&self, millis: u64) {
        fs::write(&self.told, millis.to_string()).expect("the test's folder takes a file");
    }
}
