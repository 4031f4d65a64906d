//! Who may read, and who may act.
//!
//! | came by | may read | may act |
//! |---|---|---|
//! | Unix socket | everything | yes: root and the group, as the file's permissions say; where the file is open to all, whoever the kernel names as root, the daemon's user or group, or `socket.users` |
//! | TLS | every certificate of the authority, or `tls.readers` | `tls.actors` |
//! | plain TCP, and others at an open Unix socket | what is no secret | no |
//! | plain TCP, `xmlrpc.plain_may_act` | everything | yes |
//!
//! It judges names and numbers only; whether they are genuine was the handshake's business, or the kernel's. Over TCP the
//! kernel names a user as well, and that is no right: it is told to people only.

use std::path::PathBuf;
use std::sync::Arc;

use whydown_core::lifecycle::Wanted;
use whydown_core::operation::{Operation, OperationKind};
use whydown_wire::{Needs, Verb};

use super::visibility::Visibility;
use super::{Identity, Peer, User};
use crate::config::Settings;
use crate::daemon::refusals::Refusals;

/// Stands for every certificate of the authority.
const EVERYBODY: &str = "*";

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want<'a> {
    /// To be told something, as far as they may be.
    Read,
    /// To be told something that is secret as a whole; its name.
    Secret(&'static str),
    /// To have something done with a VM.
    Operate {
        /// What.
        kind: OperationKind,
        /// The name under which whoever wants it knows it.
        called: &'a str,
    },
}

/// Somebody may not do what they want.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{who} may not {what}: {why}")]
pub struct Denied {
    who: String,
    what: String,
    why: String,
}

/// See the module page.
#[derive(Debug)]
pub struct Rights {
    readers: Vec<String>,
    actors: Vec<String>,
    plain_may_act: bool,
    refusals: Arc<Refusals>,
    socket: PathBuf,
    /// Numbers of the users that may act through the socket.
    users: Vec<u32>,
    /// The group that may.
    group: u32,
}

impl<'a> Want<'a> {
    /// What a verb is, which was called by this name.
    pub const fn of(verb: &Verb, called: &'a str) -> Self {
        match verb.needs() {
            Needs::Plain => Self::Read,
            Needs::Secret(what) => Self::Secret(what),
            Needs::Operation(kind) => Self::Operate { kind, called },
        }
    }
}

impl Rights {
    /// As configured. Users that this host does not know are named in the log, and have no rights.
    pub fn new(settings: &Settings, refusals: Arc<Refusals>) -> Self {
        let known = |name: &String| {
            let uid = super::uid(name);
            if uid.is_none() {
                tracing::warn!("socket.users: there is no user {name:?} in /etc/passwd: give the number");
            }
            uid
        };
        let mut users: Vec<u32> = settings.socket.users.iter().filter_map(known).collect();
        users.extend([0, rustix::process::geteuid().as_raw()]);
        Self {
            readers: settings.tls.readers.clone(),
            actors: settings.tls.actors.clone(),
            plain_may_act: settings.xmlrpc.plain_may_act,
            refusals,
            socket: settings.socket.path.clone(),
            users,
            group: rustix::process::getegid().as_raw(),
        }
    }

    /// How much this peer may be told, if it may do that.
    ///
    /// # Errors
    /// [`Denied`] says who, what and by which key.
    pub fn check(&self, peer: &Peer, want: Want<'_>) -> Result<Visibility, Denied> {
        let why = match (peer, want) {
            (Peer::Unix { user, groups, open_to_all, .. }, _) if !open_to_all || self.knows(user, groups) => {
                return Ok(Visibility::Full);
            }
            (Peer::Tcp { .. }, _) if self.plain_may_act => return Ok(Visibility::Full),
            (Peer::Tcp { .. } | Peer::Unix { .. }, Want::Read) => return Ok(Visibility::Public),
            (Peer::Unix { .. }, _) => {
                "this user is neither root, nor in the daemon's group, nor in socket.users".to_owned()
            }
            (Peer::Tcp { .. }, _) => format!(
                "it came over TCP without TLS; use the Unix socket {}, or TLS with a name of tls.actors, or set \
                 xmlrpc.plain_may_act = true, which lets everybody who reaches this port end VMs",
                self.socket.display()
            ),
            (Peer::Tls { identity, .. }, _) if among(&self.actors, identity) => return Ok(Visibility::Full),
            (Peer::Tls { .. }, Want::Operate { .. }) => {
                "none of its certificate's names is in tls.actors".to_owned()
            }
            (Peer::Tls { identity, .. }, Want::Read | Want::Secret(_)) => {
                if self.readers.is_empty() || among(&self.readers, identity) {
                    return Ok(Visibility::Full);
                }
                "none of its certificate's names is in tls.readers or tls.actors".to_owned()
            }
        };
        let what = match want {
            Want::Read => "read",
            Want::Secret(what) => what,
            Want::Operate { called, .. } => called,
        };
        let what = what.to_owned();
        let denied = Denied { who: peer.to_string(), what, why };
        if matches!(peer, Peer::Tcp { .. }) {
            self.refusals.add(&denied.who, &denied.what);
        }
        Err(denied)
    }

