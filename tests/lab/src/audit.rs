//! The kernel's audit, switched on for one test and put back as it was.
//!
//! There is one audit for the whole host: a lock lets one test have it at a time. What a killed test left is removed by
//! the next, as every rule of ours has our key. The audit's own daemon is neither needed nor disturbed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::{Error, Result, run};

/// In every rule of ours.
const KEY: &str = "whydown-lab";

/// Who holds it has the audit.
const LOCK: &str = "/tmp/whydown-lab-audit.lock";

const LIMIT: Duration = Duration::from_secs(30);

/// The audit, in our hands.
#[derive(Debug)]
pub struct Audit {
    tools: PathBuf,
    /// Whether it was enabled, as the kernel numbers it.
    was: String,
    rules: Vec<String>,
    _lock: File,
}

impl Audit {
    /// Waits for the audit, and switches it on.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without `auditctl`; [`Error::Refused`] where the kernel has no audit for us, as in a container,
    /// or its rules are locked until the next boot.
    pub fn on() -> Result<Self> {
        let tools = tools()?;
        let lock = File::create(LOCK).and_then(|lock| lock.lock().map(|()| lock));
        let lock = lock.map_err(Error::file("lock", Path::new(LOCK)))?;
        let mut audit = Self { tools, was: String::new(), rules: Vec::new(), _lock: lock };
        let status = audit.auditctl("-s")?;
        let enabled = status.lines().find_map(|line| line.strip_prefix("enabled ")).unwrap_or_default();
        audit.was = enabled.trim().into();
        // Only those that a killed test left have our key.
        audit.auditctl(&format!("-D -k {KEY}"))?;
        audit.switch(true)?;
        Ok(audit)
    }

    /// Switches it on or off.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] where it is locked.
    pub fn switch(&self, on: bool) -> Result<()> {
        self.auditctl(if on { "-e 1" } else { "-e 0" }).map(drop)
    }

    /// Adds rules, one a line, as `auditctl` takes them. They go with this.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with `auditctl`'s own words.
    pub fn add(&mut self, rules: &str) -> Result<()> {
        for rule in rules.lines() {
            let rule = format!("{rule} -F key={KEY}");
            self.auditctl(&rule)?;
            self.rules.push(rule);
        }
        Ok(())
    }

    fn auditctl(&self, arguments: &str) -> Result<String> {
        let mut command = Command::new(self.tools.join("auditctl"));
        command.env("LD_LIBRARY_PATH", self.tools.join("lib")).args(arguments.split(' '));
        Ok(String::from_utf8_lossy(&run(&mut command, LIMIT)?.stdout).into_owned())
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        for rule in self.rules.iter().rev() {
            if let Err(error) = self.auditctl(&rule.replacen("-a ", "-d ", 1)) {
                eprintln!("a rule of the audit is left behind: {error}");
            }
        }
        if !self.was.is_empty()
            && let Err(error) = self.auditctl(&format!("-e {}", self.was))
        {
            eprintln!("the audit is not put back: {error}");
        }
    }
}

/// Where `tests/setup.sh` has put them: in Cargo's target directory.
fn tools() -> Result<PathBuf> {
    let target = std::env::current_exe().ok().and_then(|program| {
        let profile = program.ancestors().find(|path| path.join(".fingerprint").is_dir())?;
        Some(profile.parent()?.join("lab-audit"))
    });
    target.filter(|tools| tools.join("complete").is_file()).ok_or_else(|| Error::Missing {
        program: "target/lab-audit/auditctl".into(),
        package: "auditd, which is fetched and not installed",
    })
}
