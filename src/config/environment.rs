//! The layer from environment variables. The variables come as an argument: nothing here asks the process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::finding::{Finding, Wrong, shorten};
use super::key::{KEYS, Key, PREFIX, near};
use super::layer::{Collected, Layer};
use super::uri::Home;

/// Variables that begin like ours and are no settings of the daemon: these are left alone.
///
/// `WHYDOWN_FIX` makes the tests rewrite generated files.
pub const OTHER_VARIABLES: &[&str] = &["WHYDOWN_FIX"];

/// The layer of the environment. A variable that begins like ours and is unknown is a mistake: the commonest one is a
/// single `_` between section and key.
pub(super) fn read(variables: &[(OsString, OsString)], mistakes: &mut Collected) -> Layer {
    let ours: BTreeMap<&OsStr, &OsStr> = variables
        .iter()
        .filter(|(name, _)| name.as_bytes().starts_with(PREFIX.as_bytes()))
        .filter(|(name, _)| !OTHER_VARIABLES.iter().any(|other| name == other))
        .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
        .collect();
    let mut layer = Layer::default();
    for (name, value) in ours {
        let shown = name.to_string_lossy();
        let place = format!("environment variable {}", shorten(&shown));
        let Some(key) = KEYS.iter().find(|key| *name == *key.variable()) else {
            let wrong = Wrong::UnknownVariable { near: near(&shown, KEYS.iter().map(Key::variable)) };
            mistakes.findings.push(Finding::of_file(place, wrong));
            continue;
        };
        match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => layer.set(key, &key.rule.read(&place, text), mistakes),
            Err(why) => {
                mistakes.bad_keys.insert(key.full());
                let wrong = Wrong::NotUtf8(why.valid_up_to() + 1);
                mistakes.findings.push(Finding::of_key(&place, key.full(), wrong));
            }
        }
    }
    layer
}

/// Where the user's own files are.
pub(super) fn home(variables: &[(OsString, OsString)]) -> Home {
    let path = |wanted: &str| {
        variables
            .iter()
            .find(|(name, value)| name == wanted && !value.is_empty())
            .map(|(_, value)| PathBuf::from(value))
    };
    Home { home: path("HOME"), cache: path("XDG_CACHE_HOME"), runtime: path("XDG_RUNTIME_DIR") }
}
