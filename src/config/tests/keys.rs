//! Default file, list of keys and settings have the same keys and say the same of them.

use std::collections::BTreeSet;

use super::super::key::KEYS;
use super::super::reference::take_apart;
use super::super::{DEFAULT_FILE, Settings};
use super::World;

#[test]
fn the_default_file_alone_is_right_and_changes_nothing() {
    let loaded = World::new().right();
    assert_eq!(loaded.changes(), []);
    assert_eq!(loaded.settings.libvirt.uri.as_str(), "qemu:///system");
    assert_eq!(loaded.settings.xmlrpc.listen, ["127.0.0.1:54321".parse().expect("an address")]);
    assert_eq!(loaded.settings.socket.mode.bits(), 0o660);
}

#[test]
fn the_settings_read_exactly_the_keys_of_the_default_file() {
    // Unknown fields are denied and none has a default of its own, so each direction fails when a key is missing.
    let whole: toml::Table = DEFAULT_FILE.parse().expect("TOML");
    whole.clone().try_into::<Settings>().expect("no key too many, none too few");
    let mut dropped = 0;
    for (section, keys) in &whole {
        for name in keys.as_table().expect("a section").keys() {
            let mut without = whole.clone();
            without[section].as_table_mut().expect("a section").remove(name);
            assert!(without.try_into::<Settings>().is_err(), "{section}.{name} is read by nobody");
            dropped += 1;
        }
    }
    assert_eq!(dropped, KEYS.len());
}

#[test]
fn the_list_of_keys_is_that_of_the_default_file_in_its_order() {
    let file: Vec<String> = take_apart(DEFAULT_FILE)
        .entries
        .iter()
        .map(|entry| format!("{}.{}", entry.section, entry.name))
        .collect();
    let list: Vec<String> = KEYS.iter().map(|key| key.full()).collect();
    assert_eq!(file, list);
    assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len(), "a key is there twice");
}

#[test]
fn every_key_of_the_default_file_says_what_is_allowed_and_what_it_means() {
    for entry in take_apart(DEFAULT_FILE).entries {
        let key = super::super::key::Key::find(&entry.section, &entry.name).expect("a known key");
        assert_eq!(entry.line("Allowed: "), Some(key.rule.to_string().as_str()), "{}", key.full());
        assert!(entry.comment.len() >= 2, "{} has no meaning", key.full());
        assert!(entry.comment.iter().all(|line| line.ends_with(['.', ',', ':', ';']) || line.len() > 60));
    }
}

#[test]
fn a_number_tells_its_unit_in_its_name_or_counts_things() {
    for key in KEYS {
        if let super::super::rule::Rule::Number { unit, .. } = key.rule {
            let suffix = match unit {
                "seconds" => "_s",
                "milliseconds" => "_ms",
                "days" => "_days",
                "bytes" => "_bytes",
                _ => continue,
            };
            assert!(key.name.ends_with(suffix), "{} counts {unit}", key.full());
        }
    }
}

#[test]
fn every_key_has_a_variable_that_sets_it_and_every_flag_that_the_file_names_is_one() {
    let help = <super::super::Flags as clap::CommandFactory>::command().render_long_help().to_string();
    for entry in take_apart(DEFAULT_FILE).entries {
        let variable = format!("WHYDOWN_{}__{}", entry.section, entry.name).to_uppercase();
        // No rule takes this: whoever complains has read it.
        let wrong = World::new().variable(&variable, "\u{7}").wrong();
        let begin = format!("environment variable {variable}: {}.{}: ", entry.section, entry.name);
        assert!(wrong.len() == 1 && wrong[0].starts_with(&begin), "{wrong:?}");
        if let Some(flag) = entry.line("Flag: ") {
            assert!(help.contains(flag), "{flag}");
            assert!(help.contains(&format!("({}.{})", entry.section, entry.name)), "{flag}");
        }
    }
}
