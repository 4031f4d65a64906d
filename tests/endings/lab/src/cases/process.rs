//! What happens to the QEMU process: signals and its monitor.

use whydown_lab::Signal;

use super::{certain, none, probable};
use crate::case::{Case, PERSISTENT};
use crate::host::PATIENCE;

pub(super) fn cases() -> Vec<Case> {
    // Where signals are traced, whydown knows that it was no fault of QEMU's own; elsewhere it says what is likely.
    let crashed = |name: &str, what: &str, act| {
        Case::new(name, what, act, |_| probable("qemu-crashed")).also("process-terminated")
    };
    let terminated =
        |name: &str, what: &str, act| Case::new(name, what, act, |_| certain("process-terminated"));
    vec![
        Case::new("sigkill", "QEMU gets SIGKILL", |s| s.kill(Signal::KILL), |_| probable("process-killed"))
            .quick(),
        terminated("sigterm", "QEMU gets SIGTERM", |s| s.kill(Signal::TERM)).quick(),
        terminated("sigint", "QEMU gets SIGINT", |s| s.kill(Signal::INT)).only(PERSISTENT),
        terminated("sighup", "QEMU gets SIGHUP", |s| s.kill(Signal::HUP)).only(PERSISTENT),
        crashed("sigsegv", "QEMU gets SIGSEGV", |s| s.kill(Signal::SEGV)).quick(),
        crashed("sigabrt", "QEMU gets SIGABRT", |s| s.kill(Signal::ABORT)),
        crashed("sigbus", "QEMU gets SIGBUS", |s| s.kill(Signal::BUS)).only(PERSISTENT),
        terminated("sigusr2", "QEMU gets SIGUSR2, which it does not handle", |s| s.kill(Signal::USR2))
            .only(PERSISTENT),
        Case::new(
            "sigstop-and-on",
            "QEMU gets SIGSTOP and SIGCONT",
            |scene| {
                scene.kill(Signal::STOP)?;
                scene.kill(Signal::CONT)?;
                Ok(scene.serial()?.answer(PATIENCE)?)
            },
            none,
        )
        .only(PERSISTENT),
        Case::new(
            "sigkill-while-stopped",
            "QEMU gets SIGSTOP and then SIGKILL",
            |scene| {
                scene.kill(Signal::STOP)?;
                scene.kill(Signal::KILL)
            },
            |_| probable("process-killed"),
        )
        .only(PERSISTENT),
        Case::new(
            "monitor-quit",
            "somebody tells QEMU to quit through its monitor, in QMP",
            |scene| {
                let quit = r#"{"execute":"quit"}"#;
                scene.virsh_whatever(&format!("qemu-monitor-command VM {quit}"))
            },
            |_| probable("monitor-quit"),
        )
        .quick(),
        Case::new(
            "monitor-quit-by-hand",
            "somebody tells QEMU to quit through its monitor, as a person types it",
            |scene| scene.virsh_whatever("qemu-monitor-command VM --hmp quit"),
            |_| probable("monitor-quit"),
        )
        .only(PERSISTENT),
        Case::new(
            "monitor-powerdown",
            "somebody presses the power button through QEMU's monitor, and the guest obeys",
            |scene| scene.virsh("qemu-monitor-command VM --hmp system_powerdown"),
            |_| probable("other-shutdown"),
        )
        .only(PERSISTENT),
        Case::new(
            "monitor-reset",
            "somebody resets the machine through QEMU's monitor",
            |scene| {
                scene.virsh("qemu-monitor-command VM --hmp system_reset")?;
                Ok(scene.serial()?.started_again(PATIENCE)?)
            },
            none,
        )
        .only(PERSISTENT),
    ]
}
