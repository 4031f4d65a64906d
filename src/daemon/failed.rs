//! Starts by other clients that failed, looked for: libvirt reports none that it refuses before QEMU runs.
//!
//! ```text
//! every few seconds: which domains are off because their start failed? ─▶ when, by QEMU's log ─▶ why, by libvirt's own log,
//!                                                                        QEMU's log, and the networks of the definition
//! ```
//!
//! Two failed starts in a row differ by their farewells in QEMU's log. What the ledger has is not told again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::debug;
use whydown_core::cause::Cause;
use whydown_core::evidence::{Fact, LogWord};
use whydown_core::hypervisor::{DomainRef, DomainState, ShutOffReason};
use whydown_core::id::DomainId;
use whydown_core::lifecycle::Input;
use whydown_core::record::{Ending, When};
use whydown_core::snapshot::Link;
use whydown_core::time::Wall;
use whydown_ledger::{Ledger, Query};
use whydown_libvirt::{Hypervisor, Refusal};
use whydown_witness::daemon_log::{DaemonLog, telling};
use whydown_witness::log;

use super::clock;
use super::engine::Published;
use super::post::Postbox;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(3);

/// A look on a big host is followed by a pause of so many times its own length: libvirt is busy with us for 1% at most.
const SHARE: u32 = 100;

/// How long before libvirt's farewell its error may stand in its log. It cleans up in between, and where QEMU ran, that one
/// has words of its own.
const ERROR_BEFORE: Duration = Duration::from_millis(500);

/// And after it: both are written by one thread, the error first.
const ERROR_AFTER: Duration = Duration::from_millis(2);

/// A start that we asked for, or of which an event told, is dated this much before its farewell at most: libvirt clears up in
/// between, which takes seconds on a host that is busy.
const SAME: Duration = Duration::from_secs(10);

/// See the module page.
pub struct FailedStarts {
    hypervisor: Hypervisor,
    postbox: Postbox,
    ledger: Ledger,
    published: watch::Receiver<Published>,
    logs: Option<PathBuf>,
    own_pid: Option<u32>,
    daemon_log: DaemonLog,
    /// Of each domain whose last start failed, when that was as far as is known.
    known: HashMap<DomainId, Option<Wall>>,
    /// Whether there was a look: what failed before it at a moment that nobody knows is not told.
    looked: bool,
}

impl FailedStarts {
    /// Looks with these.
    pub fn new(
        hypervisor: Hypervisor,
        postbox: Postbox,
        ledger: Ledger,
        published: watch::Receiver<Published>,
        logs: Option<PathBuf>,
        own_pid: Option<u32>,
        daemon_log: Option<PathBuf>,
    ) -> Self {
        let daemon_log = daemon_log.map_or(DaemonLog::Journal, DaemonLog::File);
        let (known, looked) = (HashMap::new(), false);
        Self { hypervisor, postbox, ledger, published, logs, own_pid, daemon_log, known, looked }
    }

    /// Runs until the daemon ends.
    pub async fn run(mut self) {
        loop {
            if self.published.wait_for(|now| now.snapshot.settled).await.is_err() {
                return;
            }
            let linked = matches!(self.published.borrow().snapshot.link, Link::Up);
            let began = Instant::now();
            if linked {
                self = match tokio::task::spawn_blocking(move || self.look()).await {
                    Ok((this, found)) => {
                        for failed in found {
                            this.postbox.post(failed).await;
                        }
                        this
                    }
                    Err(error) => {
                        tracing::error!(%error, "starts that fail are not looked for any more");
                        return;
                    }
                };
            }
            tokio::time::sleep(PAUSE.max(began.elapsed() * SHARE)).await;
        }
    }

    fn look(mut self) -> (Self, Vec<Input>) {
        let failed = match self.hypervisor.failed_starts() {
            Ok(failed) => failed,
            Err(refusal) => {
                if refusal != Refusal::NoLink {
                    debug!("libvirt does not say which starts failed: {refusal}");
                }
                return (self, Vec::new());
            }
        };
        let now = clock::wall();
        self.known.retain(|id, _| failed.iter().any(|domain| domain.id == *id));
        let news = failed.into_iter().filter_map(|domain| self.news_of(domain, now)).collect();
        self.looked = true;
        (self, news)
    }

