//! The connection to the system bus: what is listened for there, and what is asked.

use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use zbus::message::Type;
use zbus::{Connection, MessageStream, OwnedVariant, connection};

use super::ANSWER_WAIT;

/// Messages that wait for us. More wait in the bus, which bounds them as well.
const QUEUE: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

const DBUS: &str = "org.freedesktop.DBus";
const LOGIND: Peer = Peer {
    name: "org.freedesktop.login1",
    path: "/org/freedesktop/login1",
    interface: "org.freedesktop.login1.Manager",
    state: "logind's state",
};
const SYSTEMD: Peer = Peer {
    name: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    state: "systemd's state",
};

/// After each of these the world may be another. Of new jobs all are told: there is no rule for a kind of units.
const NEWS: [&str; 4] = [
    "type='signal',sender='org.freedesktop.login1',path='/org/freedesktop/login1',\
     interface='org.freedesktop.login1.Manager',member='PrepareForShutdown'",
    "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='JobNew'",
    "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
     interface='org.freedesktop.systemd1.Manager',member='JobRemoved',arg2='shutdown.target'",
    // Whether there is a logind: to ask one that is gone would start it.
    "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',\
     member='NameOwnerChanged',arg0='org.freedesktop.login1'",
];

/// Why the bus is not heard.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// It cannot be reached, breaks off or does not answer as systemd does.
    #[error("{what}: {source}")]
    Refused {
        /// What was wanted.
        what: &'static str,
        /// Why.
        source: zbus::Error,
    },
    /// It takes too long.
    #[error("{what}: no answer within {} s", ANSWER_WAIT.as_secs())]
    Slow {
        /// What was wanted.
        what: &'static str,
    },
    /// It was closed.
    #[error("it was closed")]
    Closed,
    /// It said what nobody foresaw, and is not tried again.
    #[error("it cannot be read, and is not tried again")]
    Unreadable,
    /// No descriptor or thread is to be had.
    #[error("it cannot be listened to: {0}")]
    NoThread(#[source] io::Error),
}

/// Who is asked.
struct Peer {
    name: &'static str,
    path: &'static str,
    interface: &'static str,
    /// What we want of it, in words.
    state: &'static str,
}

/// What is so now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// logind has announced a shutdown.
    pub announced: bool,
    /// systemd is stopping the system.
    pub stopping: bool,
}

/// An open connection that listens.
pub(super) struct Bus {
    pub asking: Asking,
    messages: MessageStream,
    /// Those that systemd was given something to do with, and nobody has taken yet.
    units: Vec<String>,
}

/// Units that wait to be taken: they are taken after each turn.
const UNITS: usize = 1024;

/// The unit whose job is a shutdown of the host.
const SHUTDOWN: &str = "shutdown.target";

/// The asking half. Cheap to clone.
#[derive(Clone)]
pub(super) struct Asking {
    connection: Connection,
    logind: bool,
}

impl Bus {
    /// Connects and subscribes. Whoever never answers is given up by the caller.
    pub async fn open(address: &str) -> Result<Self, BusError> {
        let refused = |source| BusError::Refused { what: "it cannot be reached", source };
        let builder = connection::Builder::address(address).method_timeout(ANSWER_WAIT).max_queued(QUEUE);
        let connection = builder.build().await.map_err(refused)?;
        let messages = MessageStream::from(&connection);
        let what = "it does not let us listen";
        for rule in NEWS {
            bound(
                what,
                connection.call_method(Some(DBUS), "/org/freedesktop/DBus", Some(DBUS), "AddMatch", &rule),
            )
            .await?;
        }
        let Peer { name, path, interface, .. } = SYSTEMD;
        // Without it systemd tells of its jobs only as long as somebody else wants to know.
        bound(
            "systemd does not let us listen",
            connection.call_method(Some(name), path, Some(interface), "Subscribe", &()),
        )
        .await?;
        let asked = connection.call_method(
            Some(DBUS),
            "/org/freedesktop/DBus",
            Some(DBUS),
            "NameHasOwner",
            &LOGIND.name,
        );
        let logind = bound(what, asked).await?.body().deserialize().map_err(refused)?;
        Ok(Self { asking: Asking { connection, logind }, messages, units: Vec::new() })
    }

    /// Takes all that has come. True if there is reason to look; ready with an error when it was closed.
    pub fn poll_news(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BusError>> {
        let mut news = false;
        while let Poll::Ready(message) = Pin::new(&mut self.messages).poll_next(context) {
            let Some(message) = message else { return Poll::Ready(Err(BusError::Closed)) };
            let message = message.map_err(|source| BusError::Refused { what: "it broke off", source });
            let message = match message {
                Ok(message) => message,
                Err(broken) => return Poll::Ready(Err(broken)),
            };
            if message.message_type() != Type::Signal {
                continue;
            }
            let header = message.header();
            if header.member().is_some_and(|member| member.as_str() == "JobNew")
                && let Ok((_, _, unit)) = message.body().deserialize::<(u32, zbus::ObjectPath<'_>, &str)>()
                && unit != SHUTDOWN
            {
                if self.units.len() < UNITS && (unit.ends_with(".scope") || unit.starts_with("user@")) {
                    self.units.push(unit.to_owned());
                }
                continue;
            }
            news = true;
            // The bus lets nobody else send under its name.
            if header.sender().is_some_and(|sender| sender.as_str() == DBUS)
                && header.member().is_some_and(|member| member.as_str() == "NameOwnerChanged")
                && let Ok((name, _, owner)) = message.body().deserialize::<(&str, &str, &str)>()
                && name == LOGIND.name
            {
                self.asking.logind = !owner.is_empty();
            }
        }
        if news { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

impl Bus {
    /// Units that came since the last time.
    pub fn take_units(&mut self) -> Vec<String> {
        std::mem::take(&mut self.units)
    }
}

impl Asking {
    /// What systemd and logind say now.
    pub async fn state(self) -> Result<State, BusError> {
        let state: String = self.property(&SYSTEMD, "SystemState").await?;
        let announced = self.logind && self.property(&LOGIND, "PreparingForShutdown").await?;
        Ok(State { announced, stopping: state == "stopping" })
    }

    async fn property<T>(&self, peer: &Peer, name: &str) -> Result<T, BusError>
    where
        T: TryFrom<OwnedVariant, Error = zbus::Error>,
    {
        let what = peer.state;
        let properties = Some("org.freedesktop.DBus.Properties");
        let wanted = (peer.interface, name);
        let asked = self.connection.call_method(Some(peer.name), peer.path, properties, "Get", &wanted);
        let answer = bound(what, asked).await?;
        let value: zbus::Result<OwnedVariant> = answer.body().deserialize();
        value.and_then(T::try_from).map_err(|source| BusError::Refused { what, source })
    }
}

async fn bound<T>(what: &'static str, asked: impl Future<Output = zbus::Result<T>>) -> Result<T, BusError> {
    asked.await.map_err(|source| match source {
        zbus::Error::InputOutput(error) if error.kind() == io::ErrorKind::TimedOut => BusError::Slow { what },
        source => BusError::Refused { what, source },
    })
}
