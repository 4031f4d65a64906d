//! Where callers come in: every listener opened, and the certificates of those with TLS.
//!
//! A socket that cannot be had ends the start. Certificates that cannot be used do not: that VMs are watched is worth
//! more, so those listeners turn callers away, loudly, until SIGHUP brings files that are good.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::Signal;
use tracing::{error, info, warn};

use super::{AllowedHosts, Inherited, Listener, Tls, TlsFiles, UnixSocket as SocketFile, bind};
use crate::config::Settings;
use crate::daemon::StartError;

/// All listeners, open.
pub struct Listeners {
    /// Each with what it needs.
    pub all: Vec<Listener>,
    /// The certificates, where there is TLS.
    pub tls: Option<Arc<Tls>>,
}

impl Listeners {
    /// Opens them, or takes them over from systemd. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] names the key and the address.
    pub fn open(settings: &Settings, mut inherited: Inherited) -> Result<Self, StartError> {
        let mut listeners = Vec::new();
        let (plain, secured) = (&settings.xmlrpc.listen, &settings.tls.listen);
        let all: Vec<SocketAddr> = plain.iter().chain(secured).copied().collect();
        for address in plain {
            let listener = tcp("xmlrpc.listen", *address, &all, &mut inherited)?;
            listeners.push(Listener::Tcp(listener, hosts(settings, address)));
        }
        let tls = (!secured.is_empty()).then(|| Arc::new(Tls::new(files(settings))));
        for address in secured {
            let listener = tcp("tls.listen", *address, &all, &mut inherited)?;
            listeners.extend(tls.as_ref().map(|tls| Listener::Tls(listener, Arc::clone(tls))));
        }
        let socket = match inherited.unix(&settings.socket.path) {
            Some(socket) => {
                UnixListener::from_std(socket).map(SocketFile::inherited).map_err(StartError::Inherited)?
            }
            None => SocketFile::bind(&settings.socket.path, socket_mode(settings))
                .map_err(|source| StartError::Socket { source })?,
        };
        listeners.push(Listener::Unix(socket));
        if let Some(what) = inherited.left().into_iter().next() {
            return Err(StartError::Stray { what });
        }
        if settings.xmlrpc.plain_may_act && !settings.xmlrpc.listen.is_empty() {
            warn!(
                "xmlrpc.plain_may_act is true: whoever reaches xmlrpc.listen may create, change and end every VM"
            );
        }
        if let Some(tls) = &tls {
            load(tls, "nobody can come in by tls.listen");
            if settings.tls.actors.is_empty() {
                info!("tls.actors is empty: callers with TLS may read, and nobody may act");
            }
        }
        Ok(Self { all: listeners, tls })
    }

    /// Port 0 is the kernel's choice: whoever started us finds the addresses in the file `listen`, one a line, those
    /// with TLS behind the word `tls`.
    pub fn write_addresses(&self, folder: &Path) {
        let mut lines = Vec::new();
        for listener in &self.all {
            let (listener, word, scheme) = match listener {
                Listener::Tcp(listener, _) => (listener, "", "http"),
                Listener::Tls(listener, _) => (listener, "tls ", "https"),
                Listener::Unix(_) => continue,
            };
            if let Ok(address) = listener.local_addr() {
                lines.push(format!("{word}{address}"));
                info!("XML-RPC on {scheme}://{address}/");
            }
        }
        let write = || -> std::io::Result<()> {
            // Whatever lies there is not opened: it is replaced.
            let fresh = folder.join("listen.new");
            match std::fs::remove_file(&fresh) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = std::fs::File::create_new(&fresh)?;
            for line in &lines {
                writeln!(file, "{line}")?;
            }
            std::fs::rename(&fresh, folder.join("listen"))
        };
        if let Err(error) = write() {
            warn!("{}: {error}", folder.join("listen").display());
        }
    }
}

/// Reads the certificates again with every SIGHUP, for as long as the daemon runs.
pub async fn reload_on(mut hangup: Signal, tls: Option<Arc<Tls>>) {
    while hangup.recv().await.is_some() {
        let Some(tls) = tls.clone() else {
            info!("SIGHUP: there is no TLS, so there is nothing to read again");
            continue;
        };
        // A task of its own would let two readings overtake each other.
        let _ = tokio::task::spawn_blocking(move || load(&tls, "the files read before stay in use")).await;
    }
}

/// Which names callers may give an address in plain text. Beyond loopback managers call by names of the host's own.
fn hosts(settings: &Settings, address: &SocketAddr) -> AllowedHosts {
    match address.ip().to_canonical().is_loopback() {
        false => AllowedHosts::Any,
        true if settings.xmlrpc.plain_may_act => AllowedHosts::LoopbackToRead,
        true => AllowedHosts::Loopback,
    }
}

/// Where users are named, everybody may connect, and [`super::rights`] judges.
fn socket_mode(settings: &Settings) -> u32 {
    const ALL: u32 = 0o006;
    settings.socket.mode.bits() | if settings.socket.users.is_empty() { 0 } else { ALL }
}

fn load(tls: &Tls, otherwise: &str) {
    match tls.load() {
        Ok(told) => info!("TLS with the certificate of {told}"),
        Err(trouble) => error!("the certificate files cannot be used, so {otherwise}: {trouble}"),
    }
}

fn files(settings: &Settings) -> TlsFiles {
    let tls = &settings.tls;
    TlsFiles { certificate: tls.certificate.clone(), key: tls.key.clone(), ca: tls.ca.clone() }
}

fn tcp(
    key: &'static str,
    address: SocketAddr,
    all: &[SocketAddr],
    inherited: &mut Inherited,
) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen { key, address, source };
    let listener = match inherited.tcp(address) {
        Some(listener) => listener,
        None => {
            // Linux lets one socket have both families, so a second one for IPv4 needs the first to stand back.
            let alone = all.iter().any(|other| other.is_ipv4() && other.port() == address.port());
            bind(address, alone).map_err(failed)?
        }
    };
    TcpListener::from_std(listener).map_err(failed)
}
