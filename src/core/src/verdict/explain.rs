//! Evidence in words for people.

use crate::cause::Cause;
use crate::evidence::{Audited, Deaf, Dossier, ExitStatus, Fact, LogWord, OperationKind, Sender, StartedFor};
use crate::hypervisor::{
    CrashDetail, DomainState, Happening, IoErrorAction, PauseReason, PmDetail, QemuReason, ResumeDetail,
    ShutOffReason, ShutdownDetail, StartDetail, StopDetail, SuspendDetail, WatchdogAction,
};
use crate::time::Wall;

/// One fact as a sentence without its full stop. Texts from guests, logs and managers stand in quotes, as they came.
pub fn describe(fact: &Fact) -> String {
    match fact {
        Fact::Host(happening) => happened(happening),
        Fact::Requested { what, who } => format!("{who} asked whydown to {}", what.words()),
        Fact::PassedOn(what) => format!("whydown asked libvirt to {}", what.words()),
        Fact::ForceFollows { within_ms: Some(ms), who } => {
            format!("for {who} whydown was to end it within {} s, if it was still there", ms.div_ceil(1000))
        }
        Fact::ForceFollows { within_ms: None, .. } => "whydown was not to end it any more".into(),
        Fact::Astray(what, who) => {
            format!(
                "{who} had asked whydown to {}, and libvirt may have done that to this run instead of the one before",
                what.words()
            )
        }
        Fact::Refused { what, text } => format!("libvirt refused to {}: \"{text}\"", what.words()),
        Fact::Found { state, managed_save } => {
            let image = match managed_save {
                Some(true) => ", with a managed save image",
                Some(false) | None => "",
            };
            format!("libvirt shows it {}{image}", state_words(*state))
        }
        Fact::Gone => "libvirt no longer knows it".into(),
        Fact::Replaced => "the VM was started again since".into(),
        Fact::LogStart { incoming: false, .. } => {
            "QEMU's log tells of its start; whydown was not listening then".into()
        }
        Fact::LogStart { incoming: true, .. } => {
            "QEMU's log tells that it was started for a VM that is restored or migrates here; whydown was not listening then"
                .into()
        }
        Fact::NextFromSnapshot => "its next run began from a snapshot".into(),
        Fact::StartedInVain => "libvirt told of a start from a snapshot that brought no process up".into(),
        Fact::Gap { why: Deaf::DaemonAway, .. } => "whydown was not listening (it was not running)".into(),
        Fact::Gap { why: Deaf::LinkLost, .. } => {
            "whydown was not listening (the link to libvirt was lost)".into()
        }
        Fact::LogEnd { word, .. } => {
            format!("libvirt's farewell in QEMU's log: \"reason={}\"", log_word(*word))
        }
        Fact::LogDoubted { word, .. } => format!(
            "QEMU's log, into which its guest can write, says as libvirt would: \"reason={}\"",
            log_word(*word)
        ),
        Fact::LogSignal { signal, pid, program, sender, .. } => {
            let program = if program.is_empty() {
                "a program that is gone".to_owned()
            } else {
                format!("\"{program}\"")
            };
            let who = sender_words(*sender);
            format!("QEMU's log: ended by signal {signal} from process {pid}, {program}: {who}")
        }
        Fact::Signalled { signal, sender: Sender::Kernel, audit, .. } => {
            let limit = limit_of(*signal).map_or_else(String::new, |on| format!(", for a limit on {on}"));
            format!("{} from the kernel itself{limit}{}", signal_word(*signal), audited(audit.as_ref()))
        }
        Fact::Signalled { signal, sender: Sender::Itself, .. } if limit_of(*signal).is_some() => {
            // The kernel signs it with the process that writes the file.
            let on = limit_of(*signal).unwrap_or_default();
            format!("{}, as the kernel sends it for a limit on {on}", signal_word(*signal))
        }
        Fact::Signalled { signal, pid, program, sender, audit, .. } => {
            let program = if program.is_empty() {
                "a program that is gone".to_owned()
            } else {
                format!("\"{program}\"")
            };
            let (name, who) = (signal_word(*signal), sender_words(*sender));
            format!("{name} from process {pid}, {program}: {who}{}", audited(audit.as_ref()))
        }
        Fact::LogText(text) => format!("QEMU's log says: \"{text}\""),
        Fact::StartFailed { told_by } => format!("a start that whydown was not asked for failed: {told_by}"),
        Fact::StartTrouble(text) => format!("libvirt says of the start: \"{text}\""),
        Fact::StartedFor { what, told_by } => {
            let what = match what {
                StartedFor::Migration => "for a VM that migrates here",
                StartedFor::Restore => "to be restored from what was saved",
                StartedFor::Either => "for a VM that is restored or migrates here",
            };
            format!("it was started {what}: {told_by}")
        }
        Fact::LogSilent => "QEMU's log ends without a farewell".into(),
        Fact::LogCut => "QEMU's log has lost the beginning of this run's part, and perhaps more".into(),
        Fact::LogUnread(why) => format!("QEMU's log could not be read: {why}"),
        Fact::Exit(ExitStatus::Code(code)) => format!("the process exited with status {code}"),
        Fact::Exit(ExitStatus::Signal(signal)) => format!("the process was killed by signal {signal}"),
        Fact::Wrapped { program, qemu } => {
            let inner = qemu.map_or_else(String::new, |pid| format!(", which is process {pid}"));
            format!("the process that libvirt started is \"{program}\", and runs QEMU{inner}")
        }
        Fact::InnerExit(ExitStatus::Code(code)) => format!("QEMU itself exited with status {code}"),
        Fact::InnerExit(ExitStatus::Signal(signal)) => format!("QEMU itself was killed by signal {signal}"),
        Fact::GuestMayExit { device } => {
            format!("its definition has \"{device}\", by which the guest ends QEMU with a status of its own")
        }
        Fact::RebootEnds => "by its definition, as last read, a reboot of its guest ends it (on_reboot)".into(),
        Fact::PanicStays => {
            "by its definition, as last read, a panic of its guest does not end it (on_crash)".into()
        }
        Fact::CannotPanic => "it was begun without a device by which its guest could report a panic".into(),
        Fact::WatchdogPowersOff => "it was begun with a watchdog that powers it off".into(),
        Fact::LogPanic(text) => format!("libvirt's word in QEMU's log: \"{text}\""),
        Fact::OomKilled { line } => format!("the kernel says: \"{line}\""),
        Fact::HostGoingDown { by } => format!("the host was going down: {by}"),
        Fact::HostWentDown { by, .. } => format!("the host was shut down in good order: {by}"),
        Fact::HostStays => "the host was not going down any more: its shutdown was called off".into(),
        Fact::HostUp { by } => format!("the host was not going down: {by}"),
        Fact::UnitStopping { unit } => format!("systemd was told to stop \"{unit}\", in which it ran"),
        Fact::ProcessorTime { used_ms, limit_s } => format!(
            "it had used {:.1} s of processor time, of which its hard limit gives it {limit_s} s",
            *used_ms as f64 / 1000.0
        ),
        Fact::SenderUnit { pid, unit } => format!("process {pid} ran in \"{unit}\" of systemd"),
        Fact::DiskSpace { disk, path, free: Some(free) } => {
            let free = bytes(*free);
            format!("the disk \"{disk}\" is the file \"{path}\": {free} were free on its file system")
        }
        Fact::DiskSpace { disk, path, free: None } => {
            format!("the disk \"{disk}\" is \"{path}\" of the host")
        }
        Fact::CoreDump { file } => format!("QEMU's own memory was written to \"{file}\""),
        Fact::CoreTaken { by, pid } => format!("the kernel gave the memory of process {pid} to \"{by}\""),
        Fact::LibvirtSince(_) => "the libvirt that ended it had been running since".into(),
        Fact::NewBoot { .. } => "the host has booted anew since".into(),
        Fact::ClockSet { before, now } => clock_words(*before, *now),
        Fact::Unreadable(_) => "a piece of stored evidence that this version cannot read".into(),
    }
}

