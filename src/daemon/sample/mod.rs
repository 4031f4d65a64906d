//! The sampler: asks what all running VMs use, in step with a clock and never in a poll, and keeps the answers beside
//! the engine's snapshot. Whatever libvirt or a VM does, polls and endings do not wait for it.
//!
//! ```text
//! every interval ─▶ one call for all VMs ──┐
//! start, plug, tray, reboot  ─▶ documents ──┼▶ Known ─▶ Samples ─▶ the engine's task publishes them
//! agents that are connected ─▶ one by one ─┘
//! ```
//!
//! A VM whose monitor hangs holds the call that comes to it. The next calls pass it by, so a call that does not come
//! back is left alone and another one is begun. Guest agents are asked beside that, a few at once.

mod guests;
mod known;
mod rates;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};
use whydown_core::guest::GuestAccount;
use whydown_core::id::{DomainId, RunId};
use whydown_core::lifecycle::Input;
use whydown_core::sample::{Devices, Sample, Samples};
use whydown_core::snapshot::Snapshot;
use whydown_core::time::{Mono, Now};
use whydown_libvirt::{Hypervisor, Refusal};
use whydown_wire::Board;

use self::guests::Guests;
use self::known::Known;
use super::clock;
use super::engine::Published;
use super::mailbox::Mailbox;
use super::work::Works;
use crate::config::Sampling;

/// Calls under way at once. Each that hangs holds a thread here, and one of libvirtd's twenty workers: with this many
/// VMs hung at different moments there are no more samples until one of them moves or ends.
const CALLS: usize = 4;

/// Readings of documents under way at once. They wait for no monitor.
const READINGS: usize = 2;

/// A reading of documents that takes longer than this hangs.
const READING_PATIENCE: Duration = Duration::from_secs(30);

/// News of domains that may wait. What is lost in a storm is found by the next sample.
const NEWS: usize = 4096;

/// The same for those who wait for a device to leave. What is lost makes them look.
const NEWS_WAITED_FOR: usize = 256;

/// News that come together are served together, and by then the engine has published what they are about.
const GATHER: Duration = Duration::from_millis(200);

/// What is brought back from threads that may hang.
enum Brought {
    Samples(u64, Now, Result<Vec<(DomainId, Sample)>, Refusal>),
    Documents(u64, Vec<(DomainId, RunId, Mono, Result<Devices, Refusal>)>),
    Guest(DomainId, RunId, Result<Option<Box<GuestAccount>>, Refusal>),
}

/// Where the sampler, and whoever waits for a guest to give a device up, hear that a domain may be made of something else
/// now. Cheap to clone.
#[derive(Debug, Clone)]
pub struct News {
    sampler: mpsc::Sender<DomainId>,
    waiting: broadcast::Sender<DomainId>,
}

/// What one who waits hears. Who is too far behind is told that it missed some.
pub type Heard = broadcast::Receiver<DomainId>;

impl News {
    /// Never waits.
    pub fn of(&self, id: DomainId) {
        let _ = self.sampler.try_send(id);
        let _ = self.waiting.send(id);
    }

    /// Its run is over, and nothing is read of it any more: who waits for its guest waits no longer. Never waits.
    pub fn over(&self, id: DomainId) {
        let _ = self.waiting.send(id);
    }

    /// All news from now on.
    pub fn hear(&self) -> Heard {
        self.waiting.subscribe()
    }
}

/// News, and where the sampler takes them.
pub fn news() -> (News, mpsc::Receiver<DomainId>) {
    let (sampler, heard) = mpsc::channel(NEWS);
    let (waiting, _) = broadcast::channel(NEWS_WAITED_FOR);
    (News { sampler, waiting }, heard)
}

/// See the module page.
pub struct Sampler {
    settings: Sampling,
    hypervisor: Hypervisor,
    published: watch::Receiver<Published>,
    samples: watch::Sender<Arc<Samples>>,
    board: Board,
    works: Works,
    mailbox: Mailbox,
    known: Known,
    guests: Guests,
    calls: UnderWay,
    readings: UnderWay,
    refused: bool,
    crowded: bool,
}

