//! Identities. A domain is known by its UUID, never by its name; a run is one life of a domain.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A libvirt domain's UUID. It outlives renames, restarts and redefinitions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DomainId([u8; 16]);

impl DomainId {
    /// From the sixteen bytes that libvirt gives.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes, in the order in which they are written.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAUuid;

impl fmt::Display for NotAUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID (expected 32 hexadecimal digits, with or without hyphens)")
    }
}

impl std::error::Error for NotAUuid {}

impl FromStr for DomainId {
    type Err = NotAUuid;

    /// Reads 32 hexadecimal digits of either case. Hyphens are allowed only in the usual places.
    fn from_str(text: &str) -> Result<Self, NotAUuid> {
        let hyphenated = match text.len() {
            36 => true,
            32 => false,
            _ => return Err(NotAUuid),
        };
        let mut bytes = [0u8; 16];
        let mut digits = 0;
        for (position, c) in text.bytes().enumerate() {
            if hyphenated && matches!(position, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return Err(NotAUuid);
                }
                continue;
            }
            let digit = (c as char).to_digit(16).ok_or(NotAUuid)? as u8;
            bytes[digits / 2] = (bytes[digits / 2] << 4) | digit;
            digits += 1;
        }
        Ok(Self(bytes))
    }
}

impl From<DomainId> for String {
    fn from(id: DomainId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for DomainId {
    type Error = NotAUuid;

    fn try_from(text: String) -> Result<Self, NotAUuid> {
        text.parse()
    }
}

/// One life of a domain, from start to end. Numbers rise for ever on one host and are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A request that somebody waits for an answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

/// One boot of the host, as the kernel names it (`/proc/sys/kernel/random/boot_id`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_read_in_any_case_and_written_in_lower_case() {
        let id: DomainId = "6695EB01-F6A4-8304-79AA-97F2502E193F".parse().unwrap();
        assert_eq!(id.to_string(), "6695eb01-f6a4-8304-79aa-97f2502e193f");
        assert_eq!("6695eb01f6a4830479aa97f2502e193f".parse(), Ok(id));
    }

    #[test]
    fn what_is_not_a_uuid_is_refused() {
        for text in
            ["", "x", "6695eb01-f6a4-8304-79aa-97f2502e193", "6695eb01+f6a4+8304+79aa+97f2502e193f", "ä"]
        {
            assert_eq!(text.parse::<DomainId>(), Err(NotAUuid), "{text}");
        }
    }
}
