//! The names that stories give to evidence.

use whydown_core::evidence::{Fact, OperationKind};
use whydown_core::hypervisor::Happening;

/// What is known of how a domain is made, and of its processor time, as stories write it.
pub(super) fn of_process(words: &str) -> Option<Fact> {
    Some(match words {
        "a reboot ends it" => Fact::RebootEnds,
        "a panic does not end it" => Fact::PanicStays,
        "it cannot panic" => Fact::CannotPanic,
        "its watchdog powers it off" => Fact::WatchdogPowersOff,
        _ => {
            let (used, limit) = words.strip_prefix("used ")?.split_once(" of ")?;
            let used_ms = used.parse::<u64>().ok()? * 1000;
            Fact::ProcessorTime { used_ms, limit_s: limit.parse().ok()? }
        }
    })
}

/// The kind of a fact, as stories write it.
pub fn kind_of(fact: &Fact) -> &'static str {
    match fact {
        Fact::Host(happening) => happening_kind(happening),
        Fact::Requested { what: OperationKind::Create, .. } => "asked-create",
        Fact::Requested { what: OperationKind::Shutdown, .. } => "asked-shutdown",
        Fact::Requested { what: OperationKind::ForceOff, .. } => "asked-force",
        Fact::Requested { what: OperationKind::Destroy, .. } => "asked-destroy",
        Fact::Requested { what: OperationKind::AgentShutdown, .. } => "asked-agent",
        Fact::Requested {
            what: OperationKind::Reboot | OperationKind::AgentReboot | OperationKind::ForceReset,
            ..
        } => "asked-reboot",
        Fact::Requested { what: OperationKind::Save, .. } => "asked-save",
        Fact::Requested { what: OperationKind::Migrate, .. } => "asked-migrate",
        // What can end nothing.
        Fact::Requested { .. } => "asked",
        Fact::Refused { .. } => "refused",
        Fact::Found { .. } => "found",
        Fact::Gone => "gone",
        Fact::Replaced => "replaced",
        Fact::LogStart { .. } => "log-start",
        Fact::NextFromSnapshot => "next-from-snapshot",
        Fact::StartedInVain => "started-in-vain",
        Fact::Gap { .. } => "gap",
        Fact::LogEnd { .. } => "log-end",
        Fact::LogDoubted { .. } => "log-doubted",
        Fact::LogSignal { .. } => "log-signal",
        Fact::LogText(_) => "log-text",
        Fact::StartFailed { .. } => "start-failed",
        Fact::StartTrouble(_) => "start-trouble",
        Fact::StartedFor { .. } => "started-for",
        Fact::LogSilent => "log-silent",
        Fact::LogCut => "log-cut",
        Fact::LogUnread(_) => "log-unread",
        Fact::Exit(_) => "exit",
        Fact::Wrapped { .. } => "wrapped",
        Fact::InnerExit(_) => "inner-exit",
        Fact::RebootEnds => "reboot-ends",
        Fact::PanicStays => "panic-stays",
        Fact::CannotPanic => "cannot-panic",
        Fact::WatchdogPowersOff => "watchdog-powers-off",
        Fact::LogPanic(_) => "log-panic",
        Fact::GuestMayExit { .. } => "guest-may-exit",
        Fact::Signalled { .. } => "signalled",
        Fact::OomKilled { .. } => "oom-killed",
        Fact::HostGoingDown { .. } => "host-going-down",
        Fact::HostWentDown { .. } => "host-went-down",
        Fact::HostStays => "host-stays",
        Fact::HostUp { .. } => "host-up",
        Fact::UnitStopping { .. } => "unit-stopping",
        Fact::PassedOn(OperationKind::Destroy) => "passed-on-destroy",
        Fact::PassedOn(_) => "passed-on",
        Fact::SenderUnit { .. } => "sender-unit",
        Fact::ProcessorTime { .. } => "processor-time",
        Fact::DiskSpace { .. } => "disk-space",
        Fact::ForceFollows { .. } => "force-follows",
        Fact::Astray(..) => "astray",
        Fact::CoreDump { .. } => "core-dump",
        Fact::CoreTaken { .. } => "core-taken",
        Fact::LibvirtSince(_) => "libvirt-since",
        Fact::NewBoot { .. } => "new-boot",
        Fact::ClockSet { .. } => "clock-set",
        Fact::Unreadable(_) => "unreadable",
    }
}

fn happening_kind(happening: &Happening) -> &'static str {
    match happening {
        Happening::Defined => "defined",
        Happening::Undefined { .. } => "undefined",
        Happening::Started(_) => "started",
        Happening::Suspended(_) => "suspended",
        Happening::Resumed(_) => "resumed",
        Happening::Stopped(_) => "stopped",
        Happening::ShutdownBegan(_) => "shutdown",
        Happening::PmSuspended(_) => "pm-suspended",
        Happening::GuestCrashed(_) => "crashed",
        Happening::Rebooted => "reboot",
        Happening::Watchdog(_) => "watchdog",
        Happening::IoError { .. } => "io-error",
        Happening::ControlError => "control-error",
        Happening::JobCompleted(_) => "job-completed",
        Happening::Agent { .. } => "agent",
        Happening::MemoryFailure { .. } => "memory-failure",
        Happening::QemuShutdown { .. } => "qmp-shutdown",
        Happening::QemuReset { .. } => "qmp-reset",
        Happening::QemuPowerdown => "qmp-powerdown",
        Happening::QemuPanicked => "qmp-guest-panicked",
    }
}