impl Sampler {
    /// A sampler that shows the snapshots of `published` with what it learns, and hands that out by `samples`.
    pub fn new(
        settings: Sampling,
        hypervisor: Hypervisor,
        published: watch::Receiver<Published>,
        samples: watch::Sender<Arc<Samples>>,
        board: Board,
        works: Works,
        mailbox: Mailbox,
    ) -> Self {
        let known = Known::new(settings.unresponsive_after);
        let guests = Guests::new(settings.guest_interval);
        Self {
            settings,
            hypervisor,
            published,
            samples,
            board,
            works,
            mailbox,
            known,
            guests,
            calls: UnderWay::default(),
            readings: UnderWay::default(),
            refused: false,
            crowded: false,
        }
    }

    /// Runs until nobody can be told any more.
    pub async fn run(mut self, mut news: mpsc::Receiver<DomainId>) {
        let (bring, mut brought) = mpsc::channel(CALLS + READINGS);
        let mut clock = tokio::time::interval(self.settings.interval);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Vec::new();
        let (mut first, mut seen) = (true, self.published.clone());
        let mut pictures = self.published.clone();
        while !self.samples.is_closed() {
            let waits_until = self.known.waits_until();
            tokio::select! {
                _ = clock.tick() => {
                    self.follow();
                    self.call(&bring);
                }
                // Once libvirt has told what is there, nobody should wait for the first samples.
                () = settled(&mut seen), if first => {
                    first = false;
                    clock.reset_immediately();
                    continue;
                }
                // Managers wait for what is there: each picture may be the one that ends it, and so may the time.
                Ok(()) = pictures.changed(), if waits_until.is_some() => self.follow(),
                () = until(waits_until), if waits_until.is_some() => {}
                count = news.recv_many(&mut heard, NEWS) => {
                    if count == 0 {
                        return;
                    }
                    tokio::time::sleep(GATHER).await;
                    while let Ok(more) = news.try_recv() {
                        heard.push(more);
                    }
                    self.follow();
                    heard.drain(..).for_each(|id| self.known.ask_again(id));
                }
                Some(back) = brought.recv() => self.take(back).await,
            }
            let now = clock::now().mono;
            self.known.judge(now);
            self.known.follow_waits(&self.snapshot(), now);
            self.known.follow_works(|id, run| self.works.percent(id, run));
            self.read_documents(&bring);
            self.ask_guests(&bring);
            self.publish().await;
        }
    }

