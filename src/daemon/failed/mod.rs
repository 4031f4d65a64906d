//! Starts by other clients that failed, looked for: libvirt reports none that it refuses before QEMU runs.
//!
//! ```text
//! every few seconds, and when the kernel's audit says that one has failed:
//! which domains are off because their start failed? ─┐
//! which of QEMU's logs have got a farewell to one?  ─┼─▶ which of them, each by its farewell ─▶ why, by libvirt's own log,
//! of which has the kernel's audit told?             ─┘                       QEMU's log, and the networks of the definition
//! ```
//!
//! Several failed starts in a row differ by their farewells in QEMU's log, and so does one that another start followed, which
//! works. What the ledger has is not told again.

mod audited;
mod told;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::debug;
use whydown_core::evidence::{Fact, LogWord};
use whydown_core::hypervisor::{DomainRef, DomainState, ShutOffReason};
use whydown_core::id::DomainId;
use whydown_core::lifecycle::{FailedStart, Input};
use whydown_core::limits;
use whydown_core::snapshot::Link;
use whydown_core::time::Wall;
use whydown_core::verdict::{is_said_by_qemu, log_says_why};
use whydown_ledger::{Ledger, Query};
use whydown_libvirt::{Hypervisor, Refusal};
use whydown_witness::daemon_log::{DaemonLog, telling};
use whydown_witness::libvirt::LibvirtProcess;
use whydown_witness::log::{self, Failure, Grown};

use self::audited::{Word, Words};
use self::told::{Has, SAME, Told};
use super::clock;
use super::engine::Published;
use super::mailbox::Mailbox;

pub use self::audited::Audited;

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

/// libvirt tells the audit and writes its farewell this close to each other.
const ONE_MOMENT: Duration = Duration::from_secs(2);

/// The kernel dates its audit by a clock that it moves on some hundred times a second.
const AUDIT_TICK: Duration = Duration::from_millis(20);

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

/// Of one domain so many starts are told in one look; of more the last ones, and how many were before them. One that is tried
/// again and again for ever must fill neither memory nor history.
const EACH_LOOK: usize = 32;

/// How many of its endings history is asked for, to tell which of its starts are told already.
const ENDINGS: usize = 512;

/// What failed so long ago and was not told by now is not looked for any more.
const LOOKED_FOR: Duration = Duration::from_secs(3600);

/// libvirt's log is asked for as long as this in one look. What is not known by then is looked at again later.
const ASKING: Duration = Duration::from_secs(2);

/// libvirt may tell the audit before it has cleared up and says farewell.
const FAREWELL_COMES: Duration = Duration::from_secs(3);

/// One start that failed.
#[derive(Debug, Clone)]
struct Attempt {
    at: Wall,
    /// As QEMU's log tells of it.
    logged: Option<Failure>,
    /// As the audit does.
    audited: Option<Word>,
}

impl Attempt {
    fn farewell(&self) -> Option<Wall> {
        self.logged.as_ref().map(|failure| failure.at)
    }

    fn began(&self) -> Option<Wall> {
        self.logged.as_ref().and_then(|failure| failure.began)
    }
}

/// All that is found of one domain.
#[derive(Debug, Default)]
struct Found {
    name: String,
    /// libvirt calls it off as its last start failed.
    off: bool,
    logged: Vec<Failure>,
    /// When others were, in a log that has no room for all.
    more: Vec<Wall>,
    audited: Vec<Word>,
}

/// A start of which nothing says why it failed.
struct Unexplained {
    domain: DomainRef,
    attempt: Attempt,
    /// When the one before it failed.
    previous: Option<Wall>,
    since: Instant,
    /// How often libvirt's log was read again.
    looks: usize,
}

/// So many of them are looked at again: a host where every start fails has one reason, and it is known by then.
const UNEXPLAINED: usize = 64;

/// See the module page.
pub struct FailedStarts {
    hypervisor: Hypervisor,
    mailbox: Mailbox,
    ledger: Ledger,
    published: watch::Receiver<Published>,
    sources: Sources,
    /// What failed before is no news.
    since: Wall,
    /// Of each domain with starts that failed, when the last of them did as far as is known.
    known: HashMap<DomainId, Option<Wall>>,
    /// Which logs have got farewells.
    grown: Grown,
    /// What the audit told of and QEMU's log has no farewell to yet.
    held: HashMap<DomainId, Words>,
    /// Those of which nothing says why, as libvirt's own log could not be read or had not taken it in.
    unexplained: Vec<Unexplained>,
    /// Whether there was a look: what failed before it at a moment that nobody knows is not told.
    looked: bool,
    /// How long libvirt's log was asked in this look, and whether it was waited for.
    asked: (Duration, bool),
}

