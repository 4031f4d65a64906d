//! Layers from files: which files, how they are read, and TOML with the line and column of everything.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::{Finding, Wrong, shorten};
use super::key::{KEYS, Key, near};
use super::layer::{Collected, Layer};
use super::rule::{Raw, RawKind};

/// A thousand times the default file is no configuration any more.
const FILE_BYTES: u64 = 1 << 20;

/// Columns are counted up to here.
const LINE_CHARS: usize = 10_000;

/// Files in `conf.d`; far above what anyone maintains.
const DROP_INS: usize = 256;

/// Whether a file has to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It was named by the administrator.
    Required,
    /// It is looked for by habit.
    Optional,
}

/// The layer of one file. Empty when there is no file, or none that can be read.
pub(super) fn read(path: &Path, presence: Presence, mistakes: &mut Collected) -> Layer {
    match text_of(path, presence) {
        Ok(text) => parse(&Place::file(path, &text), &text, mistakes),
        Err(wrong) => {
            mistakes.findings.push(Finding::of_file(path.display(), wrong));
            Layer::default()
        }
    }
}

/// The files of a `conf.d`, by name. A missing directory has none.
pub(super) fn drop_ins(dir: &Path, mistakes: &mut Collected) -> Vec<PathBuf> {
    names(dir).unwrap_or_else(|wrong| {
        mistakes.findings.push(Finding::of_file(dir.display(), wrong));
        Vec::new()
    })
}

fn names(dir: &Path) -> Result<Vec<PathBuf>, Wrong> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(why) if why.kind() == io::ErrorKind::NotADirectory => return Err(Wrong::NotADirectory),
        Err(why) => return Err(Wrong::Unreadable(why.to_string())),
    };
    let mut names: Vec<OsString> = Vec::new();
    for entry in entries {
        let name = entry.map_err(|why| Wrong::Unreadable(why.to_string()))?.file_name();
        if name.as_bytes().ends_with(b".toml") && !name.as_bytes().starts_with(b".") {
            names.push(name);
        }
        if names.len() > DROP_INS {
            return Err(Wrong::TooMany(DROP_INS));
        }
    }
    names.sort();
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

fn text_of(path: &Path, presence: Presence) -> Result<String, Wrong> {
    let unreadable = |why: io::Error| Wrong::Unreadable(why.to_string());
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            // A link to nothing was made by somebody, so it is never just a missing file.
            return match (fs::symlink_metadata(path), presence) {
                (Ok(_), _) => Err(Wrong::NotAFile("a link to nothing")),
                (Err(_), Presence::Optional) => Ok(String::new()),
                (Err(_), Presence::Required) => Err(Wrong::Missing),
            };
        }
        Err(why) => return Err(unreadable(why)),
    };
    let kind = found.file_type();
    if !kind.is_file() {
        // To open a pipe may block for ever, so only what is known to be harmless is opened.
        return match () {
            () if kind.is_char_device() && found.rdev() == rustix::fs::makedev(1, 3) => Ok(String::new()),
            () if kind.is_dir() => Err(Wrong::NotAFile("a directory")),
            () if kind.is_fifo() => Err(Wrong::NotAFile("a pipe")),
            () if kind.is_socket() => Err(Wrong::NotAFile("a socket")),
            () => Err(Wrong::NotAFile("a device")),
        };
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES {
        return Err(Wrong::TooLarge(FILE_BYTES));
    }
    String::from_utf8(bytes).map_err(|why| Wrong::NotUtf8(why.utf8_error().valid_up_to() + 1))
}

/// What a text is called, and where in it something stands.
pub(super) struct Place<'a> {
    file: Option<(&'a Path, &'a str)>,
    /// Offsets of the beginnings of lines, so that a file of nothing but mistakes is told in a moment.
    lines: Vec<usize>,
}

impl<'a> Place<'a> {
    /// The default file inside the program.
    pub(super) fn default_file() -> Self {
        Self { file: None, lines: Vec::new() }
    }

    /// A file and its text.
    fn file(path: &'a Path, text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { file: Some((path, text)), lines: std::iter::once(0).chain(ends).collect() }
    }

