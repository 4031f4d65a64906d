//! The daemon's command line. Flags are the highest layer; those of keys are declared with the keys (`settings.rs`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::builder::OsStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser};

use super::finding::{Finding, Wrong};
use super::key::{KEYS, Key, KeyFlag};
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

    #[command(flatten)]
    keys: KeyFlags,

    /// Say what is in force and where it comes from, or every mistake, and end
    #[arg(long)]
    pub check_config: bool,
}

/// What was given for keys, in the order of the keys: one value, or several for a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct KeyFlags(Vec<(&'static Key, KeyFlag, Vec<OsString>)>);

/// The keys that have a flag.
fn flagged() -> impl Iterator<Item = (&'static Key, KeyFlag)> {
    KEYS.iter().filter_map(|key| Some((key, key.flag?)))
}

impl Args for KeyFlags {
    fn augment_args(command: Command) -> Command {
        command.args(flagged().map(|(key, flag)| {
            let action = if let Rule::List(..) = key.rule { ArgAction::Append } else { ArgAction::Set };
            Arg::new(flag.long)
                .long(flag.long)
                .value_name(flag.value)
                .help(format!("{} ({})", flag.help, key.full()))
                .value_parser(OsStringValueParser::new())
                .action(action)
        }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KeyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = flagged().filter_map(|(key, flag)| {
            let values = matches.get_many::<OsString>(flag.long)?;
            Some((key, flag, values.cloned().collect()))
        });
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The layer of the flags.
pub(super) fn read(flags: &Flags, mistakes: &mut Collected) -> Layer {
    let mut layer = Layer::default();
    for (key, flag, values) in &flags.keys.0 {
        let place = format!("flag --{}", flag.long);
        let texts: Vec<Raw> = values.iter().filter_map(|value| raw(&place, key, value, mistakes)).collect();
        if texts.len() < values.len() {
            continue;
        }
        match key.rule {
            Rule::List(..) => {
                let shown = format!("{values:?}");
                layer.set(key, &Raw { place, shown, kind: RawKind::List(texts) }, mistakes);
            }
            _ => texts.iter().for_each(|text| layer.set(key, text, mistakes)),
        }
    }
    layer
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
