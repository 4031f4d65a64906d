//! Endings that not everybody was there to hear: the same few ways, with whydown, libvirt, or the whole host away.

use std::time::Duration;

use anyhow::Result;
use whydown_lab::{OnCrash, OnEnd, Signal, WatchdogAction};

use super::{none, probable};
use crate::case::{Act, Away, BOTH, Case, Certainty, Expect, Kind, PERSISTENT, TRANSIENT, Venue};
use crate::scene::Scene;

/// One way to end, as plain as it can be.
struct Way {
    name: &'static str,
    what: &'static str,
    act: Act,
    kinds: &'static [Kind],
    /// Whether libvirt must be there to do it.
    by_libvirt: bool,
    /// Whether it goes to another host.
    moves: bool,
}

const WAYS: [Way; 8] = [
    Way {
        name: "poweroff",
        what: "the guest powers itself off",
        act: off,
        kinds: BOTH,
        by_libvirt: false,
        moves: false,
    },
    Way {
        name: "destroy",
        what: "another client destroys it",
        act: destroy,
        kinds: BOTH,
        by_libvirt: true,
        moves: false,
    },
    Way {
        name: "sigkill",
        what: "QEMU gets SIGKILL",
        act: kill,
        kinds: BOTH,
        by_libvirt: false,
        moves: false,
    },
    Way {
        name: "out-of-memory",
        what: "the kernel kills QEMU for lack of memory in its control group",
        act: super::memory::starve,
        kinds: BOTH,
        by_libvirt: false,
        moves: false,
    },
    Way { name: "panic", what: "the guest panics", act: panic, kinds: BOTH, by_libvirt: false, moves: false },
    Way {
        name: "managed-save",
        what: "another client saves it",
        act: |scene| scene.virsh("managedsave VM"),
        kinds: PERSISTENT,
        by_libvirt: true,
        moves: false,
    },
    Way {
        name: "save",
        what: "another client saves it to a file",
        act: |scene| {
            let file = scene.file("save");
            scene.virsh(&format!("save VM {file}"))
        },
        kinds: TRANSIENT,
        by_libvirt: true,
        moves: false,
    },
    Way {
        name: "migrate",
        what: "another client migrates it",
        act: migrate,
        kinds: BOTH,
        by_libvirt: true,
        moves: true,
    },
];

fn off(scene: &mut Scene<'_>) -> Result<()> {
    Ok(scene.serial()?.power_off()?)
}

fn destroy(scene: &mut Scene<'_>) -> Result<()> {
    scene.virsh("destroy VM")
}

fn kill(scene: &mut Scene<'_>) -> Result<()> {
    scene.kill(Signal::KILL)
}

fn panic(scene: &mut Scene<'_>) -> Result<()> {
    Ok(scene.serial()?.panic()?)
}

fn migrate(scene: &mut Scene<'_>) -> Result<()> {
    let line = scene.migration()?;
    scene.virsh(&line)
}

/// What must be told of a way when this is away.
fn expected(way: &str, away: Away) -> fn(Kind) -> Expect {
    match (way, away) {
        ("poweroff", _) => |_| probable("guest-poweroff"),
        ("destroy", _) => |_| probable("outside-destroyed"),
        ("migrate", _) => |_| probable("migrated-away"),
        ("managed-save", _) => |_| probable("managed-saved"),
        ("save", _) => |_| probable("saved-to-file"),
        ("out-of-memory", _) => |_| probable("oom-killed"),
        // Its process was watched although libvirt was not there.
        ("sigkill", Away::Libvirtd | Away::Restarted) => |_| probable("process-killed"),
        ("sigkill", _) => |_| probable("process-lost"),
        // libvirt does not carry out on_crash for what it did not hear.
        ("panic", Away::Libvirtd | Away::Both) => none,
        _ => |_| probable("guest-panic"),
    }
}

