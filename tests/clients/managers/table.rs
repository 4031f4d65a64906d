//! `engines.toml` in types.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;

/// The table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// By version.
    pub engine: BTreeMap<String, Engine>,
    #[serde(rename = "struct")]
    pub structs: BTreeMap<String, BTreeMap<String, Member>>,
}

/// One version of the engine.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    pub profiles: Vec<String>,
    pub ranges: Vec<String>,
    pub highest: Option<i64>,
    pub above: Option<Above>,
}

/// What a reason above the highest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Above {
    Null,
    Batch,
    Unreported,
    Unknown,
}

/// What something wrong costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cost {
    Reply,
    Value,
}

/// What the text must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    Uuid,
    Int,
    Long,
    Decimal,
    Flag,
    Number,
}

/// One member of a struct.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    #[serde(default)]
    pub tags: String,
    #[serde(default)]
    pub also: BTreeMap<String, String>,
    pub form: Option<Form>,
    #[serde(default)]
    pub words: Vec<String>,
    pub tag: Option<Cost>,
    pub text: Option<Cost>,
    pub absent: Option<Cost>,
    pub since: Option<String>,
    pub until: Option<String>,
    pub of: Option<String>,
}

impl Member {
    /// Whether this engine reads it. Versions compare as text: all are of the form `N.N`.
    pub fn is_read_by(&self, engine: &str) -> bool {
        self.since.as_deref().is_none_or(|since| since <= engine)
            && self.until.as_deref().is_none_or(|until| engine <= until)
    }

    /// Whether this engine takes this XML-RPC type for it.
    pub fn takes(&self, tag: &str, engine: &str) -> bool {
        self.tags.is_empty()
            || self.tags.split(' ').any(|known| known == tag)
            || self.also.get(tag).is_some_and(|since| since.as_str() <= engine)
    }
}

/// The table, read once.
pub static TABLE: LazyLock<Table> = LazyLock::new(|| {
    toml::from_str(include_str!("engines.toml")).expect("engines.toml is a table of engines")
});

#[test]
fn every_struct_that_is_named_is_there_and_every_engine_is_whole() {
    for (name, members) in &TABLE.structs {
        for (key, member) in members {
            let named = [&member.since, &member.until].into_iter().flatten().chain(member.also.values());
            named.for_each(|engine| assert!(TABLE.engine.contains_key(engine), "{name}.{key}: {engine}"));
            let of = member.of.as_deref().map(|of| of.trim_matches(['{', '}', '[', ']']));
            assert!(of.is_none_or(|of| TABLE.structs.contains_key(of)), "{name}.{key}: {of:?}");
            assert_eq!(member.tag.is_some(), !member.tags.is_empty(), "{name}.{key}");
            let has_form = member.form.is_some() || !member.words.is_empty();
            assert_eq!(member.text.is_some(), has_form, "{name}.{key}");
        }
    }
    for (version, engine) in &TABLE.engine {
        assert_eq!(engine.highest.is_some(), engine.above.is_some(), "{version}");
        assert!(!engine.profiles.is_empty() && !engine.ranges.is_empty(), "{version}");
    }
}
