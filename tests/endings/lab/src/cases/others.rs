//! What other clients of libvirt do: destroys, shutdowns, dumps, snapshots, definitions.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result};
use whydown_lab::Signal;

use super::{certain, none, probable};
use crate::case::{Case, Certainty, Kind, PERSISTENT};
use crate::host::PATIENCE;
use crate::scene::Scene;

pub(super) fn cases() -> Vec<Case> {
    let mut all = shutdowns();
    all.extend(definitions());
    all
}

fn shutdowns() -> Vec<Case> {
    vec![
        Case::new(
            "destroyed",
            "another client destroys it",
            |s| s.virsh("destroy VM"),
            |_| certain("outside-destroyed"),
        )
        .quick(),
        Case::new(
            "destroyed-gracefully",
            "another client destroys it gracefully",
            |scene| scene.virsh("destroy VM --graceful"),
            |_| certain("outside-destroyed"),
        ),
        Case::new(
            "destroyed-while-paused",
            "another client pauses and destroys it",
            |scene| {
                scene.virsh("suspend VM")?;
                scene.virsh("destroy VM")
            },
            |_| certain("outside-destroyed"),
        )
        .only(PERSISTENT),
        Case::new(
            "destroyed-while-hung",
            "QEMU is stopped by SIGSTOP, and another client destroys the VM",
            |scene| {
                scene.kill(Signal::STOP)?;
                scene.virsh("destroy VM")
            },
            // Who sent the SIGKILL that its exit shows is not traced on this stage.
            |_| probable("outside-destroyed"),
        )
        .only(PERSISTENT),
        Case::new(
            "client-gone",
            "another client starts it for as long as it is connected (autodestroy), and its connection ends",
            start_for_a_client,
            |_| certain("outside-destroyed"),
        )
        .from_off(),
        Case::new(
            "pressed",
            "another client presses the power button, and the guest obeys",
            |scene| scene.virsh("shutdown VM --mode acpi"),
            |_| probable("other-shutdown"),
        )
        .quick(),
        Case::new(
            "pressed-and-ignored",
            "another client presses the power button, the guest ignores it and is destroyed",
            |scene| {
                scene.serial()?.ignore_button()?;
                scene.virsh("shutdown VM --mode acpi")?;
                scene.serial()?.answer(PATIENCE)?;
                scene.virsh("destroy VM")
            },
            |_| certain("outside-destroyed"),
        ),
        Case::new(
            "pressed-and-user-off",
            "another client presses the power button, the guest ignores it, and its user powers it off",
            |scene| {
                scene.serial()?.ignore_button()?;
                scene.virsh("shutdown VM --mode acpi")?;
                Ok(scene.serial()?.power_off()?)
            },
            // It was asked and it went off, as one that obeys does.
            |_| probable("other-shutdown"),
        )
        .at_most(Certainty::Probable)
        .only(PERSISTENT),
        Case::new(
            "rebooted",
            "another client asks for a reboot by the power button",
            |scene| {
                scene.virsh("reboot VM --mode acpi")?;
                Ok(scene.serial()?.started_again(PATIENCE)?)
            },
            none,
        ),
        Case::new(
            "rebooted-then-poweroff",
            "another client reboots it by the power button; later the guest powers itself off",
            |scene| {
                scene.virsh("reboot VM --mode acpi")?;
                scene.serial()?.started_again(PATIENCE)?;
                scene.serial()?.answer(PATIENCE)?;
                Ok(scene.serial()?.power_off()?)
            },
            |_| certain("guest-poweroff"),
        ),
        Case::new(
            "reset",
            "another client resets it",
            |scene| {
                scene.virsh("reset VM")?;
                Ok(scene.serial()?.started_again(PATIENCE)?)
            },
            none,
        ),
        Case::new(
            "dumped-with-crash",
            "another client dumps its memory with the order to crash it",
            |scene| {
                let file = scene.file("dump");
                scene.virsh(&format!("dump VM {file} --crash"))
            },
            |_| probable("core-dumped"),
        ),
        Case::new(
            "panic-kept-then-dumped-with-crash",
            "the guest panics, on_crash is preserve; another client dumps its memory with the order to crash it",
            |scene| {
                scene.serial()?.panic()?;
                scene.wait_state("crashed (panicked)")?;
                let file = scene.file("dump");
                scene.virsh(&format!("dump VM {file} --crash"))
            },
            |_| probable("core-dumped"),
        )
        .guest(|guest| guest.on_crash(whydown_lab::OnCrash::Preserve)),
        Case::new(
            "dumped",
            "another client dumps its memory and lets it run on",
            |scene| {
                let file = scene.file("dump");
                // libvirt 12 does not know this way of it any more; without, it is paused meanwhile.
                if scene.virsh(&format!("dump VM {file} --live")).is_err() {
                    scene.virsh(&format!("dump VM {file}"))?;
                }
                Ok(scene.serial()?.answer(PATIENCE)?)
            },
            none,
        )
        .only(PERSISTENT),
        Case::new(
            "paused-and-resumed",
            "another client pauses and resumes it",
            |scene| {
                scene.virsh("suspend VM")?;
                scene.wait_state("paused (user)")?;
                scene.virsh("resume VM")?;
                Ok(scene.serial()?.answer(PATIENCE)?)
            },
            none,
        ),
    ]
}

