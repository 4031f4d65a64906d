//! The emulator is not QEMU's own program: a script that runs QEMU as its child, or one that lets its start fail. And a guest
//! that ends QEMU by a device for that.

use anyhow::{Context, Result};
use whydown_lab::{Guest, MemoryGroup};

use super::{certain, probable};
use crate::case::{Case, PERSISTENT, Venue};
use crate::scene::Scene;

/// What QEMU may have while it starts: less than it needs to begin.
const START_BYTES: u64 = 4 << 20;

/// The endings of the scripts' names beside the guest's image; the lab writes those that a document names.
pub(crate) const SCRIPTS: [(&str, &str); 5] = [
    // QEMU with a library of the lab's own before its others.
    (
        super::internal::EMULATOR,
        "#!/bin/sh\ncase \" $* \" in *' -uuid '*) export LD_PRELOAD=\"$0.so\" ;; esac\n\
         exec /usr/bin/qemu-system-x86_64 \"$@\"\n",
    ),
    ("wrapper", "#!/bin/sh\n/usr/bin/qemu-system-x86_64 \"$@\"\n"),
    // One that ends its QEMU when it is ended itself. With the other QEMU lives on, and libvirt waits for its monitor.
    (
        "relay",
        "#!/bin/sh\n/usr/bin/qemu-system-x86_64 \"$@\" &\nqemu=$!\ntrap 'kill $qemu' TERM\nwait $qemu\nstatus=$?\n\
         while kill -0 $qemu 2>/dev/null; do wait $qemu; status=$?; done\nexit $status\n",
    ),
    // libvirt also asks it what it can; only a machine goes into the group.
    (
        "starved",
        "#!/bin/sh\ncase \" $* \" in *' -uuid '*) echo $$ >\"$(cat \"$0.group\")\" ;; esac\n\
         exec /usr/bin/qemu-system-x86_64 \"$@\"\n",
    ),
    // A filter as QEMU's sandbox has one, which forbids eventfd2: QEMU needs it to start.
    (
        "forbidden",
        "#!/usr/bin/python3\nimport ctypes, os, struct, sys\nif '-uuid' in sys.argv:\n    \
         code = [(0x20, 0, 0, 0), (0x15, 0, 1, 290), (6, 0, 0, 0x80000000), (6, 0, 0, 0x7fff0000)]\n    \
         program = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *line) for line in code))\n    \
         head = struct.pack('HxxxxxxQ', len(code), ctypes.addressof(program))\n    \
         libc = ctypes.CDLL(None)\n    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, head) == 0\n\
         os.execv('/usr/bin/qemu-system-x86_64', sys.argv)\n",
    ),
];

fn emulator(guest: Guest, ending: &str) -> Guest {
    let path = guest.image_path().with_extension(ending);
    guest.device_xml(&format!("<emulator>{}</emulator>\n", path.display()))
}

fn wrapper(guest: Guest) -> Guest {
    emulator(guest, "wrapper")
}

pub(super) fn cases() -> Vec<Case> {
    let below = |name: &str, what: &str, act, expect| Case::new(name, what, act, expect).guest(wrapper);
    vec![
        below(
            "wrapped-sigkill",
            "the emulator is a script with QEMU as its child, which gets SIGKILL",
            |scene| signal_child(scene, "-KILL"),
            |_| probable("process-killed"),
        )
        .because("QEMU itself was killed by signal 9")
        .quick(),
        below(
            "wrapped-sigsegv",
            "the emulator is a script with QEMU as its child, which gets SIGSEGV",
            |scene| signal_child(scene, "-SEGV"),
            |_| probable("qemu-crashed"),
        )
        .also("process-terminated")
        .because("QEMU itself was killed by signal 11"),
        below(
            "wrapped-sigsegv-traced",
            "the emulator is a script with QEMU as its child, which gets SIGSEGV, where signals are traced",
            |scene| signal_child(scene, "-SEGV"),
            |_| certain("process-terminated"),
        )
        .because(", \"kill\": somebody on the host")
        .at(Venue::Traced),
        below(
            "wrapped-poweroff",
            "the emulator is a script with QEMU as its child, and the guest powers off",
            |scene| Ok(scene.serial()?.power_off()?),
            |_| certain("guest-poweroff"),
        )
        .guest(|guest| emulator(guest, "relay"))
        .only(PERSISTENT),
        below(
            "wrapped-destroyed",
            "the emulator is a script with QEMU as its child, and another client destroys it",
            |scene| scene.virsh("destroy VM"),
            // libvirt ends the script, and which of its signals that was nobody traces on this stage.
            |_| probable("outside-destroyed"),
        )
        .guest(|guest| emulator(guest, "relay"))
        .only(PERSISTENT),
        Case::new(
            "out-of-memory-while-starting",
            "another client starts it, and the kernel kills QEMU for lack of memory before it is up",
            starve_at_start,
            |_| certain("start-failed"),
        )
        .guest(|guest| emulator(guest, "starved"))
        .from_off()
        .message_has("Killed process")
        .because("the kernel says: ")
        .quick(),
        Case::new(
            "forbidden-while-starting",
            "another client starts it, and a sandbox ends QEMU before it is up",
            refused,
            |_| probable("start-failed"),
        )
        .guest(|guest| emulator(guest, "forbidden"))
        .from_off()
        .message_has("signal 31"),
        Case::new(
            "guest-exit",
            "the guest writes to isa-debug-exit, which its definition has: QEMU exits with the guest's status",
            |scene| Ok(scene.serial()?.panic()?),
            |_| certain("guest-exit"),
        )
        .guest(debug_exit)
        .because("the process exited with status 3")
        .quick(),
    ]
}

/// The guest's panic port, as a device that ends QEMU: a guest that writes 1 there has it exit with 3.
fn debug_exit(guest: Guest) -> Guest {
    guest.panic_device(false).domain_xml(
        "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
         <qemu:arg value='-device'/><qemu:arg value='isa-debug-exit,iobase=0x505,iosize=1'/></qemu:commandline>\n",
    )
}

fn signal_child(scene: &mut Scene<'_>, signal: &str) -> Result<()> {
    let script = scene.process.as_ref().context("it was never up")?.pid();
    let children = std::fs::read_to_string(format!("/proc/{script}/task/{script}/children"))?;
    let qemu = children.split_whitespace().next().context("the script has no child")?;
    scene.program("/bin/kill", &[signal, qemu])
}

fn refused(scene: &mut Scene<'_>) -> Result<()> {
    match scene.start() {
        Ok(()) => anyhow::bail!("the start was not refused"),
        Err(_) => Ok(()),
    }
}

fn starve_at_start(scene: &mut Scene<'_>) -> Result<()> {
    let group = MemoryGroup::make(&format!("{}-start", scene.name()), START_BYTES)?;
    let script = scene.guest.image_path().with_extension("starved");
    std::fs::write(format!("{}.group", script.display()), group.processes().display().to_string())?;
    refused(scene)
}
