//! Domain documents for `create`: what the reader says of one holds of the one that libvirt gets.

use whydown_core::evidence::tame;
use whydown_core::id::DomainId;
use whydown_wire::{Code, status_reply};

use crate::document_file::{BadDocument, Document};
use crate::memory::bounded;
use crate::written::refusal;

/// Bytes of memory for a byte of document: open elements are kept by name.
const TIMES: usize = 64;

/// The target.
///
/// # Panics
/// When a property does not hold.
pub fn document(bytes: &[u8]) {
    let Ok(xml) = std::str::from_utf8(bytes) else { return };
    let _ = check(xml, None);
    let _ = check(xml, Some(DomainId::from_bytes([7; 16])));
}

/// Reads it, and holds what was read against a second reading.
pub fn check(xml: &str, vm: Option<DomainId>) -> Result<Document, BadDocument> {
    let read = bounded(xml.len(), TIMES, || Document::read(xml.to_owned(), vm));
    match &read {
        Ok(document) => {
            assert!(!document.name.is_empty() && document.name.trim() == document.name);
            assert!(vm.is_none_or(|vm| vm == document.domain), "another VM than the manager's");
            for vm in [None, Some(document.domain)] {
                let again = Document::read(document.xml.clone(), vm);
                assert_eq!(again.expect("what was accepted is accepted again"), *document);
            }
        }
        Err(bad) => {
            // As the daemon answers.
            let said = refusal(&status_reply(Code::CreateError, &tame(&bad.to_string())));
            assert_eq!(said.status, Some(Code::CreateError.number()));
        }
    }
    read
}
