//! A libvirt domain document as a manager sends it: who it is about, before libvirt sees it.
//!
//! It is read strictly, and libvirt gets the same characters without their declaration: what was judged here, by
//! `policy`, is what libvirt reads. Beyond name and UUID what it means is libvirt's business.

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
    /// The document, with that UUID in it, and without an XML declaration.
    pub xml: String,
}

/// Why a document is refused before libvirt sees it.
#[derive(Debug, thiserror::Error)]
pub enum BadDocument {
    /// Not XML.
    #[error("xml: not well-formed: {0}")]
    NotXml(roxmltree::Error),
    /// Entities and document types have no place in a domain document.
    #[error("xml: a document type declaration is not accepted")]
    DocType,
    /// It says that its bytes mean other characters than they do.
    #[error("xml: its encoding is UTF-8, and not \"{0}\"")]
    Encoding(String),
    /// Two beginnings.
    #[error("xml: it has a declaration or a byte order mark where its root should be")]
    DeclaredTwice,
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
    /// More than any VM has.
    #[error("xml: <{0}> is more than {1}")]
    TooMany(&'static str, u64),
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
    pub fn read(xml: String, vm: Option<DomainId>) -> Result<Self, BadDocument> {
        let mut xml = undeclared(xml)?;
        let tree = parse(&xml)?;
        let root = domain_of(&tree)?;
        let name = only(root, "name")?.filter(|name| !name.is_empty()).ok_or(BadDocument::NoName)?;
        if name.len() > limits::NAME_BYTES {
            return Err(BadDocument::LongName);
        }
        for (element, most) in [("vcpu", limits::VCPUS), ("iothreads", limits::IO_THREADS)] {
            if only(root, element)?
                .and_then(|text| text.parse().ok())
                .is_some_and(|number: u64| number > most)
            {
                return Err(BadDocument::TooMany(element, most));
            }
        }
        let written: Option<DomainId> = match only(root, "uuid")? {
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
                let inside =
                    root.first_child().map(|first| first.range().start).ok_or(BadDocument::NoName)?;
                drop(tree);
                xml.insert_str(inside, &format!("<uuid>{domain}</uuid>"));
                Ok(Self { domain, name, xml })
            }
        }
    }
}

/// Reads a document's elements.
///
/// # Errors
/// [`BadDocument`] if it is not XML, or has a document type.
pub fn parse(xml: &str) -> Result<roxmltree::Document<'_>, BadDocument> {
    roxmltree::Document::parse(xml).map_err(|error| match error {
        roxmltree::Error::DtdDetected => BadDocument::DocType,
        other => BadDocument::NotXml(other),
    })
}

/// The domain's element.
///
/// # Errors
/// [`BadDocument`] if the root is another.
pub fn domain_of<'a, 'b>(tree: &'a roxmltree::Document<'b>) -> Result<roxmltree::Node<'a, 'b>, BadDocument> {
    let root = tree.root_element();
    let name = root.tag_name();
    if name.name() == "domain" && name.namespace().is_none() {
        Ok(root)
    } else {
        Err(BadDocument::NotADomain)
    }
}

/// The text without what stands before it. libvirt's reader obeys an encoding that is declared: the same bytes would then
/// be other elements to it than to us.
///
/// # Errors
/// [`BadDocument`] if it declares another encoding, or twice.
pub fn undeclared(xml: String) -> Result<String, BadDocument> {
    let text = xml.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&xml);
    let rest = match text.split_once("?>").filter(|_| is_declared(text)) {
        None => text,
        Some((declaration, rest)) => {
            if let Some((_, encoding)) = declaration.split_once("encoding") {
                let named = encoding.trim_start().strip_prefix('=').unwrap_or_default().trim_start();
                let named = named.split(['"', '\'']).nth(1).unwrap_or_default();
                if !named.eq_ignore_ascii_case("utf-8") && !named.eq_ignore_ascii_case("us-ascii") {
                    return Err(BadDocument::Encoding(named.chars().take(32).collect()));
                }
            }
            rest
        }
    };
    if is_declared(rest) || rest.starts_with(BYTE_ORDER_MARK) {
        return Err(BadDocument::DeclaredTwice);
    }
    Ok(rest.to_owned())
}

