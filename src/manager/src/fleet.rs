//! Many hosts, polled side by side: what is new on each, every ending once.
//!
//! A host that does not answer costs only itself: it is asked again after a wait that doubles, and its VMs are left as
//! they were. Whoever takes the news too slowly slows the polling down, and loses nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use crate::client::{BadTarget, HostClient, Patience, Target};
use crate::read::{Exit, Reading, Vm};

/// How a fleet is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// From the end of one poll of a host to the start of the next.
    pub every: Duration,
    /// The longest such wait for a host that does not answer.
    pub backoff_max: Duration,
    /// Polls under way at once.
    pub at_once: usize,
    /// Bounds of one call.
    pub patience: Patience,
    /// Whether Down VMs are taken note of, so that the host forgets them.
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
        /// VMs on it.
        vms: usize,
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
    /// A VM went down. Told once for each ending.
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
    /// An entry that makes no sense; told once until it changes.
    Broken {
        /// What is wrong.
        what: String,
    },
}

/// What is known of one host between polls.
#[derive(Debug, Default)]
pub(crate) struct Known {
    answers: Option<bool>,
    vms: BTreeMap<String, (String, Option<Exit>)>,
    broken: Vec<String>,
}

impl Known {
    /// What a good reply changes.
    pub(crate) fn take(&mut self, reading: Reading) -> Vec<News> {
        let mut news = Vec::new();
        if self.answers != Some(true) {
            news.push(News::Answers { vms: reading.vms.len() });
            self.answers = Some(true);
        }
        let mut before = std::mem::take(&mut self.vms);
        for Vm { id, status, exit } in reading.vms {
            match (before.remove(&id), &exit) {
                (Some((_, Some(old))), Some(new)) if old == *new => {}
                (_, Some(exit)) => news.push(News::Ended { vm: id.clone(), exit: exit.clone() }),
                (Some((old, _)), None) if old == status => {}
                (_, None) => news.push(News::Status { vm: id.clone(), status: status.clone() }),
            }
            self.vms.insert(id, (status, exit));
        }
        let broken: Vec<String> = reading.broken.iter().map(ToString::to_string).collect();
        news.extend(
            broken.iter().filter(|b| !self.broken.contains(b)).map(|b| News::Broken { what: b.clone() }),
        );
        self.broken = broken;
        for (id, kept) in before {
            // It is there, but cannot be read: neither gone nor changed.
            if reading.broken.iter().any(|bad| bad.id.as_ref() == Some(&id)) {
                self.vms.insert(id, kept);
            } else {
                news.push(News::Gone { vm: id });
            }
        }
        news
    }

    /// What a failed poll changes: nothing about VMs.
    pub(crate) fn fail(&mut self, why: String) -> Vec<News> {
        let told = self.answers == Some(false);
        self.answers = Some(false);
        if told { Vec::new() } else { vec![News::Silent { why }] }
    }

    fn down(&self) -> Vec<String> {
        self.vms.iter().filter(|(_, (_, exit))| exit.is_some()).map(|(id, _)| id.clone()).collect()
    }
}

/// Polls every host until the receiver of the news is gone. News come as the number of the host in `targets`, and what
/// is new on it.
///
/// # Errors
/// [`BadTarget`] for the first host that cannot be called at all; nothing is polled then.
pub fn poll(targets: &[Target], rhythm: Rhythm) -> Result<mpsc::Receiver<(usize, News)>, BadTarget> {
    let clients: Vec<HostClient> =
        targets.iter().map(|target| HostClient::new(target, rhythm.patience)).collect::<Result<_, _>>()?;
    let (news, receiver) = mpsc::channel(1024);
    let room = Arc::new(Semaphore::new(rhythm.at_once.max(1)));
    for (number, client) in clients.into_iter().enumerate() {
        tokio::spawn(follow(number, client, rhythm, Arc::clone(&room), news.clone()));
    }
    Ok(receiver)
}

async fn follow(
    number: usize,
    client: HostClient,
    rhythm: Rhythm,
    room: Arc<Semaphore>,
    news: mpsc::Sender<(usize, News)>,
) {
    let mut known = Known::default();
    let mut wait = rhythm.every;
    loop {
        let polled = {
            let Ok(_room) = room.acquire().await else { return };
            client.all_vm_stats().await
        };
        let fresh = match polled {
            Ok(reading) => {
                wait = rhythm.every;
                known.take(reading)
            }
            Err(error) => {
                wait = (wait * 2).min(rhythm.backoff_max).max(rhythm.every);
                known.fail(error.to_string())
            }
        };
        for piece in fresh {
            if news.send((number, piece)).await.is_err() {
                return;
            }
        }
        if rhythm.acknowledge {
            // After the news were taken: an ending that nobody heard must not be forgotten by its host. A failure is
            // tried again with the next poll, as the VM is still there then.
            for vm in known.down() {
                let _ = client.acknowledge(&vm).await;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = news.closed() => return,
        }
    }
}
