//! `--check-config`: what would be in force, or everything that is wrong. Text only; the caller prints it.

use std::fmt::Write;

use super::finding::Mistakes;
use super::key::KEYS;
use super::load::{Loaded, Sources, load};

/// `EX_CONFIG` of sysexits: starting again would not help, and the unit does not.
pub const EX_CONFIG: u8 = 78;

/// The outcome of a check.
#[derive(Debug)]
pub enum Report {
    /// The configuration can be used.
    Right(Box<Loaded>),
    /// It cannot.
    Wrong(Mistakes),
}

/// Loads the configuration to tell about it.
pub fn check(sources: &Sources) -> Report {
    match load(sources) {
        Ok(loaded) => Report::Right(Box::new(loaded)),
        Err(mistakes) => Report::Wrong(mistakes),
    }
}

impl Report {
    /// 0 if it can be used, else what the daemon itself ends with then: `EX_CONFIG` of sysexits, 78.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Right(_) => 0,
            Self::Wrong(_) => EX_CONFIG,
        }
    }

    /// For standard output: `configuration is right` and the settings in force as TOML, where a comment tells the origin
    /// of each value that differs from the default; or the mistakes, one a line. Ends with a newline.
    pub fn text(&self) -> String {
        match self {
            Self::Right(loaded) => format!("configuration is right\n{}", in_force(loaded)),
            Self::Wrong(mistakes) => format!("{mistakes}\n"),
        }
    }
}

fn in_force(loaded: &Loaded) -> String {
    let changes = loaded.changes();
    let libvirt = &loaded.settings.libvirt;
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let _ = writeln!(text, "\n[{section}]");
        }
        let full = key.full();
        let _ = write!(text, "{} = {}", key.name, loaded.value(&full));
        let derived = match full.as_str() {
            "libvirt.log_dir" => Some(&libvirt.log_dir),
            "libvirt.run_dir" => Some(&libvirt.run_dir),
            _ => None,
        };
        let _ = match (changes.iter().find(|change| change.key == full), derived) {
            (Some(change), _) => writeln!(text, "  # {}", change.origin),
            (None, Some(Some(dir))) => writeln!(text, "  # from libvirt.uri: {}", dir.display()),
            (None, Some(None)) => writeln!(text, "  # none with this libvirt.uri"),
            (None, None) => writeln!(text),
        };
    }
    text
}
