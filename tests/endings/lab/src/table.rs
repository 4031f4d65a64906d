//! THE TABLE, read from its source and not from the code that is under test.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// All rows.
#[derive(Debug, Deserialize)]
pub struct Table {
    cause: Vec<Row>,
}

/// One row; the columns are explained in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the columns are documented where their source is")]
pub struct Row {
    pub word: String,
    pub sentence: String,
    pub story: String,
    pub advice: String,
    pub exit_code: u8,
    pub exit_reason: u8,
    pub classic_reason: u8,
    pub message: String,
    pub exit_status: u8,
    pub vcs_monitor: u8,
    pub ocf_monitor: u8,
    pub vep362: String,
    pub restart: String,
}

impl Table {
    /// Reads the project's own.
    pub fn read() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../proto-schemas/causes.toml");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Ok(toml::from_str(&text)?)
    }

    /// The row of a cause.
    pub fn row(&self, word: &str) -> Option<&Row> {
        self.cause.iter().find(|row| row.word == word)
    }
}
