//! What a manager asks of whydown.

use anyhow::{Context, Result};
use whydown_lab::{Qemu, Signal, wait_for};

use super::{certain, none, probable};
use crate::case::{Asked, Case, Certainty, Expect, PERSISTENT, Venue};
use crate::host::PATIENCE;
use crate::scene::Scene;

/// Stops QEMU, has it ended in a way that takes libvirt ten seconds, and kills it when libvirt has begun.
fn kill_while(scene: &mut Scene<'_>, end: fn(&Scene<'_>) -> Result<()>) -> Result<()> {
    scene.kill(Signal::STOP)?;
    let process = scene.process.as_ref().context("it was never up")?;
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            libvirt_has_begun(process)?;
            anyhow::Ok(process.signal(Signal::KILL)?)
        });
        let ended = end(scene);
        killer.join().expect("it does not panic").and(ended)
    })
}

/// Waits until libvirt has sent a process that is stopped its SIGTERM.
fn libvirt_has_begun(process: &Qemu) -> Result<()> {
    let begun = || process.has_pending(Signal::TERM).then_some(());
    Ok(wait_for("libvirt's SIGTERM", PATIENCE, begun)?)
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "asked-shutdown",
            "a manager asks for a shutdown, and the guest obeys its power button",
            |scene| scene.verb("shutdown", ", '0', ''"),
            |_| probable("admin-shutdown"),
        )
        .asked(Asked::Shutdown)
        .quick(),
        Case::new(
            "asked-shutdown-forced",
            "a manager asks for a shutdown with force, and the guest does not obey",
            |scene| {
                scene.serial()?.ignore_button()?;
                scene.verb("shutdown", ", '0', '', False, '1', True")
            },
            |_| certain("admin-forced-off"),
        )
        .asked(Asked::Shutdown)
        .quick(),
        Case::new(
            "asked-shutdown-ignored",
            "a manager asks for a shutdown without force, and the guest does not obey",
            |scene| {
                scene.serial()?.ignore_button()?;
                scene.verb("shutdown", ", '0', ''")?;
                Ok(scene.serial()?.answer(PATIENCE)?)
            },
            none,
        )
        .asked(Asked::Shutdown),
        Case::new(
            "asked-shutdown-ignored-then-killed",
            "a manager asks for a shutdown, the guest does not obey, and QEMU is killed",
            |scene| {
                scene.serial()?.ignore_button()?;
                scene.verb("shutdown", ", '0', ''")?;
                scene.serial()?.answer(PATIENCE)?;
                scene.kill(Signal::KILL)
            },
            |_| probable("process-killed"),
        )
        .asked(Asked::Shutdown),
        Case::new(
            "asked-shutdown-then-panic",
            "a manager asks for a shutdown, the guest does not obey, and panics",
            |scene| {
                scene.serial()?.ignore_button()?;
                scene.verb("shutdown", ", '0', ''")?;
                Ok(scene.serial()?.panic()?)
            },
            |_| certain("guest-panic"),
        )
        .asked(Asked::Shutdown),
        Case::new(
            "asked-shutdown-user-off",
            "a manager's shutdown is pending when the user powers the guest off",
            |scene| {
                scene.serial()?.ignore_button()?;
                scene.verb("shutdown", ", '0', ''")?;
                Ok(scene.serial()?.power_off()?)
            },
            // It was asked and it went off: whether its user did that by hand leaves no trace of its own.
            |_| probable("admin-shutdown"),
        )
        .at_most(Certainty::Probable)
        .asked(Asked::Shutdown),
        Case::new(
            "asked-destroy",
            "a manager destroys it through whydown",
            |scene| scene.verb("destroy", ""),
            |_| certain("admin-destroyed"),
        )
        .asked(Asked::Destroy)
        .quick(),
        Case::new(
            "asked-destroy-of-a-hung-process",
            "QEMU is stopped by SIGSTOP, and a manager destroys the VM through whydown",
            |scene| {
                scene.kill(Signal::STOP)?;
                scene.verb("destroy", "")
            },
            // It is killed before it can write down when libvirt began.
            |_| probable("admin-destroyed"),
        )
        .at_most(Certainty::Probable)
        .asked(Asked::Destroy)
        .only(PERSISTENT),
        Case::new(
            "asked-save",
            "a manager saves it through whydown",
            |scene| scene.verb("hibernate", ", ''"),
            |_| certain("managed-saved"),
        )
        .asked(Asked::Save)
        .only(PERSISTENT),
        Case::new(
            "asked-reboot",
            "a manager asks for a reboot, and the guest obeys its power button",
            |scene| {
                scene.verb("shutdown", ", '0', '', True")?;
                Ok(scene.serial()?.started_again(PATIENCE)?)
            },
            none,
        )
        .asked(Asked::Shutdown),
        Case::new(
            "asked-create-then-poweroff",
            "a manager starts it through whydown, and the guest powers itself off",
            |scene| {
                scene.create()?;
                scene.wait_up()?;
                Ok(scene.serial()?.power_off()?)
            },
            |_| certain("guest-poweroff"),
        )
        .from_off()
        .asked(Asked::Create)
        .only(crate::case::TRANSIENT),
        Case::new(
            "asked-create-then-destroy-at-once",
            "a manager starts it through whydown and destroys it on the heels of that",
            |scene| {
                scene.create()?;
                scene.verb("destroy", "")
            },
            // QEMU is up enough to write down libvirt's signal, or not.
            |_| Expect::Ending("admin-destroyed", Certainty::Probable),
        )
        .from_off()
        .also("destroyed-at-start")
        .asked(Asked::Destroy)
        .only(crate::case::TRANSIENT),
        Case::new(
            "asked-create-in-vain-and-destroy",
            "a manager starts a VM whose disk is gone, and destroys it on the heels of that",
            |scene| {
                scene.create()?;
                scene.verb("destroy", "")
            },
            |_| Expect::Ending("start-failed", Certainty::Probable),
        )
        .from_off()
        .guest(|guest| {
            guest.device_xml("<disk type='file'><source file='/no-such.img'/><target dev='vdb' bus='virtio'/></disk>\n")
        })
        .message_has("/no-such.img")
        .asked(Asked::Destroy)
        .only(crate::case::TRANSIENT),
        Case::new(
            "asked-destroy-of-a-hung-process-then-killed",
            "QEMU is stopped by SIGSTOP, a manager destroys the VM through whydown, and somebody sends SIGKILL sooner than libvirt",
            |scene| {
                let killed = kill_while(scene, |scene| scene.verb("destroy", ""));
                killed.and_then(|()| scene.wait_off())
            },
            |_| probable("process-killed"),
        )
        .at(Venue::Traced)
        .because("SIGKILL from process")
        .asked(Asked::Destroy)
        .at_most(Certainty::Probable)
        .only(PERSISTENT),
        Case::new(
            "asked-destroy-of-a-hung-process-after-another-client",
            "QEMU is stopped by SIGSTOP, another client destroys the VM, and a manager does so through whydown when libvirt has begun",
            |scene| {
                scene.kill(Signal::STOP)?;
                let mut other = scene.virsh_begin("destroy VM")?;
                libvirt_has_begun(scene.process.as_ref().context("it was never up")?)?;
                // libvirt may tell both that they did, or this one that it is not running.
                let _ = scene.verb("destroy", "");
                other.wait()?;
                Ok(())
            },
            // Nobody saw libvirt begin.
            |_| probable("outside-destroyed"),
        )
        .also("admin-destroyed")
        .asked(Asked::Destroy)
        .at_most(Certainty::Probable)
        .only(PERSISTENT),
    ]
}
