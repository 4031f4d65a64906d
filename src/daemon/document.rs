//! A libvirt domain document as a manager sends it: who it is about, before libvirt sees it.
//!
//! Only the name and the UUID are read here; what the rest means is libvirt's business.

use quick_xml::Reader;
use quick_xml::events::Event;
use whydown_core::id::DomainId;
use whydown_core::limits;

/// What editors put before a text.
const BYTE_ORDER_MARK: char = '\u{FEFF}';

/// A document with its identity. The UUID stands in the text too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// `/domain/uuid`, or the manager's, or a new one.
    pub domain: DomainId,
    /// `/domain/name`.
    pub name: String,
    /// The document, with that UUID in it.
    pub xml: String,
}

/// Why a document is refused before libvirt sees it.
#[derive(Debug, thiserror::Error)]
pub enum BadDocument {
    /// Not XML.
    #[error("xml: not well-formed: {0}")]
    NotXml(#[from] quick_xml::Error),
    /// It ends too early.
    #[error("xml: it ends before its elements do")]
    Unclosed,
    /// Entities and document types have no place in a domain document.
    #[error("xml: a document type declaration is not accepted")]
    DocType,
    /// The root is something else.
    #[error("xml: the root element must be <domain>")]
    NotADomain,
    /// No name.
    #[error("xml: <name> is missing or empty")]
    NoName,
    /// Too long a name.
    #[error("xml: <name> is longer than {} bytes", limits::NAME_BYTES)]
    LongName,
    /// An element that may stand once.
    #[error("xml: <{0}> stands more than once")]
    Twice(&'static str),
    /// The UUID cannot be read.
    #[error("xml: <uuid> \"{0}\" is not a UUID")]
    NotAUuid(String),
    /// The manager names another VM than its document.
    #[error("vmId {0} and <uuid> {1} differ")]
    Differ(DomainId, DomainId),
}

impl Document {
    /// Reads a document; `vm` is the UUID that the manager gave beside it.
    ///
    /// # Errors
    /// [`BadDocument`] names the element.
    pub fn read(mut xml: String, vm: Option<DomainId>) -> Result<Self, BadDocument> {
        // The reader would pass over the mark without counting it, and the UUID would land before its place.
        if xml.starts_with(BYTE_ORDER_MARK) {
            xml.remove(0);
        }
        let found = scan(&xml)?;
        let name = found.name.filter(|name| !name.is_empty()).ok_or(BadDocument::NoName)?;
        if name.len() > limits::NAME_BYTES {
            return Err(BadDocument::LongName);
        }
        let written = match found.uuid.as_deref() {
            None => None,
            Some(text) => {
                Some(text.parse().map_err(|_| BadDocument::NotAUuid(text.chars().take(64).collect()))?)
            }
        };
        match (written, vm) {
            (Some(written), Some(vm)) if written != vm => Err(BadDocument::Differ(vm, written)),
            (Some(domain), _) => Ok(Self { domain, name, xml }),
            (None, vm) => {
                let domain = vm.unwrap_or_else(|| DomainId::from_bytes(*uuid::Uuid::new_v4().as_bytes()));
                let mut with = xml;
                with.insert_str(found.inside, &format!("<uuid>{domain}</uuid>"));
                Ok(Self { domain, name, xml: with })
            }
        }
    }
}

struct Found {
    name: Option<String>,
    uuid: Option<String>,
    /// Just behind the start tag of `<domain>`.
    inside: usize,
}

fn scan(xml: &str) -> Result<Found, BadDocument> {
    if xml.starts_with(BYTE_ORDER_MARK) {
        return Err(BadDocument::NotADomain);
    }
    let mut reader = Reader::from_str(xml);
    let mut path: Vec<String> = Vec::new();
    let mut found = Found { name: None, uuid: None, inside: 0 };
    loop {
        let event = reader.read_event()?;
        match event {
            Event::DocType(_) => return Err(BadDocument::DocType),
            Event::Start(start) => {
                if path.is_empty() {
                    if start.name().as_ref() != "domain" || found.inside > 0 {
                        return Err(BadDocument::NotADomain);
                    }
                    found.inside = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
                }
                path.push(start.name().as_ref().to_owned());
                if path.len() == 2 {
                    let slot = match path[1].as_str() {
                        "name" => Some((&mut found.name, "name")),
                        "uuid" => Some((&mut found.uuid, "uuid")),
                        _ => None,
                    };
                    if let Some((slot, element)) = slot {
                        if slot.is_some() {
                            return Err(BadDocument::Twice(element));
                        }
                        *slot = Some(String::new());
                    }
                }
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Text(text) => add(&path, &mut found, &text.xml10_content()),
            Event::CData(text) => add(&path, &mut found, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let text = match reference.resolve_char_ref()? {
                    Some(character) => character.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(reference.as_ref())
                        .unwrap_or_default()
                        .to_owned(),
                };
                add(&path, &mut found, &text);
            }
            Event::Eof if path.is_empty() => break,
            Event::Eof => return Err(BadDocument::Unclosed),
            Event::Empty(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
    if found.inside == 0 {
        return Err(BadDocument::NotADomain);
    }
    found.name = found.name.map(|name| name.trim().to_owned());
    found.uuid = found.uuid.map(|uuid| uuid.trim().to_owned());
    Ok(found)
}

fn add(path: &[String], found: &mut Found, text: &str) {
    if path.len() != 2 {
        return;
    }
    match path[1].as_str() {
        "name" => found.name.get_or_insert_default().push_str(text),
        "uuid" => found.uuid.get_or_insert_default().push_str(text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

    fn read(xml: &str, vm: Option<&str>) -> Result<Document, String> {
        Document::read(xml.into(), vm.map(|id| id.parse().unwrap())).map_err(|error| error.to_string())
    }

    #[test]
    fn name_and_uuid_are_read_and_the_text_stays_as_it_is() {
        let xml = format!(
            "<?xml version='1.0'?><!-- c --><domain type='qemu'><name>a &amp; b</name><uuid>{ID}</uuid></domain>"
        );
        let document = read(&xml, None).unwrap();
        assert_eq!((document.name.as_str(), document.domain.to_string().as_str()), ("a & b", ID));
        assert_eq!(document.xml, xml);
    }

    #[test]
    fn a_missing_uuid_is_written_into_the_document() {
        let document = read("<domain type='qemu'><name>n</name></domain>", Some(ID)).unwrap();
        assert_eq!(document.xml, format!("<domain type='qemu'><uuid>{ID}</uuid><name>n</name></domain>"));
        let marked = read("\u{FEFF}<domain><name>n</name></domain>", Some(ID)).unwrap();
        assert_eq!(marked.xml, format!("<domain><uuid>{ID}</uuid><name>n</name></domain>"));
        let made = read("<domain><name>n</name></domain>", None).unwrap();
        assert_eq!(read(&made.xml, None).unwrap().domain, made.domain);
    }

    #[test]
    fn nested_names_are_not_the_domains() {
        let xml = "<domain><metadata><name>x</name></metadata><name>n</name><devices><uuid>z</uuid></devices></domain>";
        assert_eq!(read(xml, Some(ID)).unwrap().name, "n");
    }

    #[test]
    fn bad_documents_are_refused_by_name() {
        let cases = [
            ("", "root element"),
            ("<network/>", "root element"),
            ("\u{FEFF}\u{FEFF}<domain><name>n</name></domain>", "root element"),
            ("<domain><name>n</name>", "xml"),
            ("<domain><name>n</domain>", "well-formed"),
            ("<domain></domain>", "<name>"),
            ("<domain><name> </name></domain>", "<name>"),
            ("<domain><name>n</name><uuid>x</uuid></domain>", "<uuid>"),
            ("<domain><name>n</name><name>m</name></domain>", "more than once"),
            ("<!DOCTYPE d [<!ENTITY a 'b'>]><domain><name>n</name></domain>", "document type"),
            ("<domain><name>n</name></domain><domain><name>m</name></domain>", "root element"),
        ];
        for (xml, wanted) in cases {
            let error = read(xml, None).unwrap_err();
            assert!(error.contains(wanted), "{xml}: {error}");
        }
        let other = "<domain><name>n</name><uuid>00000000-0000-0000-0000-000000000001</uuid></domain>";
        assert!(read(other, Some(ID)).unwrap_err().contains("differ"));
    }
}
