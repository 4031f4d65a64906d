//! Which process libvirt is: our own where we embed it, otherwise the one that holds the other ends of its socket. What a
//! process calls itself is its owner's choice; that it answers on libvirt's socket is not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use whydown_core::hypervisor::Process;

use crate::process::{identify, ran_for};

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

    /// Sees who answers on its socket now, and remembers that. Somebody must be connected. Reads all of `/proc`; where that
    /// shows nothing, nothing is learned, and names have to do.
    pub fn look(&self) {
        let wanted = connected(&fs::read_to_string("/proc/net/unix").unwrap_or_default(), &self.sockets);
        if let Some(process) = holder(&wanted) {
            self.remember(process);
        }
    }

    fn remember(&self, process: Process) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.contains(&process) {
            seen.push(process);
            let too_many = seen.len().saturating_sub(REMEMBERED);
            seen.drain(..too_many);
        }
    }

    /// Whether this process is, or was, libvirt.
    pub(crate) fn is(&self, pid: u32) -> bool {
        let running = identify(pid);
        let same = |known: &Process| known.pid == pid && running.is_none_or(|running| running == *known);
        self.own_pid == Some(pid) || self.seen().iter().any(same)
    }

    /// Whether another process than this was libvirt so long ago.
    pub(crate) fn was_another(&self, pid: u32, ago: Duration) -> bool {
        self.seen().iter().any(|known| known.pid != pid && ran_for(*known, ago))
    }

    fn seen(&self) -> Vec<Process> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The inodes of the ends of connections to one of these sockets on the side of who listens there, as `/proc/net/unix` lists
/// them: `Num RefCount Protocol Flags Type St Inode Path`.
fn connected(listed: &str, sockets: &[PathBuf]) -> BTreeSet<String> {
    const CONNECTED: &str = "03";
    let of_it = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(5);
        let (state, inode, path) = (fields.next()?, fields.next()?, fields.next()?);
        (state == CONNECTED && sockets.iter().any(|socket| socket == Path::new(path)))
            .then(|| inode.to_owned())
    };
    listed.lines().filter_map(of_it).collect()
}

/// The process that holds one of these sockets open.
fn holder(inodes: &BTreeSet<String>) -> Option<Process> {
    if inodes.is_empty() {
        return None;
    }
    let pids = fs::read_dir("/proc").ok()?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found = pids.filter(|pid| *pid != std::process::id() && holds(*pid, inodes));
    found.find(|pid| !named(*pid, PROXY)).and_then(identify)
}

fn holds(pid: u32, inodes: &BTreeSet<String>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.contains(inode))
    })
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
    fn only_connections_to_its_socket_on_its_side_count() {
        let listed = "Num       RefCount Protocol Flags    Type St Inode Path\n\
                      0000000000000000: 00000002 00000000 00010000 0001 01 100 /run/libvirt/libvirt-sock\n\
                      0000000000000000: 00000003 00000000 00000000 0001 03 101 /run/libvirt/libvirt-sock\n\
                      0000000000000000: 00000003 00000000 00000000 0001 03 102\n\
                      0000000000000000: 00000003 00000000 00000000 0001 03 103 /run/libvirt/libvirt-sock-ro\n\
                      broken\n";
        let sockets = [PathBuf::from("/run/libvirt/libvirt-sock")];
        assert_eq!(connected(listed, &sockets), BTreeSet::from(["101".to_owned()]));
        assert!(connected(listed, &[]).is_empty());
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

        let libvirt = LibvirtProcess::new(None, std::slice::from_ref(&socket));
        assert!(!libvirt.is(server.id()));
        libvirt.look();
        assert!(libvirt.is(server.id()) && !libvirt.is(std::process::id()));
        assert!(libvirt.was_another(std::process::id(), Duration::ZERO));
        assert!(!libvirt.was_another(server.id(), Duration::ZERO));
        assert!(!libvirt.was_another(std::process::id(), Duration::from_secs(3600)), "it began later");
        server.kill().unwrap();
        server.wait().unwrap();
        // What it had sent may still be read. Whoever came after it is not known yet.
        assert!(libvirt.is(server.id()) && !libvirt.was_another(1, Duration::ZERO));
    }
}
