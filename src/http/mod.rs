//! HTTP: bytes in, bytes out, and nobody may hold it up.
//!
//! ```text
//! listener ─▶ [TLS] ─▶ connection ─▶ first bytes ─▶ guarded stream ─▶ hyper ─▶ exchange ─▶ Service
//!  (limit)   (who?)    (its peer)    (HTTP?)        (time limits)       (route, manners, body, gzip)
//! ```
//!
//! It knows HTTP, paths and limits. It reads no XML-RPC, knows no verb and decides nothing: that is the [`Service`].
//! A request that the service has [begun](Begun) runs to its end even if the client hangs up: a destroy is not cut in half.

mod begun;
mod caller;
mod crowd;
mod descriptors;
mod exchange;
mod first_bytes;
mod guarded;
pub(crate) mod handlers;
mod held;
mod identity;
mod inflate;
mod limits;
mod listener;
pub(crate) mod listeners;
mod manners;
pub mod noise;
mod open;
mod query;
mod rights;
mod serve;
mod service;
mod share;
#[cfg(test)]
mod tests;
mod tls;
mod turns;
mod unpacking;
mod user;
mod visibility;

pub use begun::Begun;
pub use descriptors::{TooFewFiles, take_all_files};
pub use identity::{Identity, NotACertificate};
pub use limits::Limits;
pub use listener::{BindError, Listener, UnixSocket};
pub use manners::Hosts;
pub use open::{Inherited, bind};
pub use serve::serve;
pub use service::{Answer, AnswerFuture, Content, Door, Peer, Request, Service, User};
pub use share::Share;
pub use tls::{Tls, TlsError, TlsFiles};
pub use turns::{Turn, Turns};
pub use user::uid;