/// The words of libvirt or QEMU that belong into the message of this cause.
pub fn text_of(cause: Cause, dossier: &Dossier) -> Option<String> {
    if !cause.row().message.contains("{text}") {
        return None;
    }
    if let Some(killer) = super::process::start_killer(dossier) {
        return Some(killer);
    }
    let refused = dossier.items().iter().rev().find_map(|e| match &e.fact {
        Fact::Refused { what: OperationKind::Create, text } if super::process::says_why(text) => Some(text),
        _ => None,
    });
    let logged = || {
        dossier.items().iter().rev().find_map(|e| match &e.fact {
            Fact::LogText(text) if super::process::log_says_why(text) => Some(text),
            _ => None,
        })
    };
    let troubled = || {
        dossier.items().iter().rev().find_map(|e| match &e.fact {
            Fact::StartTrouble(text) if super::process::says_why(text) => Some(text),
            _ => None,
        })
    };
    let said = refused.or_else(troubled).or_else(logged).map(|text| text.trim().to_owned());
    said.or_else(|| super::process::start_terminator(dossier))
}

/// What the audit adds, to be put behind the rest.
fn audited(audit: Option<&Audited>) -> String {
    match audit {
        None => String::new(),
        Some(Audited::Process { exe, uid, login }) => {
            let file = if exe.is_empty() { String::new() } else { format!(" \"{exe}\"") };
            let login = match login {
                Some(login) => format!("logged in as user {login}"),
                None => "without a login".into(),
            };
            format!("; the audit names{file} of user {uid}, {login}")
        }
        Some(Audited::Sandbox { call, arch }) => {
            format!("; the audit says: its sandbox forbids system call {call}{}", arch_words(*arch))
        }
    }
}

