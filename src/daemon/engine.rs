//! The only task that owns the engine: receive, step, carry out, publish, answer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{Span, debug, info, info_span, warn};
use whydown_core::id::{DomainId, RequestId, RunId};
use whydown_core::lifecycle::{Effect, Engine, Input, Reply};
use whydown_core::record::{Ending, Keep};
use whydown_core::sample::Samples;
use whydown_core::snapshot::{DomainPublic, Snapshot};
use whydown_ledger::Ledger;
use whydown_wire::{Board, Bodies};

use super::clock;
use super::hands::Hands;
use super::mailbox::Message;
use crate::visible::visible;

/// Messages that are stepped before readers get a new picture, and a poll that shares our thread its turn: some
/// milliseconds. A storm costs one picture a batch, not one an event.
const BATCH: usize = 128;

/// What a reader of the live stream gets.
#[derive(Debug, Clone)]
pub enum Change {
    /// The domain as it is now.
    Now(Arc<DomainPublic>),
    /// It is no longer shown, and with what ending, if that was never shown.
    Left(DomainId, Option<Arc<Ending>>),
    /// The ending of a run that is no longer shown was corrected.
    Corrected(Arc<Ending>),
}

/// What readers hold on to.
#[derive(Debug, Clone)]
pub struct Published {
    /// The picture.
    pub snapshot: Arc<Snapshot>,
    /// The replies that it gives.
    pub bodies: Arc<Bodies>,
}

/// The task and all that it needs.
pub struct EngineTask {
    engine: Engine,
    messages: mpsc::Receiver<Message>,
    hands: Hands,
    ledger: Ledger,
    board: Board,
    samples: watch::Receiver<Arc<Samples>>,
    published: watch::Sender<Published>,
    changes: broadcast::Sender<Change>,
    waiting: HashMap<RequestId, oneshot::Sender<Reply>>,
    answers: Vec<(RequestId, Reply)>,
    watchdog: Option<std::time::Duration>,
    runs: Runs,
    /// Endings that were decided, and are on their way to disk.
    decided: HashMap<RunId, Arc<Ending>>,
    /// Endings that may be shown, and were not yet.
    untold: BTreeMap<(DomainId, RunId), Arc<Ending>>,
}

impl EngineTask {
    /// The task, and where its pictures appear. `watchdog` is how often systemd wants to hear from it.
    pub fn new(
        engine: Engine,
        messages: mpsc::Receiver<Message>,
        hands: Hands,
        ledger: Ledger,
        board: Board,
        samples: watch::Receiver<Arc<Samples>>,
        watchdog: Option<std::time::Duration>,
    ) -> (Self, watch::Receiver<Published>, broadcast::Sender<Change>) {
        let snapshot = Arc::new(engine.snapshot());
        let bodies = board.update(&snapshot, &samples.borrow());
        let (published, readers) = watch::channel(Published { snapshot, bodies });
        let (changes, _) = broadcast::channel(1024);
        let task = Self {
            engine,
            messages,
            hands,
            ledger,
            board,
            samples,
            published,
            changes: changes.clone(),
            waiting: HashMap::new(),
            answers: Vec::new(),
            watchdog,
            runs: Runs::default(),
            decided: HashMap::new(),
            untold: BTreeMap::new(),
        };
        (task, readers, changes)
    }