impl FailedStarts {
    /// Looks with these for what failed since `alive`, when whydown was last known to listen.
    pub fn new(
        hypervisor: Hypervisor,
        mailbox: Mailbox,
        ledger: Ledger,
        published: watch::Receiver<Published>,
        sources: Sources,
        alive: Option<Wall>,
    ) -> Self {
        Self {
            hypervisor,
            mailbox,
            ledger,
            published,
            sources,
            since: alive.unwrap_or_else(clock::wall).before(SAME),
            known: HashMap::new(),
            grown: Grown::default(),
            held: HashMap::new(),
            unexplained: Vec::new(),
            looked: false,
            asked: (Duration::ZERO, false),
        }
    }

    /// Runs until the daemon ends.
    pub async fn run(mut self) {
        loop {
            if self.published.wait_for(|now| now.snapshot.settled).await.is_err() {
                return;
            }
            let link = self.published.borrow().snapshot.link;
            let began = Instant::now();
            if let Link::Down { since } = link {
                // What was found meanwhile may not have been told: it is looked for again, and history knows.
                self.since = self.since.max(since.before(SAME));
                self.known.clear();
                self.grown.forget();
            } else {
                self = match tokio::task::spawn_blocking(move || self.look()).await {
                    Ok((this, found)) => {
                        for failed in found {
                            this.mailbox.post(failed).await;
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
        self.asked = (Duration::ZERO, false);
        if self.since > now {
            self.since = now.before(SAME);
        }
        let mut found = self.find(failed, now);
        self.read_logs(&mut found, now);
        let mut news = Vec::new();
        for (id, found) in found {
            news.extend(self.news_of(id, found, now));
        }
        let more = self.unexplained.len().saturating_sub(UNEXPLAINED);
        self.unexplained.drain(..more);
        news.extend(self.explained_since(now));
        self.looked = true;
        self.since = self.since.max(now.before(LOOKED_FOR));
        (self, news)
    }

    /// The domains of which something says that their starts failed.
    fn find(&mut self, failed: Vec<DomainRef>, now: Wall) -> BTreeMap<DomainId, Found> {
        let is_off = |id: &DomainId| failed.iter().any(|domain| domain.id == *id);
        self.known.retain(|id, at| is_off(id) || at.is_some_and(|at| now.since(at) <= LOOKED_FOR));
        let mut found: BTreeMap<DomainId, Found> = BTreeMap::new();
        let told = audited::of(&self.sources.libvirt, self.sources.audited.take());
        for (id, words) in std::mem::take(&mut self.held).into_iter().chain(told) {
            let its = found.entry(id).or_default();
            its.name = words.name;
            its.audited.extend(words.told);
        }
        for domain in failed {
            let its = found.entry(domain.id).or_default();
            (its.name, its.off) = (domain.name, true);
        }
        found
    }

    /// What QEMU's logs tell: those of domains of which anything else tells, and those that have got a farewell to a start.
    fn read_logs(&mut self, found: &mut BTreeMap<DomainId, Found>, now: Wall) {
        let Some(folder) = self.sources.logs.clone() else { return };
        let grown = self.grown.with_failures(&folder, self.since);
        let mut names: BTreeMap<String, Option<DomainId>> =
            grown.into_iter().map(|name| (name, None)).collect();
        for (id, its) in found.iter() {
            let name = names.contains_key(&its.name);
            if name || !its.audited.is_empty() || !self.known.contains_key(id) {
                names.insert(its.name.clone(), Some(*id));
            }
        }
        for (name, id) in names {
            let failures = match log::failures(&folder, &name, &self.sources.libvirt, now) {
                Ok(failures) => failures,
                Err(why) => {
                    debug!("when starts of \"{name}\" failed is not known: {why}");
                    continue;
                }
            };
            let present = || self.hypervisor.view_named(&name).ok().flatten().map(|view| view.domain.id);
            let present = id.or_else(present);
            for failure in failures.last {
                // Of a domain that is gone only its own command line tells.
                let Some(id) = failure.domain.or(present) else { continue };
                let its = found.entry(id).or_insert_with(|| Found { name: name.clone(), ..Found::default() });
                its.logged.push(failure);
            }
            if let Some(its) = present.and_then(|id| found.get_mut(&id)) {
                its.more = failures.more;
            }
        }
    }

    /// Of which of those that nothing explained libvirt's own log says why by now.
    fn explained_since(&mut self, now: Wall) -> Vec<Input> {
        let mut news = Vec::new();
        for mut one in std::mem::take(&mut self.unexplained) {
            let due = limits::SECOND_LOOKS.get(one.looks).is_some_and(|wait| one.since.elapsed() >= *wait);
            if due {
                one.looks += 1;
                let Unexplained { domain, attempt, previous, .. } = &one;
                if let Some(why) = self.trouble(domain, attempt, *previous, now) {
                    let (domain, at, began) = (domain.clone(), attempt.at, attempt.began());
                    let farewell = attempt.farewell();
                    let farewell =
                        farewell.map(|at| (at, Fact::LogEnd { word: LogWord::Failed, at: Some(at) }));
                    let facts = farewell.into_iter().chain([why]).collect();
                    news.push(Input::StartFailed(FailedStart { domain, at, began, facts }));
                    continue;
                }
            }
            if one.looks < limits::SECOND_LOOKS.len() {
                self.unexplained.push(one);
            }
        }
        news
    }

    /// What is new of a domain with starts that failed, in their order.
    fn news_of(&mut self, id: DomainId, found: Found, now: Wall) -> Vec<Input> {
        let Found { name, off, logged, more, audited } = found;
        let is_known = self.known.contains_key(&id);
        let floor = self.known.get(&id).copied().flatten();
        let last = logged.last().map(|failure| failure.at);
        let has_log = !logged.is_empty();
        let (mut attempts, unpaired) = paired(logged, audited);
        // The order of the file is the truth, as the clock may have been set.
        let after = floor.and_then(|floor| attempts.iter().rposition(|one| one.at == floor));
        let mut place = 0;
        attempts.retain(|one| {
            place += 1;
            let is_last = off && !is_known && Some(one.at) == last;
            let is_new = match after {
                Some(after) => place > after + 1,
                None => one.at >= self.since && floor.is_none_or(|floor| one.at > floor),
            };
            is_last || is_new
        });
        for word in unpaired {
            if has_log && now.since(word.at) < FAREWELL_COMES {
                let held = self.held.entry(id).or_default();
                held.name.clone_from(&name);
                held.told.push_back(word);
            } else if self.sources.libvirt.is_known() {
                attempts.push(Attempt { at: word.at, logged: None, audited: Some(word) });
            }
        }
        if attempts.is_empty() && off && !is_known && self.looked {
            attempts.push(Attempt { at: now, logged: None, audited: None });
        }
        if off || !attempts.is_empty() {
            self.known.insert(id, last.or(floor));
        }
        if attempts.is_empty() {
            return Vec::new();
        }
        let domain = DomainRef { id, name, libvirt_id: None };
        self.forget_what_is_told(&domain, &mut attempts);
        let left_out = attempts.len().saturating_sub(EACH_LOOK);
        let before = |at: &&Wall| **at >= self.since && floor.is_none_or(|floor| **at > floor);
        let left_out = left_out + if attempts.is_empty() { 0 } else { more.iter().filter(before).count() };
        attempts.drain(..attempts.len().saturating_sub(EACH_LOOK));
        let mut news = Vec::new();
        let (count, mut previous) = (attempts.len(), None);
        for (place, attempt) in attempts.into_iter().enumerate() {
            let found = if place + 1 == count { self.found_off(id, off) } else { None };
            let left_out = if place == 0 { left_out } else { 0 };
            let facts = self.facts(&domain, &attempt, previous, found, left_out, now);
            if !facts.iter().any(|(_, fact)| says_why(fact)) {
                let (domain, attempt, since) = (domain.clone(), attempt.clone(), Instant::now());
                self.unexplained.push(Unexplained { domain, attempt, previous, since, looks: 0 });
            }
            let (at, began) = (attempt.at, attempt.began());
            news.push(Input::StartFailed(FailedStart { domain: domain.clone(), at, began, facts }));
            previous = Some(at);
        }
        news
    }

    /// Takes those out that history has, or had: what a damaged ledger has lost is no news. Of those that whoever read QEMU's log
    /// told without a reason, as of a start that libvirt made by itself before we listened, the reason is still looked for.
    fn forget_what_is_told(&mut self, domain: &DomainRef, attempts: &mut Vec<Attempt>) {
        let lost_until = self.ledger.health().lost_until;
        attempts.retain(|one| lost_until.is_none_or(|until| until < one.at));
        let Some(first) = attempts.iter().map(|one| one.at).min() else { return };
        let since = Some(first.before(SAME));
        let query = Query { domain: Some(domain.id), since, limit: ENDINGS, ..Query::default() };
        let mut told = Told::of(&self.ledger.history(&query).endings);
        let mut previous = None;
        attempts.retain(|one| {
            let has = told.has(one);
            if has == Has::Silent {
                let (domain, attempt, since) = (domain.clone(), one.clone(), Instant::now());
                self.unexplained.push(Unexplained { domain, attempt, previous, since, looks: 0 });
            }
            previous = Some(one.at);
            has == Has::Nothing
        });
    }

    /// How libvirt shows the domain of which the last start failed, if it is off for that reason.
    fn found_off(&self, id: DomainId, was_off: bool) -> Option<Fact> {
        let failed = DomainState::ShutOff(ShutOffReason::Failed);
        match self.hypervisor.view(id) {
            Ok(Some(view)) if view.state == failed || was_off && !view.state.is_active() => {
                Some(Fact::Found { state: failed, managed_save: view.managed_save })
            }
            Ok(_) => None,
            Err(_) => was_off.then_some(Fact::Found { state: failed, managed_save: None }),
        }
    }

    fn facts(
        &mut self,
        domain: &DomainRef,
        attempt: &Attempt,
        previous: Option<Wall>,
        found: Option<Fact>,
        left_out: usize,
        now: Wall,
    ) -> Vec<(Wall, Fact)> {
        let told_by = |told_by: &str| Fact::StartFailed { told_by: told_by.into() };
        let mut facts = Vec::new();
        facts.extend(attempt.audited.map(|word| (word.at, told_by(TO_THE_AUDIT))));
        match found {
            Some(found) => {
                facts.push((attempt.at, told_by("libvirt calls the domain off for that reason")));
                facts.push((now, found));
            }
            None if attempt.logged.is_some() => {
                facts.push((attempt.at, told_by("libvirt says so in QEMU's log")));
            }
            None => {}
        }
        if left_out > 0 {
            let more = format!("and so did {left_out} before it, which are not told one by one");
            facts.push((attempt.at, told_by(&more)));
        }
        facts.extend(attempt.logged.iter().flat_map(|failure| failure.facts.clone()));
        let started_for = attempt.audited.and_then(|word| Some((word.at, word.started_for?)));
        facts.extend(
            started_for.map(|(at, what)| (at, Fact::StartedFor { what, told_by: TO_THE_AUDIT.into() })),
        );
        facts.extend(self.trouble(domain, attempt, previous, now));
        facts
    }

    /// What libvirt says of why it failed. An error of before the `previous` one is about that.
    fn trouble(
        &mut self,
        domain: &DomainRef,
        attempt: &Attempt,
        previous: Option<Wall>,
        now: Wall,
    ) -> Option<(Wall, Fact)> {
        let network = |this: &Self| Some((now, Fact::StartTrouble(this.missing_network(domain.id)?)));
        // What libvirt says of this very definition tells more than what it wrote at that moment, of whatever domain.
        let facts = || attempt.logged.iter().flat_map(|failure| &failure.facts);
        let qemu_spoke =
            facts().any(|(_, fact)| matches!(fact, Fact::LogText(text) if is_said_by_qemu(text)));
        if let Some(network) = network(self).filter(|_| attempt.began().is_none()) {
            return Some(network);
        }
        let from =
            attempt.at.before(ERROR_BEFORE).max(previous.map_or(Wall(i64::MIN), |at| at.after(ERROR_AFTER)));
        let after =
            if attempt.logged.is_none() && attempt.audited.is_some() { AUDIT_TICK } else { ERROR_AFTER };
        let its_own = self.words_of(domain);
        let (asked, waited) = self.asked;
        if asked >= ASKING {
            return None;
        }
        let began = Instant::now();
        let log = &self.sources.daemon_log;
        let ask = || match log.errors(from, attempt.at.after(after)) {
            Ok(errors) => telling(&errors, &its_own, !qemu_spoke).cloned(),
            Err(why) => {
                debug!(uuid = %domain.id, "libvirt's own log cannot be read: {why}");
                None
            }
        };
        // The journal may not have taken it in yet.
        let told = ask().or_else(|| if !waited && log.catch_up() { ask() } else { None });
        self.asked = (asked + began.elapsed(), waited || told.is_none());
        told.map(|error| (error.at, Fact::StartTrouble(error.text)))
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

fn says_why(fact: &Fact) -> bool {
    match fact {
        Fact::StartTrouble(_) => true,
        Fact::LogText(text) => log_says_why(text),
        _ => false,
    }
}

/// Which farewell each word of the audit is about: the nearest within a moment. And those that are about none.
fn paired(logged: Vec<Failure>, audited: Vec<Word>) -> (Vec<Attempt>, Vec<Word>) {
    let mut attempts: Vec<Attempt> =
        logged.into_iter().map(|one| Attempt { at: one.at, logged: Some(one), audited: None }).collect();
    let mut unpaired = Vec::new();
    for word in audited {
        let apart = |at: Wall| at.since(word.at).max(word.at.since(at));
        let free = attempts.iter_mut().filter(|one| one.audited.is_none() && apart(one.at) <= ONE_MOMENT);
        match free.min_by_key(|one| apart(one.at)) {
            Some(nearest) => nearest.audited = Some(word),
            None => unpaired.push(word),
        }
    }
    (attempts, unpaired)
}

/// Who told of a start that failed, where libvirt told the kernel's audit.
const TO_THE_AUDIT: &str = "libvirt told the kernel's audit so";

/// How long to wait after a look that took so long.
fn pause_after(look: Duration) -> Duration {
    look.saturating_mul(SHARE).clamp(PAUSE, LONGEST_PAUSE)
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
