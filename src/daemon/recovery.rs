//! What the daemon before this one left: the ledger, and the engine as the ledger tells it.

use std::sync::Arc;

use tracing::error;
use whydown_core::id::BootId;
use whydown_core::lifecycle::{Engine, Input};
use whydown_core::time::Wall;
use whydown_ledger::{Ledger, Retention, Told};
use whydown_witness::process;

use super::clock;
use super::mailbox::Mailbox;
use crate::config::Settings;

/// What was left.
pub struct Left {
    /// The file, open.
    pub ledger: Ledger,
    /// The engine, where it stood.
    pub engine: Engine,
    /// When whydown was last known to listen; `None` if it never was.
    pub alive: Option<Wall>,
}

/// Opens the ledger, whatever state it is in, and recovers the engine.
pub fn recover(settings: &Settings, boot: BootId, mailbox: &Mailbox) -> Left {
    let told = mailbox.clone();
    let opened = Ledger::open(
        whydown_ledger::Settings {
            retention: Retention {
                endings_max_age: settings.ledger.endings_max_age,
                endings_max_count: settings.ledger.endings_max_count,
                evidence_max_age: settings.ledger.evidence_max_age,
                evidence_max_count: settings.ledger.evidence_max_count,
            },
            memory_max_ops: settings.ledger.memory_max_ops,
            path: settings.state.dir.join("ledger.db"),
            clock: Arc::new(clock::wall),
            ..whydown_ledger::Settings::default()
        },
        move |word| {
            told.post_blocking(match word {
                Told::Kept(run) => Input::Kept(run),
                Told::NotKept(run) => Input::NotKept(run),
                Told::KeptRevision(run, number) => Input::KeptRevision(run, number),
                Told::Written(count) => Input::Written(count),
                Told::Unwritten(count) => Input::Unwritten(count),
            });
        },
    );
    if let Some(trouble) = &opened.trouble {
        error!("{trouble}");
    }
    let alive = opened.recovered.alive;
    let engine = Engine::recover(
        whydown_core::lifecycle::Settings {
            settle: settings.deciding.settle,
            settle_snapshot: settings.deciding.settle_snapshot,
            heartbeat: settings.deciding.heartbeat,
            unacknowledged_max_age: settings.unacknowledged.max_age,
            unacknowledged_max_count: settings.unacknowledged.max_count,
            boot,
            booted: process::booted(),
            driver_inside: settings.libvirt.uri.driver_is_inside(),
        },
        opened.recovered,
    );
    Left { ledger: opened.ledger, engine, alive }
}
