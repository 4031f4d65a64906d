//! What is known of domain documents, as data: `known.txt` has every element in its parent with the class of each of its
//! attributes and of its text. What is not there is unknown, however harmless it looks.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::config::Power;

/// What a value may be, by what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// A word or number, of an alphabet that makes no path.
    Word,
    /// Numbers and ranges of them.
    List,
    /// A name: libvirt may make a part of a path of it, or of an argument.
    Name,
    /// The VM's own, of which libvirt makes parts of paths with care.
    Vm,
    /// Never a path, and no name of anything on this host.
    Text,
    /// A file that is only read.
    Read,
    /// A file, device or socket that is written.
    Write,
    /// A disk's own, which is read or written as the disk is.
    Image,
    /// What QEMU loads as firmware.
    Loader,
    /// What new NVRAM is copied from.
    Firmware,
    /// Where a character device leads.
    Character,
    /// The terminal that a character device had.
    Terminal,
    /// A device of sound: a name, or a path.
    Device,
    /// A time zone, which is a path below those that are installed.
    Zone,
    /// A control group.
    Partition,
    /// A source of randomness.
    Random,
    /// The program.
    Emulator,
}

/// An element in its parent.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// The word that it needs by itself.
    pub needs: Option<Power>,
    values: HashMap<&'static str, Class>,
}

impl Row {
    /// Of an attribute.
    pub fn attribute(&self, name: &str) -> Option<Class> {
        self.values.get(name).copied()
    }

    /// Of its text.
    pub fn text(&self) -> Option<Class> {
        self.attribute(TEXT)
    }
}

const TEXT: &str = "#";

/// The element in this parent; `None` for one that is not known there.
pub(super) fn row(parent: Option<&str>, name: &str) -> Option<&'static Row> {
    let within = |parent: &str| KNOWN.get(parent).and_then(|rows| rows.get(name));
    within(parent.unwrap_or_default()).or_else(|| parent.and_then(|_| within("*")))
}

/// By parent and name.
static KNOWN: LazyLock<HashMap<&'static str, HashMap<&'static str, Row>>> = LazyLock::new(|| {
    let mut known: HashMap<_, HashMap<_, _>> = HashMap::new();
    for ((parent, name), row) in
        include_str!("known.txt").lines().filter(|line| !line.starts_with('#')).map(read)
    {
        let before = known.entry(parent).or_default().insert(name, row);
        assert!(before.is_none(), "{parent}>{name} stands twice");
    }
    known
});

/// A line such as `devices>hostdev !hostdev word:mode,type`.
fn read(line: &'static str) -> ((&'static str, &'static str), Row) {
    let mut words = line.split(' ');
    let place = words.next().unwrap_or_default();
    let mut row = Row::default();
    for word in words {
        if let Some(power) = word.strip_prefix('!') {
            row.needs = Power::ALL.into_iter().find(|known| known.word() == power);
            assert!(row.needs.is_some(), "{line}: no word of create.allow");
            continue;
        }
        let (class, names) = word.split_once(':').unwrap_or_else(|| panic!("{line}: {word}"));
        let class = class_of(class).unwrap_or_else(|| panic!("{line}: {class}"));
        row.values.extend(names.split(',').map(|name| (name, class)));
    }
    (place.split_once('>').unwrap_or(("", place)), row)
}

fn class_of(word: &str) -> Option<Class> {
    Some(match word {
        "word" => Class::Word,
        "list" => Class::List,
        "name" => Class::Name,
        "vm" => Class::Vm,
        "text" => Class::Text,
        "read" => Class::Read,
        "write" => Class::Write,
        "image" => Class::Image,
        "loader" => Class::Loader,
        "firmware" => Class::Firmware,
        "character" => Class::Character,
        "tty" => Class::Terminal,
        "device" => Class::Device,
        "zone" => Class::Zone,
        "partition" => Class::Partition,
        "random" => Class::Random,
        "emulator" => Class::Emulator,
        _ => return None,
    })
}

/// Whether it is a word or a number.
pub(super) fn is_word(value: &str) -> bool {
    !value.starts_with('.')
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:+ ".contains(&byte))
}

/// Whether it is a list of numbers and ranges.
pub(super) fn is_list(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_digit() || b",-^ \n\t".contains(&byte))
}

/// Whether it can stand as one part of a path and stays in its folder, and is one part of an argument: older libvirts
/// write some names into QEMU's arguments as they are, where a comma begins the next.
pub(super) fn is_name(value: &str) -> bool {
    is_part(value) && !value.contains(',')
}

/// Whether it can stand as one part of a path and stays in its folder.
pub(super) fn is_part(value: &str) -> bool {
    !value.starts_with('.') && !value.contains(|c: char| c == '/' || c.is_ascii_control())
}

/// Whether it names a time zone among those that are installed.
pub(super) fn is_zone(value: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.+".contains(&byte))
    };
    value.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `schema.txt` is made by `tests/schema.py` from libvirt's own schemas.
    #[test]
    fn all_that_libvirts_schemas_know_is_classified() {
        let mut count = 0;
        for line in include_str!("schema.txt").lines().filter(|line| !line.starts_with('#')) {
            let mut words = line.split(' ');
            let place = words.next().unwrap_or_default();
            let (parent, name) = place.split_once('>').map_or((None, place), |(p, n)| (Some(p), n));
            let row = row(parent, name).unwrap_or_else(|| panic!("{place} is not in known.txt"));
            for value in words {
                assert!(row.attribute(value).is_some(), "{place} {value} is not in known.txt");
                count += 1;
            }
        }
        assert!(count > 1_500, "{count} attributes and texts");
    }

    #[test]
    fn what_makes_no_path_is_told_by_its_alphabet() {
        for value in ["", "pc-q35-9.0", "+1", "-1", "52:54:00:00:00:01", "1970-01-01T00:00:01"] {
            assert!(is_word(value) && is_name(value), "{value}");
        }
        for value in ["org.qemu.guest_agent.0", "a b", "vnet%d", "été", "-x"] {
            assert!(is_name(value), "{value}");
        }
        assert!(is_list("0-3,^2") && !is_list("0,x=/y") && is_part("a,b"));
        for value in ["../x", "a/b", "x,logfile=x", "/", "..", ".", ".x", "a\nb", "a\0"] {
            assert!(!is_word(value) && !is_name(value), "{value:?}");
        }
        assert!(is_zone("Europe/Berlin") && is_zone("UTC"));
        assert!(!is_zone("/etc/shadow") && !is_zone("../../etc/shadow") && !is_zone(":x") && !is_zone(""));
    }
}
