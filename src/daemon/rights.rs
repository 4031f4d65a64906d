//! Who may read, and who may act.
//!
//! | came by | may read | may act |
//! |---|---|---|
//! | TLS | every certificate of the authority, or `tls.readers` | `tls.actors` |
//! | plain TCP | yes | unless `xmlrpc.plain_may_act` is false |
//! | Unix socket | yes | yes: the file's permissions were the check |
//!
//! It judges names only; whether they are genuine was the handshake's business.

use whydown_core::act::Act;
use whydown_wire::Verb;

use crate::config::Settings;
use crate::edge::{Identity, Peer};

/// Stands for every certificate of the authority.
const EVERYBODY: &str = "*";

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// To be told something.
    Read,
    /// To change what happens to a VM; the verb's name.
    Act(&'static str),
}

/// Somebody may not do what they want.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{who} may not {what}: {why}")]
pub struct Denied {
    who: String,
    what: &'static str,
    why: &'static str,
}

/// See the module page.
#[derive(Debug, Clone)]
pub struct Rights {
    readers: Vec<String>,
    actors: Vec<String>,
    plain_may_act: bool,
}

impl Want {
    /// What a verb is.
    pub fn of(verb: &Verb) -> Self {
        match verb {
            Verb::Create { .. } | Verb::CreateClassic(_) => Self::Act("create"),
            Verb::Snapshot { .. } => Self::Act("snapshot"),
            Verb::Do { act, .. } => Self::Act(match act {
                Act::Pause => "pause",
                Act::Resume => "cont",
                Act::Save => "hibernate",
                Act::Migrate(_) => "migrate",
                Act::Abort => "migrateCancel",
                Act::SetTicket(_) => "setVmTicket",
                Act::SetMemory { .. } => "setBalloonTarget",
                Act::SetVcpus { .. } => "setNumberOfCpus",
                Act::Snapshot { .. } => "snapshot",
                Act::Freeze => "freeze",
                Act::Thaw => "thaw",
            }),
            Verb::Shutdown { .. } => Self::Act("shutdown"),
            Verb::Destroy { .. } => Self::Act("destroy"),
            Verb::Ping
            | Verb::List { .. }
            | Verb::GetVmStats { .. }
            | Verb::GetAllVmStats
            | Verb::GetVdsCapabilities
            | Verb::GetVdsStats
            | Verb::GetVdsHardwareInfo
            // It only asks whether a VM may come.
            | Verb::MigrationCreate { .. }
            | Verb::MigrateStatus { .. }
            | Verb::ListMethods
            | Verb::MethodHelp { .. }
            | Verb::MethodSignature { .. } => Self::Read,
        }
    }
}

impl Rights {
    /// As configured.
    pub fn new(settings: &Settings) -> Self {
        Self {
            readers: settings.tls.readers.clone(),
            actors: settings.tls.actors.clone(),
            plain_may_act: settings.xmlrpc.plain_may_act,
        }
    }

    /// Whether this peer may do that.
    ///
    /// # Errors
    /// [`Denied`] says who, what and by which key.
    pub fn check(&self, peer: &Peer, want: Want) -> Result<(), Denied> {
        let why = match (peer, want) {
            (Peer::Unix { .. }, _) | (Peer::Tcp(_), Want::Read) => return Ok(()),
            (Peer::Tcp(_), Want::Act(_)) if self.plain_may_act => return Ok(()),
            (Peer::Tcp(_), Want::Act(_)) => "it came without TLS, and xmlrpc.plain_may_act is false",
            (Peer::Tls { identity, .. }, _) if among(&self.actors, identity) => return Ok(()),
            (Peer::Tls { .. }, Want::Act(_)) => "none of its certificate's names is in tls.actors",
            (Peer::Tls { identity, .. }, Want::Read) => {
                if self.readers.is_empty() || among(&self.readers, identity) {
                    return Ok(());
                }
                "none of its certificate's names is in tls.readers or tls.actors"
            }
        };
        let what = match want {
            Want::Read => "read",
            Want::Act(verb) => verb,
        };
        Err(Denied { who: peer.to_string(), what, why })
    }
}

fn among(names: &[String], identity: &Identity) -> bool {
    names.iter().any(|name| name == EVERYBODY || identity.is(name))
}