/// The architectures of the audit's numbers (`AUDIT_ARCH_…`).
fn arch_words(arch: u32) -> String {
    let name = match arch {
        0xc000_003e => "x86_64",
        0x4000_0003 => "i386",
        0xc000_00b7 => "aarch64",
        0x8000_0016 => "s390x",
        0xc000_0015 => "ppc64le",
        0xc000_00f3 => "riscv64",
        other => return format!(" of architecture {other:x}"),
    };
    format!(" of {name}")
}

/// By how much, in the largest unit that leaves a number above one.
fn clock_words(before: Wall, now: Wall) -> String {
    let (by, way) = match now > before {
        true => (now.since(before), "forward"),
        false => (before.since(now), "back"),
    };
    let seconds = by.as_secs();
    let (number, unit) = match seconds {
        172_800.. => (seconds / 86_400, "days"),
        7_200.. => (seconds / 3_600, "hours"),
        120.. => (seconds / 60, "minutes"),
        _ => (seconds, "seconds"),
    };
    format!("the host's clock was set {way} by {number} {unit}")
}

/// A number of bytes in the largest unit that leaves a whole number above nine.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut rest, mut unit) = (count, "bytes");
    for larger in UNITS {
        if rest < 10 << 10 {
            break;
        }
        (rest, unit) = (rest >> 10, larger);
    }
    format!("{rest} {unit}")
}

fn sender_words(sender: Sender) -> &'static str {
    match sender {
        Sender::Libvirt => "libvirt itself",
        Sender::Init => "the host's init",
        Sender::Manager => "the service manager of a user",
        Sender::Outside => "somebody on the host",
        Sender::Kernel => "the kernel",
        Sender::Itself => "QEMU itself",
    }
}

pub(super) fn signal_word(signal: i32) -> String {
    match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    }
    .into()
}

/// What the limit is on whose signal this is.
pub(super) fn limit_of(signal: i32) -> Option<&'static str> {
    match signal {
        24 => Some("processor time"),
        25 => Some("the size of files"),
        _ => None,
    }
}

fn log_word(word: LogWord) -> &'static str {
    match word {
        LogWord::Shutdown => "shutdown",
        LogWord::Destroyed => "destroyed",
        LogWord::Crashed => "crashed",
        LogWord::Migrated => "migrated",
        LogWord::Saved => "saved",
        LogWord::Failed => "failed",
        LogWord::FromSnapshot => "from snapshot",
        LogWord::Daemon => "daemon",
        LogWord::Other => "(a word unknown to whydown)",
    }
}

fn state_words(state: DomainState) -> String {
    match state {
        DomainState::Running => "running".into(),
        DomainState::Paused(reason) => format!("paused ({})", pause_words(reason)),
        DomainState::ShuttingDown => "shutting down".into(),
        DomainState::ShutOff(reason) => format!("off ({})", shut_off_words(reason)),
        DomainState::Crashed => "crashed and kept".into(),
        DomainState::PmSuspended => "suspended to memory".into(),
        DomainState::Other(state, reason) => format!("in state {state}, reason {reason}"),
    }
}

