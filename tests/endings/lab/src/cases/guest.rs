//! What the guest does itself, and what its definition makes of it.

use anyhow::Result;
use whydown_lab::{OnCrash, OnEnd, WatchdogAction};

use super::{certain, none, probable};
use crate::case::{Case, Certainty, PERSISTENT};
use crate::host::PATIENCE;
use crate::scene::Scene;

pub(super) fn cases() -> Vec<Case> {
    let mut all = power();
    all.extend(panics());
    all.extend(watchdogs());
    all
}

fn off(scene: &mut Scene<'_>) -> Result<()> {
    Ok(scene.serial()?.power_off()?)
}

fn reset(scene: &mut Scene<'_>) -> Result<()> {
    Ok(scene.serial()?.reset()?)
}

fn power() -> Vec<Case> {
    vec![
        Case::new("guest-poweroff", "the guest powers itself off", off, |_| certain("guest-poweroff")).quick(),
        Case::new(
            "guest-poweroff-while-paused-once",
            "it was paused and resumed by virsh, then the guest powers itself off",
            |scene| {
                scene.virsh("suspend VM")?;
                scene.virsh("resume VM")?;
                off(scene)
            },
            |_| certain("guest-poweroff"),
        )
        .only(PERSISTENT),
        Case::new(
            "guest-halt",
            "the guest stops its processor for good",
            |scene| Ok(scene.serial()?.hang()?),
            none,
        )
        .quick(),
        Case::new("guest-spin", "the guest spins for good", |scene| Ok(scene.serial()?.spin()?), none)
            .only(PERSISTENT),
        Case::new(
            "guest-reboot-three-times",
            "the guest reboots three times, on_reboot is restart",
            |scene| {
                for _ in 0..3 {
                    reset(scene)?;
                    scene.serial()?.started_again(PATIENCE)?;
                }
                Ok(())
            },
            none,
        )
        .quick(),
        Case::new(
            "guest-reboot-then-poweroff",
            "the guest reboots and later powers itself off",
            |scene| {
                reset(scene)?;
                scene.serial()?.started_again(PATIENCE)?;
                scene.serial()?.answer(PATIENCE)?;
                off(scene)
            },
            |_| certain("guest-poweroff"),
        ),
        Case::new(
            "guest-triple-fault",
            "the guest's processor faults three times, on_reboot is restart",
            |scene| {
                scene.serial()?.triple_fault()?;
                Ok(scene.serial()?.started_again(PATIENCE)?)
            },
            none,
        ),
        Case::new("guest-reboot-destroys", "the guest reboots, on_reboot is destroy", reset, |_| {
            certain("destroyed-on-reboot")
        })
        .guest(|guest| guest.on_reboot(OnEnd::Destroy))
        .quick(),
        Case::new(
            "guest-triple-fault-destroys",
            "the guest's processor faults three times, on_reboot is destroy: a panic without a panic device looks so too",
            |scene| Ok(scene.serial()?.triple_fault()?),
            |_| certain("destroyed-on-reboot"),
        )
        .guest(|guest| guest.on_reboot(OnEnd::Destroy).panic_device(false)),
        Case::new(
            "guest-reboot-action-changed",
            "a client sets on_reboot of the running VM to destroy, then the guest reboots",
            |scene| {
                scene.virsh("set-lifecycle-action VM reboot destroy --live")?;
                reset(scene)
            },
            |_| certain("destroyed-on-reboot"),
        ),
        Case::new(
            "guest-poweroff-restarts",
            "the guest powers itself off, on_poweroff is restart",
            |scene| {
                off(scene)?;
                Ok(scene.serial()?.started_again(PATIENCE)?)
            },
            none,
        )
        .guest(|guest| guest.on_poweroff(OnEnd::Restart)),
        Case::new(
            "guest-poweroff-action-changed",
            "a client sets on_poweroff of the running VM to restart, then the guest powers itself off",
            |scene| {
                scene.virsh("set-lifecycle-action VM poweroff restart --live")?;
                off(scene)?;
                Ok(scene.serial()?.started_again(PATIENCE)?)
            },
            none,
        ),
    ]
}

fn panic(scene: &mut Scene<'_>) -> Result<()> {
    Ok(scene.serial()?.panic()?)
}

fn panic_and_again(scene: &mut Scene<'_>) -> Result<()> {
    panic(scene)?;
    Ok(scene.serial()?.started_again(PATIENCE)?)
}