    fn follow(&mut self) {
        let snapshot = self.snapshot();
        self.known.follow(&snapshot, clock::now());
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.published.borrow().snapshot)
    }

    fn call(&mut self, bring: &mpsc::Sender<Brought>) {
        let now = clock::now();
        if self.published.borrow().snapshot.domains.is_empty() {
            return;
        }
        // A slow call is given one more interval; after that it is taken for one that hangs.
        let patience = self.settings.interval + self.settings.interval / 2;
        let Some(number) = self.calls.begin(now.mono, patience, CALLS) else {
            if self.calls.len() >= CALLS && !self.crowded {
                self.crowded = true;
                warn!("{CALLS} calls for samples hang in libvirt: no more are made until one comes back");
            }
            return;
        };
        let (hypervisor, bring) = (self.hypervisor.clone(), bring.clone());
        tokio::task::spawn_blocking(move || {
            let samples = hypervisor.sample();
            let _ = bring.blocking_send(Brought::Samples(number, now, samples));
        });
    }

    fn read_documents(&mut self, bring: &mpsc::Sender<Brought>) {
        let now = clock::now().mono;
        if !self.readings.has_room(now, READING_PATIENCE, READINGS) {
            return;
        }
        let snapshot = self.snapshot();
        let wanted = self.known.wanted(&snapshot, now);
        if wanted.is_empty() {
            return;
        }
        let Some(number) = self.readings.begin(now, READING_PATIENCE, READINGS) else { return };
        let (hypervisor, bring) = (self.hypervisor.clone(), bring.clone());
        tokio::task::spawn_blocking(move || {
            let read = |(id, run)| (id, run, clock::now().mono, hypervisor.devices(id));
            let all = wanted.into_iter().map(read).collect();
            let _ = bring.blocking_send(Brought::Documents(number, all));
        });
    }

    /// Each guest on a thread and a connection of its own: one that does not answer keeps nobody else waiting.
    fn ask_guests(&mut self, bring: &mpsc::Sender<Brought>) {
        let now = clock::now().mono;
        let connected = self.known.agents(&self.snapshot());
        self.guests.follow(&connected, now);
        let guests = &self.guests;
        self.known.forget_guests(|id, run| guests.believes(id, run, now));
        for (id, run) in self.guests.due(now) {
            let (hypervisor, bring) = (self.hypervisor.clone(), bring.clone());
            tokio::task::spawn_blocking(move || {
                let asked = hypervisor.ask_guest(id).map(|told| told.map(Box::new));
                let _ = bring.blocking_send(Brought::Guest(id, run, asked));
            });
        }
    }

    async fn take(&mut self, brought: Brought) {
        match brought {
            Brought::Samples(number, began, samples) => {
                self.calls.end(number);
                self.crowded = false;
                match samples {
                    Ok(samples) => {
                        self.refused = false;
                        for id in self.known.missed(&self.snapshot(), &samples, began) {
                            self.mailbox.post(Input::Missed(id)).await;
                        }
                        self.known.take(samples, began);
                    }
                    // That the link is lost is told elsewhere.
                    Err(Refusal::NoLink) => {}
                    Err(refusal) => {
                        if !std::mem::replace(&mut self.refused, true) {
                            warn!("libvirt gives no samples: {refusal}");
                        }
                    }
                }
            }
            Brought::Documents(number, all) => {
                self.readings.end(number);
                for (id, run, read, devices) in all {
                    match devices {
                        Ok(devices) => {
                            if let Some(devices) = self.known.learn(id, run, devices) {
                                self.mailbox.post(Input::Made { run, devices, read }).await;
                            }
                        }
                        // It ended meanwhile, or the link was only just there.
                        Err(refusal) => {
                            debug!(uuid = %id, "its document cannot be read: {refusal}");
                            self.known.unread(id, run, clock::now().mono);
                        }
                    }
                }
            }
            Brought::Guest(id, run, asked) => {
                let told = matches!(asked, Ok(Some(_)));
                let followed = self.guests.back(id, run, told, clock::now().mono);
                match asked {
                    Ok(Some(account)) if followed => self.known.told(id, run, *account),
                    Ok(_) => {}
                    Err(refusal) => debug!(uuid = %id, "its agent tells nothing: {refusal}"),
                }
            }
        }
    }

    /// Hands out what changed. It is written before that, so that no poll has to.
    async fn publish(&mut self) {
        let samples = self.known.samples();
        let same = {
            let before = self.samples.borrow();
            before.domains.len() == samples.domains.len()
                && before.awaited == samples.awaited
                && before
                    .domains
                    .iter()
                    .zip(&samples.domains)
                    .all(|((a, old), (b, new))| a == b && Arc::ptr_eq(old, new))
        };
        if same {
            return;
        }
        let samples = Arc::new(samples);
        let bodies = self.board.update(&self.snapshot(), &samples);
        let _ = tokio::task::spawn_blocking(move || bodies.write_ahead()).await;
        self.samples.send_replace(samples);
    }
}

async fn until(at: Option<Mono>) {
    if let Some(at) = at {
        tokio::time::sleep_until(clock::instant_of(at)).await;
    }
}

async fn settled(published: &mut watch::Receiver<Published>) {
    // Without an engine there is nothing to wait for.
    let _ = published.wait_for(|now| now.snapshot.settled).await;
}

/// What was begun on threads that may hang, by number.
#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    begun: Vec<(u64, Mono)>,
}

impl UnderWay {
    fn len(&self) -> usize {
        self.begun.len()
    }

    /// Whether another one may begin: not more than `most` at once, and none beside one that only began.
    fn has_room(&self, now: Mono, patience: Duration, most: usize) -> bool {
        self.begun.len() < most && self.begun.iter().all(|(_, began)| now.since(*began) >= patience)
    }

    fn begin(&mut self, now: Mono, patience: Duration, most: usize) -> Option<u64> {
        if !self.has_room(now, patience, most) {
            return None;
        }
        self.next += 1;
        self.begun.push((self.next, now));
        Some(self.next)
    }

    fn end(&mut self, number: u64) {
        self.begun.retain(|(begun, _)| *begun != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_left_alone_and_only_so_many_may() {
        let (mut calls, patience) = (UnderWay::default(), Duration::from_secs(5));
        let at = |second: u64| Mono(second * 1_000_000_000);
        let first = calls.begin(at(0), patience, 2).unwrap();
        assert_eq!(calls.begin(at(4), patience, 2), None, "it may only be slow");
        let second = calls.begin(at(5), patience, 2).unwrap();
        assert_eq!(calls.begin(at(60), patience, 2), None);
        calls.end(second);
        assert!(calls.begin(at(60), patience, 2).is_some());
        calls.end(first);
        assert_eq!(calls.len(), 1);
    }
}
