//! The keys as people read them: the default file. It is made from the declaration in `settings.rs`, and read as the
//! lowest layer; so is the page `docs/reference/configuration.md`, by the tests.

use std::fmt::Write;

use super::key::{KEYS, SECTIONS};

/// What stands above all keys.
pub(super) const HEAD: &[&str] = &[
    "The default configuration of whydownd.",
    "",
    "This file is built into the program as its lowest layer, so every value below is in force until a higher layer",
    "changes it. Do not copy all of it to /etc/whydown/whydown.toml: write only what should differ, and later versions",
    "can bring better defaults.",
    "",
    "The layers, lowest first; a key in a higher layer replaces the same key of a lower one, lists as a whole:",
    "",
    "1. this file, inside the program;",
    "2. /etc/whydown/whydown.toml, if there; with --config FILE that file instead, which must be there;",
    "3. conf.d/*.toml in the directory of the file of layer 2, by name; names that begin with a dot are skipped;",
    "4. the environment: WHYDOWN_SECTION__KEY, as in WHYDOWN_XMLRPC__LISTEN, with lists separated by commas;",
    "5. flags: --connect, --state-dir, --listen (repeatable), --socket and --log.",
    "",
    "\"whydownd --check-config\" says what is in force and where each value comes from, or every mistake at once.",
    "A file may be /dev/null, or a link to it, and then counts as empty.",
];

/// The default file, which is `systemd/whydown.toml`: every key with its default and what it means.
pub fn default_file() -> String {
    let mut text = String::new();
    comment(HEAD, &mut text);
    for section in SECTIONS {
        text.push('\n');
        comment(section.about, &mut text);
        let _ = writeln!(text, "[{}]", section.name);
        for key in KEYS.iter().filter(|key| key.section == section.name) {
            text.push('\n');
            comment(key.about, &mut text);
            if let Some(flag) = key.flag {
                let _ = writeln!(text, "# Flag: --{}.", flag.long);
            }
            let _ = writeln!(text, "# Allowed: {}.", key.rule);
            let _ = writeln!(text, "{} = {}", key.name, key.default());
        }
    }
    text
}

fn comment(lines: &[&str], text: &mut String) {
    for line in lines {
        text.push_str(format!("# {}", line.trim()).trim_end());
        text.push('\n');
    }
}
