//! Which process libvirt is: our own where we embed it, otherwise the one that holds the other ends of its socket. What a
//! process calls itself is its owner's choice; that it answers on libvirt's socket is not.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, io};

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::unix::nlas::{Nla, UnixDiagName, Vfs};
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags, UnixRequest, UnixResponse};
use whydown_core::hypervisor::{Process, Server};

use crate::process::{SLACK, identify, ran_for, running_since};
use crate::sock_diag::{ANY, ask};

/// Libvirts that are remembered when others have followed them. What they did is read soon after.
const REMEMBERED: usize = 16;

/// It stands before others and sends on what it hears: it is no libvirt that runs VMs.
const PROXY: &str = "virtproxyd";

/// See the module page. Clones share what was seen.
#[derive(Debug, Clone, Default)]
pub struct LibvirtProcess {
    own_pid: Option<u32>,
    sockets: Arc<[PathBuf]>,
    seen: Arc<Mutex<Vec<Process>>>,
}

impl LibvirtProcess {
    /// It runs in this process, where `own_pid` is given; otherwise it answers on one of `sockets`.
    pub fn new(own_pid: Option<u32>, sockets: &[PathBuf]) -> Self {
        Self { own_pid, sockets: sockets.into(), seen: Arc::default() }
    }

    /// The process that embeds it, where one does.
    pub fn own_pid(&self) -> Option<u32> {
        self.own_pid
    }

    /// Sees who answers this process on libvirt's socket now, remembers that, and gives it with when it began. It must be
    /// connected. Reads all of `/proc`; where nothing is found, nothing is learned, and names have to do.
    ///
    /// # Errors
    /// The kernel's, where it does not tell of sockets.
    pub fn look(&self) -> io::Result<Option<Server>> {
        if self.sockets.is_empty() {
            return Ok(None);
        }
        let Some(process) = holder(&peers(&self.sockets)?) else { return Ok(None) };
        self.remember(process);
        Ok(running_since(process.pid).map(|since| Server { process, since }))
    }

    fn remember(&self, process: Process) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(&process) {
            seen.push(process);
            let too_many = seen.len().saturating_sub(REMEMBERED);
            seen.drain(..too_many);
        }
    }

    /// Whether it is known at all which process libvirt is, or was.
    pub fn is_known(&self) -> bool {
        self.own_pid.is_some() || !self.seen().is_empty()
    }

    /// Whether this process is, or was, libvirt.
    pub fn is(&self, pid: u32) -> bool {
        let running = identify(pid);
        let same = |known: &Process| known.pid == pid && running.is_none_or(|running| running == *known);
        self.own_pid == Some(pid) || self.seen().iter().any(same)
    }

    /// Whether another process than this was libvirt so long ago, beyond doubt: one that began a moment later is the one that
    /// came after it.
    pub(crate) fn was_another(&self, pid: u32, ago: Duration) -> bool {
        let surely = ago.saturating_add(SLACK * 2);
        self.seen().iter().any(|known| known.pid != pid && ran_for(*known, surely))
    }

    fn seen(&self) -> Vec<Process> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The inodes of the other ends of this process's connections to one of these sockets (`sock_diag(7)`).
fn peers(sockets: &[PathBuf]) -> io::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let files: Vec<Vfs> = sockets.iter().filter_map(|socket| file(socket)).collect();
    for inode in open_sockets(Path::new("/proc/self/fd")) {
        // One that was closed meanwhile has no number any more.
        let Some(peer) = unix(inode)?.and_then(|own| own.peer()).filter(|peer| *peer != 0) else { continue };
        let Some(other) = unix(peer)? else { continue };
        let at = |name: &UnixDiagName| match name {
            UnixDiagName::Pathname(path) => sockets.iter().any(|socket| socket.as_os_str() == path),
            UnixDiagName::Abstract(_) => false,
        };
        if other.name().is_some_and(at) || other.nlas.iter().any(|nla| is_one_of(nla, &files)) {
            found.insert(peer);
        }
    }
    Ok(found)
}

/// A socket's file as the kernel tells of it. One that listens in a file system of its own, as in a container, has another
/// name there than here, and is the same file.
fn file(socket: &Path) -> Option<Vfs> {
    let file = fs::metadata(socket).ok()?;
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    // The lower half of a number is all that is told, and devices as the kernel itself numbers them.
    let number = u32::try_from(file.ino() & u64::from(u32::MAX)).ok()?;
    let told = [number.to_ne_bytes(), (major << 20 | minor).to_ne_bytes()].concat();
    Vfs::parse(&told).ok()
}

