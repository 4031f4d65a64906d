//! What a whole operating system does: orderly shutdowns by its agent and its button, suspends, panics with a text.

use anyhow::{Context, Result};
use whydown_lab::{Agent, LinuxGuest, OnCrash, OnEnd};

use super::{certain, none, probable};
use crate::case::{Asked, Case, Certainty, Expect, Kind, PERSISTENT};
use crate::host::PATIENCE;
use crate::scene::Scene;
use crate::trial::SWAP;

/// What Linux says of every panic, whatever its reason.
const PANIC: &str = "Kernel panic - not syncing: ";

pub(super) fn cases() -> Vec<Case> {
    let mut all = shutdowns();
    all.extend(suspends());
    all.extend(panics());
    all
}

fn linux(name: &str, what: &str, act: crate::case::Act, expect: fn(Kind) -> Expect) -> Case {
    Case::new(name, what, act, expect).linux(|guest| guest)
}

fn order(scene: &mut Scene<'_>, word: &str) -> Result<()> {
    Ok(scene.console()?.order(word)?)
}

/// It is ready once more: it was reset, and did not end.
fn booted_again(scene: &mut Scene<'_>) -> Result<()> {
    Ok(scene.console()?.wait_ready(2, PATIENCE)?)
}

fn shutdowns() -> Vec<Case> {
    vec![
        linux(
            "linux-poweroff",
            "a user powers off a Linux guest that runs an agent",
            |scene| {
                scene.wait_agent()?;
                order(scene, "poweroff")
            },
            |_| probable("guest-poweroff"),
        )
        .at_most(Certainty::Probable),
        linux(
            "linux-poweroff-without-agent",
            "a user powers off a Linux guest that runs no agent, though it has a channel for one",
            |scene| order(scene, "poweroff"),
            |_| certain("guest-poweroff"),
        )
        .linux(|guest| guest.agent(Agent::None)),
        linux(
            "linux-halt",
            "a user halts the Linux guest: its processor stands still, and the machine stays",
            |scene| {
                order(scene, "halt")?;
                Ok(scene.console()?.wait_said("System halted", 1, PATIENCE)?)
            },
            none,
        ),
        linux(
            "agent-shutdown",
            "another client has the guest agent shut it down",
            |scene| {
                scene.wait_agent()?;
                // A guest may be gone before its agent has answered: then libvirt tells who asked of a broken connection.
                scene.virsh_whatever("shutdown VM --mode agent")
            },
            |_| probable("other-shutdown"),
        )
        .honest("guest-poweroff", "what another client asks of the agent leaves no trace on the host")
        .quick(),
        linux(
            "agent-reboot",
            "another client has the guest agent reboot it",
            |scene| {
                scene.wait_agent()?;
                scene.virsh("reboot VM --mode agent")?;
                booted_again(scene)
            },
            none,
        ),
        linux(
            "linux-pressed",
            "another client presses the power button, and acpid in the guest shuts it down",
            |scene| scene.virsh("shutdown VM --mode acpi"),
            |_| probable("other-shutdown"),
        )
        .at_most(Certainty::Probable),
        linux(
            "asked-agent-shutdown",
            "a manager asks for a shutdown, and the guest agent does it",
            |scene| {
                scene.wait_agent()?;
                scene.verb("shutdown", ", '30', ''")
            },
            |_| probable("admin-shutdown"),
        )
        .because("asked whydown to have its agent shut it down")
        .asked(Asked::Shutdown),
        linux(
            "asked-agent-shutdown-unanswered",
            "a manager asks for a shutdown, and the guest is gone before its agent has answered",
            |scene| {
                scene.wait_agent()?;
                scene.verb("shutdown", ", '30', ''")
            },
            |_| probable("admin-shutdown"),
        )
        .linux(|guest| guest.agent(Agent::Hasty))
        .because("asked whydown to have its agent shut it down")
        .asked(Asked::Shutdown),
        linux(
            "asked-agent-reboot",
            "a manager asks for a reboot, and the guest agent does it",
            |scene| {
                scene.wait_agent()?;
                scene.verb("shutdown", ", '30', '', True, '60', True")?;
                booted_again(scene)
            },
            none,
        )
        .asked(Asked::Shutdown),
        linux(
            "asked-hung-agent-user-off",
            "a manager asks for a shutdown; the agent hangs, the button is ignored, and the user powers the guest off",
            |scene| {
                scene.wait_agent()?;
                order(scene, "stop-agent")?;
                order(scene, "ignore-button")?;
                scene.verb("shutdown", ", '1', ''")?;
                order(scene, "poweroff")
            },
            |_| probable("admin-shutdown"),
        )
        .at_most(Certainty::Probable)
        .asked(Asked::Shutdown),
    ]
}

/// With both ways to suspend, and room to suspend to.
fn sleeper(guest: LinuxGuest) -> LinuxGuest {
    const WAYS: &str = "<pm><suspend-to-mem enabled='yes'/><suspend-to-disk enabled='yes'/></pm>\n";
    let swap = guest.image_path().with_extension(SWAP);
    guest.memory_mib(256).swap_disk(swap).machine(|guest| guest.domain_xml(WAYS))
}

