//! From what is there to findings: each a sentence, the causes that it concerns, and what to add.

use std::collections::BTreeSet;

use whydown_core::cause::Cause;

use super::definition::Definition;
use super::needs::Need;
use crate::told::{Finding, FindingLevel};

/// What a need is met by, or why it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is there.
    Met,
    /// It is not, and this is why.
    Missing(String),
}

impl State {
    /// Missing if there is a reason.
    pub fn of(trouble: Option<String>) -> Self {
        trouble.map_or(Self::Met, Self::Missing)
    }
}

/// A need and how it stands.
pub fn finding(need: Need, state: State) -> Finding {
    let (what, advice, add) = words(need);
    let (level, what) = match state {
        State::Met => return found(need, FindingLevel::Fine, what.into(), "", ""),
        // Nothing can be done about it that anybody would want, so it is no trouble of the host's.
        State::Missing(why) if need == Need::NoAgent => (FindingLevel::Note, why),
        State::Missing(why) => (FindingLevel::Cannot, why),
    };
    found(need, level, what, advice, add)
}

fn found(need: Need, level: FindingLevel, what: String, advice: &str, add: &str) -> Finding {
    let causes = need.causes().map(|cause| cause.row().word.to_owned()).collect();
    Finding { about: word(need).into(), level, what, causes, advice: advice.into(), add: add.into() }
}

/// A note that is about no need.
pub fn note(about: &str, what: impl Into<String>, causes: &[Cause], advice: &str, add: &str) -> Finding {
    Finding {
        about: about.into(),
        level: FindingLevel::Note,
        what: what.into(),
        causes: causes.iter().map(|cause| cause.row().word.to_owned()).collect(),
        advice: advice.into(),
        add: add.into(),
    }
}

/// How libvirt's own log stands: starts that it refuses to other clients it explains there alone.
pub fn libvirts_log(trouble: Option<String>) -> Finding {
    let causes = [Cause::StartFailed, Cause::StartFailedSilent];
    match trouble {
        None => {
            let what = "libvirt's own log can be read";
            Finding { level: FindingLevel::Fine, ..note("libvirt-log", what, &causes, "", "") }
        }
        Some(why) => note(
            "libvirt-log",
            format!(
                "libvirt's own log cannot be read: {why}. Of starts by others that libvirt refuses before QEMU runs it is seen \
                 that they failed, and not why"
            ),
            &causes,
            "Let whydown read the journal, or have libvirt write a file (log_outputs in libvirtd.conf) and name it:",
            "[libvirt]\ndaemon_log = \"/var/log/libvirt/libvirtd.log\"",
        ),
    }
}

/// Who may act by the present settings, and whom they kept out.
pub fn listeners(opened: &[String], wide: bool, (refused, last): (u64, String)) -> Finding {
    let mut what = opened.join("; ");
    if refused == 0 && !wide {
        return Finding { level: FindingLevel::Fine, ..note("listeners", what, &[], "", "") };
    }
    if refused > 0 {
        what.push_str(&format!(
            "; {refused} requests over plain TCP were refused since the daemon started, the last of {last}"
        ));
    }
    let advice = "Managers on this host should use the Unix socket (socket.users names their users), others TLS \
        (tls.actors); see docs/security.md. What would let everybody in who reaches xmlrpc.listen:";
    let add = if wide { "[xmlrpc]\nplain_may_act = false" } else { "[xmlrpc]\nplain_may_act = true" };
    let advice = if wide {
        "For less, where managers can use the Unix socket or TLS; see docs/security.md:"
    } else {
        advice
    };
    note("listeners", what, &[], advice, add)
}

/// The causes of findings that cannot be told, and all others, in the order of THE TABLE.
pub fn divided(findings: &[Finding]) -> (Vec<String>, Vec<String>) {
    let lost: BTreeSet<&str> = findings
        .iter()
        .filter(|finding| finding.level == FindingLevel::Cannot)
        .flat_map(|finding| finding.causes.iter().map(String::as_str))
        .collect();
    let words = Cause::ALL.iter().map(|cause| cause.row().word.to_owned());
    words.partition(|word| !lost.contains(word.as_str()))
}

fn word(need: Need) -> &'static str {
    match need {
        Need::Link => "libvirt",
        Need::Ledger => "ledger",
        Need::QemuEvents => "qemu-events",
        Need::QemuLog => "qemu-log",
        Need::PanicDevice => "panic-device",
        Need::Persistent => "persistent",
        Need::NoAgent => "agent",
    }
}