fn is_one_of(told: &Nla, files: &[Vfs]) -> bool {
    matches!(told, Nla::Vfs(file) if files.contains(file))
}

/// What the kernel knows of the unix socket with this inode; `None` if it is none, or gone.
fn unix(inode: u32) -> io::Result<Option<UnixResponse>> {
    let request = UnixRequest {
        state_flags: StateFlags::all(),
        inode,
        show_flags: ShowFlags::NAME | ShowFlags::PEER | ShowFlags::VFS,
        cookie: ANY,
    };
    match ask(SockDiagMessage::UnixRequest(request))? {
        Some(SockDiagMessage::UnixResponse(found)) => Ok(Some(*found)),
        _ => Ok(None),
    }
}

/// The inodes of the sockets among these open files.
fn open_sockets(folder: &Path) -> Vec<u32> {
    let inode = |file: fs::DirEntry| {
        let target = fs::read_link(file.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(inode).collect()
}

/// The process that holds one of these sockets open.
fn holder(inodes: &BTreeSet<u32>) -> Option<Process> {
    if inodes.is_empty() {
        return None;
    }
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = pids.filter(|pid| *pid != std::process::id() && holds(*pid, inodes));
    found.find(|pid| !named(*pid, PROXY)).and_then(identify)
}

fn holds(pid: u32, inodes: &BTreeSet<u32>) -> bool {
    open_sockets(Path::new(&format!("/proc/{pid}/fd"))).iter().any(|inode| inodes.contains(inode))
}

fn named(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_socket_whose_other_end_is_closed_hides_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let server = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let left = UnixStream::connect(&socket).unwrap();
        drop(server.accept().unwrap());
        let client = UnixStream::connect(&socket).unwrap();
        let _other_end = server.accept().unwrap();
        assert_eq!(peers(std::slice::from_ref(&socket)).unwrap().len(), 1);
        drop((left, client));
    }

    #[test]
    fn a_socket_that_has_another_name_where_it_listens_is_known_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (there, here) = (folder.path().join("there"), folder.path().join("here"));
        let server = std::os::unix::net::UnixListener::bind(&there).unwrap();
        fs::hard_link(&there, &here).unwrap();
        let _client = UnixStream::connect(&here).unwrap();
        let _other_end = server.accept().unwrap();
        assert_eq!(peers(std::slice::from_ref(&here)).unwrap().len(), 1);
        let other = folder.path().join("other");
        let _other = std::os::unix::net::UnixListener::bind(&other).unwrap();
        assert_eq!(peers(std::slice::from_ref(&other)).unwrap().len(), 0);
    }

    #[test]
    fn who_answers_on_the_socket_is_libvirt_under_any_name_and_nobody_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let listens = "import socket, sys\n\
                       s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n\
                       print('ready', flush=True); c = s.accept()[0]; c.recv(1); print('there', flush=True); c.recv(1)";
        let mut server = Command::new("python3")
            .args(["-c", listens, socket.to_str().unwrap()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = std::io::BufReader::new(server.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();
        let mut client = UnixStream::connect(&socket).unwrap();
        client.write_all(b"x").unwrap();
        std::io::BufRead::read_line(&mut said, &mut line).unwrap();

        let other = LibvirtProcess::new(None, &[folder.path().join("other")]);
        other.look().unwrap();
        assert!(!other.is(server.id()) && !other.is_known(), "another socket's");
        let libvirt = LibvirtProcess::new(None, std::slice::from_ref(&socket));
        assert!(!libvirt.is(server.id()));
        let found = libvirt.look().unwrap().unwrap();
        assert_eq!(Some(found.process), identify(server.id()));
        assert!(libvirt.is(server.id()) && !libvirt.is(std::process::id()) && libvirt.is_known());
        assert!(!libvirt.was_another(std::process::id(), Duration::ZERO), "it began a moment ago");
        assert!(!libvirt.was_another(std::process::id(), Duration::from_secs(3600)), "it began later");
        libvirt.remember(identify(1).unwrap());
        assert!(libvirt.was_another(std::process::id(), Duration::ZERO));
        assert!(!libvirt.was_another(1, Duration::ZERO));
        server.kill().unwrap();
        server.wait().unwrap();
        // What it had sent may still be read. Whoever came after it is not known yet.
        assert!(libvirt.is(server.id()));
    }
}
