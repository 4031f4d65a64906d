//! `GET /v1/history`: what is read of the ledger for whoever asks, page by page, each only when the one before was taken
//! in.
//!
//! An answer to a reader that takes nothing holds a page or two and nothing of the ledger. A reader that goes takes its
//! read along. When too much is being read already, that is said at once; nothing that acts waits for any of this.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use whydown_core::time::Wall;
use whydown_ledger::{Busy, Cursor, Ledger, Page, Query as Endings};

use super::Reader;
use crate::daemon::meant::Meant;
use crate::http::answer::{Trouble, json_bytes, json_pieces};
use crate::http::query::Query;
use crate::http::state::AppState;
use crate::http::visibility::{Visibility, told_ending};
use crate::told;

/// Bytes of endings that are read at once; as JSON they are some three times as long.
const PAGE_BYTES: usize = 8 << 10;

/// Bytes of one answer, about. The rest is behind `next`.
const ANSWER_BYTES: usize = 8 << 20;

/// Endings that one answer carries at most.
const ANSWER_MOST: usize = 10_000;

/// How long a page may take. A disk that is slower than this does not answer at all.
const PATIENCE: Duration = Duration::from_secs(15);

/// When a reader that was turned away may come again.
const COME_AGAIN_S: u32 = 1;

/// What a reader gets instead of a page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum NoPage {
    #[error("{0}")]
    Busy(#[from] Busy),
    #[error("whydown is stopping")]
    Stopping,
    #[error("the ledger's disk does not answer")]
    Slow,
}

/// The answer.
pub async fn get(
    State(state): State<Arc<AppState>>,
    Extension(reader): Extension<Reader>,
    Extension(query): Extension<Query>,
) -> Result<Response, Trouble> {
    state.history.answer(reader, &query).await
}

/// The reading side of the ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History {
    ledger: Ledger,
    stopping: watch::Receiver<bool>,
}

impl History {
    /// Of this ledger.
    pub fn new(ledger: Ledger, stopping: watch::Receiver<bool>) -> Self {
        Self { ledger, stopping }
    }

    async fn page(&self, reader: Reader, query: Endings) -> Result<Page, NoPage> {
        let (deliver, delivered) = oneshot::channel();
        // If whoever asked goes, this is dropped, and the read with it.
        let reading = self
            .ledger
            .ask(&reader.share.to_string(), query, PAGE_BYTES, move |page| drop(deliver.send(page)))?;
        let page = tokio::time::timeout(PATIENCE, delivered).await;
        drop(reading);
        let page = page.map_err(|_| NoPage::Slow)?.map_err(|_| NoPage::Stopping)?;
        page.unread.iter().for_each(|unread| tracing::warn!("{unread}"));
        Ok(page)
    }

    /// The newest endings that fit, as many as are read at once.
    ///
    /// # Errors
    /// [`Trouble`] says why it is not known whether there are any.
    pub async fn newest(&self, reader: Reader, query: Endings) -> Result<Vec<told::Ending>, Trouble> {
        let page = self.page(reader, query).await?;
        match page.unread.first() {
            Some(unread) if page.endings.is_empty() => Err(Trouble::unavailable(unread)),
            _ => Ok(page.endings.iter().map(|ending| told_ending(ending, reader.visibility)).collect()),
        }
    }

    async fn answer(&self, reader: Reader, asked: &Query) -> Result<Response, Trouble> {
        let mut query = query(asked).map_err(Trouble::bad_request)?;
        if let Some(meant) = asked.get("vm").map(Meant::by) {
            query = self.about(reader, &meant, query).await?;
        }
        let first = self.page(reader, query.clone()).await?;
        if let Some(unread) = first.unread.first()
            && first.endings.is_empty()
            && first.next.is_none()
        {
            return Err(Trouble::unavailable(unread));
        }
        let mut writing = Writing::new(query.limit, reader.visibility);
        let piece = writing.page(&first);
        if writing.is_over() {
            return Ok(json_bytes([piece, writing.end()].concat()));
        }
        let (pieces, body) = mpsc::channel(1);
        tokio::spawn(self.clone().go_on(reader, query, writing, piece, pieces));
        Ok(json_pieces(body))
    }

