//! The port between HTTP and what stands behind it.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use tokio::sync::mpsc;
use whydown_wire::Body;

use super::{Begun, Identity};

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on the network, in plain text: nobody has said who.
    Tcp {
        /// Where from.
        address: SocketAddr,
        /// Whose process it is, where it is one of this host and the kernel tells.
        user: Option<User>,
    },
    /// Somebody on the network who has shown a certificate of our authority.
    Tls {
        /// Where from.
        address: SocketAddr,
        /// Whose certificate.
        identity: Identity,
    },
    /// A process on this host, as the kernel names it.
    Unix {
        /// User.
        user: User,
        /// Its groups: the process's own, and where `open_to_all` those that the user is in by `/etc/group`.
        groups: Vec<u32>,
        /// Process, where the kernel tells.
        pid: Option<i32>,
        /// Whether the socket's file lets everybody in, so that having come in says nothing.
        open_to_all: bool,
    },
}

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Number.
    pub uid: u32,
    /// Its name, if this host has one for it.
    pub name: Option<String>,
}

impl User {
    /// The user of this number.
    pub(super) fn of(uid: u32) -> Self {
        Self { uid, name: super::user::name(uid) }
    }

    fn word(&self) -> &str {
        self.name.as_deref().unwrap_or("a user without a name")
    }
}

impl Peer {
    /// Its address, where it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp { address, .. } | Self::Tls { address, .. } => Some(address.ip()),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, user: None } => write!(f, "{address}"),
            Self::Tcp { address, user: Some(user) } => {
                write!(f, "{} (uid {}) at {address}", user.word(), user.uid)
            }
            Self::Tls { address, identity } => write!(f, "{identity} at {address}"),
            Self::Unix { user, pid: None, .. } => write!(f, "{} (uid {})", user.word(), user.uid),
            Self::Unix { user, pid: Some(pid), .. } => {
                write!(f, "{} (uid {}, pid {pid})", user.word(), user.uid)
            }
        }
    }
}

/// By which door a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// POST to `/` or `/RPC2`: an XML-RPC call in the body.
    Call,
    /// GET below `/v1/`: a question in the path. No body.
    Look,
}

/// A whole request.
#[derive(Debug, Clone)]
pub struct Request {
    /// By which door.
    pub door: Door,
    /// The path, as sent.
    pub path: String,
    /// What stands behind the question mark, as sent.
    pub query: Option<String>,
    /// The headers. `flowid` is the engine's correlation id.
    pub headers: HeaderMap,
    /// The body, unpacked, within the limit.
    pub body: Bytes,
    /// Said when it goes beyond the point where it can be given up.
    pub begun: Begun,
}

/// What goes back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status. XML-RPC's own refusals are 200.
    pub status: StatusCode,
    /// Such as `text/xml`.
    pub content_type: &'static str,
    /// The body.
    pub content: Content,
    /// When to come again, where it says that there is no room now.
    pub retry_after_s: Option<u32>,
}

/// A body on its way out.
#[derive(Debug)]
pub enum Content {
    /// All of it; packed at most once, however many it is given to.
    Whole(Arc<Body>),
    /// Piece by piece, until the sender is dropped. A full channel means that the client reads slowly.
    Stream(mpsc::Receiver<Bytes>),
}

impl Answer {
    fn new(status: StatusCode, content_type: &'static str, content: Content) -> Self {
        Self { status, content_type, content, retry_after_s: None }
    }

    /// An XML-RPC reply.
    pub fn xml(body: Bytes) -> Self {
        Self::shared_xml(Arc::new(Body::new(body)))
    }

    /// An XML-RPC reply that others are given too.
    pub fn shared_xml(body: Arc<Body>) -> Self {
        Self::new(StatusCode::OK, "text/xml", Content::Whole(body))
    }

    /// A JSON document.
    pub fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::new(status, "application/json", Content::Whole(Arc::new(Body::new(body.into()))))
    }

    /// One JSON document a line, as they come.
    pub fn json_lines(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self::new(StatusCode::OK, "application/x-ndjson", Content::Stream(pieces))
    }

    /// A JSON document, as it comes.
    pub fn json_pieces(pieces: mpsc::Receiver<Bytes>) -> Self {
        Self::new(StatusCode::OK, "application/json", Content::Stream(pieces))
    }

    /// Plain text.
    pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::new(status, "text/plain", Content::Whole(Arc::new(Body::new(text.into()))))
    }
}

/// An answer to come.
pub type AnswerFuture = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What stands behind HTTP.
pub trait Service: Send + Sync + 'static {
    /// Answers a request. When the client has gone it is dropped, unless it was said that it has [begun](Begun::now): then it
    /// runs to its end.
    fn call(self: Arc<Self>, peer: Peer, request: Request) -> AnswerFuture;
}