/// What it gives where it is there; what to do where it is not; and what to add.
fn words(need: Need) -> (&'static str, &'static str, &'static str) {
    match need {
        Need::Link => ("libvirt is listened to", "See that libvirt runs, and libvirt.uri.", ""),
        Need::Ledger => {
            ("the ledger is written", "Make room on its disk; do not restart whydown before.", "")
        }
        Need::QemuEvents => (
            "QEMU's own events are heard",
            "Follow libvirt's QEMU driver.",
            "[libvirt]\nuri = \"qemu:///system\"",
        ),
        Need::QemuLog => (
            "QEMU's logs can be read",
            "Name the folder of QEMU's logs, and let whydown read it.",
            "[libvirt]\nlog_dir = \"/var/log/libvirt/qemu\"",
        ),
        Need::PanicDevice => (
            "a panic of the guest is reported",
            "Add a panic device to the definition; it is there from the next start.",
            "<devices>\n  <panic model='isa'/>\n</devices>",
        ),
        Need::Persistent => (
            "libvirt keeps its definition, and why it is off",
            "Define it, so that what ends while libvirt is away leaves a trace.",
            "virsh dumpxml VM > vm.xml && virsh define vm.xml",
        ),
        Need::NoAgent => (
            "no agent is there through which another client could ask for a shutdown unseen",
            "Have shutdowns asked for through whydown: its own requests are known.",
            "",
        ),
    }
}

/// The first libvirt that has a panic device for machines with a PCI bus and no ISA: 9.1.0. It needs a QEMU of 6.0.
const PANIC_BY_PCI: u64 = 9_001_000;

/// The model of a panic device that this libvirt takes for this architecture; `None` if it has none.
fn panic_model(arch: &str, libvirt: u64) -> Option<&'static str> {
    match arch {
        "i686" | "x86_64" | "" => Some("isa"),
        "ppc64" | "ppc64le" => Some("pseries"),
        "s390x" => Some("s390"),
        _ if libvirt >= PANIC_BY_PCI => Some("pvpanic"),
        _ => None,
    }
}

fn panic_device(vm: &Definition, libvirt: u64) -> Finding {
    let why = "no panic device: a panic looks like a hang, a reset or a power-off";
    let mut panic = finding(Need::PanicDevice, State::of((!vm.panic_device).then(|| why.to_owned())));
    if !vm.panic_device {
        match panic_model(&vm.arch, libvirt) {
            Some(model) => panic.add = format!("<devices>\n  <panic model='{model}'/>\n</devices>"),
            None => {
                panic.advice = format!(
                    "This libvirt has no panic device for {}: it takes libvirt 9.1 or later.",
                    vm.arch
                );
                panic.add.clear();
            }
        }
    }
    panic
}