fn pause_words(reason: PauseReason) -> String {
    match reason {
        PauseReason::Unknown => "no reason given",
        PauseReason::User => "by a client",
        PauseReason::Migration => "migration",
        PauseReason::Save => "being saved",
        PauseReason::Dump => "being dumped",
        PauseReason::IoError => "I/O error",
        PauseReason::Watchdog => "watchdog",
        PauseReason::FromSnapshot => "from a snapshot",
        PauseReason::ShuttingDown => "shutting down",
        PauseReason::Snapshot => "snapshot",
        PauseReason::Crashed => "crashed",
        PauseReason::StartingUp => "starting",
        PauseReason::Postcopy => "post-copy",
        PauseReason::PostcopyFailed => "post-copy failed",
        PauseReason::Other(number) => return format!("reason {number}"),
    }
    .into()
}

fn shut_off_words(reason: ShutOffReason) -> String {
    match reason {
        ShutOffReason::Unknown => "no reason kept",
        ShutOffReason::Shutdown => "shutdown",
        ShutOffReason::Destroyed => "destroyed",
        ShutOffReason::Crashed => "crashed",
        ShutOffReason::Migrated => "migrated",
        ShutOffReason::Saved => "saved",
        ShutOffReason::Failed => "start failed",
        ShutOffReason::FromSnapshot => "from a snapshot",
        ShutOffReason::Daemon => "killed by libvirt",
        ShutOffReason::Other(number) => return format!("reason {number}"),
    }
    .into()
}

