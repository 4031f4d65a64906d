//! Files that images name by themselves. A qcow2 image has a name of what lies below it, which is read, and may have one of
//! the file with its data, which is written. libvirt follows both, and gives the files to QEMU: so they are judged as if
//! the document had named them.
//!
//! This is looked at before libvirt looks: who can write an image in between, such as a VM that runs on it, can change it.

use std::fs::File;
use std::io::{self, Read as _};

use roxmltree::Node;

use super::{Use, place, use_of, use_of_loader};
use crate::files;

/// An image that a document names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Where the document names it.
    pub(super) element: String,
    path: String,
    usage: Use,
    /// Whether the document says itself what lies below it.
    ends: bool,
}

/// A header, names and all, lies in the first cluster, of 2 MiB at most; libvirt reads some more of small ones.
const CLUSTER_BITS: std::ops::RangeInclusive<u8> = 16..=21;

/// QEMU takes names of at most this many bytes.
const NAME_BYTES: usize = 1023;

/// Images above each other; libvirt follows 200.
const LINKS: usize = 200;

const MAGIC: &[u8] = b"QFI\xfb";
const DATA_FILE: u32 = 0x4441_5441;
const BACKING_FORMAT: u32 = 0xE279_2ACA;

/// The images with a header that this element names.
pub(super) fn named_by(node: Node<'_, '_>) -> Vec<Image> {
    let of =
        |path: &str, usage, ends| Image { element: place(node), path: path.trim().to_owned(), usage, ends };
    let name = node.tag_name().name();
    if name == "loader" && node.attribute("format") == Some("qcow2") {
        return node.text().map(|path| of(path, use_of_loader(node), false)).into_iter().collect();
    }
    if name == "nvram" {
        let written =
            node.text().filter(|path| !path.trim().is_empty()).map(|path| (path, "format", Use::Write));
        let template = node.attribute("template").map(|path| (path, "templateFormat", Use::Firmware));
        return written
            .into_iter()
            .chain(template)
            .filter(|(_, format, _)| node.attribute(*format) == Some("qcow2"))
            .map(|(path, _, usage)| of(path, usage, false))
            .collect();
    }
    if name != "source" {
        return Vec::new();
    }
    let Some(device) = node.parent_element() else { return Vec::new() };
    let formats = |element: &'static str| {
        device
            .children()
            .filter(move |child| child.has_tag_name(element))
            .filter_map(|child| child.attribute("type"))
    };
    let mut said = match device.tag_name().name() {
        "disk" => formats("driver").collect::<Vec<_>>(),
        "backingStore" | "mirror" | "dataStore" => formats("format").collect(),
        "nvram" => device.attribute("format").into_iter().collect(),
        _ => return Vec::new(),
    };
    // Where nothing is said of a link libvirt looks for itself.
    if said.is_empty() && device.has_tag_name("backingStore") {
        said.push("qcow2");
    }
    let ends = device.children().any(|child| child.has_tag_name("backingStore"));
    let paths =
        ["file", "dev"].into_iter().filter_map(|key| node.attribute(key)).filter(|path| !path.is_empty());
    paths.filter(|_| said.contains(&"qcow2")).map(|path| of(path, use_of(node), ends)).collect()
}