    /// What is new of a domain whose last start failed.
    fn news_of(&mut self, domain: DomainRef, now: Wall) -> Option<Input> {
        let logged = match &self.logs {
            Some(folder) => log::last_failed(folder, &domain.name, self.own_pid, now),
            None => Ok(None),
        };
        let logged = logged.unwrap_or_else(|why| {
            debug!(uuid = %domain.id, "when its start failed is not known: {why}");
            None
        });
        let at = logged.as_ref().map(|failed| failed.at);
        let before = self.known.insert(domain.id, at);
        if before == Some(at) || (at.is_none() && !self.looked) || self.is_told(domain.id, at.unwrap_or(now))
        {
            return None;
        }
        let facts = self.facts(&domain, at, logged.map(|failed| failed.facts).unwrap_or_default(), now);
        Some(Input::StartFailed { domain, at: at.unwrap_or(now), facts })
    }

    /// Whether history has it.
    fn is_told(&self, domain: DomainId, at: Wall) -> bool {
        let newest = self.ledger.history(&Query { domain: Some(domain), limit: 1, ..Query::default() });
        newest.endings.first().is_some_and(|ending| covers(ending, at))
    }

    fn facts(
        &self,
        domain: &DomainRef,
        at: Option<Wall>,
        logged: Vec<(Wall, Fact)>,
        now: Wall,
    ) -> Vec<(Wall, Fact)> {
        let when = at.unwrap_or(now);
        let managed_save = self.hypervisor.view(domain.id).ok().flatten().and_then(|view| view.managed_save);
        let state = DomainState::ShutOff(ShutOffReason::Failed);
        let mut facts = vec![
            (when, Fact::StartFailed { told_by: "libvirt calls the domain off for that reason".into() }),
            (now, Fact::Found { state, managed_save }),
        ];
        facts.extend(logged);
        // What libvirt says of this very definition tells more than what it wrote at that moment, of whatever domain.
        if let Some(text) = self.missing_network(domain.id) {
            facts.push((now, Fact::StartTrouble(text)));
        } else if let Some(at) = at {
            let before = Wall(at.0.saturating_sub(ERROR_BEFORE.as_nanos() as i64));
            match self.daemon_log.errors(before, at.after(ERROR_AFTER)) {
                Ok(errors) => {
                    facts.extend(telling(&errors).map(|(at, text)| (*at, Fact::StartTrouble(text.clone()))));
                }
                Err(why) => debug!(uuid = %domain.id, "libvirt's own log cannot be read: {why}"),
            }
        }
        facts
    }

    /// What libvirt says of the first network of the definition that is not there.
    fn missing_network(&self, domain: DomainId) -> Option<String> {
        let document = self.hypervisor.domain_xml(domain).ok()?;
        let networks = super::device::networks(&document).ok()?;
        networks.iter().find_map(|name| self.hypervisor.network_trouble(name).ok().flatten())
    }
}

/// Whether this ending is that of a start that failed at this moment, or of something later.
fn covers(ending: &Ending, at: Wall) -> bool {
    let ended = match ending.ended {
        When::At(at) | When::Between(at, _) => at,
    };
    let failed =
        matches!(ending.verdict.cause, Cause::StartFailed | Cause::StartFailedSilent | Cause::RestoreFailed);
    let looked_for = ending.evidence.iter().any(|piece| matches!(piece.fact, Fact::StartFailed { .. }));
    // Its own farewell, where QEMU's log was read when it was decided.
    let farewell = ending.evidence.iter().rev().find_map(|piece| match piece.fact {
        Fact::LogEnd { word: LogWord::Failed, at: Some(at) } => Some(at),
        _ => None,
    });
    ended >= at
        || match farewell {
            Some(farewell) => farewell >= at,
            None => failed && !looked_for && ended.after(SAME) >= at,
        }
}
