//! What a manager asks of whydown.

use whydown_lab::Signal;

use super::{certain, none, probable};
use crate::case::{Asked, Case, Certainty, Expect, PERSISTENT};
use crate::host::PATIENCE;

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
            |_| certain("admin-destroyed"),
        )
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
            |_| Expect::Ending("admin-destroyed", Certainty::Certain),
        )
        .from_off()
        .also("destroyed-at-start")
        .asked(Asked::Destroy)
        .only(crate::case::TRANSIENT),
    ]
}
