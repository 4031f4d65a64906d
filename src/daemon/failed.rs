//! Starts by other clients that failed, looked for: libvirt reports none that it refuses before QEMU runs.
//!
//! ```text
//! every few seconds, and when the kernel's audit says that one has failed:
//! which domains are off because their start failed? ─▶ when, by QEMU's log ─▶ why, by libvirt's own log,
//!                                                                        QEMU's log, and the networks of the definition
//! ```
//!
//! Two failed starts in a row differ by their farewells in QEMU's log. What the ledger has is not told again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tracing::debug;
use whydown_core::cause::Cause;
use whydown_core::evidence::{Fact, LogWord};
use whydown_core::hypervisor::{DomainRef, DomainState, ShutOffReason};
use whydown_core::id::DomainId;
use whydown_core::lifecycle::Input;
use whydown_core::limits;
use whydown_core::record::{Ending, When};
use whydown_core::snapshot::Link;
use whydown_core::time::Wall;
use whydown_core::verdict::{is_said_by_qemu, log_says_why};
use whydown_ledger::{Ledger, Query};
use whydown_libvirt::{Hypervisor, Refusal};
use whydown_witness::daemon_log::{DaemonLog, telling};
use whydown_witness::libvirt::LibvirtProcess;
use whydown_witness::log;

use super::clock;
use super::engine::Published;
use super::post::Postbox;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(3);

/// Between two looks where the kernel's audit tells of failed starts: libvirt tells it first, and calls the domain off then.
const LEAST: Duration = Duration::from_millis(200);

/// A look on a big host is followed by a pause of so many times its own length: libvirt is busy with us for 1% at most.
const SHARE: u32 = 100;

/// And no longer than this: a look that was slow once, as the host was busy with other things, must not blind us for minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How long before libvirt's farewell its error may stand in its log. It cleans up in between, and where QEMU ran, that one
/// has words of its own.
const ERROR_BEFORE: Duration = Duration::from_millis(500);

/// And after it: both are written by one thread, the error first.
const ERROR_AFTER: Duration = Duration::from_millis(2);

/// Domains of which the audit may tell between two looks; the others are found by libvirt's state.
const AUDITED: usize = 4096;

/// libvirt tells the audit and writes its farewell this close to each other.
const ONE_MOMENT: Duration = Duration::from_secs(2);

/// The kernel dates its audit by a clock that it moves on some hundred times a second.
const AUDIT_TICK: Duration = Duration::from_millis(20);

/// A start that we asked for, or of which an event told, is dated this much before its farewell at most: libvirt clears up in
/// between, which takes seconds on a host that is busy.
const SAME: Duration = Duration::from_secs(10);

/// What libvirt told the kernel's audit of starts that failed, until it is looked at. Cheap to clone.
#[derive(Clone, Default)]
pub struct Audited {
    told: Arc<Mutex<HashMap<DomainId, (String, Wall)>>>,
    news: Arc<Notify>,
}

