//! A mistake in the configuration: where, at which key, what is wrong, and what would be right.

use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file with line and column, the environment variable or the flag.
    pub place: String,
    /// The full key, where the mistake is at one.
    pub key: Option<String>,
    /// What is wrong.
    pub wrong: Wrong,
}

impl Finding {
    pub(super) fn of_file(place: impl fmt::Display, wrong: Wrong) -> Self {
        Self { place: place.to_string(), key: None, wrong }
    }

    pub(super) fn of_key(place: &str, key: impl Into<String>, wrong: Wrong) -> Self {
        Self { place: place.to_owned(), key: Some(key.into()), wrong }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{}: {}: {}", self.place, key, self.wrong),
            None => write!(f, "{}: {}", self.place, self.wrong),
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// No such key.
    #[error("there is no such key{}", hint(.near))]
    UnknownKey {
        /// What was probably meant.
        near: Option<String>,
    },
    /// No such section.
    #[error("there is no such section{}", hint(.near))]
    UnknownSection {
        /// What was probably meant.
        near: Option<String>,
    },
    /// No such environment variable.
    #[error("there is no such setting{}", hint(.near))]
    UnknownVariable {
        /// What was probably meant.
        near: Option<String>,
    },
    /// A section's name with a value.
    #[error("this is a section, and was set to {found}")]
    NotASection {
        /// What stands there.
        found: &'static str,
    },
    /// A value of another type.
    #[error("{shown} is {found}; allowed: {allowed}")]
    Type {
        /// As it was written.
        shown: String,
        /// Its type.
        found: &'static str,
        /// What would be right.
        allowed: String,
    },
    /// A value of the right type that is not allowed.
    #[error("{shown}: {why}; allowed: {allowed}")]
    Value {
        /// As it was written.
        shown: String,
        /// Why not.
        why: String,
        /// What would be right.
        allowed: String,
    },
    /// Values that do not go together.
    #[error("{0}")]
    Together(String),
    /// Not TOML.
    #[error("this is not TOML: {0}")]
    Syntax(String),
    /// A file, variable or flag that is not UTF-8.
    #[error("this is not UTF-8, from byte {0} on")]
    NotUtf8(usize),
    /// A file that must be there and is not.
    #[error("there is no such file")]
    Missing,
    /// Something else in place of a file.
    #[error("this is {0}, and should be a file")]
    NotAFile(&'static str),
    /// Something else in place of a directory.
    #[error("this is not a directory")]
    NotADirectory,
    /// A file that cannot be read.
    #[error("this cannot be read: {0}")]
    Unreadable(String),
    /// A file that is too large.
    #[error("this has more than {0} bytes")]
    TooLarge(u64),
    /// A directory with too many files.
    #[error("this has more than {0} files")]
    TooMany(usize),
}

fn hint(near: &Option<String>) -> String {
    near.as_ref().map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

/// Every mistake that was found; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub(super) Vec<Finding>);

impl Mistakes {
    /// In the order of the layers, and by place within a layer.
    pub fn findings(&self) -> &[Finding] {
        &self.0
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => writeln!(f, "the configuration has a mistake:")?,
            many => writeln!(f, "the configuration has {many} mistakes:")?,
        }
        for (at, finding) in self.0.iter().enumerate() {
            write!(f, "{}  {finding}", if at == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Characters of a wrong value that are shown again.
const SHOWN_CHARS: usize = 80;

/// One line, without control characters, and not too long.
pub(super) fn shorten(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}
