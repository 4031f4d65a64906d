//! The accept loop, and the life of a connection.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_rustls::server::TlsStream;
use tracing::{debug, error, info, warn};

use super::crowd::{Crowd, Entry, Place};
use super::exchange::{Shared, answer};
use super::first_bytes::read_http_start;
use super::guarded::Guarded;
use super::listener::Accepted;
use super::tls::HandshakeError;
use super::{AllowedHosts, Limits, Listener, Peer, Service, Share, User, descriptors, noise, user};

/// The pause after the first time in a row that no connection can be accepted, mostly for want of file descriptors, and the
/// longest. They are not lost: they wait in the kernel.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often that is said.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// How often the listener is looked after, and what was not logged is counted up.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Bytes of an answer that wait in a connection before its next piece is asked for.
const WRITTEN_AHEAD: usize = 32 << 10;

/// Serves one listener until `shutdown` completes, then lets requests under way end for `drain_timeout`.
///
/// Of `max_connections` each peer has its part; beyond, connections are closed as soon as they come. A unix socket's file is gone at the end.
pub async fn serve(
    mut listener: Listener,
    service: Service,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let (stop, stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let crowd = Crowd::new(limits.max_connections);
    let mut shortage = Shortage::default();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
            _ = look.tick() => {
                listener.look();
                noise::say_what_was_left_out();
                shortage.say();
                continue;
            }
            accepted = async {
                shortage.over().await;
                listener.accept().await
            } => accepted,
        };
        match accepted {
            Err(error) if is_the_clients(&error) => {
                debug!(%error, "a connection was gone before it was accepted")
            }
            Err(error) => {
                let made_room = is_shortage(&error) && Crowd::make_room();
                shortage.failed(error, made_room);
            }
            Ok(accepted) => {
                shortage.ended();
                if descriptors::is_reserved(accepted.descriptor()) && !Crowd::makes_room_for(accepted.share())
                {
                    shortage.kept();
                    continue;
                }
                if let Some(place) = enter(&crowd, accepted.share(), limits.max_connections) {
                    let stopping = stopping.clone();
                    connections.spawn(welcome(accepted, place, service.clone(), limits, stopping));
                }
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

/// A place for a connection of this peer, if there is one.
fn enter(crowd: &Crowd, share: Share, most: usize) -> Option<Place> {
    match crowd.enter(share) {
        Entry::In(place) => Some(place),
        Entry::InsteadOf(place, greedy, count) => {
            if noise::may_say(greedy) {
                warn!("all {most} places are taken, {count} of them by {greedy}: one is given to {share}");
            }
            Some(place)
        }
        Entry::Full => {
            if noise::may_say(share) {
                warn!("all {most} places are taken, and {share} has its part: a new connection is closed");
            }
            None
        }
    }
}

/// How long no connection could be accepted.
#[derive(Debug, Default)]
struct Shortage {
    unsaid: Option<(u64, io::Error)>,
    said: Option<Instant>,
    pause: Duration,
    until: Option<Instant>,
}

impl Shortage {
    fn failed(&mut self, error: io::Error, made_room: bool) {
        let longer = if made_room { ACCEPT_PAUSE } else { self.pause * 2 };
        self.pause = longer.clamp(ACCEPT_PAUSE, ACCEPT_PAUSE_MAX);
        self.until = Some(Instant::now() + self.pause);
        let count = self.unsaid.take().map_or(0, |(count, _)| count);
        self.unsaid = Some((count + 1, error));
        self.say();
    }

    /// One was closed, for what others of this daemon need.
    fn kept(&mut self) {
        let count = self.unsaid.take().map_or(0, |(count, _)| count);
        let why = "the last file descriptors are kept for libvirt and the ledger";
        self.unsaid = Some((count + 1, io::Error::other(why)));
        self.say();
    }

    fn ended(&mut self) {
        (self.pause, self.until) = (Duration::ZERO, None);
    }

    /// Says it, if it was not said just before.
    fn say(&mut self) {
        if self.said.is_none_or(|said| said.elapsed() >= SAY_EVERY)
            && let Some((count, error)) = self.unsaid.take()
        {
            error!(%error, count, "connections cannot be accepted");
            self.said = Some(Instant::now());
        }
    }

    /// Waits until it is time to try again.
    async fn over(&self) {
        if let Some(until) = self.until {
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Whether accepting failed because of this one client, so that the next may be accepted at once.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | NotConnected)
}

/// Whether there are no file descriptors left, in this process or on this host.
fn is_shortage(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

/// Waits for the word to stop; a server that is gone has said it too.
async fn told_to(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stop| *stop).await;
}

/// Finds out who is there, on the connection's own task: accepting never waits for it.
async fn welcome(
    accepted: Accepted,
    place: Place,
    service: Service,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    match accepted {
        Accepted::Tcp(stream, address, hosts, uid) => {
            let user = uid.map(User::of);
            connection(stream, place, Peer::Tcp { address, user }, hosts, service, limits, stopping).await;
        }
        Accepted::Unix(stream, who, open_to_all) => {
            let (user, mut groups, pid) = (User::of(who.uid()), vec![who.gid()], who.pid());
            if let Some(name) = user.name.as_deref().filter(|_| open_to_all) {
                groups.extend(user::groups(name));
            }
            let peer = Peer::Unix { user, groups, pid, open_to_all };
            connection(stream, place, peer, AllowedHosts::Socket, service, limits, stopping).await;
        }
        Accepted::Tls(stream, address, tls, _) => {
            let handshake = tokio::select! {
                () = told_to(&mut stopping) => return,
                () = place.taken_away() => return,
                handshake = tokio::time::timeout(limits.handshake_timeout, tls.accept(stream)) => handshake,
            };
            match handshake {
                Ok(Ok((stream, identity))) => {
                    let peer = Peer::Tls { address, identity };
                    connection(stream, place, peer, AllowedHosts::Any, service, limits, stopping).await;
                }
                Ok(Err(
                    why @ (HandshakeError::NotTls | HandshakeError::Gone | HandshakeError::Broken(_)),
                )) => {
                    debug!(peer = %address, "closed: {why}");
                }
                Ok(Err(why)) => {
                    if noise::may_say(Share::of_address(address.ip())) {
                        info!(peer = %address, "refused: {why}");
                    }
                }
                Err(_) => debug!(peer = %address, "closed: the handshake did not end in time"),
            }
        }
    }
}

/// A connection that can be ended without a farewell.
///
/// Some clients that try STOMP first take an orderly end for the end of one answer, and ask again at once, for ever; a
/// reset they take for what it is, and try XML-RPC.
trait Cut {
    /// The other side gets a reset when the connection is dropped.
    fn cut(&self);
}

impl Cut for TcpStream {
    fn cut(&self) {
        if let Err(error) = self.set_zero_linger() {
            debug!(%error, "a connection ends in order that was to be cut");
        }
    }
}

impl Cut for TlsStream<TcpStream> {
    fn cut(&self) {
        self.get_ref().0.cut();
    }
}

impl Cut for UnixStream {
    /// There are none here: what is not read of what came has the same effect.
    fn cut(&self) {}
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Cut>(
    mut stream: S,
    place: Place,
    peer: Peer,
    hosts: AllowedHosts,
    service: Service,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let opened = Instant::now();
    let first = tokio::select! {
        () = told_to(&mut stopping) => return,
        () = place.taken_away() => return,
        first = tokio::time::timeout(limits.header_timeout, read_http_start(&mut stream)) => first,
    };
    let Ok(Ok(Some(first))) = first else {
        if matches!(first, Ok(Ok(None))) {
            stream.cut();
        }
        debug!(%peer, "closed: no HTTP came");
        return;
    };
    let exchanges = place.exchanges.clone();
    let stream = Guarded::new(stream, first, limits, exchanges.clone(), opened);
    let holder = place.holder();
    let shared = Arc::new(Shared { service, limits, peer, hosts, exchanges, holder });
    let respond = service_fn(|request| answer(Arc::clone(&shared), request));
    let mut http = http1::Builder::new();
    // The guarded stream keeps the time; hyper's own watch takes idle for a slow header.
    http.header_read_timeout(None).max_header_size(limits.max_header_bytes).title_case_headers(true);
    // What is written ahead to a client that does not read: by hyper's own measure it would be 400 KiB a connection.
    http.max_buf_size(WRITTEN_AHEAD.max(limits.max_header_bytes));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), respond));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = place.taken_away() => {
            debug!(peer = %shared.peer, "closed: others need its place, or what it holds");
            return;
        }
        () = told_to(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(peer = %shared.peer, %error, "the connection broke off");
    }
}
