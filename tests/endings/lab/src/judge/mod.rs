//! Who says what of the same events: whydown, and the rules of others beside it.

pub mod masakari;
pub mod nova;
pub mod ours;
pub mod vdsm;

use serde::Serialize;

use crate::case::Asked;
use crate::recorder::RawEvent;

/// What another program was given.
#[derive(Clone, Debug)]
pub struct Given {
    /// Events of this domain, in order; only those that a listener on libvirt would have heard.
    pub events: Vec<RawEvent>,
    /// What a manager asked of it.
    pub asked: Asked,
    /// False where the listener itself was not running when the VM ended, or had lost libvirt.
    pub heard: bool,
    /// libvirt's state and reason when it listened again, in virsh's words; `None` where libvirt has no such domain.
    pub found: Option<String>,
    /// Whether the host's service manager says that the host is going down.
    pub host_stops: bool,
}

impl Given {
    pub(crate) fn lifecycle(&self) -> impl Iterator<Item = (&str, &str)> {
        self.events.iter().filter_map(RawEvent::lifecycle)
    }
}

/// What another program makes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// In words.
    pub words: String,
    /// exitCode and exitReason where it speaks in these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<(u8, u8)>,
}

impl Said {
    pub(crate) fn exit(code: u8, reason: u8, words: &str) -> Self {
        Self { words: words.into(), exit: Some((code, reason)) }
    }

    pub(crate) fn words(words: impl Into<String>) -> Self {
        Self { words: words.into(), exit: None }
    }
}

#[cfg(test)]
pub(crate) fn given(details: &[&str]) -> Given {
    let event =
        |detail: &&str| RawEvent { event: "lifecycle".into(), domain: "x".into(), detail: (*detail).into() };
    Given {
        events: details.iter().map(event).collect(),
        asked: Asked::Nothing,
        heard: true,
        found: None,
        host_stops: false,
    }
}
