//! Sockets to listen at: made here, or made by systemd and handed over.
//!
//! The configuration alone says what a socket is for. systemd only holds it, so that callers wait instead of being
//! refused while the daemon starts again.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens at a TCP address. `[::]` listens for IPv4 too, whatever the host's setting is, unless `alone`: then another
/// socket has that part.
///
/// # Errors
/// Those of the system.
pub fn bind(address: SocketAddr, alone: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait until the old connections are forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(alone || address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Listening sockets that were handed over when the process was started.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<(SocketAddr, TcpListener)>,
    unix: Vec<(PathBuf, UnixListener)>,
    strange: Vec<String>,
}

impl Inherited {
    /// Takes over what systemd passed (`LISTEN_FDS`). To be called once, while the process has one thread: it also
    /// takes the variables away, so that no child mistakes them for its own.
    pub fn from_environment() -> Self {
        let mut passed = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..passed.len() {
            if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
                match listener.local_addr() {
                    Ok(address) if ready(&listener) => inherited.tcp.push((address, listener)),
                    _ => inherited.strange.push(format!("socket {index}, which does not listen")),
                }
            } else if let Ok(Some(listener)) = passed.take_unix_listener(index) {
                let path = listener.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_path_buf));
                match path {
                    Some(path) if ready(&listener) => inherited.unix.push((path, listener)),
                    _ => inherited
                        .strange
                        .push(format!("socket {index}, which has no path or does not listen")),
                }
            } else {
                inherited.strange.push(format!("socket {index}, which is neither TCP nor a Unix stream"));
            }
        }
        inherited
    }

    /// The socket at this address, once.
    pub fn tcp(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let at = self.tcp.iter().position(|(held, _)| *held == address)?;
        Some(self.tcp.swap_remove(at).1)
    }

    /// The socket at this path, once.
    pub fn unix(&mut self, path: &Path) -> Option<UnixListener> {
        let at = self.unix.iter().position(|(held, _)| held == path)?;
        Some(self.unix.swap_remove(at).1)
    }

    /// What nobody took: callers would wait there for ever.
    pub fn left(&self) -> Vec<String> {
        let tcp = self.tcp.iter().map(|(address, _)| address.to_string());
        let unix = self.unix.iter().map(|(path, _)| path.display().to_string());
        tcp.chain(unix).chain(self.strange.iter().cloned()).collect()
    }
}

/// systemd's sockets block, unless told otherwise; ours must not.
fn ready<S: std::os::fd::AsFd>(socket: &S) -> bool {
    let socket = SockRef::from(socket);
    socket.is_listener().unwrap_or(false) && socket.set_nonblocking(true).is_ok()
}
