//! One life of the link: a connection with everything registered on it, and the further connections on which its callers
//! act.
//!
//! On a connection with another side only one thread calls at a time, and on the listening one only the link itself:
//!
//! * libvirt's client crashes when keepalive closes a connection on which several threads wait (seen with 9.0: each
//!   waiting thread takes its turn at one shared loop, and what an interrupted turn leaves in it points into the stack
//!   of a thread that has gone on).
//! * libvirtd serves at most five calls of one connection at a time (its `max_client_requests`) and then stops reading,
//!   its keepalive answers included. A few calls on domains that hang would break the very link that hears.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::act::Refusal;
use crate::ffi::register::{Ear, Registrations};
use crate::ffi::{Conn, Fault, KeepAlive};
use crate::hearing::Hearing;
use crate::probes::Call;
use crate::settings::Settings;

/// Further connections at most. libvirtd itself works on 20 calls at once: more would only wait there.
const FURTHER: usize = 16;

/// How long a call waits for its turn: longer than libvirt itself waits for a domain that another call holds.
const TURN: Duration = Duration::from_secs(40);

/// Further connections kept for the next call.
const KEPT_IDLE: usize = 4;

/// How long a further connection may take to open.
const OPENING: Duration = Duration::from_secs(10);

/// One life of the link.
pub(crate) struct Session {
    pub(crate) conn: Conn,
    pub(crate) hearing: Arc<Hearing>,
    watched: KeepAlive,
    registrations: Mutex<Option<Registrations>>,
    lines: Mutex<Lines>,
    /// A call is done, and another may begin.
    freed: Condvar,
    /// Whether the driver refused to be asked for more than states without waiting.
    pub(crate) states_only: AtomicBool,
    settings: Settings,
}

#[derive(Default)]
struct Lines {
    further: usize,
    idle: Vec<Conn>,
}

impl Session {
    /// Connects and registers everything. May block for as long as the other side likes.
    pub(crate) fn open(settings: &Settings, hearing: Arc<Hearing>) -> Result<Self, Fault> {
        let conn = Conn::open(&settings.uri)?;
        let watched = conn.keep_alive(settings.keepalive_interval_s, settings.keepalive_count)?;
        let ear: Arc<dyn Ear> = Arc::clone(&hearing) as Arc<dyn Ear>;
        let registrations = Registrations::new(&conn, &ear)?;
        Ok(Self {
            conn,
            hearing,
            watched,
            registrations: Mutex::new(Some(registrations)),
            lines: Mutex::default(),
            freed: Condvar::new(),
            states_only: AtomicBool::new(false),
            settings: settings.clone(),
        })
    }

    /// Whether keepalive messages watch the other side.
    pub(crate) fn watched(&self) -> KeepAlive {
        self.watched
    }

    /// Falls deaf, takes every registration back and lets idle connections go. The connection itself closes when the
    /// last caller that uses it is done.
    pub(crate) fn end(&self) {
        self.hearing.fall_deaf();
        drop(self.registrations.lock().unwrap_or_else(PoisonError::into_inner).take());
        let idle = std::mem::take(&mut self.lines().idle);
        drop(idle);
        self.freed.notify_all();
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection for one call, which may take long.
    pub(crate) fn line(self: &Arc<Self>) -> Result<Line, Refusal> {
        // In this process there is nothing to wait on; and in the test driver another connection may be another world.
        if self.watched == KeepAlive::Local {
            let conn = Some(self.conn.clone());
            return Ok(Line { conn, counted: false, session: Arc::clone(self), _call: Call::begin() });
        }
        let full = |lines: &mut Lines| lines.further >= FURTHER && self.conn.is_alive();
        let waited = self.freed.wait_timeout_while(self.lines(), TURN, full);
        let (mut lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if lines.further >= FURTHER {
            if !self.conn.is_alive() {
                return Err(Refusal::NoLink);
            }
            let text = format!("{FURTHER} calls have kept libvirt busy for {} s", TURN.as_secs());
            return Err(Refusal::Refused { code: 0, text });
        }
        lines.further += 1;
        let idle = lines.idle.pop();
        drop(lines);
        // From here on the drop of `place` gives the place back, also when no connection can be opened.
        let idle = idle.filter(Conn::is_alive);
        let mut place = Line { conn: idle, counted: true, session: Arc::clone(self), _call: Call::begin() };
        if place.conn.is_none() {
            place.conn = Some(self.open_further()?);
        }
        Ok(place)
    }

    /// Opens one more connection, on a thread that may be left behind: libvirt has no time limit for it.
    fn open_further(&self) -> Result<Conn, Refusal> {
        let (done, waiting) = sync_channel(1);
        let settings = self.settings.clone();
        let open = move || {
            let opened = Conn::open(&settings.uri).and_then(|conn| {
                conn.keep_alive(settings.keepalive_interval_s, settings.keepalive_count).map(|_| conn)
            });
            // Nobody waits any more: the connection is dropped with the message.
            let _ = done.send(opened);
        };
        let spawned = std::thread::Builder::new().name("libvirt-further".into()).spawn(open);
        let opened =
            spawned.map_err(|_| RecvTimeoutError::Disconnected).and_then(|_| waiting.recv_timeout(OPENING));
        match opened {
            Ok(Ok(conn)) => Ok(conn),
            Ok(Err(fault)) => Err(Refusal::of(fault, &self.conn)),
            Err(_) => Err(Refusal::NoLink),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The registrations hold the connection open; a session that was never ended must not leak it.
        self.end();
    }
}

/// A connection lent for one call.
pub(crate) struct Line {
    conn: Option<Conn>,
    counted: bool,
    session: Arc<Session>,
    _call: Call,
}

impl Line {
    pub(crate) fn conn(&self) -> &Conn {
        // There from `Session::line` until drop.
        self.conn.as_ref().unwrap_or(&self.session.conn)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let mut lines = self.session.lines();
        lines.further -= 1;
        self.session.freed.notify_one();
        if lines.idle.len() < KEPT_IDLE
            && self.session.conn.is_alive()
            && let Some(conn) = self.conn.take_if(|conn| conn.is_alive())
        {
            lines.idle.push(conn);
        }
        // One that is not kept closes with this line's fields, after the lock is gone.
    }
}
