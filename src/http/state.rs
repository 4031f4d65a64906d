//! What handlers reach: one struct, which all of them share.

use std::sync::Arc;

use tokio::sync::{Semaphore, broadcast, watch};
use whydown_core::time::Wall;
use whydown_ledger::Ledger;

use super::handlers::history::History;
use super::rights::{Denied, Rights, Want};
use super::visibility::{PublicReplies, Visibility};
use super::{Peer, Tls, noise};
use crate::daemon::doctor::Doctor;
use crate::daemon::engine::{Change, Published};
use crate::daemon::host::Host;
use crate::daemon::mailbox::Mailbox;
use crate::daemon::work::Works;

/// Doctors at work at once. Each asks libvirt, where acts want room too.
pub const DOCTORS: usize = 2;

/// See the module page. The daemon's wiring fills it in.
pub struct AppState {
    /// Where the engine is asked.
    pub mailbox: Mailbox,
    /// What goes on long after it was asked for.
    pub works: Works,
    /// The snapshot, and what polls are answered from.
    pub published: watch::Receiver<Published>,
    /// Every change, as it is published.
    pub changes: broadcast::Sender<Change>,
    /// How the disk is doing.
    pub ledger: Ledger,
    /// What is on it.
    pub history: History,
    /// The host's figures.
    pub host: Host,
    /// Since when the daemon runs.
    pub started: Wall,
    /// What this host lacks, and which sources of evidence are not there.
    pub doctor: Arc<Doctor>,
    /// Room for [`DOCTORS`].
    pub doctors: Arc<Semaphore>,
    /// Becomes true when the daemon stops.
    pub stopping: watch::Receiver<bool>,
    /// The certificates, where there is TLS.
    pub tls: Option<Arc<Tls>>,
    /// Who may do what.
    pub rights: Rights,
    /// The replies for those who may not be told everything.
    pub public: PublicReplies,
}

impl AppState {
    /// Everything, as it is now.
    pub fn published(&self) -> Published {
        self.published.borrow().clone()
    }

    /// As much of it as somebody may be told.
    pub fn published_for(&self, visibility: Visibility) -> Published {
        let whole = self.published();
        match visibility {
            Visibility::Full => whole,
            Visibility::Public => self.public.published(&whole.snapshot),
        }
    }

    /// How much this peer may be told, if it may do that. Every refusal is in the log: somebody wanted something here.
    ///
    /// # Errors
    /// [`Denied`] says who, what and by which key.
    pub fn check(&self, peer: &Peer, want: Want<'_>) -> Result<Visibility, Denied> {
        self.rights.check(peer, want).inspect_err(|denied| {
            if noise::may_say(peer.share()) {
                tracing::warn!("refused: {denied}");
            }
        })
    }
}
