//! What is declared of the keys holds together.

use std::collections::BTreeSet;

use super::super::key::{KEYS, Key, SECTIONS};
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
fn no_key_is_there_twice_and_each_says_what_it_means() {
    let names: BTreeSet<String> = KEYS.iter().map(Key::full).collect();
    assert_eq!(names.len(), KEYS.len(), "a key is there twice");
    for key in KEYS {
        assert!(!key.about.is_empty(), "{} has no meaning", key.full());
        let ends = |line: &str| line.ends_with(['.', ',', ':', ';']) || line.len() > 60;
        assert!(key.about.iter().all(|line| ends(line)), "{} has an unfinished sentence", key.full());
    }
    for section in SECTIONS {
        assert!(!section.about.is_empty(), "[{}] has no meaning", section.name);
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
fn every_key_has_a_variable_that_sets_it() {
    for key in KEYS {
        // No rule takes this: whoever complains has read it.
        let wrong = World::new().variable(&key.variable(), "\u{7}").wrong();
        let begin = format!("environment variable {}: {}: ", key.variable(), key.full());
        assert!(wrong.len() == 1 && wrong[0].starts_with(&begin), "{wrong:?}");
    }
}

#[test]
fn every_flag_sets_its_key_and_is_in_the_help() {
    let help = <super::super::Flags as clap::CommandFactory>::command().render_long_help().to_string();
    let mut seen = 0;
    for (key, flag) in KEYS.iter().filter_map(|key| Some((key, key.flag?))) {
        let long = format!("--{}", flag.long);
        assert!(help.contains(&format!("{long} <{}>", flag.value)), "{long}");
        assert!(help.contains(&format!("{} ({})", flag.help, key.full())), "{long}");
        let wrong = World::new().flags(&[&long, "\u{7}"]).wrong();
        assert!(
            wrong.len() == 1 && wrong[0].starts_with(&format!("flag {long}: {}: ", key.full())),
            "{wrong:?}"
        );
        seen += 1;
    }
    assert_eq!(seen, 5);
}