impl Audited {
    /// This domain's start has failed.
    pub fn note(&self, domain: DomainId, name: String, at: Wall) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < AUDITED {
            told.insert(domain, (name, at));
        }
        drop(told);
        self.news.notify_one();
    }

    fn take(&self) -> HashMap<DomainId, (String, Wall)> {
        std::mem::take(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What tells when and why a start failed.
pub struct Sources {
    /// The folder of QEMU's logs.
    pub logs: Option<PathBuf>,
    /// Our own process, where libvirt runs inside it.
    pub libvirt: LibvirtProcess,
    /// libvirt's own log.
    pub daemon_log: DaemonLog,
    /// libvirt's records in the kernel's audit.
    pub audited: Audited,
}

/// A start of which nothing says why it failed.
struct Unexplained {
    domain: DomainRef,
    at: Wall,
    audited: Option<Wall>,
    since: Instant,
    /// How often libvirt's log was read again.
    looks: usize,
}

/// So many of them are looked at again: a host where every start fails has one reason, and it is known by then.
const UNEXPLAINED: usize = 64;

/// See the module page.
pub struct FailedStarts {
    hypervisor: Hypervisor,
    postbox: Postbox,
    ledger: Ledger,
    published: watch::Receiver<Published>,
    sources: Sources,
    /// Of each domain whose last start failed, when that was as far as is known.
    known: HashMap<DomainId, Option<Wall>>,
    /// Those of which nothing says why, as libvirt's own log could not be read or had not taken it in.
    unexplained: Vec<Unexplained>,
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
        sources: Sources,
    ) -> Self {
        let (known, unexplained, looked) = (HashMap::new(), Vec::new(), false);
        Self { hypervisor, postbox, ledger, published, sources, known, unexplained, looked }
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
            // One look answers for all that the audit tells of while the last one's price is paid.
            let (least, pause) = (LEAST.max(began.elapsed()), pause_after(began.elapsed()));
            tokio::time::sleep(least).await;
            let _ =
                tokio::time::timeout(pause.saturating_sub(least), self.sources.audited.news.notified()).await;
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
        let mut audited = self.sources.audited.take();
        self.known.retain(|id, _| failed.iter().any(|domain| domain.id == *id));
        let mut news = Vec::new();
        for domain in failed {
            let told = audited.remove(&domain.id).map(|(_, at)| at);
            news.extend(self.news_of(domain, told, now));
        }
        // libvirt keeps nothing of a transient domain, and forgets the failure of one that has come up since.
        for (id, (name, at)) in audited {
            let domain = DomainRef { id, name, libvirt_id: None };
            if !self.is_told(id, at.before(ONE_MOMENT)) {
                let facts = self.facts(&domain, Some(at), Some(at), Vec::new(), None, now);
                news.push(Input::StartFailed { domain, at, facts });
            }
        }
        for input in &news {
            self.unexplained.extend(unexplained(input));
        }
        let more = self.unexplained.len().saturating_sub(UNEXPLAINED);
        self.unexplained.drain(..more);
        news.extend(self.explained_since(now));
        self.looked = true;
        (self, news)
    }

    /// Of which of those that nothing explained libvirt's own log says why by now.
    fn explained_since(&mut self, now: Wall) -> Vec<Input> {
        let mut news = Vec::new();
        for mut one in std::mem::take(&mut self.unexplained) {
            let due = limits::SECOND_LOOKS.get(one.looks).is_some_and(|wait| one.since.elapsed() >= *wait);
            if due {
                one.looks += 1;
                let facts = self.facts(&one.domain, Some(one.at), one.audited, Vec::new(), None, now);
                let why = facts.into_iter().filter(|(_, fact)| matches!(fact, Fact::StartTrouble(_)));
                let facts: Vec<_> = why.collect();
                if !facts.is_empty() {
                    news.push(Input::StartFailed { domain: one.domain, at: one.at, facts });
                    continue;
                }
            }
            if one.looks < limits::SECOND_LOOKS.len() {
                self.unexplained.push(one);
            }
        }
        news
    }

    /// What is new of a domain whose last start failed.
    fn news_of(&mut self, domain: DomainRef, audited: Option<Wall>, now: Wall) -> Option<Input> {
        let logged = match &self.sources.logs {
            Some(folder) => log::last_failed(folder, &domain.name, &self.sources.libvirt, now),
            None => Ok(None),
        };
        let logged = logged.unwrap_or_else(|why| {
            debug!(uuid = %domain.id, "when its start failed is not known: {why}");
            None
        });
        let at = logged.as_ref().map(|failed| failed.at).or(audited);
        let before = self.known.insert(domain.id, at);
        if before == Some(at) || (at.is_none() && !self.looked) || self.is_told(domain.id, at.unwrap_or(now))
        {
            return None;
        }
        let managed_save = self.hypervisor.view(domain.id).ok().flatten().and_then(|view| view.managed_save);
        let found = Fact::Found { state: DomainState::ShutOff(ShutOffReason::Failed), managed_save };
        let logged = logged.map(|failed| failed.facts).unwrap_or_default();
        let facts = self.facts(&domain, at, audited, logged, Some(found), now);
        Some(Input::StartFailed { domain, at: at.unwrap_or(now), facts })
    }

    /// Whether history has it, or had it: what a damaged ledger has lost is no news.
    fn is_told(&self, domain: DomainId, at: Wall) -> bool {
        if self.ledger.health().lost_until.is_some_and(|until| at <= until) {
            return true;
        }
        let newest = self.ledger.history(&Query { domain: Some(domain), limit: 1, ..Query::default() });
        newest.endings.first().is_some_and(|ending| covers(ending, at))
    }

    fn facts(
        &self,
        domain: &DomainRef,
        at: Option<Wall>,
        audited: Option<Wall>,
        logged: Vec<(Wall, Fact)>,
        found: Option<Fact>,
        now: Wall,
    ) -> Vec<(Wall, Fact)> {
        let told_by = |told_by: &str| Fact::StartFailed { told_by: told_by.into() };
        let mut facts = Vec::new();
        facts.extend(audited.map(|at| (at, told_by(TO_THE_AUDIT))));
        if let Some(found) = found {
            facts.push((at.unwrap_or(now), told_by("libvirt calls the domain off for that reason")));
            facts.push((now, found));
        }
        facts.extend(logged);
        // What libvirt says of this very definition tells more than what it wrote at that moment, of whatever domain.
        if let Some(text) = self.missing_network(domain.id) {
            facts.push((now, Fact::StartTrouble(text)));
        } else if let Some(at) = at {
            let before = Wall(at.0.saturating_sub(ERROR_BEFORE.as_nanos() as i64));
            let after = if audited == Some(at) { AUDIT_TICK } else { ERROR_AFTER };
            let its_own = self.words_of(domain);
            let qemu_spoke =
                facts.iter().any(|(_, fact)| matches!(fact, Fact::LogText(text) if is_said_by_qemu(text)));
            let ask = || match self.sources.daemon_log.errors(before, at.after(after)) {
                Ok(errors) => telling(&errors, &its_own, !qemu_spoke).cloned(),
                Err(why) => {
                    debug!(uuid = %domain.id, "libvirt's own log cannot be read: {why}");
                    None
                }
            };
            // The journal may not have taken it in yet.
            let told = ask().or_else(|| if self.sources.daemon_log.catch_up() { ask() } else { None });
            facts.extend(told.map(|error| (error.at, Fact::StartTrouble(error.text))));
        }
        facts
    }

    /// What an error that is about this domain may name: itself, and what its definition needs.
    fn words_of(&self, domain: &DomainRef) -> Vec<String> {
        let document = self.hypervisor.domain_xml(domain.id).unwrap_or_default();
        let mut words = vec![domain.id.to_string(), format!("'{}'", domain.name)];
        words.extend(super::device::sources(&document).unwrap_or_default());
        words
    }

    /// What libvirt says of the first network of the definition that is not there.
    fn missing_network(&self, domain: DomainId) -> Option<String> {
        let document = self.hypervisor.domain_xml(domain).ok()?;
        let networks = super::device::networks(&document).ok()?;
        networks.iter().find_map(|name| self.hypervisor.network_trouble(name).ok().flatten())
    }
}

/// What is to be looked at again of a start of which nothing says why it failed.
fn unexplained(told: &Input) -> Option<Unexplained> {
    let Input::StartFailed { domain, at, facts } = told else { return None };
    let says_why = |fact: &Fact| match fact {
        Fact::StartTrouble(_) => true,
        Fact::LogText(text) => log_says_why(text),
        _ => false,
    };
    if facts.iter().any(|(_, fact)| says_why(fact)) {
        return None;
    }
    // One that the audit alone dates is dated by a clock of its own.
    let audited = facts.iter().any(|(when, fact)| {
        when == at && matches!(fact, Fact::StartFailed { told_by } if told_by == TO_THE_AUDIT)
    });
    let audited = audited.then_some(*at);
    Some(Unexplained { domain: domain.clone(), at: *at, audited, since: Instant::now(), looks: 0 })
}

/// Who told of a start that failed, where libvirt told the kernel's audit.
const TO_THE_AUDIT: &str = "libvirt told the kernel's audit so";

/// How long to wait after a look that took so long.
fn pause_after(look: Duration) -> Duration {
    look.saturating_mul(SHARE).clamp(PAUSE, LONGEST_PAUSE)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_was_slow_once_delays_the_next_by_seconds_and_not_by_minutes() {
        let pauses = [1, 50, 900, 60_000].map(|look| pause_after(Duration::from_millis(look)).as_millis());
        assert_eq!(pauses, [3_000, 5_000, 15_000, 15_000]);
    }
}
