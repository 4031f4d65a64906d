//! Calls that are refused, each with the reply that VDSM's managers know.

use bytes::Bytes;

use crate::codes::{Code, fault, status_reply};

/// Bytes of an unknown method's name that are repeated.
const NAME_BYTES: usize = 128;

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
        let end = (0..=name.len().min(NAME_BYTES)).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
        Self::UnknownMethod(name[..end].into())
    }

    /// The status code, or `None` where only a fault fits.
    pub const fn code(&self) -> Option<Code> {
        match self {
            Self::UnknownMethod(_) => None,
            Self::NoSuchVm => Some(Code::NoSuchVm),
            Self::NotAUuid | Self::Missing { .. } => Some(Code::MissingParameter),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_method_faults_in_pythons_words_and_its_name_is_cut() {
        let reply = Refused::unknown_method("fenceNode").reply();
        let read = dxr::FaultResponse::from_xml(std::str::from_utf8(&reply).unwrap()).unwrap().fault;
        assert_eq!(read.code(), 1);
        assert_eq!(read.string(), "<type 'exceptions.Exception'>:method \"fenceNode\" is not supported");
        let long = Refused::unknown_method(&"ä".repeat(10_000));
        assert_eq!(long, Refused::UnknownMethod("ä".repeat(64)));
    }
}
