//! Who the sender of a signal is to us. A program's name is its owner's own choice, and only the best that there is: so no
//! name makes a process the host's init, which is process 1 alone, and one that calls itself a service manager and still
//! runs is asked for the file of its program.

use whydown_core::evidence::Sender;

/// The program that embeds libvirt where one does.
const EMBEDDER: &str = "whydownd";

/// The program of the service managers of users.
const MANAGER: &str = "systemd";

/// The name of the file of the program that a process runs; `None` if it is gone.
fn program_of(pid: u32) -> Option<String> {
    let file = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    file.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// Who this process is by the name that it gives itself: one that says that it is a service manager, and still runs, is
/// asked for its file.
pub(crate) fn claimed(pid: u32, program: &str, own_pid: Option<u32>) -> Sender {
    match sender(pid, program, own_pid) {
        Sender::Manager if program_of(pid).is_some_and(|file| file != MANAGER) => Sender::Outside,
        known => known,
    }
}

/// Who this process is; `program` may be a path. `own_pid` is the process that embeds libvirt, where one does.
pub(crate) fn sender(pid: u32, program: &str, own_pid: Option<u32>) -> Sender {
    let name = program.rsplit('/').next().unwrap_or_default();
    if own_pid == Some(pid) {
        return Sender::Libvirt;
    }
    match (pid, name) {
        (1, _) => Sender::Init,
        (_, MANAGER) => Sender::Manager,
        (_, "libvirtd" | "virtqemud") => Sender::Libvirt,
        // The process that embedded libvirt before this one, and has ended since.
        (_, EMBEDDER) if own_pid.is_some() => Sender::Libvirt,
        _ => Sender::Outside,
    }
}
