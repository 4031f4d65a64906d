//! THE TABLE in code: the causes of an ending, each with its row.
//!
//! The rows are generated from `proto-schemas/causes.toml`; that file is the source and explains the columns.

#[rustfmt::skip]
mod rows;

use serde::{Deserialize, Serialize};

pub use rows::{Cause, ROWS};

/// Whether high availability should start the VM again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// It should run: it fell.
    Yes,
    /// Somebody wanted it off, or it runs elsewhere.
    No,
    /// The site's policy decides.
    Ask,
}

impl Restart {
    /// The word in THE TABLE.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Ask => "ask",
        }
    }
}

/// One row of THE TABLE. The columns are explained in `proto-schemas/causes.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the columns are documented where their source is")]
pub struct Row {
    pub word: &'static str,
    pub sentence: &'static str,
    pub story: &'static str,
    pub advice: &'static str,
    pub exit_code: u8,
    pub exit_reason: u8,
    pub classic_reason: u8,
    pub message: &'static str,
    pub exit_status: u8,
    pub vcs_monitor: u8,
    pub ocf_monitor: u8,
    pub vep362: &'static str,
    pub restart: Restart,
}

impl Cause {
    /// The row of this cause.
    pub const fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// The stable word, such as `guest-poweroff`.
    pub const fn word(self) -> &'static str {
        self.row().word
    }

    /// The cause with this stable word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|cause| cause.word() == word)
    }

    /// The exit message, where `text` is libvirt's or QEMU's own words: never empty, and nothing is put behind the
    /// text (hosted-engine's agent compares how it ends).
    pub fn message(self, text: Option<&str>) -> String {
        let text = text.filter(|t| !t.is_empty()).unwrap_or("VM terminated with error");
        self.row().message.replace("{text}", text)
    }
}
