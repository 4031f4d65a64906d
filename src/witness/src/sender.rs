//! Who the sender of a signal is to us. A program's name is its owner's own choice, and only the best that there is.

use whydown_core::evidence::Sender;

/// The program that embeds libvirt where one does.
const EMBEDDER: &str = "whydownd";

/// Who this process is; `program` may be a path. `own_pid` is the process that embeds libvirt, where one does.
pub(crate) fn sender(pid: u32, program: &str, own_pid: Option<u32>) -> Sender {
    let name = program.rsplit('/').next().unwrap_or_default();
    if own_pid == Some(pid) {
        return Sender::Libvirt;
    }
    match (pid, name) {
        // The last one as the kernel cuts it.
        (1, _) | (_, "systemd" | "init" | "systemd-shutdown" | "systemd-shutdow") => Sender::Init,
        (_, "libvirtd" | "virtqemud") => Sender::Libvirt,
        // The process that embedded libvirt before this one, and has ended since.
        (_, EMBEDDER) if own_pid.is_some() => Sender::Libvirt,
        _ => Sender::Outside,
    }
}
