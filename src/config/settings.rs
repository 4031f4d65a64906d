//! The settings as the rest of the program reads them. Each key is explained in `systemd/whydown.toml`.
//!
//! A value of these types has passed every check: nobody downstream looks at a limit again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::uri::ConnectUri;
use super::value::{
    Client, ExitReasons, LogTarget, Power, Profile, SocketMode, days, millis, path_or_none, seconds,
};

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The connection to libvirt.
    pub libvirt: Libvirt,
    /// What is kept between starts.
    pub state: State,
    /// How long the ledger remembers.
    pub ledger: Ledger,
    /// Down VMs that nobody acknowledged.
    pub unacknowledged: Unacknowledged,
    /// How an ending is decided.
    pub deciding: Deciding,
    /// Where witnesses listen.
    pub witness: Witness,
    /// What running VMs use.
    pub sampling: Sampling,
    /// XML-RPC over TCP.
    pub xmlrpc: XmlRpc,
    /// XML-RPC with TLS.
    pub tls: Tls,
    /// The Unix socket.
    pub socket: Socket,
    /// What documents may have.
    pub create: Create,
    /// What whydown says of itself.
    pub log: Log,
}

/// `[libvirt]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Libvirt {
    /// The driver to follow.
    pub uri: ConnectUri,
    /// How often an idle connection is probed. Not for the embedded driver.
    #[serde(rename = "keepalive_interval_s", deserialize_with = "seconds")]
    pub keepalive_interval: Duration,
    /// Probes without an answer before the connection counts as lost.
    pub keepalive_count: u32,
    /// First pause before connecting again.
    #[serde(rename = "reconnect_min_ms", deserialize_with = "millis")]
    pub reconnect_min: Duration,
    /// Longest pause before connecting again; at least `reconnect_min`.
    #[serde(rename = "reconnect_max_ms", deserialize_with = "millis")]
    pub reconnect_max: Duration,
    /// Directory of QEMU's logs. `None`: the driver has none.
    #[serde(deserialize_with = "path_or_none")]
    pub log_dir: Option<PathBuf>,
    /// Directory of the process id files. `None`: the driver has none.
    #[serde(deserialize_with = "path_or_none")]
    pub run_dir: Option<PathBuf>,
    /// The file in which libvirt's daemon writes its errors. `None`: systemd's journal.
    #[serde(deserialize_with = "path_or_none")]
    pub daemon_log: Option<PathBuf>,
}

/// `[state]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The directory of the ledger.
    pub dir: PathBuf,
}

/// `[ledger]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    /// How long an ending is remembered.
    #[serde(rename = "endings_max_age_days", deserialize_with = "days")]
    pub endings_max_age: Duration,
    /// How many endings are remembered.
    pub endings_max_count: u64,
    /// How long evidence is remembered.
    #[serde(rename = "evidence_max_age_days", deserialize_with = "days")]
    pub evidence_max_age: Duration,
    /// How many pieces of evidence are remembered.
    pub evidence_max_count: u64,
    /// How many changes wait in memory while the disk refuses them.
    pub memory_max_ops: usize,
}

/// `[unacknowledged]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unacknowledged {
    /// How long a Down VM stays in the answers.
    #[serde(rename = "max_age_days", deserialize_with = "days")]
    pub max_age: Duration,
    /// How many Down VMs stay in the answers.
    pub max_count: usize,
}

/// `[deciding]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deciding {
    /// How long an ending waits for late evidence.
    #[serde(rename = "settle_ms", deserialize_with = "millis")]
    pub settle: Duration,
    /// How long an ending by a snapshot waits; at least `settle`.
    #[serde(rename = "settle_snapshot_ms", deserialize_with = "millis")]
    pub settle_snapshot: Duration,
    /// How often the ledger notes that whydown is listening.
    #[serde(rename = "heartbeat_s", deserialize_with = "seconds")]
    pub heartbeat: Duration,
}

/// `[witness]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Where the kernel's tracefs is mounted. `None`: signals are not traced.
    #[serde(deserialize_with = "path_or_none")]
    pub tracefs: Option<PathBuf>,
    /// Whether the kernel's audit is listened to.
    pub audit: bool,
}

/// `[sampling]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Whether VMs are sampled.
    pub enabled: bool,
    /// How often.
    #[serde(rename = "interval_s", deserialize_with = "seconds")]
    pub interval: Duration,
    /// After how long without a sample a VM is said not to respond.
    #[serde(rename = "unresponsive_after_s", deserialize_with = "seconds")]
    pub unresponsive_after: Duration,
    /// How often a guest agent is asked; zero for never.
    #[serde(rename = "guest_interval_s", deserialize_with = "seconds")]
    pub guest_interval: Duration,
}

/// `[xmlrpc]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct XmlRpc {
    /// Where to listen; may be empty. All loopback unless `insecure_listen_anywhere`.
    pub listen: Vec<SocketAddr>,
    /// Whether `listen` may go beyond loopback.
    pub insecure_listen_anywhere: bool,
    /// Whether callers without TLS may act, and read what is secret.
    pub plain_may_act: bool,
    /// Which exit reasons callers get.
    pub exit_reasons: ExitReasons,
    /// Clients that get the full exit reasons in any case.
    pub full_for: Vec<Client>,
    /// Which generation of managers is written for.
    pub profile: Profile,
    /// Connections open at once.
    pub max_connections: usize,
    /// The largest request body in bytes.
    pub max_request_bytes: usize,
    /// Time for a request's headers.
    #[serde(rename = "header_timeout_s", deserialize_with = "seconds")]
    pub header_timeout: Duration,
    /// Time for a request's body.
    #[serde(rename = "body_timeout_s", deserialize_with = "seconds")]
    pub body_timeout: Duration,
    /// Time without a request.
    #[serde(rename = "idle_timeout_s", deserialize_with = "seconds")]
    pub idle_timeout: Duration,
    /// Time for which a client may read nothing of its answer.
    #[serde(rename = "write_timeout_s", deserialize_with = "seconds")]
    pub write_timeout: Duration,
}

impl XmlRpc {
    /// Which exit reasons this client gets. An IPv4 address is the same client when it comes over IPv6.
    pub fn exit_reasons_for(&self, client: Client) -> ExitReasons {
        if self.full_for.contains(&client.canonical()) { ExitReasons::Full } else { self.exit_reasons }
    }
}

/// `[tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Where to listen; may be empty. No port is one of `xmlrpc.listen`'s.
    pub listen: Vec<SocketAddr>,
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients.
    pub ca: PathBuf,
    /// Who may read; empty for every certificate of the authorities.
    pub readers: Vec<String>,
    /// Who may act, and read; empty for nobody.
    pub actors: Vec<String>,
}

/// `[socket]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Socket {
    /// Where it is; short enough for a socket address.
    pub path: PathBuf,
    /// Its permissions; never writable for others.
    pub mode: SocketMode,
    /// Who may come in besides root and the group, by name or number. Where there are any, the file lets everybody in
    /// and each is judged by what the kernel says of it.
    pub users: Vec<String>,
}

/// `[create]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    /// Programs that documents may name as their emulator.
    pub emulators: Vec<PathBuf>,
    /// Where the files and devices lie that documents may have read and written.
    pub folders: Vec<PathBuf>,
    /// Where those lie that they may have read.
    pub read_only: Vec<PathBuf>,
    /// Where firmware lies, and what NVRAM is copied from.
    pub firmware: Vec<PathBuf>,
    /// What documents may have besides.
    pub allow: Vec<Power>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A tracing filter that is known to parse.
    pub filter: String,
    /// Where to.
    pub target: LogTarget,
}
