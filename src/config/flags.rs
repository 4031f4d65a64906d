//! The daemon's command line. Flags are the highest layer; each stands for one key.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Parser;

use super::finding::{Finding, Wrong};
use super::key::{KEYS, Key};
use super::layer::{Collected, Layer};
use super::rule::{Raw, RawKind, Rule};

/// Tells why a virtual machine went down: follows libvirt's domains and keeps a record of each ending.
///
/// Every setting is a key of the configuration; the flags below are for the ones that are changed most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Parser)]
#[command(name = "whydownd", version)]
pub struct Flags {
    /// Read this file instead of /etc/whydown/whydown.toml, and conf.d beside it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Follow this libvirt (libvirt.uri)
    #[arg(long, value_name = "URI")]
    pub connect: Option<OsString>,

    /// Keep the ledger here (state.dir)
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<OsString>,

    /// Listen here for XML-RPC; may be given several times (xmlrpc.listen)
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<OsString>,

    /// Make the Unix socket here (socket.path)
    #[arg(long, value_name = "PATH")]
    pub socket: Option<OsString>,

    /// Log this much (log.filter)
    #[arg(long, value_name = "FILTER")]
    pub log: Option<OsString>,

    /// Say what is in force and where it comes from, or every mistake, and end
    #[arg(long)]
    pub check_config: bool,
}

/// The layer of the flags.
pub(super) fn read(flags: &Flags, mistakes: &mut Collected) -> Layer {
    let mut layer = Layer::default();
    let single = [
        ("flag --connect", "libvirt.uri", &flags.connect),
        ("flag --state-dir", "state.dir", &flags.state_dir),
        ("flag --socket", "socket.path", &flags.socket),
        ("flag --log", "log.filter", &flags.log),
    ];
    for (place, name, value) in single {
        let key = key_of(name);
        if let Some(raw) = value.as_ref().and_then(|value| raw(place, key, value, mistakes)) {
            layer.set(key, &raw, mistakes);
        }
    }
    if !flags.listen.is_empty() {
        let (place, key) = ("flag --listen", key_of("xmlrpc.listen"));
        let elements: Vec<Raw> =
            flags.listen.iter().filter_map(|value| raw(place, key, value, mistakes)).collect();
        if elements.len() == flags.listen.len() {
            let shown = format!("{:?}", flags.listen);
            layer.set(key, &Raw { place: place.to_owned(), shown, kind: RawKind::List(elements) }, mistakes);
        }
    }
    layer
}

fn key_of(full: &str) -> &'static Key {
    KEYS.iter().find(|key| key.full() == full).expect("each flag names a key, and a test sets them all")
}

/// One argument as text, whatever the key's rule: a list's elements are texts too, and a comma in one is no separator.
fn raw(place: &str, key: &Key, value: &OsStr, mistakes: &mut Collected) -> Option<Raw> {
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => {
            let rule = if let Rule::List(form, _) = key.rule { Rule::Text(form) } else { key.rule };
            Some(rule.read(place, text))
        }
        Err(why) => {
            mistakes.bad_keys.insert(key.full());
            let wrong = Wrong::NotUtf8(why.valid_up_to() + 1);
            mistakes.findings.push(Finding::of_key(place, key.full(), wrong));
            None
        }
    }
}