/// Has another client start it for as long as it is connected itself.
fn start_for_a_client(scene: &mut Scene<'_>) -> Result<()> {
    let document = scene.guest.write_xml()?;
    let line = match scene.kind {
        Kind::Persistent => format!("start {} --autodestroy\n", scene.name()),
        Kind::Transient => format!("create {} --autodestroy\n", document.display()),
    };
    let mut client = std::process::Command::new("virsh")
        .args(["-q", "-c", &scene.host.libvirtd.uri()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("virsh")?;
    let mut words = client.stdin.take().context("piped")?;
    words.write_all(line.as_bytes())?;
    let up = scene.wait_up();
    // It ends with its input, and its connection with it.
    drop(words);
    client.wait()?;
    up
}

fn definitions() -> Vec<Case> {
    vec![
        Case::new(
            "undefined-while-running",
            "another client undefines it while it runs, then the guest powers itself off",
            |scene| {
                scene.virsh("undefine VM")?;
                Ok(scene.serial()?.power_off()?)
            },
            |_| certain("guest-poweroff"),
        )
        .only(PERSISTENT),
        Case::new(
            "undefined-then-killed",
            "another client undefines it while it runs, then QEMU is killed",
            |scene| {
                scene.virsh("undefine VM")?;
                scene.kill(Signal::KILL)
            },
            |_| probable("process-killed"),
        )
        .only(PERSISTENT),
        Case::new(
            "defined-while-running",
            "another client defines it while it runs, then the guest powers itself off",
            |scene| {
                scene.host.libvirtd.define(&scene.guest)?;
                Ok(scene.serial()?.power_off()?)
            },
            |_| certain("guest-poweroff"),
        )
        .only(crate::case::TRANSIENT),
        Case::new(
            "renamed",
            "the guest powers itself off, another client gives the domain another name, and destroys its next run",
            |scene| {
                scene.serial()?.power_off()?;
                scene.wait_off()?;
                scene.virsh(&format!("domrename VM {}-new", scene.name()))?;
                let name = format!("{}-new", scene.name());
                scene.line = None;
                scene.host.libvirtd.start_domain(&name)?;
                scene.serial()?;
                Ok(scene.host.libvirtd.destroy(&name)?)
            },
            |_| certain("guest-poweroff"),
        )
        .only(PERSISTENT),
        Case::new(
            "uuid-used-again",
            "the guest powers itself off; the domain is undefined, defined anew with the same UUID, started and killed",
            |scene| {
                scene.serial()?.power_off()?;
                scene.wait_off()?;
                scene.virsh("undefine VM")?;
                scene.host.libvirtd.define(&scene.guest)?;
                scene.line = None;
                scene.host.libvirtd.start_domain(scene.name())?;
                scene.serial()?;
                Ok(scene.host.libvirtd.qemu(scene.name())?.signal(Signal::KILL)?)
            },
            |_| certain("guest-poweroff"),
        )
        .only(PERSISTENT),
    ]
}
