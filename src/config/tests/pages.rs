//! The files that are made from the declaration of the keys: the default file and the reference page.

use std::fmt::Write;
use std::path::Path;

use super::super::default_file;
use super::super::key::{KEYS, SECTIONS};
use super::super::reference::HEAD;

fn page() -> String {
    let mut page = String::from("# Configuration\n\n");
    page.push_str("<!-- Made from src/config/settings.rs: change that, then run tests/fix.sh. -->\n\n");
    page.push_str(&prose(HEAD));
    for section in SECTIONS {
        let _ = write!(page, "\n## `[{}]`\n\n{}", section.name, prose(section.about));
        for key in KEYS.iter().filter(|key| key.section == section.name) {
            let _ = write!(page, "\n### `{}`\n\n{}\n", key.full(), prose(key.about));
            let _ = writeln!(page, "* Default: `{}`", key.default());
            let _ = writeln!(page, "* Allowed: {}", key.rule);
            let _ = writeln!(page, "* Environment variable: `{}`", key.variable());
            if let Some(flag) = key.flag {
                let _ = writeln!(page, "* Flag: `--{}`", flag.long);
            }
        }
    }
    page
}

/// Comment lines as Markdown with one sentence a line. Numbered lines stay lines.
fn prose(lines: &[&str]) -> String {
    let mut text = String::new();
    for paragraph in lines.split(|line| line.is_empty()) {
        if !text.is_empty() {
            text.push('\n');
        }
        let paragraph: Vec<&str> = paragraph.iter().map(|line| line.trim()).collect();
        let listed = paragraph.iter().all(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        if listed {
            for line in paragraph {
                text.push_str(line);
                text.push('\n');
            }
            continue;
        }
        let joined = paragraph.join(" ");
        let mut rest = joined.as_str();
        while let Some(end) = sentence_end(rest) {
            text.push_str(&rest[..end]);
            text.push('\n');
            rest = rest[end..].trim_start();
        }
        text.push_str(rest);
        text.push('\n');
    }
    text
}

fn sentence_end(text: &str) -> Option<usize> {
    text.match_indices(". ")
        .map(|(at, _)| at + 1)
        .find(|end| text[*end..].trim_start().starts_with(|c: char| c.is_ascii_uppercase() || c == '"'))
}

/// Holds a file to what it is made from, or writes it.
fn held(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("WHYDOWN_FIX").is_some_and(|fix| fix == "1") {
        std::fs::write(&path, text).expect("the file can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{name} is not what src/config/settings.rs says: run tests/fix.sh");
}

#[test]
fn the_default_file_is_made_from_the_declaration() {
    held("systemd/whydown.toml", &default_file());
}

#[test]
fn the_reference_page_is_made_from_the_declaration() {
    held("docs/reference/configuration.md", &page());
}