fn is_declared(text: &str) -> bool {
    text.strip_prefix("<?xml")
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_whitespace() || c == '?'))
}

/// The text of a child that may stand once, trimmed.
fn only(root: roxmltree::Node<'_, '_>, name: &'static str) -> Result<Option<String>, BadDocument> {
    let mut found = root.children().filter(|child| child.has_tag_name(name));
    let first = found.next().map(|node| text_of(node).trim().to_owned());
    if found.next().is_some() { Err(BadDocument::Twice(name)) } else { Ok(first) }
}

/// All text in an element, as XPath's `string()` has it: comments split it, and other elements may be in between.
pub fn text_of(node: roxmltree::Node<'_, '_>) -> String {
    node.descendants().filter(|inner| inner.is_text()).filter_map(|inner| inner.text()).collect()
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
        let xml = format!("<!-- c --><domain type='qemu'><name>a &amp; b</name><uuid>{ID}</uuid></domain>");
        let document = read(&format!("<?xml version='1.0'?>{xml}"), None).unwrap();
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
    fn nested_names_are_not_the_domains_and_split_ones_are_whole() {
        let xml = "<domain><metadata><name>x</name></metadata><name>n<!-- -->m<![CDATA[o]]></name>\
                   <devices><uuid>z</uuid></devices></domain>";
        assert_eq!(read(xml, Some(ID)).unwrap().name, "nmo");
    }

    #[test]
    fn an_encoding_that_makes_other_characters_of_the_bytes_is_refused_and_no_declaration_goes_on() {
        let with = |encoding: &str| {
            read(
                &format!("<?xml version='1.0' encoding={encoding}?><domain><name>n</name></domain>"),
                Some(ID),
            )
        };
        for encoding in ["'UTF-8'", "\"utf-8\"", " 'US-ASCII' standalone='yes'"] {
            assert!(with(encoding).unwrap().xml.starts_with("<domain>"), "{encoding}");
        }
        let twice =
            "<?xml version='1.0'?><?xml version='1.0' encoding='UTF-7'?><domain><name>n</name></domain>";
        assert!(read(twice, None).unwrap_err().contains("where its root should be"));
        for encoding in ["'UTF-7'", "\"IBM037\"", "'UTF-16'", "'ISO-2022-JP'", "''", "UTF-7"] {
            assert!(with(encoding).unwrap_err().contains("its encoding is UTF-8"), "{encoding}");
        }
    }

    #[test]
    fn bad_documents_are_refused_by_name() {
        let cases = [
            ("", "root"),
            ("<network/>", "root element"),
            ("<domain xmlns='urn:x'><name>n</name></domain>", "root element"),
            ("\u{FEFF}\u{FEFF}<domain><name>n</name></domain>", "xml"),
            ("<domain><name>n</name>", "xml"),
            ("<domain><name>n</domain>", "well-formed"),
            ("<domain></domain>", "<name>"),
            ("<domain/>", "<name>"),
            ("<domain><name> </name></domain>", "<name>"),
            ("<domain><name>n</name><uuid>x</uuid></domain>", "<uuid>"),
            ("<domain><name>n</name><name>m</name></domain>", "more than once"),
            ("<!DOCTYPE d [<!ENTITY a 'b'>]><domain><name>n</name></domain>", "document type"),
            ("<domain><name>n</name></domain><domain><name>m</name></domain>", "xml"),
            ("<domain><name>n&evil;</name></domain>", "well-formed"),
            ("<domain><name>n</name><vcpu>4097</vcpu></domain>", "<vcpu> is more than 4096"),
            (
                "<domain><name>n</name><iothreads> 99999 </iothreads></domain>",
                "<iothreads> is more than 1024",
            ),
        ];
        for (xml, wanted) in cases {
            let error = read(xml, None).unwrap_err();
            assert!(error.contains(wanted), "{xml}: {error}");
        }
        let other = "<domain><name>n</name><uuid>00000000-0000-0000-0000-000000000001</uuid></domain>";
        assert!(read(other, Some(ID)).unwrap_err().contains("differ"));
    }
}
