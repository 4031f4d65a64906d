//! The one queue into the engine's task.
//!
//! It is bounded. When it is full, whoever posts waits: libvirt then queues events itself and loses none, and a
//! manager's request waits for its turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};
use whydown_core::id::RequestId;
use whydown_core::lifecycle::{Input, Reply, Request, Wanted};

/// Inputs that may wait. A storm of a thousand VMs makes some six thousand.
pub const QUEUE: usize = 16_384;

/// One message.
#[derive(Debug)]
pub enum Message {
    /// Something happened.
    Input(Input),
    /// A manager asks, and waits here.
    Request(Request, oneshot::Sender<Reply>),
    /// Tell when everything posted before has been stepped and carried out.
    Barrier(oneshot::Sender<()>),
}

/// The way in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mailbox {
    messages: mpsc::Sender<Message>,
    next_request: Arc<AtomicU64>,
}

/// The engine's task has ended: the daemon is going down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("whydown is stopping")]
pub struct Stopping;

impl Mailbox {
    /// A mailbox and where its messages arrive.
    pub fn new() -> (Self, mpsc::Receiver<Message>) {
        let (messages, arriving) = mpsc::channel(QUEUE);
        (Self { messages, next_request: Arc::default() }, arriving)
    }

    /// Posts from a thread that may block. A message to a stopping daemon is dropped: its work is over.
    pub fn post_blocking(&self, input: Input) {
        let _ = self.messages.blocking_send(Message::Input(input));
    }

    /// Posts from a task.
    pub async fn post(&self, input: Input) {
        let _ = self.messages.send(Message::Input(input)).await;
    }

    /// Asks on behalf of a manager. Until `begun` is called nothing was asked; from then on it will be carried out, whether
    /// or not somebody waits for the answer.
    ///
    /// # Errors
    /// [`Stopping`] if the daemon goes down before it is answered.
    pub async fn ask(&self, who: String, what: Wanted, begun: impl FnOnce()) -> Result<Reply, Stopping> {
        let id = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        let room = self.messages.reserve().await.map_err(|_| Stopping)?;
        begun();
        room.send(Message::Request(Request { id, who, what }, answer));
        answered.await.map_err(|_| Stopping)
    }

    /// Waits until everything posted before has been carried out.
    ///
    /// # Errors
    /// [`Stopping`] if the engine's task is gone.
    pub async fn barrier(&self) -> Result<(), Stopping> {
        let (reached, wait) = oneshot::channel();
        self.messages.send(Message::Barrier(reached)).await.map_err(|_| Stopping)?;
        wait.await.map_err(|_| Stopping)
    }
}