/// Whether what an image names may be opened, by `path` for each file and by `other` for what is neither raw nor qcow2.
pub(super) fn follow(
    image: &Image,
    path: impl Fn(&str, Use) -> Result<(), String>,
    other: impl Fn() -> Result<(), String>,
) -> Result<(), String> {
    let mut next = Some((image.path.clone(), image.usage, true));
    for _ in 0..LINKS {
        let Some((this, usage, declared)) = next.take() else { return Ok(()) };
        let unread =
            |why: io::Error| other().map_err(|needs| format!("{this:?} cannot be read ({why}): {needs}"));
        let bytes = match header(&this) {
            Ok(bytes) => bytes,
            // Nothing will start from it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return unread(error),
        };
        if !declared && !bytes.starts_with(MAGIC) {
            // As libvirt has it: what it does not know is raw.
            return Ok(());
        }
        let Some(named) = read(&bytes) else {
            return other()
                .map_err(|needs| format!("{this:?} names a file in a way that is not read here: {needs}"));
        };
        let judged = |name: &str, usage| {
            let Some(full) = beside(&this, name) else {
                return other().map(|()| None).map_err(|needs| format!("{this:?} names {name:?}: {needs}"));
            };
            path(&full, usage).map_err(|why| format!("{this:?} names {full:?}: {why}"))?;
            Ok(Some(full))
        };
        for name in &named.data {
            judged(name, usage)?;
        }
        if image.ends {
            return Ok(());
        }
        let Some(below) = named.backing else { return Ok(()) };
        let Some(full) = judged(&below, Use::Read)? else { return Ok(()) };
        next = match named.format.as_deref() {
            Some("raw") => None,
            Some("qcow2") => Some((full, Use::Read, true)),
            None => Some((full, Use::Read, false)),
            Some(format) => {
                return other()
                    .map_err(|needs| format!("{this:?} names an image of format {format:?}: {needs}"));
            }
        };
    }
    Err(format!("more than {LINKS} images lie above each other"))
}

fn header(path: &str) -> io::Result<Vec<u8>> {
    let mut file: File = files::open_image(path.as_ref())?;
    let mut bytes = Vec::new();
    let first = 1 << CLUSTER_BITS.start();
    (&mut file).take(first).read_to_end(&mut bytes)?;
    let bits =
        bytes.get(23).copied().filter(|bits| CLUSTER_BITS.contains(bits)).unwrap_or(*CLUSTER_BITS.start());
    file.take((1 << bits) - first).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a header names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    backing: Option<String>,
    format: Option<String>,
    data: Vec<String>,
}

/// `None` if it names something in a way that QEMU or libvirt may read otherwise. What the file begins with makes no
/// difference: libvirt takes the document's word.
fn read(bytes: &[u8]) -> Option<Named> {
    let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let mut named = Named::default();
    let (Some(version), Some(high), Some(low), Some(length)) = (word(4), word(8), word(12), word(16)) else {
        return Some(named);
    };
    let text = |at: usize, length: usize| {
        if length > NAME_BYTES {
            return None;
        }
        let name = bytes.get(at..at.checked_add(length)?)?;
        // The name ends at a null byte, if there is one.
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8(name.to_vec()).ok()
    };
    let length = usize::try_from(length).ok()?;
    if (high, low) != (0, 0) && length > 0 {
        if high != 0 {
            return None;
        }
        named.backing = Some(text(usize::try_from(low).ok()?, length)?).filter(|name| !name.is_empty());
    }
    // Extensions lie behind the header, each with its kind and length, and one of kind 0 at the end.
    let mut at = if version >= 3 {
        word(100).and_then(|length| usize::try_from(length).ok()).unwrap_or(104)
    } else {
        72
    };
    while let (Some(kind), Some(length)) = (word(at), at.checked_add(4).and_then(word)) {
        let length = usize::try_from(length).ok()?;
        let (start, padded) = (at.checked_add(8)?, length.checked_next_multiple_of(8)?);
        match kind {
            0 => break,
            DATA_FILE => named.data.push(text(start, length)?),
            BACKING_FORMAT => named.format = Some(text(start, length)?),
            _ => {}
        }
        at = start.checked_add(padded)?;
    }
    Some(named)
}

/// A name in an image that lies at `path`, as a path; `None` for what is another protocol's.
fn beside(path: &str, name: &str) -> Option<String> {
    if name.starts_with('/') {
        return Some(name.to_owned());
    }
    if name.is_empty() || name.split('/').next().is_some_and(|first| first.contains(':')) {
        return None;
    }
    let (folder, _) = path.rsplit_once('/')?;
    Some(format!("{folder}/{name}"))
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
