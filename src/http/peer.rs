//! Who is at the other end of a connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Identity;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on the network, in plain text: nobody has said who.
    Tcp {
        /// Where from.
        address: SocketAddr,
        /// Whose process it is, where it is one of this host and the kernel tells.
        user: Option<User>,
    },
    /// Somebody on the network who has shown a certificate of our authority.
    Tls {
        /// Where from.
        address: SocketAddr,
        /// Whose certificate.
        identity: Identity,
    },
    /// A process on this host, as the kernel names it.
    Unix {
        /// User.
        user: User,
        /// Its groups: the process's own, and where `open_to_all` those that the user is in by `/etc/group`.
        groups: Vec<u32>,
        /// Process, where the kernel tells.
        pid: Option<i32>,
        /// Whether the socket's file lets everybody in, so that having come in says nothing.
        open_to_all: bool,
    },
}

/// A user of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Number.
    pub uid: u32,
    /// Its name, if this host has one for it.
    pub name: Option<String>,
}

impl User {
    /// The user of this number.
    pub(super) fn of(uid: u32) -> Self {
        Self { uid, name: super::user::name(uid) }
    }

    fn word(&self) -> &str {
        self.name.as_deref().unwrap_or("a user without a name")
    }
}

impl Peer {
    /// Its address, where it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp { address, .. } | Self::Tls { address, .. } => Some(address.ip()),
            Self::Unix { .. } => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, user: None } => write!(f, "{address}"),
            Self::Tcp { address, user: Some(user) } => {
                write!(f, "{} (uid {}) at {address}", user.word(), user.uid)
            }
            Self::Tls { address, identity } => write!(f, "{identity} at {address}"),
            Self::Unix { user, pid: None, .. } => write!(f, "{} (uid {})", user.word(), user.uid),
            Self::Unix { user, pid: Some(pid), .. } => {
                write!(f, "{} (uid {}, pid {pid})", user.word(), user.uid)
            }
        }
    }
}
