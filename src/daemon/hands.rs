//! What the engine wants done in the world, done on threads that may block.
//!
//! A hung QEMU or libvirtd blocks only its own call: looks and acts have separate bounds, so that a storm of looks
//! never delays what a manager asked for. A question always gets its answer, if only that there is none.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;
use whydown_core::evidence::{Asked, Fact};
use whydown_core::hypervisor::{DomainView, Process};
use whydown_core::id::DomainId;
use whydown_core::lifecycle::{Answer, Input, Outcome, Question, Whom};
use whydown_core::time::Wall;
use whydown_libvirt::{Hypervisor, Refusal, ShutdownHow};
use whydown_witness::exit::ExitWatch;
use whydown_witness::host;
use whydown_witness::log::{self, LogRun};

use super::clock;
use super::post::Postbox;

/// Looks under way at once. Each holds one thread, and takes milliseconds unless libvirt hangs.
const LOOKS: usize = 32;

/// Acts under way at once. A destroy of a hung QEMU holds its thread for some ten to thirty seconds.
const ACTS: usize = 256;

/// See the module page. Cheap to clone.
#[derive(Clone)]
pub struct Hands {
    hypervisor: Hypervisor,
    postbox: Postbox,
    exits: Option<Arc<ExitWatch>>,
    /// Where QEMU's logs are; `None` where the connection has none.
    logs: Option<PathBuf>,
    /// Our own process, where libvirt runs inside it.
    own_pid: Option<u32>,
    looks: Arc<Semaphore>,
    acts: Arc<Semaphore>,
    /// The second in which systemd was last asked.
    host_looked_at: Arc<AtomicU64>,
}

/// The answer to a question that could not be put.
fn no_answer(question: &Question) -> Answer {
    match question {
        Question::Look { domain } => Answer::Looked { domain: *domain, view: None },
        Question::Remains { run, .. } => Answer::Remains { run: *run, view: None, facts: Vec::new() },
        Question::Act { run, what, .. } => Answer::Acted { run: *run, what: *what, outcome: Outcome::NoLink },
    }
}

impl Hands {
    /// Hands for this connection.
    pub fn new(
        hypervisor: Hypervisor,
        postbox: Postbox,
        exits: Option<Arc<ExitWatch>>,
        logs: Option<PathBuf>,
        own_pid: Option<u32>,
    ) -> Self {
        let (looks, acts) = (Arc::new(Semaphore::new(LOOKS)), Arc::new(Semaphore::new(ACTS)));
        Self { hypervisor, postbox, exits, logs, own_pid, looks, acts, host_looked_at: Arc::default() }
    }

    /// Has a process's exit told.
    pub fn watch(&self, process: Process) {
        if let Some(exits) = &self.exits
            && let Err(error) = exits.watch(process)
        {
            tracing::debug!(pid = process.pid, %error, "its exit will not be told");
        }
    }

    /// A guest begins to shut down. Whether that is because its host does, systemd knows; STOPPED comes some 200 ms
    /// later, and the answer takes a few. Asked at most once a second, however many guests there are.
    pub fn look_at_host(&self) {
        let now = clock::now().mono.0 / 1_000_000_000 + 1;
        if self.host_looked_at.swap(now, Ordering::Relaxed) == now {
            return;
        }
        let postbox = self.postbox.clone();
        tokio::spawn(async move {
            let asked = tokio::task::spawn_blocking(|| host::going_down(clock::wall())).await;
            if let Ok(Some(by)) = asked {
                let fact = Fact::HostGoingDown { by };
                postbox.post(Input::Witness { whom: Whom::Host, at: clock::wall(), fact }).await;
            }
        });
    }

    /// Takes on a question. Never blocks; the answer comes by post.
    pub fn ask(&self, question: Question) {
        let hands = self.clone();
        let room = match question {
            Question::Act { .. } => Arc::clone(&self.acts),
            Question::Remains { .. } | Question::Look { .. } => Arc::clone(&self.looks),
        };
        tokio::spawn(async move {
            let Ok(_room) = room.acquire_owned().await else { return };
            let postbox = hands.postbox.clone();
            let unanswered = no_answer(&question);
            let answer = tokio::task::spawn_blocking(move || hands.answer(question)).await;
            let answer = answer.unwrap_or_else(|error| {
                tracing::error!(%error, "a question to libvirt broke off");
                unanswered
            });
            postbox.post(Input::Answered(answer)).await;
        });
    }

    fn answer(&self, question: Question) -> Answer {
        match question {
            Question::Look { domain } => Answer::Looked { domain, view: self.view(domain) },
            Question::Remains { run, domain, name, started, seen } => {
                let view = self.view(domain);
                Answer::Remains { run, view, facts: self.log(&name, started, seen) }
            }
            Question::Act { run, domain, what, xml } => {
                let done = match what {
                    Asked::Create => self.hypervisor.create(&xml.unwrap_or_default()).map(drop),
                    Asked::Shutdown => self.hypervisor.shutdown(domain, ShutdownHow::AcpiOrAgent),
                    Asked::ForceOff | Asked::Destroy => self.hypervisor.destroy(domain),
                };
                let outcome = match done {
                    Ok(()) => Outcome::Done,
                    Err(Refusal::NoDomain) => Outcome::NoDomain,
                    Err(Refusal::NoLink) => Outcome::NoLink,
                    Err(Refusal::Refused { text, .. }) => Outcome::Refused(text),
                };
                Answer::Acted { run, what, outcome }
            }
        }
    }

    fn view(&self, domain: DomainId) -> Option<Option<DomainView>> {
        match self.hypervisor.view(domain) {
            Ok(view) => Some(view),
            Err(Refusal::NoDomain) => Some(None),
            Err(Refusal::NoLink | Refusal::Refused { .. }) => None,
        }
    }

    fn log(&self, name: &str, started: Wall, seen: bool) -> Vec<(Wall, Fact)> {
        let Some(folder) = &self.logs else { return Vec::new() };
        let run = LogRun { started, seen_start: seen, next_start: None };
        log::read(folder, name, run, self.own_pid, clock::wall())
    }
}
