//! Why the daemon cannot start, or did not end well.

use std::path::PathBuf;

use crate::http;

/// Why the daemon cannot start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder of the ledger.
    #[error("state.dir {}: {source}", path.display())]
    StateDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder of the embedded driver.
    #[error("libvirt.uri: the root {} cannot be prepared: {source}", path.display())]
    EmbedRoot {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another daemon uses the folder.
    #[error("state.dir {}: another whydownd uses it", path.display())]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// An address.
    #[error("{key} {address}: {source}")]
    Listen {
        /// Of which key.
        key: &'static str,
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The unix socket.
    #[error("socket.path: {source}")]
    Socket {
        /// Why, with the file's name.
        source: http::BindError,
    },
    /// The Unix socket that systemd made.
    #[error("the socket of systemd: {0}")]
    Inherited(std::io::Error),
    /// A socket that systemd made and nobody wants.
    #[error("systemd passed {what}: it is neither in xmlrpc.listen nor in tls.listen, nor is it socket.path")]
    Stray {
        /// Which.
        what: String,
    },
    /// The kernel's name of this boot.
    #[error("the boot id of the host cannot be read: {0}")]
    BootId(std::io::Error),
    /// Open files.
    #[error(transparent)]
    Files(http::TooFewFiles),
    /// A signal handler.
    #[error("signals: {0}")]
    Signals(std::io::Error),
    /// What the ledger could not take is lost with this process.
    #[error("the ledger could not be written to the end: {0}")]
    Unwritten(whydown_ledger::LedgerError),
    /// The engine's task is gone.
    #[error("the engine ended")]
    EngineEnded,
}
