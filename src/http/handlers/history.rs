//! What is read of the ledger for whoever asks: page by page, each only when the one before was taken in.
//!
//! An answer to a reader that takes nothing holds a page or two and nothing of the ledger. A reader that goes takes its
//! read along. When too much is being read already, that is said at once; nothing that acts waits for any of this.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::{mpsc, oneshot, watch};
use whydown_core::time::Wall;
use whydown_ledger::{Busy, Cursor, Ledger, Page, Query};

use crate::daemon::meant::Meant;
use crate::http::rights::Sight;
use crate::http::visibility::told_ending;
use crate::http::{Answer, Share};
use crate::told;

/// Bytes of endings that are read at once; as JSON they are some three times as long.
const PAGE_BYTES: usize = 8 << 10;

/// Bytes of one piece of an answer that is made from memory, about.
const PIECE_BYTES: usize = 16 << 10;

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

/// Who reads.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// Whose share of what is scarce is taken.
    pub share: Share,
    /// How much they may be told.
    pub sight: Sight,
}

/// A question of `GET /v1/history`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asked<'a> {
    /// UUID or name.
    pub vm: Option<&'a str>,
    /// RFC 3339.
    pub since: Option<&'a str>,
    /// A number.
    pub limit: Option<&'a str>,
    /// The `next` of an earlier answer.
    pub after: Option<&'a str>,
}

/// The reading side of the ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reads {
    ledger: Ledger,
    stopping: watch::Receiver<bool>,
}

impl Reads {
    /// Of this ledger.
    pub fn new(ledger: Ledger, stopping: watch::Receiver<bool>) -> Self {
        Self { ledger, stopping }
    }

    async fn page(&self, reader: Reader, query: Query) -> Result<Page, NoPage> {
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
    /// The answer that says why it is not known whether there are any.
    pub async fn newest(&self, reader: Reader, query: Query) -> Result<Vec<told::Ending>, Answer> {
        let page = self.page(reader, query).await.map_err(turned_away)?;
        match page.unread.first() {
            Some(unread) if page.endings.is_empty() => {
                Err(trouble(StatusCode::SERVICE_UNAVAILABLE, &unread.to_string()))
            }
            _ => Ok(page.endings.iter().map(|ending| told_ending(ending, reader.sight)).collect()),
        }
    }

    /// The answer to `GET /v1/history`.
    pub async fn history(&self, reader: Reader, asked: Asked<'_>) -> Answer {
        let mut query = match query(asked) {
            Ok(query) => query,
            Err(wrong) => return trouble(StatusCode::BAD_REQUEST, &wrong),
        };
        if let Some(meant) = asked.vm.map(Meant::by) {
            query = match self.about(reader, &meant, query).await {
                Ok(query) => query,
                Err(answer) => return answer,
            };
        }
        let first = match self.page(reader, query.clone()).await {
            Ok(page) => page,
            Err(why) => return turned_away(why),
        };
        if let Some(unread) = first.unread.first()
            && first.endings.is_empty()
            && first.next.is_none()
        {
            return trouble(StatusCode::SERVICE_UNAVAILABLE, &unread.to_string());
        }
        let mut writing = Writing::new(query.limit, reader.sight);
        let piece = writing.page(&first);
        if writing.is_over() {
            return Answer::json(StatusCode::OK, [piece, writing.end()].concat());
        }
        let (pieces, body) = mpsc::channel(1);
        tokio::spawn(self.clone().go_on(reader, query, writing, piece, pieces));
        Answer::json_pieces(body)
    }

    /// The same question about the VM that is meant: by its UUID, or by a name, which may look like one.
    async fn about(&self, reader: Reader, meant: &Meant, query: Query) -> Result<Query, Answer> {
        let mut last = Query::default();
        for known in meant.queries() {
            let (domain, name) = (known.domain, known.name.clone());
            last = Query { domain, name, ..query.clone() };
            if !self.newest(reader, Query { limit: 1, ..known }).await?.is_empty() {
                break;
            }
        }
        Ok(last)
    }

    /// Sends page after page, each read when there is room for it.
    async fn go_on(
        self,
        reader: Reader,
        mut query: Query,
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
    sight: Sight,
    bytes: usize,
    next: Option<Cursor>,
    unread: Vec<String>,
    begun: bool,
    stopped: bool,
}

impl Writing {
    fn new(limit: usize, sight: Sight) -> Self {
        Self { left: limit, sight, bytes: 0, next: None, unread: Vec::new(), begun: false, stopped: false }
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
            serde_json::to_writer(&mut piece, &told_ending(ending, self.sight))
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

fn query(asked: Asked<'_>) -> Result<Query, String> {
    let since = asked.since.map(str::parse::<jiff::Timestamp>).transpose();
    let since = since.map_err(|error| format!("since: {error}"))?;
    let since = since.map(|at| Wall(i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX)));
    let limit =
        asked.limit.map(str::parse::<usize>).transpose().map_err(|error| format!("limit: {error}"))?;
    let limit = limit.unwrap_or(100).min(ANSWER_MOST);
    let after = asked.after.map(str::parse::<Cursor>).transpose();
    let after = after.map_err(|error| format!("after: {error}"))?;
    Ok(Query { since, limit, after, ..Query::default() })
}

fn turned_away(why: NoPage) -> Answer {
    let answer = trouble(StatusCode::SERVICE_UNAVAILABLE, &why.to_string());
    Answer { retry_after_s: Some(COME_AGAIN_S), ..answer }
}

fn trouble(status: StatusCode, error: &str) -> Answer {
    let body = serde_json::to_vec(&told::Trouble { error: error.into() }).expect("a text is always JSON");
    Answer::json(status, body)
}

/// A JSON document of many members of one list, written as it is taken in: `head` up to the list, then its items, then
/// `tail`.
pub fn json_in_pieces(
    head: Vec<u8>,
    mut items: impl Iterator<Item = Vec<u8>> + Send + 'static,
    tail: &'static [u8],
) -> Answer {
    let (pieces, body) = mpsc::channel(1);
    tokio::spawn(async move {
        let (mut piece, mut first, mut over) = (head, true, false);
        while !over {
            let Ok(room) = pieces.reserve().await else { return };
            while piece.len() < PIECE_BYTES && !over {
                match items.next() {
                    Some(item) => {
                        if !std::mem::take(&mut first) {
                            piece.push(b',');
                        }
                        piece.extend(item);
                    }
                    None => {
                        piece.extend(tail);
                        over = true;
                    }
                }
            }
            room.send(std::mem::take(&mut piece).into());
        }
    });
    Answer::json_pieces(body)
}
