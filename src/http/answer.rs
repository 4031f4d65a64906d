//! What handlers give back.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{self, HeaderValue};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::told;

const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";

/// Bytes of one piece of an answer that is made from memory, about.
const PIECE_BYTES: usize = 16 << 10;

/// Why there is no answer: an HTTP status, and a sentence as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    status: StatusCode,
    why: String,
    retry_after_s: Option<u32>,
}

impl Trouble {
    /// With this status.
    pub fn new(status: StatusCode, why: impl ToString) -> Self {
        Self { status, why: why.to_string(), retry_after_s: None }
    }

    /// What was asked cannot be read.
    pub fn bad_request(why: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }

    /// Whoever asks may not.
    pub fn forbidden(why: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, why)
    }

    /// There is nothing.
    pub fn not_found(why: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, why)
    }

    /// Not now.
    pub fn unavailable(why: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, why)
    }

    /// When to come again, in seconds.
    pub fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after_s: Some(seconds), ..self }
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let mut response = json(&told::Trouble { error: self.why });
        *response.status_mut() = self.status;
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A value as bytes of JSON.
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("told types have only texts, numbers and lists")
}

/// A JSON document.
pub fn json<T: Serialize>(value: &T) -> Response {
    json_bytes(to_json(value))
}

/// A JSON document that is written already.
pub fn json_bytes(document: Vec<u8>) -> Response {
    of(JSON, Body::from(document))
}

/// A JSON document, piece by piece, until the sender is dropped. A full channel means that the client reads slowly.
pub fn json_pieces(pieces: mpsc::Receiver<Bytes>) -> Response {
    of(JSON, Body::new(Pieces(pieces)))
}

/// One JSON document a line, as they come.
pub fn json_lines(lines: mpsc::Receiver<Bytes>) -> Response {
    of(JSON_LINES, Body::new(Pieces(lines)))
}

/// A JSON document of many members of one list, written as it is taken in: `head` up to the list, then its items, then
/// `tail`.
pub fn json_list(
    head: Vec<u8>,
    mut items: impl Iterator<Item = Vec<u8>> + Send + 'static,
    tail: &'static [u8],
) -> Response {
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
    json_pieces(body)
}

fn of(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A body that comes piece by piece.
struct Pieces(mpsc::Receiver<Bytes>);

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}