/// What a VM's definition lets be told by this libvirt (1,000,000 * major + 1,000 * minor + release).
pub fn of_definition(vm: &Definition, persistent: bool, libvirt: u64) -> Vec<Finding> {
    let missing = |met: bool, why: &str| State::of((!met).then(|| why.to_owned()));
    let agent = match vm.agent {
        Some(true) => {
            Some("an agent is connected: what another client asks of it looks like the guest's own doing")
        }
        Some(false) => Some(
            "it has a channel for an agent; while one is connected, what another client asks of it looks like the guest's own doing",
        ),
        None => None,
    };
    let mut all = vec![
        panic_device(vm, libvirt),
        finding(
            Need::Persistent,
            missing(persistent, "transient: if it ends while libvirt is away, nothing tells how"),
        ),
        finding(Need::NoAgent, State::of(agent.map(str::to_owned))),
    ];
    if matches!(vm.on_crash.as_deref(), Some("restart" | "coredump-restart" | "preserve" | "rename-restart"))
    {
        let what =
            format!("on_crash is {}: a panic does not end it", vm.on_crash.as_deref().unwrap_or_default());
        let add = "<on_crash>destroy</on_crash>";
        all.push(note(
            "on_crash",
            what,
            &[Cause::GuestPanic],
            "If a panic should end the VM, and be told:",
            add,
        ));
    }
    if vm.on_reboot.as_deref() == Some("destroy") {
        let what = "on_reboot is destroy: every reboot ends it";
        let add = "<on_reboot>restart</on_reboot>";
        all.push(note(
            "on_reboot",
            what,
            &[Cause::DestroyedOnReboot],
            "If a reboot should not end the VM:",
            add,
        ));
    }
    if matches!(vm.on_poweroff.as_deref(), Some("restart" | "rename-restart")) {
        let what =
            "on_poweroff is restart: a guest that powers itself off starts again, and nothing has ended";
        let add = "<on_poweroff>destroy</on_poweroff>";
        all.push(note(
            "on_poweroff",
            what,
            &[Cause::GuestPoweroff],
            "If a power-off should end the VM:",
            add,
        ));
    }
    let dogs = [Cause::WatchdogPoweroff, Cause::WatchdogShutdown];
    let add = "<devices>\n  <watchdog model='i6300esb' action='poweroff'/>\n</devices>";
    match vm.watchdog.as_deref() {
        None => {
            let what = "no watchdog: a guest that hangs goes on, and nothing tells that it hangs";
            all.push(note("watchdog", what, &dogs, "If a hang should end the VM, and be told:", add));
        }
        Some("poweroff" | "shutdown") => {}
        Some(action) => {
            let what = format!(
                "the watchdog's action is {action}: a hang is in the evidence, and does not end the VM"
            );
            all.push(note("watchdog", what, &dogs, "If a hang should end the VM:", add));
        }
    }
    if !vm.balloon || vm.balloon_period_s == 0 {
        let what =
            "its balloon does not tell what the guest uses of its memory: memUsage is not known to managers";
        let add = "<devices>\n  <memballoon model='virtio'><stats period='5'/></memballoon>\n</devices>";
        all.push(note("balloon", what, &[], "It changes nothing about causes. For the figure:", add));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_names_its_causes_and_what_is_there_loses_none() {
        let fine: Vec<Finding> = Need::ALL.map(|need| finding(need, State::Met)).into();
        let (can, cannot) = divided(&fine);
        assert_eq!((can.len(), cannot.len()), (Cause::ALL.len(), 0));
        for need in Need::ALL {
            let one = finding(need, State::Missing("gone".into()));
            assert!(!one.causes.is_empty() && !one.advice.is_empty() && one.what == "gone", "{one:?}");
            let (_, cannot) = divided(std::slice::from_ref(&one));
            assert_eq!(cannot.is_empty(), need == Need::NoAgent, "{need:?}");
        }
    }

    /// Debian 12's.
    const OLD: u64 = 9_000_000;

    #[test]
    fn the_panic_device_that_is_advised_is_one_that_libvirt_takes() {
        let advised = |arch: &str, libvirt: u64| {
            let vm = Definition { arch: arch.into(), ..Definition::default() };
            let all = of_definition(&vm, true, libvirt);
            all.into_iter().find(|one| one.about == "panic-device").unwrap()
        };
        for (arch, libvirt, model) in [
            ("x86_64", OLD, "isa"),
            ("i686", 11_003_000, "isa"),
            ("aarch64", 11_003_000, "pvpanic"),
            ("riscv64", PANIC_BY_PCI, "pvpanic"),
            ("ppc64le", OLD, "pseries"),
            ("s390x", OLD, "s390"),
        ] {
            assert!(advised(arch, libvirt).add.contains(&format!("<panic model='{model}'/>")), "{arch}");
        }
        let none = advised("aarch64", OLD);
        assert_eq!((none.level, none.add.as_str()), (FindingLevel::Cannot, ""));
        assert!(none.advice.contains("no panic device for aarch64"), "{none:?}");
    }

    #[test]
    fn the_listeners_are_fine_as_delivered_and_worth_a_word_when_wide_or_somebody_stood_before_them() {
        let opened = ["a: b".to_owned(), "c: d".to_owned()];
        let fine = listeners(&opened, false, (0, String::new()));
        assert_eq!((fine.level, fine.what.as_str()), (FindingLevel::Fine, "a: b; c: d"));
        let kept_out = listeners(&opened, false, (2, "x, for destroy".into()));
        assert_eq!(kept_out.level, FindingLevel::Note);
        assert!(kept_out.what.contains("2 requests") && kept_out.what.ends_with("x, for destroy"));
        assert!(kept_out.add.contains("plain_may_act = true"));
        assert!(listeners(&opened, true, (0, String::new())).add.contains("plain_may_act = false"));
    }

    #[test]
    fn a_definition_is_told_with_what_to_add() {
        let bare = of_definition(&Definition::default(), true, OLD);
        let about = |all: &[Finding], about: &str| all.iter().find(|one| one.about == about).cloned();
        let panic = about(&bare, "panic-device").unwrap();
        assert_eq!(panic.level, FindingLevel::Cannot);
        assert_eq!(panic.causes, ["destroyed-on-reboot", "guest-panic"]);
        assert!(panic.add.contains("<panic model='isa'/>"));
        assert_eq!(about(&bare, "persistent").unwrap().level, FindingLevel::Fine);
        assert!(about(&bare, "watchdog").unwrap().add.contains("<watchdog"));
        let vm = Definition {
            arch: "x86_64".into(),
            panic_device: true,
            watchdog: Some("poweroff".into()),
            agent: Some(true),
            balloon: true,
            balloon_period_s: 5,
            on_reboot: Some("destroy".into()),
            on_crash: Some("preserve".into()),
            on_poweroff: Some("restart".into()),
        };
        let all = of_definition(&vm, true, OLD);
        assert!(all.iter().all(|one| one.level != FindingLevel::Cannot), "{all:?}");
        for word in ["agent", "on_crash", "on_reboot", "on_poweroff"] {
            assert_eq!(about(&all, word).unwrap().level, FindingLevel::Note, "{word}");
        }
        assert!(about(&all, "watchdog").is_none() && about(&all, "balloon").is_none());
        assert_eq!(about(&of_definition(&vm, false, OLD), "persistent").unwrap().level, FindingLevel::Cannot);
    }
}
