//! One layer: the good values of one file, of the environment or of the flags, each with its place.

use std::collections::BTreeSet;

use config::{ConfigError, Map, Source, Value};

use super::finding::Finding;
use super::key::Key;
use super::rule::Raw;

/// Good values by full key. Bad ones become findings and are not merged.
#[derive(Debug, Clone, Default)]
pub(super) struct Layer {
    values: Map<String, Value>,
}

impl Layer {
    /// Judges the value and takes it in if it is good.
    pub(super) fn set(&mut self, key: &Key, raw: &Raw, mistakes: &mut Collected) {
        match key.rule.check(raw) {
            Ok(kind) => {
                self.values.insert(key.full(), Value::new(Some(&raw.place), kind));
            }
            Err(wrong) => {
                mistakes.bad_keys.insert(key.full());
                mistakes.findings.extend(
                    wrong.into_iter().map(|(place, wrong)| Finding::of_key(&place, key.full(), wrong)),
                );
            }
        }
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}

/// What was wrong so far.
#[derive(Debug, Default)]
pub(super) struct Collected {
    /// The mistakes.
    pub(super) findings: Vec<Finding>,
    /// Keys that have a mistake somewhere: judging them together with others would only confuse.
    pub(super) bad_keys: BTreeSet<String>,
}
