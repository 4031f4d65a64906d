//! Who a certificate says its holder is: the names that rights are given to, and the time it is good for.
//!
//! It trusts nothing: whether the certificate is genuine was decided by the handshake before.

use std::fmt;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

/// Names of one certificate that are read. An honest one has one to four.
const NAMES: usize = 32;

/// Bytes of a name; a DNS name has at most 253.
const NAME_BYTES: usize = 256;

/// The names in a certificate, at least for comparison: none is empty, long or has characters that no line may carry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    names: Vec<String>,
}

/// From when to when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Term {
    from: ASN1Time,
    until: ASN1Time,
}

/// Why there is nobody to name.
#[derive(Debug, thiserror::Error)]
pub enum NotACertificate {
    /// None was shown.
    #[error("none was shown")]
    Missing,
    /// The bytes are no X.509 certificate.
    #[error("it cannot be read: {0}")]
    Unread(String),
}

impl Identity {
    /// The names in a certificate: the common names of its subject first, then its DNS names and URIs.
    pub(super) fn of(certificate: &[u8]) -> Result<(Self, Term), NotACertificate> {
        let unread = |error: &dyn fmt::Display| NotACertificate::Unread(error.to_string());
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| unread(&error))?;
        let validity = certificate.validity();
        let term = Term { from: validity.not_before, until: validity.not_after };
        let common =
            certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned);
        let other = certificate.subject_alternative_name().map_err(|error| unread(&error))?;
        let other = other.iter().flat_map(|extension| &extension.value.general_names);
        let other = other.filter_map(|name| match name {
            GeneralName::DNSName(name) | GeneralName::URI(name) => Some((*name).to_owned()),
            _ => None,
        });
        Ok((Self::from_names(common.chain(other)), term))
    }

    /// What cannot be shown on a line is no name: rewriting it could make it another's.
    fn from_names(found: impl Iterator<Item = String>) -> Self {
        let plain =
            |name: &String| !name.is_empty() && name.len() <= NAME_BYTES && !name.contains(char::is_control);
        let mut names: Vec<String> = Vec::new();
        for name in found.filter(plain) {
            if names.len() < NAMES && !names.contains(&name) {
                names.push(name);
            }
        }
        Self { names }
    }

    /// All names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether one of its names is this one. Letter case makes no difference, as in host names.
    pub fn is(&self, name: &str) -> bool {
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Identity {
    /// The first name stands for all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.names.first().map_or("a certificate without a name", String::as_str))
    }
}

impl Term {
    pub(super) fn is_now(&self) -> bool {
        let now = ASN1Time::now();
        self.from <= now && now <= self.until
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "good from {} until {}", self.from, self.until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(names: &[&str]) -> Identity {
        Identity::from_names(names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn a_name_with_control_characters_is_no_name_and_becomes_no_other() {
        let long = "x".repeat(NAME_BYTES + 1);
        let found = identity(&["engine\0", "", "a\nb", &long, "Engine.example", "Engine.example"]);
        assert_eq!(found.names(), ["Engine.example"]);
        assert!(found.is("engine.EXAMPLE") && !found.is("engine") && !found.is(""));
        assert_eq!(identity(&["\u{7f}"]).to_string(), "a certificate without a name");
    }

    #[test]
    fn a_certificate_with_a_thousand_names_has_some() {
        let names: Vec<String> = (0..1000).map(|n| format!("n{n}")).collect();
        assert_eq!(Identity::from_names(names.into_iter()).names().len(), NAMES);
    }

    #[test]
    fn bytes_that_are_no_certificate_name_nobody() {
        assert!(matches!(Identity::of(b"\x30\x03abc"), Err(NotACertificate::Unread(_))));
        assert!(Identity::of(b"").is_err());
    }
}
