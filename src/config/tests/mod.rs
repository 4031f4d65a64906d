//! The configuration from outside: temporary trees, made-up environments, no state of the process.

mod keys;
mod layers;
mod mistakes;
mod pages;
mod random;
mod told;
mod units;
mod values;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use tempfile::TempDir;

use super::{Flags, Loaded, Mistakes, Sources, load};

/// A root directory with files of its own, an environment and flags.
struct World {
    dir: TempDir,
    sources: Sources,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("etc/whydown/conf.d")).expect("directories");
        let sources = Sources { root: dir.path().to_owned(), ..Sources::default() };
        Self { dir, sources }
    }

    /// Writes `etc/whydown/NAME`.
    fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), text).expect("a file");
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("etc/whydown").join(name)
    }

    fn variable(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.sources.environment.push((name.into(), value.into()));
        self
    }

    fn flags(mut self, flags: &[&str]) -> Self {
        let words = std::iter::once("whydownd").chain(flags.iter().copied());
        self.sources.flags = Flags::try_parse_from(words).expect("flags that clap takes");
        self
    }

    fn load(&self) -> Result<Loaded, Mistakes> {
        load(&self.sources)
    }

    fn right(&self) -> Loaded {
        self.load().unwrap_or_else(|mistakes| panic!("{mistakes}"))
    }

    /// The findings as lines, with the directory left out of places.
    fn wrong(&self) -> Vec<String> {
        let base = format!("{}/", self.path("").display()).replace("//", "/");
        match self.load() {
            Ok(loaded) => panic!("taken for right: {:?}", loaded.settings),
            Err(mistakes) => mistakes.findings().iter().map(|f| f.to_string().replace(&base, "")).collect(),
        }
    }
}
