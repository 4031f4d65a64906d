//! The HTTP edge: bytes in, bytes out, and nobody may hold it up.
//!
//! ```text
//! listener ─▶ connection ─▶ first bytes ─▶ guarded stream ─▶ hyper ─▶ exchange ─▶ Service
//!  (limit)     (its peer)    (HTTP?)        (time limits)              (route, body, gzip)
//! ```
//!
//! It knows HTTP, paths and limits. It reads no XML-RPC, knows no verb and decides nothing: that is the [`Service`].
//! A request that has reached the service runs to its end even if the client hangs up: a destroy is not cut in half.

mod exchange;
mod first_bytes;
mod guarded;
mod inflate;
mod limits;
mod listener;
mod serve;
mod service;
#[cfg(test)]
mod tests;

pub use limits::Limits;
pub use listener::{BindError, Listener, UnixSocket};
pub use serve::serve;
pub use service::{Answer, AnswerFuture, Content, Door, Peer, Request, Service};
