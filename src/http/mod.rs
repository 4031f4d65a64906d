//! HTTP: listeners, a router, and a handler for whatever is asked.
//!
//! ```text
//! listener ─▶ [TLS] ─▶ connection ─▶ first bytes ─▶ guarded stream ─▶ hyper ─▶ exchange ─┬─▶ calls (XML-RPC)
//!  (limit)   (who?)    (its peer)    (HTTP?)        (time limits)       (a call? gzip)   └─▶ router ─▶ guard ─▶ handler
//!                                                                                                  (web page? body, rights)
//! ```
//!
//! Nobody may hold it up: everything that comes and goes has a bound. The path of a call is known before the router is
//! asked, so that polls cost nothing of it. Handlers reach the daemon by one `AppState`; of the daemon only its wiring
//! knows HTTP.
//! A call that has [begun](Begun) runs to its end even if the client hangs up: a destroy is not cut in half.

mod answer;
mod begun;
mod caller;
mod cross_origin;
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
pub mod noise;
mod open;
mod peer;
mod query;
pub(crate) mod rights;
mod serve;
mod service;
mod share;
pub(crate) mod state;
#[cfg(test)]
mod tests;
mod tls;
mod turns;
mod unpacking;
mod user;
pub(crate) mod visibility;

pub use begun::Begun;
pub use cross_origin::AllowedHosts;
pub use descriptors::{TooFewFiles, take_all_files};
pub use identity::{Identity, NotACertificate};
pub use limits::Limits;
pub use listener::{BindError, Listener, UnixSocket};
pub use open::{Inherited, bind};
pub use peer::{Peer, User};
pub use serve::serve;
pub use service::{Call, Calls, ReplyFuture, Service};
pub use share::Share;
pub(crate) use state::AppState;
pub use tls::{Tls, TlsError, TlsFiles};
pub use turns::{Turn, Turns};
pub use user::uid;
