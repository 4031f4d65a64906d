//! What the administrator chose: five layers merged into one checked [`Settings`].
//!
//! ```text
//! default file ─▶ whydown.toml ─▶ conf.d/*.toml ─▶ environment ─▶ flags     each checked by itself, with its place
//!                                                                   │
//!                                      merged (later wins) ─▶ Settings ─▶ checked as a whole
//! ```
//!
//! This is the only room that reads configuration files and the environment, and it takes both as arguments
//! ([`Sources`]), so that nothing depends on the state of the process. It never stops at the first mistake, never
//! guesses a value, and never changes a file.

mod environment;
mod file;
mod finding;
mod flags;
mod key;
mod layer;
mod load;
mod reference;
mod report;
mod rule;
mod settings;
#[cfg(test)]
mod tests;
mod uri;
mod value;
mod whole;

pub use environment::OTHER_VARIABLES;
pub use finding::{Finding, Mistakes, Wrong};
pub use flags::Flags;
pub use load::{Change, Loaded, Sources, load};
pub use reference::default_file;
pub use report::{EX_CONFIG, Report, check, open_emulators, opened, system_folders};
pub use settings::{
    Create, Deciding, Ledger, Libvirt, Log, Sampling, Settings, Socket, State, Tls, Unacknowledged, Witness,
    XmlRpc,
};
pub use uri::{ConnectUri, UriError, embed_root};
pub use value::{Client, ExitReasons, LogTarget, Power, Profile, SocketMode};
