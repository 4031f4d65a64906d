//! Stories as data: what happened, told in libvirt's and QEMU's own words, and what must be said of it, and what not.
//!
//! The files lie in `src/sim/scenarios/`. A step is one line; [`words`] is their dictionary. Each story is played on a
//! fresh world with one domain named `vm`, and gets ten seconds of rest at its end.

mod judge;
mod kinds;
mod starts;
pub mod words;

use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use judge::judge;
pub use kinds::kind_of;

/// A file of stories.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    /// The stories.
    pub scenario: Vec<Scenario>,
}

/// A story.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A short name.
    pub name: String,
    /// What happens, in a sentence.
    pub story: String,
    /// Whether libvirt forgets the domain when it is off.
    #[serde(default)]
    pub transient: bool,
    /// Whether whydown runs from the beginning. If not, a step starts it.
    #[serde(default = "yes")]
    pub daemon: bool,
    /// What happens, in order.
    pub steps: Vec<String>,
    /// The endings that must be kept, in order; none if nothing ended.
    #[serde(default)]
    pub expect: Vec<Expected>,
    /// What readers must see at the end: a status, or `absent`.
    pub status: String,
    /// Statuses and causes that readers must never have seen.
    #[serde(default)]
    pub never: Vec<String>,
    /// The answers to managers, in the order of their requests.
    #[serde(default)]
    pub replies: Vec<String>,
}

/// An ending that must be kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Row of the decision table.
    pub row: String,
    /// Stable word of the cause.
    pub cause: String,
    /// `certain`, `probable` or `unknown`.
    pub certainty: String,
    /// 0 or 1.
    pub exit_code: u8,
    /// 0 to 14.
    pub exit_reason: u8,
    /// Kinds of the evidence that it stands on, in the order of the evidence.
    pub because: Vec<String>,
    /// Kinds of the evidence that points elsewhere.
    #[serde(default)]
    pub despite: Vec<String>,
    /// What the message must hold.
    #[serde(default)]
    pub message: String,
}

fn yes() -> bool {
    true
}

/// Why stories cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The folder or a file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its text.
    #[error("{path}: {source}")]
    Text {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
}

/// All stories of a folder, each with its file, in the order of names.
///
/// # Errors
/// [`Unreadable`] names the file.
pub fn read(folder: &Path) -> Result<Vec<(PathBuf, Scenario)>, Unreadable> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Unreadable::File { path, source }
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed(folder))? {
        files.push(entry.map_err(failed(folder))?.path());
    }
    files.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    files.sort();
    let mut stories = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).map_err(failed(&path))?;
        let book: Book = toml::from_str(&text)
            .map_err(|source| Unreadable::Text { path: path.clone(), source: Box::new(source) })?;
        stories.extend(book.scenario.into_iter().map(|scenario| (path.clone(), scenario)));
    }
    Ok(stories)
}
