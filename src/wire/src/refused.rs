//! Calls that are refused, each with the reply that VDSM's managers know.

use bytes::Bytes;
use whydown_core::evidence::tame;

use crate::codes::{Code, fault, status_reply};

/// Bytes of a manager's own word that are repeated to it.
const WORD_BYTES: usize = 128;

/// The fault code of Python's XML-RPC server, for everything.
const PYTHON_FAULT: i32 = 1;

/// Why a call is refused before anybody is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such method; its name, cut.
    #[error("method \"{0}\" is not supported")]
    UnknownMethod(String),
    /// The id is not one that a VM can have.
    #[error("Virtual machine does not exist")]
    NoSuchVm,
    /// `create` was given an id that is no UUID.
    #[error("vmId must be a valid UUID")]
    NotAUuid,
    /// A required parameter is missing.
    #[error("Missing required parameter {param}")]
    Missing {
        /// Its name.
        param: &'static str,
    },
    /// A parameter cannot be read.
    #[error("{method}: parameter {param} must be {wanted}")]
    Wrong {
        /// The method.
        method: &'static str,
        /// The parameter.
        param: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// A member of a struct is missing; its path.
    #[error("Missing required parameter {param}")]
    Lacks {
        /// Such as `devices[0].path`.
        param: String,
    },
    /// A member of a struct cannot be read.
    #[error("{method}: parameter {param} must be {wanted}")]
    Bad {
        /// The method.
        method: &'static str,
        /// The member's path.
        param: String,
        /// What it must be.
        wanted: String,
    },
    /// A member of a struct asks for what this host does not do.
    #[error("{method}: parameter {param} is not supported by this host")]
    Unsupported {
        /// The method.
        method: &'static str,
        /// The member's path.
        param: String,
    },
    /// `create` was told to boot from a disk and given none.
    #[error("missing boot disk")]
    NoBootDisk,
    /// `create` was given no memory.
    #[error("Must specify nonzero memSize")]
    NoMemory,
    /// `create` was given a display of an unknown kind.
    #[error("Unknown display type {0}")]
    Display(String),
    /// `create` was given a kind of VM that is not `kvm`.
    #[error("Unsupported VM type")]
    VmType,
    /// A verb that VDSM has and this host has not.
    #[error("{}: {name}", code.message())]
    Absent {
        /// The verb.
        name: &'static str,
        /// Its status.
        code: Code,
    },
    /// Too many parameters.
    #[error("{method} takes at most {most} parameters")]
    TooMany {
        /// The method.
        method: &'static str,
        /// How many it takes.
        most: usize,
    },
}

impl Refused {
    pub(crate) fn unknown_method(name: &str) -> Self {
        Self::UnknownMethod(shown(name))
    }

    /// The status code, or `None` where only a fault fits.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::UnknownMethod(_) => None,
            Self::NoSuchVm => Some(Code::NoSuchVm),
            Self::NotAUuid
            | Self::Missing { .. }
            | Self::Lacks { .. }
            | Self::NoBootDisk
            | Self::NoMemory => Some(Code::MissingParameter),
            Self::Bad { method: "create", .. }
            | Self::Unsupported { method: "create", .. }
            | Self::Display(_) => Some(Code::CreateError),
            Self::Bad { .. } => Some(Code::Unexpected),
            Self::Unsupported { .. } => Some(Code::NotSupported),
            Self::VmType => Some(Code::UnsupportedVmType),
            Self::Absent { code, .. } => Some(*code),
            Self::Wrong { .. } | Self::TooMany { .. } => Some(Code::Unexpected),
        }
    }

    /// The reply. An unknown method gets the fault that Python's server gives, text and all; the rest get a status.
    pub fn reply(&self) -> Bytes {
        match self.code() {
            Some(code) => status_reply(code, &self.to_string()),
            None => fault(PYTHON_FAULT, &format!("<type 'exceptions.Exception'>:{self}")),
        }
    }
}

/// A word that a manager chose, fit for a reply and for one line of a log: cut, and without control characters.
pub(crate) fn shown(word: &str) -> String {
    let end = (0..=word.len().min(WORD_BYTES)).rev().find(|&end| word.is_char_boundary(end)).unwrap_or(0);
    tame(&word[..end]).replace(char::is_control, "\u{FFFD}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_method_faults_in_pythons_words_and_its_name_is_cut() {
        let reply = Refused::unknown_method("fenceNodes").reply();
        let read = dxr::FaultResponse::from_xml(std::str::from_utf8(&reply).unwrap()).unwrap().fault;
        assert_eq!(read.code(), 1);
        assert_eq!(read.string(), "<type 'exceptions.Exception'>:method \"fenceNodes\" is not supported");
        let long = Refused::unknown_method(&"ä".repeat(10_000));
        assert_eq!(long, Refused::UnknownMethod("ä".repeat(64)));
    }

    #[test]
    fn a_word_that_is_repeated_makes_no_line_of_its_own_in_a_log() {
        assert_eq!(shown("a\n\x1b[31m\t\u{FFFE}ä"), "a\u{FFFD}\u{FFFD}[31m\u{FFFD}\u{FFFD}ä");
    }

    #[test]
    fn a_number_that_is_too_large_is_told_how_large_it_may_be() {
        let body = "<methodCall><methodName>setBalloonTarget</methodName><params><param><value>6695eb01-f6a4-8304-79aa-97f2502e193f\
                    </value></param><param><value>99999999999</value></param></params></methodCall>";
        let call = crate::Call::read(body.as_bytes(), &crate::CallLimits::default()).unwrap();
        let said = crate::Verb::read(&call).unwrap_err().to_string();
        assert!(said.contains("0 to 4294967295"), "{said}");
    }
}
