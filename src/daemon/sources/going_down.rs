//! Whether the host goes down, by the one way that is there: the bus where it is heard, `systemctl` where it is not.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use whydown_core::evidence::Fact;
use whydown_core::id::BootId;
use whydown_core::time::Wall;
use whydown_witness::host::{self, Answer, GoingDown, HostWatch, Said, WentDown};

use super::super::clock;

/// When a question was put, and its answer.
type Answered = (Instant, Told);

/// What is so now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The host is going down.
    Down(GoingDown),
    /// It is not.
    Up {
        /// When that was said.
        at: Wall,
        /// By whom, in words for an administrator.
        by: String,
    },
    /// Nobody says.
    Nothing,
}

impl Told {
    /// The word that it goes down, if that is what was said.
    pub fn down(self) -> Option<GoingDown> {
        match self {
            Self::Down(word) => Some(word),
            Self::Up { .. } | Self::Nothing => None,
        }
    }

    /// The same as evidence, with its time.
    pub fn fact(self) -> Option<(Wall, Fact)> {
        match self {
            Self::Down(GoingDown { at, by }) => Some((at, Fact::HostGoingDown { by })),
            Self::Up { at, by } => Some((at, Fact::HostUp { by })),
            Self::Nothing => None,
        }
    }
}

/// systemd's own word, by the bus.
const NOT_STOPPING: &str = "systemd says that it does not stop the system";

/// Who is asked. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HostsWord {
    bus: Option<Arc<HostWatch>>,
    /// The last answer of `systemctl`, and when it was asked for.
    asked: Arc<Mutex<Option<Answered>>>,
}

impl HostsWord {
    /// By this bus, where there is one.
    pub fn new(bus: Option<HostWatch>) -> Self {
        Self { bus: bus.map(Arc::new), asked: Arc::default() }
    }

    /// Whether it is told as it happens, so that nobody need ask early.
    pub fn is_told(&self) -> bool {
        self.bus.as_ref().is_some_and(|bus| bus.is_heard())
    }

    /// What is so now. Blocks: for a millisecond with a bus; without one for some ten milliseconds as a rule, and three
    /// times [`host::ANSWER_WAIT`] at most.
    pub fn ask(&self) -> Told {
        let put = clock::wall();
        match self.bus.as_ref().map(|bus| bus.ask()) {
            // During a shutdown the bus ends before the host does.
            Some(Answer::Heard(Some(word)) | Answer::Unavailable(Some(word))) => Told::Down(word),
            Some(Answer::Heard(None)) => Told::Up { at: put, by: NOT_STOPPING.into() },
            Some(Answer::Unavailable(None)) | None => self.ask_systemctl(),
        }
    }

    /// Those who ask while it is being asked wait, and share the answer to a question that was put after they had come.
    fn ask_systemctl(&self) -> Told {
        let came = Instant::now();
        let mut last = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((put, word)) if *put >= came => word.clone(),
            _ => {
                let put = Instant::now();
                let at = clock::wall();
                let word = match host::ask(at) {
                    Said::Down(by) => Told::Down(GoingDown { at, by }),
                    Said::Up(by) => Told::Up { at, by },
                    Said::Nothing => Told::Nothing,
                };
                *last = Some((put, word.clone()));
                word
            }
        }
    }
}

/// How this boot ended, if anything says so.
type Ended = (BootId, Option<WentDown>);

/// How boots of the host ended that are over. All VMs of one are asked about at once, and the last answer is kept. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub struct BootsBefore {
    known: Arc<Mutex<Option<Ended>>>,
}

impl BootsBefore {
    /// How the boot ended in which something ran at that moment, as evidence with its time. Blocks, for some seconds at most;
    /// who asks meanwhile waits for the same answer.
    pub fn how_it_ended(&self, boot: &BootId, ran: Wall) -> Option<(Wall, Fact)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Of a run that nobody heard it is not known in which boot it was, and each may be another.
        if !host::is_boot_id(boot) || known.as_ref().is_none_or(|(of, _)| of != boot) {
            *known = Some((boot.clone(), host::went_down(boot, ran)));
        }
        let ended = known.as_ref().and_then(|(_, ended)| ended.clone());
        ended.map(|WentDown { since, at, by }| (at, Fact::HostWentDown { since, by }))
    }
}
