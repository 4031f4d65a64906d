//! Where clients come in: a TCP port with or without TLS, or a socket file on this host.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::unix::UCred;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::{AllowedHosts, Share, Tls, caller};

/// A place where clients come in.
#[derive(Debug)]
pub enum Listener {
    /// The network, in plain text, and what callers may name it.
    Tcp(TcpListener, AllowedHosts),
    /// The network, with TLS.
    Tls(TcpListener, Arc<Tls>),
    /// This host.
    Unix(UnixSocket),
}

/// A connection as accepted.
pub(super) enum Accepted {
    /// With the user, where it is one of this host.
    Tcp(TcpStream, SocketAddr, AllowedHosts, Option<u32>),
    Tls(TcpStream, SocketAddr, Arc<Tls>, Option<u32>),
    Unix(UnixStream, UCred, bool),
}

impl Accepted {
    /// The number of its file descriptor.
    pub(super) fn descriptor(&self) -> RawFd {
        match self {
            Self::Tcp(stream, ..) | Self::Tls(stream, ..) => stream.as_raw_fd(),
            Self::Unix(stream, ..) => stream.as_raw_fd(),
        }
    }

    /// Whose share of the places it takes.
    pub(super) fn share(&self) -> Share {
        match self {
            Self::Tcp(_, _, _, Some(uid)) | Self::Tls(_, _, _, Some(uid)) => Share::User(*uid),
            Self::Tcp(_, address, ..) | Self::Tls(_, address, ..) => Share::of_address(address.ip()),
            Self::Unix(_, who, _) => Share::User(who.uid()),
        }
    }
}

impl Listener {
    /// Waits for the next connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener, hosts) => {
                let (stream, address) = accept_tcp(listener).await?;
                let uid = user_of(&stream, address);
                Ok(Accepted::Tcp(stream, address, *hosts, uid))
            }
            Self::Tls(listener, tls) => {
                let (stream, address) = accept_tcp(listener).await?;
                let uid = user_of(&stream, address);
                Ok(Accepted::Tls(stream, address, Arc::clone(tls), uid))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener.accept().await?;
                let who = stream.peer_cred()?;
                Ok(Accepted::Unix(stream, who, socket.is_open_to_all()))
            }
        }
    }

    /// Looks after it: a socket file that was taken away is made again.
    pub(super) fn look(&mut self) {
        if let Self::Unix(socket) = self {
            socket.look();
        }
    }
}

/// Who on this host is at the other end of a connection by TCP; nobody, where it comes from another.
fn user_of(stream: &TcpStream, address: SocketAddr) -> Option<u32> {
    let own = stream.local_addr().ok()?;
    let own = SocketAddr::new(own.ip().to_canonical(), own.port());
    let is_here = address.ip().is_loopback() || address.ip() == own.ip();
    is_here.then(|| caller::uid(address, own)).flatten()
}

/// Bytes that the kernel takes of an answer before the client has room for them. By its own measure it would be
/// megabytes of each, and on the account of our memory.
const UNSENT: u32 = 256 << 10;

/// The address is an IPv4 one where the client is, also on a socket for both.
async fn accept_tcp(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, address) = listener.accept().await?;
    // Without it, the last piece of a long answer waits for an acknowledgement: 40 ms a poll.
    stream.set_nodelay(true)?;
    socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT)?;
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
    file: Home,
    /// What is wrong with the file was said.
    said: bool,
}

/// Whose the socket's file is.
#[derive(Debug)]
enum Home {
    /// Ours, with the permissions that it has.
    Ours(SocketFile, u32),
    /// Somebody else made it, such as systemd; where it was, if that could be seen.
    Theirs(Option<Mark>),
}

/// What stands at a path. The inode alone would be that of the next file, too.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    path: PathBuf,
    device: u64,
    inode: u64,
    born: Option<std::time::SystemTime>,
}

impl Mark {
    fn of(path: &Path) -> io::Result<Self> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(Self { path: path.into(), device: meta.dev(), inode: meta.ino(), born: meta.created().ok() })
    }

    fn is_there(&self) -> bool {
        Self::of(&self.path).is_ok_and(|found| found == *self)
    }
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
        let file = Home::Ours(file, mode);
        Ok(Self { listener, open_to_all: mode & OTHERS_WRITE != 0, file, said: false })
    }

    /// A socket that somebody else made, such as systemd; its file is theirs, and so are its permissions. Where they
    /// cannot be looked at, it counts as open to all.
    pub fn inherited(listener: UnixListener) -> Self {
        let path = listener.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_path_buf));
        let mode = path.as_ref().and_then(|path| Some(std::fs::metadata(path).ok()?.mode()));
        let open_to_all = mode.is_none_or(|mode| mode & OTHERS_WRITE != 0);
        let file = Home::Theirs(path.and_then(|path| Mark::of(&path).ok()));
        Self { listener, open_to_all, file, said: false }
    }

    /// Whether its file lets everybody in: as it was made, or by what somebody has made of its permissions since.
    fn is_open_to_all(&self) -> bool {
        let (Home::Ours(SocketFile(mark), _) | Home::Theirs(Some(mark))) = &self.file else {
            return self.open_to_all;
        };
        let now = std::fs::symlink_metadata(&mark.path);
        self.open_to_all || now.is_ok_and(|now| now.mode() & OTHERS_WRITE != 0)
    }

    /// Nobody finds a socket whose file was taken away. Ours is made again, unless another listens there now; one of
    /// systemd's only systemd can make again.
    fn look(&mut self) {
        let (mark, mode) = match &self.file {
            Home::Ours(SocketFile(mark), mode) => (mark, Some(*mode)),
            Home::Theirs(Some(mark)) => (mark, None),
            Home::Theirs(None) => return,
        };
        if mark.is_there() {
            self.said = false;
            return;
        }
        let path = mark.path.clone();
        let made = mode.map(|mode| {
            if let Some(folder) = path.parent() {
                let _ = std::fs::create_dir_all(folder);
            }
            Self::bind(&path, mode)
        });
        let said = std::mem::replace(&mut self.said, true);
        match made {
            Some(Ok(made)) => {
                tracing::warn!(path = %path.display(), "the socket file was taken away: it is made again");
                // The file of before is not there any more; what may have its number now is not removed.
                let mut before = std::mem::replace(self, made);
                before.file = Home::Theirs(None);
            }
            Some(Err(error)) if !said => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the socket file was taken away, and cannot be made again"
                );
            }
            None if !said => tracing::error!(
                path = %path.display(), "the socket file was taken away: whoever made it, such as a unit of systemd, must make it again"
            ),
            _ => {}
        }
    }
}

fn place(made: &Path, path: &Path, mode: u32) -> io::Result<SocketFile> {
    std::fs::set_permissions(made, std::fs::Permissions::from_mode(mode))?;
    std::fs::rename(made, path)?;
    Ok(SocketFile(Mark::of(path)?))
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
struct SocketFile(Mark);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.0.is_there()
            && let Err(error) = std::fs::remove_file(&self.0.path)
        {
            tracing::warn!(path = %self.0.path.display(), %error, "the socket file stays behind");
        }
    }
}