    fn knows(&self, user: &User, groups: &[u32]) -> bool {
        self.users.contains(&user.uid) || groups.contains(&self.group)
    }
}

/// What somebody wants done, for the log.
pub fn told_of(what: &Wanted) -> String {
    match what {
        Wanted::Shutdown { domain, again: false, .. } => format!("the shutdown of {domain}"),
        Wanted::Shutdown { domain, again: true, .. } => format!("the restart of {domain}"),
        Wanted::Do { domain, act: Operation::Create { .. } } => format!("the start of {domain}"),
        Wanted::Do { domain, act: Operation::Destroy } => format!("the end of {domain}"),
        Wanted::Do { domain, act } => format!("{:?} of {domain}", act.kind()),
    }
}

fn among(names: &[String], identity: &Identity) -> bool {
    names.iter().any(|name| name == EVERYBODY || identity.is(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESTROY: Want<'_> = Want::Operate { kind: OperationKind::Destroy, called: "destroy" };

    fn rights(plain_may_act: bool) -> Rights {
        Rights {
            readers: Vec::new(),
            actors: Vec::new(),
            plain_may_act,
            refusals: Arc::default(),
            socket: "/s".into(),
            users: vec![0, 33],
            group: 998,
        }
    }

    fn unix(uid: u32, groups: &[u32], open_to_all: bool) -> Peer {
        Peer::Unix { user: User { uid, name: None }, groups: groups.into(), pid: None, open_to_all }
    }

    #[test]
    fn at_an_open_socket_root_the_group_and_named_users_act_and_others_read_what_is_no_secret() {
        let rights = rights(false);
        for (uid, groups, may) in [
            (0, &[0][..], true),
            (33, &[33], true),
            (1000, &[1000, 998], true),
            (1000, &[998], true),
            (1000, &[1000], false),
            (65534, &[0], false),
        ] {
            let open = unix(uid, groups, true);
            assert_eq!(rights.check(&open, DESTROY).is_ok(), may, "{uid} {groups:?}");
            let visibility = if may { Visibility::Full } else { Visibility::Public };
            assert_eq!(rights.check(&open, Want::Read), Ok(visibility));
            // Where the file's permissions say who comes in, they have.
            assert_eq!(rights.check(&unix(uid, groups, false), DESTROY), Ok(Visibility::Full));
        }
    }

    #[test]
    fn whoever_the_kernel_names_over_tcp_root_too_may_no_more_than_anybody() {
        let root = Some(User { uid: 0, name: Some("root".into()) });
        for user in [None, root] {
            let peer = Peer::Tcp { address: "127.0.0.1:1".parse().expect("an address"), user };
            assert_eq!(rights(false).check(&peer, Want::Read), Ok(Visibility::Public));
            assert!(rights(false).check(&peer, Want::Secret("x")).is_err());
            let denied = rights(false).check(&peer, DESTROY).expect_err("no").to_string();
            for word in ["127.0.0.1:1 may not destroy", "xmlrpc.plain_may_act = true", "/s", "tls.actors"] {
                assert!(denied.contains(word), "{denied}");
            }
            assert_eq!(rights(true).check(&peer, DESTROY), Ok(Visibility::Full));
        }
    }
}