fn phrase(away: Away) -> &'static str {
    match away {
        Away::Daemon => "while whydownd is stopped",
        Away::Libvirtd => "while libvirtd is stopped",
        Away::Both => "while libvirtd and whydownd are stopped",
        Away::KilledAtOnce => "and whydownd is killed at libvirt's first word of it",
        Away::Restarted => "shortly after libvirtd was restarted under whydownd",
        Away::StartedAgain => "while whydownd is stopped, and it is started again before whydownd is back",
        Away::Hung => "while libvirtd stands still; when it goes on, another client destroys the VM",
        Away::HungForLong => {
            "while libvirtd stands still for a minute; when it goes on, another client destroys the VM"
        }
        Away::Autostarts => "as libvirtd starts",
        Away::PowerCut | Away::Boot | Away::Announced => "as the host goes down",
    }
}

pub(super) fn cases() -> Vec<Case> {
    let aways =
        [Away::Daemon, Away::Libvirtd, Away::Both, Away::KilledAtOnce, Away::Restarted, Away::StartedAgain];
    let mut all = Vec::new();
    for away in aways {
        for way in &WAYS {
            if way.by_libvirt && matches!(away, Away::Libvirtd | Away::Both) {
                continue;
            }
            // What runs elsewhere must not be started here as well.
            if way.moves && away == Away::StartedAgain {
                continue;
            }
            let name = format!("{}-{}", way.name, away.word());
            let what = format!("{}, {}", way.what, phrase(away));
            let mut case = Case::new(&name, &what, way.act, expected(way.name, away))
                .only(way.kinds)
                .at(Venue::Away(away));
            if way.name == "sigkill" && away == Away::KilledAtOnce {
                case = case.also("process-killed");
            }
            if way.name == "managed-save" && away == Away::StartedAgain {
                case = case.honest(
                    "saved-to-file",
                    "libvirt's log does not say where it was saved to, and the image is gone when it runs again",
                );
            }
            if way.moves {
                case = case.there(none);
            }
            case.quick = away == Away::Daemon && !way.moves;
            all.push(case);
        }
    }
    all.extend(made_to_end());
    all.extend(hosts());
    all.extend(hung());
    all
}

/// Ends that the definition makes: a reboot, a panic, a watchdog. What libvirt leaves of them looks like something else, and
/// how the VM was made tells as much as can be told.
fn made_to_end() -> Vec<Case> {
    let reset = |scene: &mut Scene<'_>| Ok(scene.serial()?.reset()?);
    let dump = |scene: &mut Scene<'_>| {
        let file = scene.file("dump");
        scene.virsh(&format!("dump VM {file} --crash"))
    };
    let bark = |scene: &mut Scene<'_>| {
        scene.serial()?.arm_watchdog()?;
        scene.wait_process_gone()
    };
    let of = |name: &str, what: &str, act: Act, away: Away, expect| {
        let (name, what) = (format!("{name}-{}", away.word()), format!("{what}, {}", phrase(away)));
        Case::new(&name, &what, act, expect).at_most(Certainty::Probable).at(Venue::Away(away))
    };
    let mut all = Vec::new();
    for away in [Away::Daemon, Away::Libvirtd] {
        let what = "the guest reboots, on_reboot is destroy";
        all.push(
            of("reboot-destroys", what, reset, away, |_| probable("destroyed-on-reboot"))
                .honest(
                    "guest-poweroff",
                    "a reboot that ends a VM and a power-off leave the same; it is said that either may be",
                )
                .guest(|guest| guest.on_reboot(OnEnd::Destroy)),
        );
    }
    let dumped = |name: &str, what: &str| of(name, what, dump, Away::Daemon, |_| probable("core-dumped"));
    all.push(
        dumped("dump-crash-no-panic-device", "a VM without a panic device is dumped with the order to crash")
            .guest(|guest| guest.panic_device(false))
            .because("without a device by which its guest could report a panic"),
    );
    all.push(
        dumped("dump-crash-panic-kept", "a VM with on_crash preserve is dumped with the order to crash")
            .guest(|guest| guest.on_crash(OnCrash::Preserve))
            .because("a panic of its guest does not end it"),
    );
    all.push(dumped("dump-crash", "another client dumps its memory with the order to crash it").honest(
        "guest-panic",
        "a panic that ends a VM and a dump with the order to crash leave the same; it is said that either may be",
    ));
    let what = "the watchdog fires, its action is poweroff";
    all.push(
        of("watchdog-poweroff", what, bark, Away::Libvirtd, |_| probable("watchdog-poweroff"))
            .guest(|guest| guest.watchdog(WatchdogAction::Poweroff))
            .because("exited with status 0"),
    );
    all
}