    /// The same question about the VM that is meant: by its UUID, or by a name, which may look like one.
    async fn about(&self, reader: Reader, meant: &Meant, query: Endings) -> Result<Endings, Trouble> {
        let mut last = Endings::default();
        for known in meant.queries() {
            let (domain, name) = (known.domain, known.name.clone());
            last = Endings { domain, name, ..query.clone() };
            if !self.newest(reader, Endings { limit: 1, ..known }).await?.is_empty() {
                break;
            }
        }
        Ok(last)
    }

    /// Sends page after page, each read when there is room for it.
    async fn go_on(
        self,
        reader: Reader,
        mut query: Endings,
        mut writing: Writing,
        mut piece: Vec<u8>,
        pieces: mpsc::Sender<Bytes>,
    ) {
        let mut stopping = self.stopping.clone();
        while let Ok(room) = pieces.reserve().await {
            let over = writing.is_over();
            if over {
                piece.extend(writing.end());
            }
            room.send(std::mem::take(&mut piece).into());
            if over {
                return;
            }
            // There is room again when the client has taken in what was sent before.
            let Ok(_room) = pieces.reserve().await else { return };
            (query.limit, query.after) = (writing.left, writing.next);
            let page = tokio::select! {
                biased;
                () = pieces.closed() => return,
                _ = stopping.wait_for(|stopping| *stopping) => Err(NoPage::Stopping),
                page = self.page(reader, query.clone()) => page,
            };
            match page {
                Ok(page) => piece = writing.page(&page),
                // The answer ends here, and says where to go on.
                Err(why) => {
                    tracing::debug!("an answer from history ends early: {why}");
                    writing.stopped = true;
                }
            }
        }
    }
}

/// An answer that is being written.
struct Writing {
    left: usize,
    visibility: Visibility,
    bytes: usize,
    next: Option<Cursor>,
    unread: Vec<String>,
    begun: bool,
    stopped: bool,
}

impl Writing {
    fn new(limit: usize, visibility: Visibility) -> Self {
        Self {
            left: limit,
            visibility,
            bytes: 0,
            next: None,
            unread: Vec::new(),
            begun: false,
            stopped: false,
        }
    }

    fn page(&mut self, page: &Page) -> Vec<u8> {
        let mut piece = Vec::new();
        if self.bytes == 0 {
            piece.extend(b"{\"endings\":[");
        }
        for ending in &page.endings {
            if self.begun {
                piece.push(b',');
            }
            self.begun = true;
            serde_json::to_writer(&mut piece, &told_ending(ending, self.visibility))
                .expect("told types have only texts, numbers and lists");
        }
        self.left = self.left.saturating_sub(page.endings.len());
        self.bytes += piece.len();
        self.next = page.next;
        self.unread.extend(page.unread.iter().map(ToString::to_string));
        piece
    }

    fn is_over(&self) -> bool {
        self.stopped || self.left == 0 || self.next.is_none() || self.bytes >= ANSWER_BYTES
    }

    /// Behind the last ending.
    fn end(&self) -> Vec<u8> {
        let mut end = Vec::from(b"]");
        if let Some(next) = self.next {
            end.extend(format!(",\"next\":\"{next}\"").as_bytes());
        }
        if !self.unread.is_empty() {
            end.extend(b",\"unread\":");
            serde_json::to_writer(&mut end, &self.unread).expect("texts are always JSON");
        }
        end.push(b'}');
        end
    }
}

fn query(asked: &Query) -> Result<Endings, String> {
    let since = asked.get("since").map(str::parse::<jiff::Timestamp>).transpose();
    let since = since.map_err(|error| format!("since: {error}"))?;
    let since = since.map(|at| Wall(i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)));
    let limit = asked.get("limit").map(str::parse::<usize>).transpose();
    let limit = limit.map_err(|error| format!("limit: {error}"))?;
    let limit = limit.unwrap_or(100).min(ANSWER_MOST);
    let after = asked.get("after").map(str::parse::<Cursor>).transpose();
    let after = after.map_err(|error| format!("after: {error}"))?;
    Ok(Endings { since, limit, after, ..Endings::default() })
}

impl From<NoPage> for Trouble {
    fn from(why: NoPage) -> Self {
        Self::unavailable(why).retry_after(COME_AGAIN_S)
    }
}
