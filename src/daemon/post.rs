//! The one queue into the engine's task.
//!
//! It is bounded. When it is full, whoever posts waits: libvirt then queues events itself and loses none, and a
//! manager's request waits for its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};
use whydown_core::id::RequestId;
use whydown_core::lifecycle::{Input, Reply, Request, Wanted};

use crate::http::Begun;

/// Inputs that may wait. A storm of a thousand VMs makes some six thousand.
pub const QUEUE: usize = 16_384;

/// One letter.
#[derive(Debug)]
pub enum Post {
    /// Something happened.
    Input(Input),
    /// A manager asks, and waits here.
    Request(Request, oneshot::Sender<Reply>),
    /// Tell when everything posted before has been stepped and carried out.
    Barrier(oneshot::Sender<()>),
}

/// The way in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Postbox {
    letters: mpsc::Sender<Post>,
    next_request: Arc<AtomicU64>,
}

/// The engine's task has ended: the daemon is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("whydown is stopping")]
pub struct Stopping;

impl Postbox {
    /// A postbox and where its letters arrive.
    pub fn new() -> (Self, mpsc::Receiver<Post>) {
        let (letters, arriving) = mpsc::channel(QUEUE);
        (Self { letters, next_request: Arc::default() }, arriving)
    }

    /// Posts from a thread that may block. A letter to a stopping daemon is dropped: its work is over.
    pub fn post_blocking(&self, input: Input) {
        let _ = self.letters.blocking_send(Post::Input(input));
    }

    /// Posts from a task.
    pub async fn post(&self, input: Input) {
        let _ = self.letters.send(Post::Input(input)).await;
    }

    /// Asks on behalf of a manager. Until it has `begun` nothing was asked; from then on it will be carried out, whether
    /// or not somebody waits for the answer.
    ///
    /// # Errors
    /// [`Stopping`] if the daemon goes down before it is answered.
    pub async fn ask(&self, who: String, what: Wanted, begun: &Begun) -> Result<Reply, Stopping> {
        let id = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        let room = self.letters.reserve().await.map_err(|_| Stopping)?;
        begun.now();
        room.send(Post::Request(Request { id, who, what }, answer));
        answered.await.map_err(|_| Stopping)
    }

    /// Waits until everything posted before has been carried out.
    ///
    /// # Errors
    /// [`Stopping`] if the engine's task is gone.
    pub async fn barrier(&self) -> Result<(), Stopping> {
        let (reached, wait) = oneshot::channel();
        self.letters.send(Post::Barrier(reached)).await.map_err(|_| Stopping)?;
        wait.await.map_err(|_| Stopping)
    }
}