fn asleep(scene: &mut Scene<'_>) -> Result<()> {
    order(scene, "suspend")?;
    scene.wait_state("pmsuspended (unknown)")
}

fn hibernated(scene: &mut Scene<'_>) -> Result<()> {
    order(scene, "hibernate")?;
    scene.wait_off()
}

fn suspends() -> Vec<Case> {
    vec![
        linux("guest-suspends-to-memory", "the guest suspends to memory (S3)", asleep, none).linux(sleeper),
        linux(
            "guest-suspends-and-wakes",
            "the guest suspends to memory (S3), and another client wakes it up",
            |scene| {
                asleep(scene)?;
                scene.virsh("dompmwakeup VM")?;
                Ok(scene.console()?.wait_said("lab: awake", 1, PATIENCE)?)
            },
            none,
        )
        .linux(sleeper),
        linux("guest-suspends-to-disk", "the guest suspends to disk (S4)", hibernated, |_| {
            certain("guest-hibernated")
        })
        .linux(sleeper),
        linux(
            "guest-resumes-from-disk",
            "the guest suspends to disk (S4), and its next start goes on from there",
            |scene| {
                hibernated(scene)?;
                scene.start()?;
                scene.console = None;
                scene.linux.as_ref().context("it is a Linux guest")?.woken(PATIENCE)?.order("ping")?;
                scene.host.wait_status(&scene.guest, "up")
            },
            |_| certain("guest-hibernated"),
        )
        .linux(sleeper),
    ]
}

fn panic(scene: &mut Scene<'_>) -> Result<()> {
    order(scene, "panic")?;
    Ok(scene.console()?.wait_said(PANIC, 1, PATIENCE)?)
}

fn panic_and_again(scene: &mut Scene<'_>) -> Result<()> {
    panic(scene)?;
    booted_again(scene)
}

/// Loads it, panics, and waits until it takes over.
fn crash_kernel(scene: &mut Scene<'_>) -> Result<()> {
    order(scene, "load-crash-kernel")?;
    scene.console()?.wait_said("lab: loaded", 1, PATIENCE)?;
    panic(scene)?;
    scene.wait_event("Crashed Crashloaded")?;
    booted_again(scene)
}

fn panics() -> Vec<Case> {
    vec![
        linux("linux-panic", "Linux panics with its text, on_crash is destroy", panic, |_| {
            certain("guest-panic")
        })
        .quick(),
        linux("linux-panic-restarts", "Linux panics with its text, on_crash is restart", panic_and_again, none)
            .linux(|guest| guest.machine(|guest| guest.on_crash(OnCrash::Restart))),
        linux(
            "linux-panic-unseen",
            "Linux panics without a panic device and stands still (panic=0)",
            panic,
            none,
        )
        .linux(|guest| guest.machine(|guest| guest.panic_device(false))),
        linux(
            "linux-panic-reboots",
            "Linux panics without a panic device and reboots (panic=1), on_reboot is restart",
            panic_and_again,
            none,
        )
        .linux(|guest| guest.argument("panic=1").machine(|guest| guest.panic_device(false))),
        linux(
            "linux-panic-reboot-destroys",
            "Linux panics without a panic device and reboots (panic=1), on_reboot is destroy: that it rebooted is all that shows",
            panic,
            |_| certain("destroyed-on-reboot"),
        )
        .linux(|guest| {
            guest.argument("panic=1").machine(|guest| guest.panic_device(false).on_reboot(OnEnd::Destroy))
        }),
        linux(
            "linux-kdump",
            "Linux panics, its crash kernel takes over and powers off",
            |scene| {
                crash_kernel(scene)?;
                scene.wait_off()
            },
            |_| probable("guest-panic"),
        )
        .linux(|guest| guest.crash_kernel("poweroff")),
        linux(
            "linux-kdump-reboots",
            "Linux panics, its crash kernel takes over and reboots",
            |scene| {
                crash_kernel(scene)?;
                Ok(scene.console()?.wait_ready(3, PATIENCE)?)
            },
            none,
        )
        .linux(|guest| guest.crash_kernel("reboot"))
        .only(PERSISTENT),
        linux(
            "linux-out-of-memory",
            "the guest runs out of memory, and its kernel kills a process in it",
            |scene| {
                order(scene, "oom")?;
                Ok(scene.console()?.wait_said("lab: was killed", 1, PATIENCE)?)
            },
            none,
        )
        .only(PERSISTENT),
        linux(
            "linux-out-of-memory-panic",
            "the guest runs out of memory and panics of it (vm.panic_on_oom)",
            |scene| {
                order(scene, "oom-panic")?;
                Ok(scene.console()?.wait_said(PANIC, 1, PATIENCE)?)
            },
            |_| certain("guest-panic"),
        ),
    ]
}
