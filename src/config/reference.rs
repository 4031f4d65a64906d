//! `docs/reference/configuration.md`, made from the default file, so that page and program cannot disagree.

use std::fmt::Write;
use std::path::Path;

use super::DEFAULT_FILE;
use super::key::Key;

/// One `key = value` of the default file with the comment above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) name: String,
    pub(super) default: String,
    pub(super) comment: Vec<String>,
}

/// The default file taken apart: its head, its sections with their comments, its keys.
pub(super) struct Parts {
    pub(super) head: Vec<String>,
    pub(super) sections: Vec<(String, Vec<String>)>,
    pub(super) entries: Vec<Entry>,
}

pub(super) fn take_apart(text: &str) -> Parts {
    let mut parts = Parts { head: Vec::new(), sections: Vec::new(), entries: Vec::new() };
    let mut comment: Vec<String> = Vec::new();
    for line in text.lines() {
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim().to_owned());
        } else if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            parts.sections.push((section.to_owned(), std::mem::take(&mut comment)));
        } else if let Some((name, default)) = line.split_once(" = ") {
            let section =
                parts.sections.last().map(|(section, _)| section.clone()).expect("keys stand in sections");
            let comment = std::mem::take(&mut comment);
            parts.entries.push(Entry {
                section,
                name: name.to_owned(),
                default: default.to_owned(),
                comment,
            });
        } else {
            assert!(
                line.is_empty(),
                "the default file has comments, sections and one-line keys only: {line}"
            );
            if parts.sections.is_empty() && parts.head.is_empty() {
                parts.head = std::mem::take(&mut comment);
            }
        }
    }
    assert!(comment.is_empty(), "the default file ends with a comment about nothing");
    parts
}

impl Entry {
    /// The rest of the comment line that begins with this word.
    pub(super) fn line(&self, word: &str) -> Option<&str> {
        self.comment.iter().find_map(|line| line.strip_prefix(word)?.strip_suffix('.'))
    }
}

fn page() -> String {
    let parts = take_apart(DEFAULT_FILE);
    let mut page = String::from("# Configuration\n\n");
    page.push_str("<!-- Made from systemd/whydown.toml. Change that file, then run the tests with WHYDOWN_FIX=1. -->\n\n");
    page.push_str(&prose(&parts.head));
    for (section, comment) in &parts.sections {
        let _ = write!(page, "\n## `[{section}]`\n\n{}", prose(comment));
        for entry in parts.entries.iter().filter(|entry| entry.section == *section) {
            let key = Key::find(section, &entry.name).expect("the default file has known keys only");
            let text: Vec<String> = entry
                .comment
                .iter()
                .filter(|line| !line.starts_with("Allowed: ") && !line.starts_with("Flag: "))
                .cloned()
                .collect();
            let _ = write!(page, "\n### `{}`\n\n{}\n", key.full(), prose(&text));
            let _ = writeln!(page, "* Default: `{}`", entry.default);
            let _ = writeln!(page, "* Allowed: {}", key.rule);
            let _ = writeln!(page, "* Environment variable: `{}`", key.variable());
            if let Some(flag) = entry.line("Flag: ") {
                let _ = writeln!(page, "* Flag: `{flag}`");
            }
        }
    }
    page
}

/// Comment lines as Markdown with one sentence a line. Numbered lines stay lines.
fn prose(lines: &[String]) -> String {
    let mut text = String::new();
    for paragraph in lines.split(String::is_empty) {
        if !text.is_empty() {
            text.push('\n');
        }
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

#[test]
fn the_reference_page_is_the_default_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/configuration.md");
    if std::env::var_os("WHYDOWN_FIX").is_some_and(|fix| fix == "1") {
        std::fs::write(&path, page()).expect("docs/reference can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == page(), "docs/reference/configuration.md is old: run the tests with WHYDOWN_FIX=1");
}
