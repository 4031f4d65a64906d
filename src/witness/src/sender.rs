//! Who the sender of a signal is to us. A program's name is its owner's own choice, and only the best that there is: so no
//! name makes a process the host's init, which is process 1 alone, and one that calls itself libvirt or a service manager
//! and still runs is asked for the file of its program, which nobody can choose without the right to write it.

use std::time::Duration;

use whydown_core::evidence::Sender;

use crate::libvirt::LibvirtProcess;
use crate::process::{identify, ran_for};

/// The program that embeds libvirt where one does.
const EMBEDDER: &str = "whydownd";

/// The program of the service managers of users.
const MANAGER: &str = "systemd";

/// The name of the file of the program that a process has run for at least so long; `None` if it is gone, or another has
/// its number since. A file that was replaced meanwhile is marked by the kernel, and is the same program.
fn program_of(pid: u32, for_so_long: Duration) -> Option<String> {
    identify(pid).filter(|process| ran_for(*process, for_so_long))?;
    let file = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = file.file_name()?.to_string_lossy().into_owned();
    Some(name.strip_suffix(" (deleted)").map_or_else(|| name.clone(), str::to_owned))
}

/// Who this process is by the name that it gave itself so long ago: one that says that it is libvirt or a service manager,
/// and still runs, is asked for its file. Where it is known that another process was libvirt then, it was none.
pub(crate) fn claimed(pid: u32, program: &str, libvirt: &LibvirtProcess, ago: Duration) -> Sender {
    let by_name = sender(pid, program, libvirt);
    if libvirt.is(pid) || !matches!(by_name, Sender::Libvirt | Sender::Manager) {
        return by_name;
    }
    if by_name == Sender::Libvirt && libvirt.was_another(pid, ago) {
        return Sender::Outside;
    }
    match program_of(pid, ago) {
        Some(file) if sender(pid, &file, libvirt) != by_name => Sender::Outside,
        _ => by_name,
    }
}

/// Who this process is; `program` may be a path.
pub(crate) fn sender(pid: u32, program: &str, libvirt: &LibvirtProcess) -> Sender {
    let name = program.rsplit('/').next().unwrap_or_default();
    if libvirt.is(pid) {
        return Sender::Libvirt;
    }
    match (pid, name) {
        (1, _) => Sender::Init,
        (_, MANAGER) => Sender::Manager,
        (_, "libvirtd" | "virtqemud") => Sender::Libvirt,
        // The process that embedded libvirt before this one, and has ended since.
        (_, EMBEDDER) if libvirt.own_pid().is_some() => Sender::Libvirt,
        _ => Sender::Outside,
    }
}
