//! One daemon a ledger, whatever becomes of the folder meanwhile.
//!
//! Two things say so. A lock on a file in the folder, which another namespace of the network sees too. And a name that is
//! bound to no file, in the kernel's own space of socket names: a folder that was removed and made again has a new lock
//! file, which nobody holds, but it has the same name. The kernel lets both go when the process ends, however it ends.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tracing::warn;

use super::error::StartError;
use crate::files;

/// Bytes of a name that are used as they are; the kernel has room for 107.
const NAME_BYTES: usize = 90;

/// While this lives, no other daemon uses the folder.
#[derive(Debug)]
pub struct Alone {
    _lock: std::fs::File,
    _name: Option<UnixListener>,
}

impl Alone {
    /// In this folder, which must be there. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StartError::Locked`] if another daemon uses it.
    pub fn take(folder: &Path) -> Result<Self, StartError> {
        let path = folder.to_path_buf();
        let failed = |source| StartError::StateDir { path: path.clone(), source };
        let lock = files::create_plain(&folder.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => return Err(StartError::Locked { path }),
            Err(std::fs::TryLockError::Error(source)) => return Err(failed(source)),
        }
        let name = name(&folder.canonicalize().map_err(failed)?);
        let name = match bind(&name) {
            Ok(bound) => Some(bound),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => match holder(&name) {
                Ok(uid) if uid == 0 || uid == rustix::process::geteuid().as_raw() => {
                    return Err(StartError::Locked { path });
                }
                // Anybody may take a name. Whoever may not use the folder must not keep us from it.
                other => {
                    warn!(holder = ?other, "a stranger has taken the name of {}: the lock alone must do", path.display());
                    None
                }
            },
            Err(error) => {
                warn!(%error, "the name of {} cannot be taken: the lock alone must do", path.display());
                None
            }
        };
        Ok(Self { _lock: lock, _name: name })
    }
}

fn name(folder: &Path) -> PathBuf {
    let mut name = format!("\0whydown:{}", folder.display());
    if name.len() > NAME_BYTES {
        let mut hasher = DefaultHasher::new();
        folder.hash(&mut hasher);
        name = format!("\0whydown:{:016x}", hasher.finish());
    }
    name.into()
}

fn socket(name: &Path) -> io::Result<(Socket, SockAddr)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok((socket, SockAddr::unix(name)?))
}

fn bind(name: &Path) -> io::Result<UnixListener> {
    let (socket, address) = socket(name)?;
    socket.bind(&address)?;
    socket.listen(1)?;
    Ok(socket.into())
}

/// The user who has bound it, as the kernel says.
fn holder(name: &Path) -> io::Result<u32> {
    let (socket, address) = socket(name)?;
    socket.connect(&address)?;
    Ok(tokio::net::UnixStream::from_std(UnixStream::from(socket))?.peer_cred()?.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_was_made_again_is_still_taken() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("state");
        std::fs::create_dir(&folder).unwrap();
        let first = Alone::take(&folder).unwrap();
        assert!(matches!(Alone::take(&folder), Err(StartError::Locked { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
        std::fs::create_dir(&folder).unwrap();
        assert!(matches!(Alone::take(&folder), Err(StartError::Locked { .. })), "it has the same name");
        // By another way to it, too.
        let other = above.path().join("other");
        std::os::unix::fs::symlink(&folder, &other).unwrap();
        assert!(matches!(Alone::take(&other), Err(StartError::Locked { .. })));
        drop(first);
        Alone::take(&folder).unwrap();
    }

    #[test]
    fn a_long_name_is_short_and_its_own() {
        let long = |last: &str| name(Path::new(&format!("/{}/{last}", "x".repeat(200))));
        assert!(long("a").as_os_str().len() < NAME_BYTES);
        assert_ne!(long("a"), long("b"));
    }
}