fn happened(happening: &Happening) -> String {
    let plain = match happening {
        Happening::Defined => "its definition was changed",
        Happening::Undefined { renamed: true } => "it was renamed",
        Happening::Undefined { renamed: false } => "its definition was removed",
        Happening::Started(StartDetail::Booted) => "libvirt: started",
        Happening::Started(StartDetail::Migrated) => "libvirt: started by an incoming migration",
        Happening::Started(StartDetail::Restored) => "libvirt: started from a saved state",
        Happening::Started(StartDetail::FromSnapshot) => "libvirt: started from a snapshot",
        Happening::Started(StartDetail::Wakeup) => "libvirt: woken up",
        Happening::Suspended(SuspendDetail::Paused) => "libvirt: paused",
        Happening::Suspended(SuspendDetail::Migrated) => "libvirt: paused for migration",
        Happening::Suspended(SuspendDetail::IoError) => "libvirt: paused by an I/O error",
        Happening::Suspended(SuspendDetail::Watchdog) => "libvirt: paused by the watchdog",
        Happening::Suspended(SuspendDetail::Restored) => "libvirt: restored paused",
        Happening::Suspended(SuspendDetail::FromSnapshot) => "libvirt: paused from a snapshot",
        Happening::Suspended(SuspendDetail::ApiError) => "libvirt: paused after an error",
        Happening::Suspended(SuspendDetail::Postcopy) => "libvirt: paused for post-copy",
        Happening::Suspended(SuspendDetail::PostcopyFailed) => "libvirt: paused, post-copy failed",
        Happening::Resumed(ResumeDetail::PostcopyFailed) => {
            "libvirt: runs without all of its memory, post-copy failed"
        }
        Happening::Resumed(ResumeDetail::Migrated) => "libvirt: taken over from migration",
        Happening::Resumed(
            ResumeDetail::Unpaused
            | ResumeDetail::FromSnapshot
            | ResumeDetail::Postcopy
            | ResumeDetail::Other(_),
        ) => "libvirt: its CPUs run",
        Happening::Stopped(StopDetail::Shutdown) => "libvirt: stopped after a shutdown",
        Happening::Stopped(StopDetail::Destroyed) => "libvirt: stopped by a destroy",
        Happening::Stopped(StopDetail::Crashed) => "libvirt: stopped after a crash",
        Happening::Stopped(StopDetail::Migrated) => "libvirt: stopped as it migrated",
        Happening::Stopped(StopDetail::Saved) => "libvirt: stopped as it was saved",
        Happening::Stopped(StopDetail::Failed) => "libvirt: stopped because the process is gone",
        Happening::Stopped(StopDetail::FromSnapshot) => "libvirt: stopped by a snapshot operation",
        Happening::ShutdownBegan(ShutdownDetail::Finished) => "libvirt: a shutdown began",
        Happening::ShutdownBegan(ShutdownDetail::Guest) => "libvirt: a shutdown began inside the guest",
        Happening::ShutdownBegan(ShutdownDetail::Host) => "libvirt: a shutdown began on the host's side",
        Happening::PmSuspended(PmDetail::Memory) => "the guest suspended to memory",
        Happening::PmSuspended(PmDetail::Disk) => "the guest suspended to disk",
        Happening::GuestCrashed(CrashDetail::Panicked) => "libvirt: the guest panicked",
        Happening::GuestCrashed(CrashDetail::CrashLoaded) => "libvirt: the guest's crash kernel took over",
        Happening::Rebooted => "libvirt: the guest rebooted",
        Happening::Watchdog(WatchdogAction::PowerOff) => "the watchdog fired and powered it off",
        Happening::Watchdog(WatchdogAction::Shutdown) => "the watchdog fired and asked for a shutdown",
        Happening::Watchdog(WatchdogAction::Reset) => "the watchdog fired and reset it",
        Happening::Watchdog(WatchdogAction::Pause) => "the watchdog fired and paused it",
        Happening::Watchdog(_) => "the watchdog fired",
        Happening::ControlError => "libvirt lost QEMU's monitor",
        Happening::JobCompleted(_) => "libvirt: a job was completed",
        Happening::Agent { connected: true } => "the guest agent connected",
        Happening::Agent { connected: false } => "the guest agent went away",
        Happening::MemoryFailure { fatal: true } => "the host's memory failed under the guest, fatally",
        Happening::MemoryFailure { fatal: false } => "the host's memory failed under the guest",
        Happening::QemuPowerdown => "QEMU: the power button was pressed",
        Happening::QemuPanicked => "QEMU: the guest panicked",
        Happening::QemuShutdown { guest, reason } => {
            return format!("QEMU: shutdown, {}, by the {}", qemu_word(*reason), side(*guest));
        }
        Happening::QemuReset { guest, reason } => {
            return format!("QEMU: reset, {}, by the {}", qemu_word(*reason), side(*guest));
        }
        Happening::IoError { disk, action, reason } => {
            let done = match action {
                IoErrorAction::Ignore => "ignored",
                IoErrorAction::Pause => "the guest was paused",
                IoErrorAction::Report => "reported to the guest",
                IoErrorAction::Other(_) => "handled in a way unknown to whydown",
            };
            let reason = if reason.is_empty() { "no reason given" } else { reason };
            return format!("an I/O error on \"{disk}\" ({reason}): {done}");
        }
        Happening::Started(StartDetail::Other(n)) => return format!("libvirt: started, detail {n}"),
        Happening::Suspended(SuspendDetail::Other(n)) => return format!("libvirt: paused, detail {n}"),
        Happening::Stopped(StopDetail::Other(n)) => return format!("libvirt: stopped, detail {n}"),
        Happening::ShutdownBegan(ShutdownDetail::Other(n)) => {
            return format!("libvirt: a shutdown began, detail {n}");
        }
        Happening::PmSuspended(PmDetail::Other(n)) => return format!("power management suspend, detail {n}"),
        Happening::GuestCrashed(CrashDetail::Other(n)) => {
            return format!("libvirt: the guest crashed, detail {n}");
        }
    };
    plain.into()
}

fn side(guest: bool) -> &'static str {
    if guest { "guest" } else { "host" }
}

fn qemu_word(reason: QemuReason) -> &'static str {
    match reason {
        QemuReason::GuestShutdown => "guest-shutdown",
        QemuReason::GuestReset => "guest-reset",
        QemuReason::GuestPanic => "guest-panic",
        QemuReason::HostError => "host-error",
        QemuReason::HostQmpQuit => "host-qmp-quit",
        QemuReason::HostQmpSystemReset => "host-qmp-system-reset",
        QemuReason::HostSignal => "host-signal",
        QemuReason::HostUi => "host-ui",
        QemuReason::SubsystemReset => "subsystem-reset",
        QemuReason::SnapshotLoad => "snapshot-load",
        QemuReason::Other => "a reason unknown to whydown",
    }
}
