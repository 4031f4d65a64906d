//! Many hosts, polled side by side: what is new on each, every ending once.
//!
//! A host that does not answer costs only itself: it is asked again after a wait that doubles and is never quite the
//! same as another host's, and its VMs are left as they were. Whoever takes the news too slowly slows the polling down,
//! and loses nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::{Semaphore, mpsc};

use crate::client::{BadTarget, HostClient, Patience, Target};
use crate::known::Known;
use crate::memory::Memory;
use crate::read::Exit;

/// How a fleet is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// From the end of one poll of a host to the start of the next.
    pub every: Duration,
    /// The longest such wait for a host that does not answer; up to `every` more, by chance.
    pub backoff_max: Duration,
    /// Hosts that are spoken to at once.
    pub at_once: usize,
    /// Bounds of one call.
    pub patience: Patience,
    /// Whether Down VMs are taken note of, so that the host forgets them: by `destroy`, once their endings were told and
    /// done with, again with every poll until they are gone.
    pub acknowledge: bool,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(3),
            backoff_max: Duration::from_secs(60),
            at_once: 64,
            patience: Patience::default(),
            acknowledge: false,
        }
    }
}

/// Something new on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// It answers, for the first time or again.
    Answers {
        /// VMs on it that could be read.
        vms: usize,
        /// Those that could not.
        broken: usize,
    },
    /// It does not answer; told once until it does again. Nothing is known about its VMs.
    Silent {
        /// Why.
        why: String,
    },
    /// A VM is there, or its status has changed to this.
    Status {
        /// Which.
        vm: String,
        /// Its status.
        status: String,
    },
    /// A VM went down. Told once for each ending, over lost connections and, with a [`Memory`], over restarts.
    Ended {
        /// Which.
        vm: String,
        /// How.
        exit: Exit,
    },
    /// A good reply lacks a VM that was there.
    Gone {
        /// Which.
        vm: String,
    },
    /// The host tells of a VM as it was before: nothing is believed of it until it catches up. Told once until then.
    Stale {
        /// Which.
        vm: String,
    },
    /// An entry that makes no sense; told once until it changes.
    Broken {
        /// Which, and what is wrong.
        what: String,
        /// How many such entries the reply had.
        count: usize,
    },
}

/// Hosts that are polled until this is dropped.
///
/// What [`next`](Self::next) gives counts as done with when the caller comes back, for the next or for the
/// [`memory`](Self::memory): only then an ending may be acknowledged, so that a caller who dies is told again.
#[derive(Debug)]
pub struct Fleet {
    urls: Vec<String>,
    news: mpsc::Receiver<(usize, News)>,
    /// Given, and not yet done with.
    given: Option<(usize, News)>,
    memory: Arc<Mutex<Memory>>,
}

impl Fleet {
    /// Begins to poll, knowing what was told before. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`BadTarget`] for the first host that cannot be called at all; nothing is polled then.
    pub fn start(targets: &[Target], rhythm: Rhythm, memory: Memory) -> Result<Self, BadTarget> {
        let clients: Vec<HostClient> = targets
            .iter()
            .map(|target| HostClient::new(target, rhythm.patience))
            .collect::<Result<_, _>>()?;
        let (sender, news) = mpsc::channel(1024);
        let room = Arc::new(Semaphore::new(rhythm.at_once.max(1)));
        let urls: Vec<String> = targets.iter().map(|target| target.url.clone()).collect();
        let known: Vec<Known> =
            urls.iter().map(|url| Known::of(memory.hosts.get(url).cloned().unwrap_or_default())).collect();
        let memory = Arc::new(Mutex::new(memory));
        for (number, (client, known)) in clients.into_iter().zip(known).enumerate() {
            let (url, memory, news) = (urls[number].clone(), Arc::clone(&memory), sender.clone());
            let follower = Follower { number, url, client, rhythm, room: Arc::clone(&room), memory, news };
            tokio::spawn(follower.run(known));
        }
        Ok(Self { urls, news, given: None, memory })
    }

    /// The next piece, as the number of the host in the targets and what is new on it. Never `None` unless there are no
    /// hosts. Nothing is lost where the future is dropped.
    pub async fn next(&mut self) -> Option<(usize, News)> {
        self.done();
        let piece = self.news.recv().await?;
        Some(self.give(piece))
    }

    /// The next piece, if it is there already.
    pub fn try_next(&mut self) -> Option<(usize, News)> {
        self.done();
        let piece = self.news.try_recv().ok()?;
        Some(self.give(piece))
    }

    /// What was told and done with so far.
    pub fn memory(&mut self) -> Memory {
        self.done();
        lock(&self.memory).clone()
    }

    fn give(&mut self, piece: (usize, News)) -> (usize, News) {
        self.given = Some(piece.clone());
        piece
    }

    fn done(&mut self) {
        if let Some((number, news)) = self.given.take() {
            lock(&self.memory).note(&self.urls[number], &news);
        }
    }
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The task of one host.
struct Follower {
    number: usize,
    url: String,
    client: HostClient,
    rhythm: Rhythm,
    room: Arc<Semaphore>,
    memory: Arc<Mutex<Memory>>,
    news: mpsc::Sender<(usize, News)>,
}

impl Follower {
    async fn run(self, mut known: Known) {
        let mut silence = self.backoff();
        loop {
            let polled = {
                let Ok(_room) = self.room.acquire().await else { return };
                self.client.all_vm_stats().await
            };
            let (fresh, wait) = match polled {
                Ok(reading) => {
                    silence = self.backoff();
                    (known.take(reading), self.rhythm.every)
                }
                Err(error) => {
                    let wait = silence.next().unwrap_or(self.rhythm.backoff_max);
                    (known.fail(error.to_string()), wait.max(self.rhythm.every))
                }
            };
            for piece in fresh {
                if self.news.send((self.number, piece)).await.is_err() {
                    return;
                }
            }
            if self.rhythm.acknowledge {
                self.acknowledge(&known).await;
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.news.closed() => return,
            }
        }
    }

    fn backoff(&self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(self.rhythm.every)
            .with_max_delay(self.rhythm.backoff_max)
            .with_factor(2.0)
            .without_max_times()
            .with_jitter()
            .build()
    }

    /// Acknowledges the endings that were told and done with. `destroy` would end a VM that was started since, so each
    /// is looked at right before. A failure is tried again with the next poll, as the VM is still there then.
    async fn acknowledge(&self, known: &Known) {
        let told = |(vm, exit): &(&String, &Exit)| lock(&self.memory).knows(&self.url, vm, exit);
        for (vm, exit) in known.down().filter(told) {
            let Ok(_room) = self.room.acquire().await else { return };
            let now = self.client.vm_stats(vm).await;
            let still =
                matches!(&now, Ok(Some(now)) if now.exit.as_ref().is_some_and(|now| now.is_the_ending(exit)));
            if still {
                let _ = self.client.acknowledge(vm).await;
            }
        }
    }
}