    /// Line and column count from 1, columns in characters.
    fn at(&self, offset: usize) -> String {
        let Some((path, text)) = self.file else { return "default".to_owned() };
        let line = self.lines.partition_point(|start| *start <= offset);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let column = text.get(start..offset).map_or(0, |before| before.chars().take(LINE_CHARS).count()) + 1;
        format!("{}:{line}:{column}", path.display())
    }
}

/// The layer of a text. A text that is not TOML gives its syntax errors and no values.
pub(super) fn parse(place: &Place<'_>, text: &str, mistakes: &mut Collected) -> Layer {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let mut errors: Vec<_> =
            errors.iter().map(|error| (error.span().map_or(0, |span| span.start), error.message())).collect();
        errors.sort_unstable();
        mistakes.findings.extend(
            errors
                .into_iter()
                .map(|(at, message)| Finding::of_file(place.at(at), Wrong::Syntax(message.to_owned()))),
        );
        return Layer::default();
    }
    let mut layer = Layer::default();
    let mut sections: Vec<_> = root.get_ref().iter().collect();
    sections.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in sections {
        let section = name.get_ref().as_ref();
        if !Key::has_section(section) {
            let wrong = unknown_top(section, value.get_ref());
            mistakes.findings.push(Finding::of_key(&place.at(name.span().start), shorten(section), wrong));
            continue;
        }
        let DeValue::Table(keys) = value.get_ref() else {
            let found = raw(place, text, value).kind_name();
            let wrong = Wrong::NotASection { found };
            mistakes.findings.push(Finding::of_key(&place.at(value.span().start), section, wrong));
            continue;
        };
        let mut keys: Vec<_> = keys.iter().collect();
        keys.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in keys {
            match Key::find(section, name.get_ref()) {
                Some(key) => layer.set(key, &raw(place, text, value), mistakes),
                None => {
                    let full = shorten(&format!("{section}.{}", name.get_ref()));
                    let wrong = Wrong::UnknownKey { near: near_key(section, name.get_ref()) };
                    mistakes.findings.push(Finding::of_key(&place.at(name.span().start), full, wrong));
                }
            }
        }
    }
    layer
}

/// A wrong name at the top is a section, or a key that lost its section.
fn unknown_top(name: &str, value: &DeValue<'_>) -> Wrong {
    if matches!(value, DeValue::Table(_)) {
        let mut sections: Vec<_> = KEYS.iter().map(|key| key.section.to_owned()).collect();
        sections.dedup();
        return Wrong::UnknownSection { near: near(name, sections.into_iter()) };
    }
    Wrong::UnknownKey { near: near_key("", name) }
}

/// A key of the same section is likelier than one of another, where only the exact name counts.
fn near_key(section: &str, name: &str) -> Option<String> {
    let here = KEYS.iter().filter(|key| key.section == section).map(|key| key.name.to_owned());
    near(name, here)
        .map(|name| format!("{section}.{name}"))
        .or_else(|| KEYS.iter().find(|key| key.name == name).map(Key::full))
}

fn raw(place: &Place<'_>, text: &str, value: &Spanned<DeValue<'_>>) -> Raw {
    let span: Range<usize> = value.span();
    let kind = match value.get_ref() {
        DeValue::String(text) => RawKind::Text(text.to_string()),
        DeValue::Integer(number) => {
            let too_far = if number.as_str().starts_with('-') { i64::MIN } else { i64::MAX };
            RawKind::Number(i64::from_str_radix(number.as_str(), number.radix()).unwrap_or(too_far))
        }
        DeValue::Boolean(flag) => RawKind::Flag(*flag),
        DeValue::Array(elements) => {
            RawKind::List(elements.iter().map(|element| raw(place, text, element)).collect())
        }
        DeValue::Float(_) => RawKind::Other("a number with a point"),
        DeValue::Datetime(_) => RawKind::Other("a date or time"),
        DeValue::Table(_) => RawKind::Other("a table"),
    };
    Raw { place: place.at(span.start), shown: text.get(span).unwrap_or_default().to_owned(), kind }
}
