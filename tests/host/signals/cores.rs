//! A kernel that takes its time over writing down the memory of a QEMU that a fault ends.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::{Child, Command, Stdio};

use rustix::fs::OFlags;
use whydown_lab::{Result, Signal, wait_until};

use crate::signals::tracing_host;
use whydown_lab::host::{PATIENCE, says, told};

const PATTERN: &str = "/proc/sys/kernel/core_pattern";

/// The kernel's pattern, of which it has one for all; put back at the end, also of a test that is killed.
struct Cores(Child);

impl Cores {
    fn go_to(pattern: &str) -> Self {
        let before = std::fs::read_to_string(PATTERN).expect("the kernel has one");
        let script = "trap '' INT TERM HUP; cat >/dev/null; printf %s \"$1\" >\"$2\"";
        let back = Command::new("sh")
            .args(["-c", script, "core-guard", before.trim_end(), PATTERN])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("it runs");
        std::fs::write(PATTERN, pattern).expect("root may set it");
        Self(back)
    }
}

impl Drop for Cores {
    fn drop(&mut self) {
        // Waiting closes the pipe first, and then it is put back.
        let _ = self.0.wait();
    }
}

#[test]
fn a_core_that_a_program_takes_slowly_hides_neither_the_sender_nor_the_program() -> Result<()> {
    let host = tracing_host("slow")?;
    let guest = host.guest("slow")?;
    let at = |name: &str| host.folder.path().join(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, at("go"), rustix::fs::Mode::RWXU).expect("made");
    // The kernel waits until all is read, which begins when it is told to.
    let script = format!("#!/bin/sh\nread go <{}\ncat >/dev/null\n", at("go").display());
    std::fs::write(at("take"), script).expect("written");
    std::fs::set_permissions(at("take"), std::fs::Permissions::from_mode(0o755)).expect("set");
    let _cores = Cores::go_to(&format!("|{} %P", at("take").display()));
    let _line = host.up(&guest)?;
    host.libvirtd.qemu("slow")?.signal(Signal::SEGV)?;
    // It can be opened when the other side is open: the program was begun, and QEMU is being written down. The kernel looks for
    // the program in the machine's own root, and so never finds it where this runs in another.
    let open =
        || File::options().write(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(at("go")).ok();
    let mut go = None;
    wait_until(
        "the kernel has begun the program that takes the core (not where /tmp is another's)",
        PATIENCE,
        || {
            go = open();
            go.is_some()
        },
    );
    go.expect("it is open").write_all(b"go\n").expect("the program reads");
    let ending = host.check(&guest, &told("process-terminated", 1, 11), "certain")?;
    let me = std::process::id();
    assert!(says(&ending["because"], &format!("SIGSEGV from process {me}, ")), "{ending:#}");
    let words = format!("to \"{}\"", at("take").display());
    assert!(says(&ending["evidence"], &words), "{ending:#}");
    Ok(())
}