    /// Runs until every mailbox is gone.
    pub async fn run(mut self) {
        let mut feed = tokio::time::interval(self.watchdog.unwrap_or(std::time::Duration::from_secs(3600)));
        feed.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let wake = self.engine.wake_at().map(clock::instant_of);
            let woken = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                received = self.messages.recv_many(&mut batch, BATCH) => {
                    if received == 0 {
                        return;
                    }
                }
                () = woken => batch.push(Message::Input(Input::Wake)),
                // The engine knows nothing of samples: the picture stays, and is shown with other figures.
                Ok(()) = self.samples.changed() => self.show_again(),
                _ = feed.tick() => {
                    if self.watchdog.is_some() {
                        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                    }
                }
            }
            self.work(&mut batch);
            // In a storm there is always another message, and with one core nobody else would get this thread.
            tokio::task::yield_now().await;
        }
    }

    fn work(&mut self, batch: &mut Vec<Message>) {
        let mut publish = false;
        let mut barriers = Vec::new();
        for message in batch.drain(..) {
            let input = match message {
                Message::Input(input) => input,
                Message::Request(request, answer) => {
                    self.waiting.insert(request.id, answer);
                    Input::Asked(request)
                }
                Message::Barrier(reached) => {
                    barriers.push(reached);
                    continue;
                }
            };
            if let Input::Kept(run) | Input::NotKept(run) = &input
                && let Some(ending) = self.decided.remove(run)
            {
                self.untold.insert((ending.domain, ending.run), ending);
                publish = true;
            }
            publish |= self.step(input);
        }
        if publish {
            self.publish();
        }
        // Whoever gets an answer and polls at once must see what it says.
        for (id, reply) in self.answers.drain(..) {
            if let Some(waiting) = self.waiting.remove(&id) {
                let _ = waiting.send(reply);
            }
        }
        for reached in barriers {
            let _ = reached.send(());
        }
    }

    /// Gives whether readers should get a new picture.
    fn step(&mut self, input: Input) -> bool {
        let (mut publish, mut haste, mut keeps) = (false, None, Vec::new());
        for effect in self.engine.step(clock::now(), input) {
            match effect {
                Effect::Ask(question) => self.hands.ask(question),
                Effect::Keep(keep) => {
                    self.runs.say(&keep);
                    if let Keep::Ending(ending) = &keep {
                        self.decided.insert(ending.run, Arc::clone(ending));
                    }
                    keeps.push(keep);
                }
                Effect::Reply(id, reply) => self.answers.push((id, reply)),
                Effect::Watch(process) => self.hands.watch(process),
                Effect::Corrected(ending) => {
                    let _ = self.changes.send(Change::Corrected(ending));
                }
                Effect::Hurry(wanted) => haste = haste.max(Some(wanted)),
                Effect::Publish => publish = true,
            }
        }
        self.ledger.keep_together(keeps);
        if let Some(haste) = haste {
            self.ledger.hurry(haste);
        }
        publish
    }

    fn publish(&mut self) {
        let snapshot = Arc::new(self.engine.snapshot());
        let old = self.show(Arc::clone(&snapshot));
        // What is shown as ended was told; of a run that is still shown its ending will be.
        let mut untold = std::mem::take(&mut self.untold);
        untold.retain(|(id, run), ending| match snapshot.domains.get(id) {
            Some(domain) if domain.run == *run && domain.ending.is_none() => {
                self.untold.insert((*id, *run), Arc::clone(ending));
                false
            }
            Some(domain) => domain.run != *run,
            None => true,
        });
        if self.changes.receiver_count() == 0 {
            return;
        }
        // One whose ending is on its way to disk, or is still to be decided, leaves with it.
        let gone = old.snapshot.domains.iter().filter(|(id, domain)| {
            !snapshot.domains.contains_key(*id)
                && !self.decided.contains_key(&domain.run)
                && !self.engine.is_ending(domain.run)
        });
        let mut gone: BTreeSet<DomainId> = gone.map(|(id, _)| *id).collect();
        // Of a domain that had several runs while nobody listened each is told.
        let mut again = BTreeSet::new();
        for ((id, _), ending) in untold {
            gone.remove(&id);
            again.insert(id);
            let _ = self.changes.send(Change::Left(id, Some(ending)));
        }
        for id in gone {
            let _ = self.changes.send(Change::Left(id, None));
        }
        for (id, domain) in &snapshot.domains {
            // What was told later of an earlier start leaves the present run as it is.
            let same = old.snapshot.domains.get(id).is_some_and(|before| Arc::ptr_eq(before, domain));
            if !same || again.contains(id) {
                let _ = self.changes.send(Change::Now(Arc::clone(domain)));
            }
        }
    }

    /// Gives readers the picture that they have with the latest samples.
    fn show_again(&mut self) {
        let snapshot = Arc::clone(&self.published.borrow().snapshot);
        self.show(snapshot);
    }

    /// Gives readers this picture with the latest samples, and returns what they had.
    fn show(&mut self, snapshot: Arc<Snapshot>) -> Published {
        let bodies = self.board.update(&snapshot, &self.samples.borrow_and_update());
        self.published.send_replace(Published { snapshot, bodies })
    }
}

