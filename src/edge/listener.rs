//! Where clients come in: a TCP port with or without TLS, or a socket file on this host.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::unix::UCred;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{Hosts, Tls};

/// A place where clients come in.
#[derive(Debug)]
pub enum Listener {
    /// The network, in plain text, and what callers may name it.
    Tcp(TcpListener, Hosts),
    /// The network, with TLS.
    Tls(TcpListener, Arc<Tls>),
    /// This host.
    Unix(UnixSocket),
}

/// A connection as accepted.
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr, Hosts),
    Tls(TcpStream, SocketAddr, Arc<Tls>),
    Unix(UnixStream, UCred, bool),
}

impl Listener {
    /// Waits for the next connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, hosts) => {
                let (stream, address) = accept_tcp(listener).await?;
                Ok(Accepted::Tcp(stream, address, *hosts))
            }
            Self::Tls(listener, tls) => {
                let (stream, address) = accept_tcp(listener).await?;
                Ok(Accepted::Tls(stream, address, Arc::clone(tls)))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                let who = stream.peer_cred()?;
                Ok(Accepted::Unix(stream, who, socket.open_to_all))
            }
        }
    }
}

/// The address is an IPv4 one where the client is, also on a socket for both.
async fn accept_tcp(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept().await?;
    // Without it, the last piece of a long answer waits for an acknowledgement: 40 ms a poll.
    stream.set_nodelay(true)?;
    Ok((stream, SocketAddr::new(address.ip().to_canonical(), address.port())))
}

/// The permission by which others may connect.
const OTHERS_WRITE: u32 = 0o002;

/// A listening unix socket. The file that it made is removed when it is dropped.
#[derive(Debug)]
pub struct UnixSocket {
    listener: UnixListener,
    /// Whether its file lets everybody in.
    open_to_all: bool,
    _file: Option<SocketFile>,
}

/// Why a socket file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there.
    #[error("{0}: another process listens there")]
    InUse(PathBuf),
    /// Something that is no socket lies there; it is left alone.
    #[error("{0}: exists and is not a socket")]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("{path}: cannot {doing}")]
    System {
        /// The file.
        path: PathBuf,
        /// What could not be done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl UnixSocket {
    /// Makes the socket file `path` with permissions `mode`. A file that was left behind is replaced, if nobody
    /// listens on it. Needs a tokio runtime.
    ///
    /// The file is made under another name, given its mode and then moved into place: at no moment can somebody
    /// connect who may not.
    ///
    /// # Errors
    /// [`BindError`], with the file's name.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, BindError> {
        check_free(path)?;
        let fail = |doing| move |source| BindError::System { path: path.into(), doing, source };
        let made = path.with_file_name(format!(".whydown-{}", std::process::id()));
        let _ = std::fs::remove_file(&made);
        let listener = std::os::unix::net::UnixListener::bind(&made).map_err(fail("make the socket"))?;
        let file = place(&made, path, mode).inspect_err(|_| drop(std::fs::remove_file(&made)));
        let file = file.map_err(fail("put the socket into place"))?;
        listener.set_nonblocking(true).map_err(fail("set the socket up"))?;
        let listener = UnixListener::from_std(listener).map_err(fail("set the socket up"))?;
        Ok(Self { listener, open_to_all: mode & OTHERS_WRITE != 0, _file: Some(file) })
    }

    /// A socket that somebody else made, such as systemd; its file is theirs, and so are its permissions. Where they
    /// cannot be looked at, it counts as open to all.
    pub fn inherited(listener: UnixListener) -> Self {
        let path = listener.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_path_buf));
        let mode = path.and_then(|path| Some(std::fs::metadata(path).ok()?.mode()));
        let open_to_all = mode.is_none_or(|mode| mode & OTHERS_WRITE != 0);
        Self { listener, open_to_all, _file: None }
    }
}

fn place(made: &Path, path: &Path, mode: u32) -> io::Result<SocketFile> {
    std::fs::set_permissions(made, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(made, path)?;
    let meta = std::fs::symlink_metadata(path)?;
    Ok(SocketFile { path: path.into(), device: meta.dev(), inode: meta.ino() })
}

/// Whether `path` may be taken: nothing is there, or a socket that nobody listens on.
fn check_free(path: &Path) -> Result<(), BindError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(BindError::System { path: path.into(), doing: "look at it", source }),
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NotASocket(path.into())),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        _ => Err(BindError::InUse(path.into())),
    }
}

/// A socket file of ours; removed with us, unless another has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |meta: std::fs::Metadata| meta.dev() == self.device && meta.ino() == self.inode;
        if std::fs::symlink_metadata(&self.path).is_ok_and(ours)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket file stays behind");
        }
    }
}