fn panics() -> Vec<Case> {
    vec![
        Case::new("panic", "the guest panics, on_crash is destroy", panic, |_| certain("guest-panic"))
            .quick(),
        Case::new("panic-restarts", "the guest panics, on_crash is restart", panic_and_again, none)
            .guest(|guest| guest.on_crash(OnCrash::Restart)),
        Case::new(
            "panic-restarts-then-poweroff",
            "the guest panics, on_crash is restart; the guest of the second life powers itself off",
            |scene| {
                panic_and_again(scene)?;
                scene.serial()?.answer(PATIENCE)?;
                off(scene)
            },
            |_| certain("guest-poweroff"),
        )
        .guest(|guest| guest.on_crash(OnCrash::Restart)),
        Case::new(
            "panic-preserved",
            "the guest panics, on_crash is preserve",
            |scene| {
                panic(scene)?;
                scene.wait_state("crashed (panicked)")
            },
            none,
        )
        .guest(|guest| guest.on_crash(OnCrash::Preserve)),
        Case::new(
            "panic-preserved-then-killed",
            "the guest panics, on_crash is preserve; later QEMU is killed",
            |scene| {
                panic(scene)?;
                scene.wait_state("crashed (panicked)")?;
                scene.kill(whydown_lab::Signal::KILL)
            },
            |_| probable("process-killed"),
        )
        .guest(|guest| guest.on_crash(OnCrash::Preserve)),
        Case::new("panic-dumped", "the guest panics, on_crash is coredump-destroy", panic, |_| {
            certain("guest-panic")
        })
        .guest(|guest| guest.on_crash(OnCrash::CoredumpDestroy)),
        Case::new(
            "panic-dumped-restarts",
            "the guest panics, on_crash is coredump-restart",
            panic_and_again,
            none,
        )
        .guest(|guest| guest.on_crash(OnCrash::CoredumpRestart)),
        Case::new(
            "panic-action-changed",
            "a client sets on_crash of the running VM to restart, then the guest panics",
            |scene| {
                scene.virsh("set-lifecycle-action VM crash restart --live")?;
                panic_and_again(scene)
            },
            none,
        ),
        Case::new(
            "crash-loaded",
            "the guest's crash kernel takes over",
            |scene| {
                scene.serial()?.crash_loaded()?;
                scene.wait_event("Crashed Crashloaded")
            },
            none,
        ),
        Case::new(
            "crash-loaded-then-poweroff",
            "the guest's crash kernel takes over and powers off",
            |scene| {
                scene.serial()?.crash_loaded()?;
                off(scene)
            },
            |_| probable("guest-panic"),
        ),
    ]
}

fn bark(scene: &mut Scene<'_>) -> Result<()> {
    Ok(scene.serial()?.arm_watchdog()?)
}

fn watchdogs() -> Vec<Case> {
    let heard = |scene: &mut Scene<'_>| {
        bark(scene)?;
        scene.wait_event("watchdog")
    };
    vec![
        Case::new("watchdog-poweroff", "the watchdog fires, its action is poweroff", bark, |_| {
            certain("watchdog-poweroff")
        })
        .guest(|guest| guest.watchdog(WatchdogAction::Poweroff))
        .quick(),
        Case::new("watchdog-shutdown", "the watchdog fires, its action is shutdown", bark, |_| {
            probable("watchdog-shutdown")
        })
        .guest(|guest| guest.watchdog(WatchdogAction::Shutdown)),
        Case::new(
            "watchdog-shutdown-and-user-off",
            "the watchdog fires, its action is shutdown, the guest ignores it, and its user powers it off",
            |scene| {
                scene.serial()?.ignore_button()?;
                bark(scene)?;
                scene.wait_event("watchdog")?;
                off(scene)
            },
            |_| probable("watchdog-shutdown"),
        )
        .guest(|guest| guest.watchdog(WatchdogAction::Shutdown))
        .at_most(Certainty::Probable)
        .only(PERSISTENT),
        Case::new(
            "watchdog-reset",
            "the watchdog fires, its action is reset",
            |scene| {
                bark(scene)?;
                Ok(scene.serial()?.started_again(PATIENCE)?)
            },
            none,
        )
        .guest(|guest| guest.watchdog(WatchdogAction::Reset)),
        Case::new(
            "watchdog-pause",
            "the watchdog fires, its action is pause",
            |scene| {
                bark(scene)?;
                scene.wait_state("paused (watchdog)")
            },
            none,
        )
        .guest(|guest| guest.watchdog(WatchdogAction::Pause)),
        Case::new("watchdog-dump", "the watchdog fires, its action is dump", heard, none)
            .guest(|guest| guest.watchdog(WatchdogAction::Dump)),
        Case::new("watchdog-none", "the watchdog fires, its action is none", heard, none)
            .guest(|guest| guest.watchdog(WatchdogAction::None)),
        Case::new("watchdog-nmi", "the watchdog fires, its action is inject-nmi", heard, none)
            .guest(|guest| guest.watchdog(WatchdogAction::InjectNmi)),
        Case::new(
            "watchdog-none-then-poweroff",
            "the watchdog fires without effect, then the guest powers itself off",
            |scene| {
                bark(scene)?;
                scene.wait_event("watchdog")?;
                off(scene)
            },
            |_| certain("guest-poweroff"),
        )
        .guest(|guest| guest.watchdog(WatchdogAction::None))
        .only(PERSISTENT),
    ]
}