/// A way to end: its name, what is done, the deed, and what must be told.
type Told = (&'static str, &'static str, Act, fn(Kind) -> Expect);

/// libvirtd stands still, the VM ends by itself, and the first that libvirtd does for it when it goes on is what another
/// client asks: to destroy it. That only tidies up.
fn hung() -> Vec<Case> {
    let ways: [Told; 5] = [
        (
            "poweroff",
            "the guest powers itself off, and QEMU is told by SIGTERM not to wait",
            |scene| {
                off(scene)?;
                // QEMU waits for libvirt to end it. It says first that its guest shut down.
                scene.let_pass(Duration::from_secs(1))?;
                scene.kill(Signal::TERM)?;
                scene.wait_process_gone()
            },
            |_| probable("guest-poweroff"),
        ),
        (
            "sigkill",
            "QEMU gets SIGKILL",
            |scene| {
                kill(scene)?;
                scene.wait_process_gone()
            },
            |_| probable("process-killed"),
        ),
        (
            "sigterm",
            "QEMU gets SIGTERM",
            |scene| {
                scene.kill(Signal::TERM)?;
                scene.wait_process_gone()
            },
            |_| probable("process-terminated"),
        ),
        (
            "sigsegv",
            "QEMU gets SIGSEGV",
            |scene| {
                scene.kill(Signal::SEGV)?;
                scene.wait_process_gone()
            },
            |_| probable("qemu-crashed"),
        ),
        (
            "out-of-memory",
            "the kernel kills QEMU for lack of memory in its control group",
            super::memory::starve,
            |_| probable("oom-killed"),
        ),
    ];
    let mut all = Vec::new();
    for away in [Away::Hung, Away::HungForLong] {
        for (name, what, act, expect) in ways {
            let name = format!("{name}-{}", away.word());
            let what = format!("{what}, {}", phrase(away));
            let case = Case::new(&name, &what, act, expect).at(Venue::Away(away));
            all.push(match (&*name, away) {
                (name, _) if name.starts_with("sigsegv") => case.also("process-terminated"),
                (name, Away::HungForLong) if name.starts_with("poweroff") => case.honest(
                    "process-terminated",
                    "QEMU said it to the libvirtd that stood still, and of who ended the process there is a trace",
                ),
                _ => case,
            });
        }
    }
    all
}

/// The host itself goes down, and comes up again.
fn hosts() -> Vec<Case> {
    let cut = Venue::Away(Away::PowerCut);
    let boot = Venue::Away(Away::Boot);
    let announced = Venue::Away(Away::Announced);
    vec![
        Case::new("power-cut", "the host loses power while it runs", kill, |_| probable("host-lost"))
            .at(cut)
            .quick(),
        Case::new(
            "host-stops-term",
            "the host stops: whydownd and libvirtd end in order, then QEMU gets SIGTERM",
            |scene| {
                scene.kill(Signal::TERM)?;
                scene.wait_process_gone()
            },
            |_| probable("host-shutdown"),
        )
        .at(boot),
        Case::new(
            "host-stops-shutdown",
            "the host stops: libvirt-guests shuts it down by its power button, as systemd says that it stops",
            |scene| scene.virsh("shutdown VM --mode acpi"),
            |_| probable("host-shutdown"),
        )
        .at(announced),
        Case::new(
            "host-stops-save",
            "the host stops: libvirt-guests saves it",
            |scene| scene.virsh("managedsave VM"),
            |_| Expect::Ending("managed-saved", crate::case::Certainty::Certain),
        )
        .at(announced)
        .only(PERSISTENT),
        Case::new(
            "host-stops-kill",
            "the host stops: QEMU gets SIGTERM while whydownd listens, as systemd says that it stops",
            |scene| {
                scene.kill(Signal::TERM)?;
                scene.wait_process_gone()
            },
            |_| probable("host-shutdown"),
        )
        .at(announced)
        .only(PERSISTENT),
    ]
}
