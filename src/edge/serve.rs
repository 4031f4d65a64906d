//! The accept loop, and the life of a connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::exchange::{Shared, answer};
use super::first_bytes::read_http_start;
use super::guarded::{Exchanges, Guarded};
use super::listener::Accepted;
use super::tls::HandshakeError;
use super::{Hosts, Limits, Listener, Peer, Service, User, caller, user};

/// How long to wait when no connection can be accepted, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes of an answer that wait in a connection before its next piece is asked for.
const WRITTEN_AHEAD: usize = 32 << 10;

/// Serves one listener until `shutdown` completes, then lets requests under way end for `drain_timeout`.
///
/// Connections beyond `max_connections` are closed as soon as they come. A unix socket's file is gone at the end.
pub async fn serve(
    listener: Listener,
    service: Arc<dyn Service>,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut full = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next(), if !connections.is_empty() => {
                if let Err(failed) = ended {
                    error!(error = %failed, "a connection's task failed");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let was_full = std::mem::replace(&mut full, connections.len() >= limits.max_connections);
        match accepted {
            Err(error) if is_the_clients(&error) => {
                debug!(%error, "a connection was gone before it was accepted")
            }
            Err(error) => {
                error!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Ok(_) if full => {
                if !was_full {
                    warn!(limit = limits.max_connections, "too many connections: new ones are closed");
                }
            }
            Ok(accepted) => {
                connections.spawn(welcome(accepted, Arc::clone(&service), limits, stopping.clone()));
            }
        }
    }
    drop(listener);
    let _ = stop.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain_timeout, drained).await.is_err() {
        info!(left = connections.len(), "connections are cut: their requests did not end in time");
        connections.shutdown().await;
    }
}

/// Whether accepting failed because of this one client, so that the next may be accepted at once.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | NotConnected)
}

/// Waits for the word to stop; a server that is gone has said it too.
async fn told_to(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Finds out who is there, on the connection's own task: accepting never waits for it.
async fn welcome(
    accepted: Accepted,
    service: Arc<dyn Service>,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    match accepted {
        Accepted::Tcp(stream, address, hosts) => {
            let user = user_of(&stream, address);
            connection(stream, Peer::Tcp { address, user }, hosts, service, limits, stopping).await;
        }
        Accepted::Unix(stream, who, open_to_all) => {
            let (user, mut groups, pid) = (User::of(who.uid()), vec![who.gid()], who.pid());
            if let Some(name) = user.name.as_deref().filter(|_| open_to_all) {
                groups.extend(user::groups(name));
            }
            let peer = Peer::Unix { user, groups, pid, open_to_all };
            connection(stream, peer, Hosts::Socket, service, limits, stopping).await;
        }
        Accepted::Tls(stream, address, tls) => {
            let handshake = tokio::select! {
                () = told_to(&mut stopping) => return,
                handshake = tokio::time::timeout(limits.handshake_timeout, tls.accept(stream)) => handshake,
            };
            match handshake {
                Ok(Ok((stream, identity))) => {
                    let peer = Peer::Tls { address, identity };
                    connection(stream, peer, Hosts::Any, service, limits, stopping).await;
                }
                Ok(Err(
                    why @ (HandshakeError::NotTls | HandshakeError::Gone | HandshakeError::Broken(_)),
                )) => {
                    debug!(peer = %address, "closed: {why}");
                }
                Ok(Err(why)) => info!(peer = %address, "refused: {why}"),
                Err(_) => debug!(peer = %address, "closed: the handshake did not end in time"),
            }
        }
    }
}

/// Who on this host is at the other end of a connection in plain text; nobody, where it comes from another.
fn user_of(stream: &TcpStream, address: SocketAddr) -> Option<User> {
    let own = stream.local_addr().ok()?;
    let own = SocketAddr::new(own.ip().to_canonical(), own.port());
    let is_here = address.ip().is_loopback() || address.ip() == own.ip();
    is_here.then(|| caller::uid(address, own)).flatten().map(User::of)
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    peer: Peer,
    hosts: Hosts,
    service: Arc<dyn Service>,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let opened = Instant::now();
    let first = tokio::select! {
        () = told_to(&mut stopping) => return,
        first = tokio::time::timeout(limits.header_timeout, read_http_start(&mut stream)) => first,
    };
    let Ok(Ok(Some(first))) = first else {
        debug!(%peer, "closed: no HTTP came");
        return;
    };
    let exchanges = Exchanges::default();
    let stream = Guarded::new(stream, first, limits, exchanges.clone(), opened);
    let shared = Arc::new(Shared { service, limits, peer, hosts, exchanges });
    let respond = service_fn(|request| answer(Arc::clone(&shared), request));
    let mut http = http1::Builder::new();
    // The guarded stream keeps the time; hyper's own watch takes idle for a slow header.
    http.header_read_timeout(None).max_header_size(limits.max_header_bytes).title_case_headers(true);
    // What is written ahead to a client that does not read: by hyper's own measure it would be 400 KiB a connection.
    http.max_buf_size(WRITTEN_AHEAD.max(limits.max_header_bytes));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), respond));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(peer = %shared.peer, %error, "the connection broke off");
    }
}
