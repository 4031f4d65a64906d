//! All layers, merged and checked.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use config::{Config, Value, ValueKind};

use super::file::{self, Place, Presence};
use super::finding::Mistakes;
use super::flags::Flags;
use super::key::KEYS;
use super::layer::{Collected, Layer};
use super::settings::Settings;
use super::{default_file, environment, flags, whole};

/// Everything that settings can come from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The directory that has `etc/whydown`: `/`, except in tests. A file given by `--config` is not below it.
    pub root: PathBuf,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// The command line.
    pub flags: Flags,
}

impl Sources {
    /// The sources of this process: its environment and `/etc/whydown`.
    pub fn of_process(flags: Flags) -> Self {
        Self { root: PathBuf::from("/"), environment: std::env::vars_os().collect(), flags }
    }
}

/// Checked settings, and where each value comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    merged: Config,
    default: Config,
}

/// A key that differs from its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The full key.
    pub key: String,
    /// The value, as TOML.
    pub value: String,
    /// The file with line and column, the environment variable or the flag.
    pub origin: String,
}

/// Reads, checks and merges all layers.
///
/// # Errors
/// Every mistake that could be found, not just the first.
pub fn load(sources: &Sources) -> Result<Loaded, Mistakes> {
    let mut mistakes = Collected::default();
    let default = file::parse(&Place::default_file(), &default_file(), &mut mistakes);
    let mut layers = vec![default.clone()];

    let habitual = sources.root.join("etc/whydown/whydown.toml");
    let (path, presence) = match &sources.flags.config {
        Some(path) => (path.as_path(), Presence::Required),
        None => (habitual.as_path(), Presence::Optional),
    };
    layers.push(file::read(path, presence, &mut mistakes));
    let beside = path.parent().unwrap_or(Path::new("")).join("conf.d");
    for drop_in in file::drop_ins(&beside, &mut mistakes) {
        layers.push(file::read(&drop_in, Presence::Required, &mut mistakes));
    }
    layers.push(environment::read(&sources.environment, &mut mistakes));
    layers.push(flags::read(&sources.flags, &mut mistakes));

    let merged = merge(layers);
    let mut settings: Settings = merged.clone().try_deserialize().expect(
        "every key is declared with a default, and every layer's values passed the rule of their key",
    );
    let place = |key: &str| origin_of(&merged, key);
    mistakes.findings.extend(whole::check(&settings, &mistakes.bad_keys, place));
    if !mistakes.bad_keys.contains("libvirt.uri") {
        let home = environment::home(&sources.environment);
        mistakes.findings.extend(whole::derive(&mut settings, &home, place));
    }
    match mistakes.findings {
        none if none.is_empty() => Ok(Loaded { settings, merged, default: merge(vec![default]) }),
        findings => Err(Mistakes(findings)),
    }
}

fn merge(layers: Vec<Layer>) -> Config {
    layers
        .into_iter()
        .fold(Config::builder(), |builder, layer| builder.add_source(layer))
        .build()
        .expect("layers hold values in memory under names that are plain identifiers")
}

impl Loaded {
    /// Every key whose value differs from the default, in the order of the default file.
    pub fn changes(&self) -> Vec<Change> {
        KEYS.iter()
            .map(super::key::Key::full)
            .filter(|key| shown(&self.merged, key) != shown(&self.default, key))
            .map(|key| {
                let (value, origin) = (shown(&self.merged, &key), origin_of(&self.merged, &key));
                Change { key, value, origin }
            })
            .collect()
    }

    /// The value of a key as TOML.
    pub(super) fn value(&self, key: &str) -> String {
        shown(&self.merged, key)
    }
}

fn origin_of(config: &Config, key: &str) -> String {
    find(config, key).and_then(Value::origin).unwrap_or("default").to_owned()
}

fn shown(config: &Config, key: &str) -> String {
    find(config, key).map(|value| toml_of(value).to_string()).unwrap_or_default()
}

fn find<'a>(config: &'a Config, key: &str) -> Option<&'a Value> {
    let (section, name) = key.split_once('.')?;
    let table = |value: &'a Value| match &value.kind {
        ValueKind::Table(table) => Some(table),
        _ => None,
    };
    table(&config.cache)?.get(section).and_then(table)?.get(name)
}

fn toml_of(value: &Value) -> toml::Value {
    match &value.kind {
        ValueKind::Boolean(flag) => toml::Value::Boolean(*flag),
        ValueKind::I64(number) => toml::Value::Integer(*number),
        ValueKind::String(text) => toml::Value::String(text.clone()),
        ValueKind::Array(elements) => toml::Value::Array(elements.iter().map(toml_of).collect()),
        // Rules give no other kinds.
        other => toml::Value::String(other.to_string()),
    }
}