/// The log of the runs: a span each, from its start to its ending, and a line for what is written down. Each line names
/// the VM and the run itself: the journal shows nothing but a message's own words.
#[derive(Default)]
struct Runs {
    spans: HashMap<RunId, Named>,
}

/// A run's span, and what it is called in messages.
struct Named {
    span: Span,
    name: String,
}

impl Named {
    fn of(run: RunId, vm: &str, uuid: DomainId) -> Self {
        let (run, vm) = (run.0, visible(vm));
        Self { name: format!("\"{vm}\", run {run}"), span: info_span!("run", run, %vm, %uuid) }
    }
}

impl Runs {
    fn say(&mut self, keep: &Keep) {
        match keep {
            Keep::Start(start) => {
                let named = self
                    .spans
                    .entry(start.run)
                    .or_insert_with(|| Named::of(start.run, &start.name, start.domain));
                let (name, process) = (&named.name, start.incarnation.process);
                // Whether it comes up, or came up, its ending tells.
                named.span.in_scope(|| match (start.seen, process) {
                    (true, _) => info!(?process, "{name}: begins"),
                    (false, Some(_)) => info!(?process, "{name}: was found running"),
                    (false, None) => info!("{name}: was found, and had begun before"),
                });
            }
            Keep::Evidence(run, _, piece) => {
                self.within(*run, |name| debug!(fact = ?piece.fact, "{name}: evidence"));
            }
            Keep::Ending(ending) => {
                let (cause, certainty) = (ending.verdict.cause.word(), ending.verdict.certainty.word());
                let (row, message) = (&ending.verdict.row, &ending.message);
                self.within_that(ending, |name| match ending.exit_code {
                    0 => info!(cause, certainty, %row, "{name}: ended: {message}"),
                    _ => warn!(cause, certainty, %row, "{name}: ended: {message}"),
                });
                self.spans.remove(&ending.run);
            }
            Keep::Revised(ending) => {
                let (cause, certainty) = (ending.verdict.cause.word(), ending.verdict.certainty.word());
                let (row, revision, message) = (&ending.verdict.row, ending.revision(), &ending.message);
                self.within_that(ending, |name| {
                    info!(cause, certainty, %row, revision, "{name}: corrected: {message}");
                });
                self.spans.remove(&ending.run);
            }
            Keep::Acknowledge(run, acknowledged) => {
                info!(run = run.0, by = %acknowledged.by, "run {}: acknowledged by {}", run.0, acknowledged.by);
            }
            Keep::Made(..) | Keep::Alive(_) => {}
        }
    }

    fn within_that(&mut self, ending: &Ending, say: impl FnOnce(&str)) {
        let named = self
            .spans
            .entry(ending.run)
            .or_insert_with(|| Named::of(ending.run, &ending.name, ending.domain));
        named.span.in_scope(|| say(&named.name));
    }

    /// Runs that were left open by an earlier daemon get their name when they are first spoken of with it.
    fn within(&mut self, run: RunId, say: impl FnOnce(&str)) {
        match self.spans.get(&run) {
            Some(named) => named.span.in_scope(|| say(&named.name)),
            None => info_span!("run", run = run.0).in_scope(|| say(&format!("run {}", run.0))),
        }
    }
}
