//! Whatever the setting, no verdict contradicts a fact that positively shows the end without naming a stronger one.

use super::*;

/// A fact that shows how a run ended, with the causes that agree with it.
struct Strong {
    name: &'static str,
    facts: Vec<(i64, Fact)>,
    agree: &'static [Cause],
    /// Weaker ones give way to stronger ones.
    rank: u8,
}

const GUEST: &[Cause] = &[Cause::GuestPoweroff, Cause::GuestExit];
/// The end of every dossier, in seconds.
pub(super) const END: i64 = 1_000;

fn qemu(guest: bool, reason: QemuReason) -> Fact {
    host(Happening::QemuShutdown { guest, reason })
}

fn strong_facts() -> Vec<Strong> {
    let fact = |name, at, fact, agree, rank| Strong { name, facts: vec![(at, fact)], agree, rank };
    let guest = ShutdownDetail::Guest;
    let log_signal =
        |sender| Fact::LogSignal { signal: 15, pid: 7, program: "x".into(), sender, at: Some(at(END - 1)) };
    vec![
        fact("guest-shutdown", END - 1, qemu(true, QemuReason::GuestShutdown), GUEST, 8),
        fact("libvirt says guest", END - 1, host(Happening::ShutdownBegan(guest)), GUEST, 8),
        fact("guest-reset", END - 1, qemu(true, QemuReason::GuestReset), &[Cause::DestroyedOnReboot], 8),
        fact("quit", END - 1, qemu(false, QemuReason::HostQmpQuit), &[Cause::MonitorQuit], 8),
        fact("reset", END - 1, qemu(false, QemuReason::HostQmpSystemReset), &[Cause::DestroyedOnReboot], 8),
        fact("part reset", END - 1, qemu(false, QemuReason::SubsystemReset), &[Cause::DestroyedOnReboot], 8),
        fact("snapshot load", END - 1, qemu(false, QemuReason::SnapshotLoad), &[Cause::DestroyedOnReboot], 8),
        fact("window", END - 1, qemu(false, QemuReason::HostUi), &[Cause::WindowClosed], 8),
        fact("host error", END - 1, qemu(false, QemuReason::HostError), &[Cause::QemuFailed], 8),
        fact(
            "we destroy",
            END - 1,
            asked(OperationKind::Destroy),
            &[Cause::AdminDestroyed, Cause::DestroyedAtStart],
            5,
        ),
        fact("we force", END - 1, asked(OperationKind::ForceOff), &[Cause::AdminForcedOff], 5),
        fact(
            "watchdog",
            END - 1,
            host(Happening::Watchdog(WatchdogAction::PowerOff)),
            &[Cause::WatchdogPoweroff],
            5,
        ),
        fact("oom", END - 1, Fact::OomKilled { line: "oom".into() }, &[Cause::OomKilled], 5),
        fact("killed", END - 1, signalled(9, Sender::Outside), &[Cause::ProcessKilled], 5),
        fact("killed by the kernel", END - 1, signalled(9, Sender::Kernel), &[Cause::OomKilled], 5),
        fact("time is up", END - 1, signalled(24, Sender::Kernel), &[Cause::LimitReached], 5),
        fact("a file is full", END - 1, signalled(25, Sender::Itself), &[Cause::LimitReached], 5),
        fact("segv sent", END - 1, signalled(11, Sender::Outside), &[Cause::ProcessTerminated], 5),
        fact("fault", END - 1, signalled(11, Sender::Kernel), &[Cause::QemuCrashed], 5),
        fact("panic", END - 1, host(Happening::QemuPanicked), &[Cause::GuestPanic], 5),
        fact("log names a sender", END - 1, log_signal(Sender::Outside), &[Cause::ProcessTerminated], 5),
        fact("init's signal", END - 1, log_signal(Sender::Init), &[Cause::HostShutdown], 5),
        Strong {
            name: "the guest's status",
            facts: vec![
                (1, Fact::GuestMayExit { device: "isa-debug-exit".into() }),
                (END - 1, Fact::Exit(ExitStatus::Code(33))),
            ],
            agree: &[Cause::GuestExit],
            rank: 5,
        },
        fact("term sent", END - 1, signalled(15, Sender::Outside), &[Cause::ProcessTerminated], 5),
    ]
}

/// The least that brings a setting about.
pub(super) fn bare(setting: Setting) -> Vec<(i64, Fact)> {
    let stopped = |detail| vec![(END, host(Happening::Stopped(detail)))];
    let off = |reason| vec![(END, gap(END - 60, END)), (END, found(DomainState::ShutOff(reason)))];
    match setting {
        Setting::ShutdownByGuest => {
            let mut facts = vec![(END - 2, host(Happening::ShutdownBegan(ShutdownDetail::Guest)))];
            facts.extend(stopped(StopDetail::Shutdown));
            facts
        }
        Setting::ShutdownByHost => {
            let mut facts = vec![(END - 2, host(Happening::ShutdownBegan(ShutdownDetail::Host)))];
            facts.extend(stopped(StopDetail::Shutdown));
            facts
        }
        Setting::ShutdownUnspoken => stopped(StopDetail::Shutdown),
        Setting::Destroyed => stopped(StopDetail::Destroyed),
        Setting::Crashed => stopped(StopDetail::Crashed),
        Setting::Migrated => stopped(StopDetail::Migrated),
        Setting::Saved => stopped(StopDetail::Saved),
        Setting::Failed => stopped(StopDetail::Failed),
        Setting::FromSnapshot => stopped(StopDetail::FromSnapshot),
        Setting::StoppedOther => stopped(StopDetail::Other(7)),
        Setting::NotStarted => vec![(END, host(Happening::ControlError))],
        Setting::FoundCrashed => off(ShutOffReason::Crashed),
        Setting::FoundKilledByLibvirt => off(ShutOffReason::Daemon),
        Setting::FoundMute => off(ShutOffReason::Unknown),
    }
}

/// What libvirt itself says it did, so that what else was seen did not end it: the reason why each is here.
fn libvirt_did_it(setting: Setting, strong: &Strong) -> bool {
    match setting {
        // Its process was ended when the VM had moved, lay on disk, or was taken back.
        Setting::Migrated | Setting::Saved | Setting::FromSnapshot => true,
        // Nothing that befalls a run befalls one that never was; what befell its process is told as the start's failure.
        Setting::NotStarted => true,
        // The guest had shut down first, and libvirt says so: what follows ends a machine that is off.
        Setting::ShutdownByGuest => strong.rank < 8 || strong.agree != GUEST && strong.name != "guest-reset",
        // Of two words of libvirt's the first counts.
        Setting::ShutdownByHost => strong.name == "libvirt says guest",
        // libvirt was told to, and a signal that QEMU obeys, or a panic, is followed by a destroy as a rule.
        Setting::Destroyed => strong.rank == 5 || strong.rank == 8,
        _ => false,
    }
}

fn dossier_of(setting: Setting, strong: &[&Strong]) -> Dossier {
    let mut facts = bare(setting);
    if setting != Setting::NotStarted {
        facts.push((0, host(Happening::Started(StartDetail::Booted))));
    }
    for one in strong {
        facts.extend(one.facts.iter().cloned());
    }
    facts.sort_by_key(|(second, _)| *second);
    dossier(&facts)
}

#[test]
fn no_verdict_contradicts_a_strong_fact_whatever_the_setting() {
    for setting in Setting::ALL {
        for strong in strong_facts().iter().filter(|strong| !libvirt_did_it(setting, strong)) {
            let dossier = dossier_of(setting, &[strong]);
            let verdict = decide(&dossier, at(END));
            assert!(
                strong.agree.contains(&verdict.cause),
                "{setting:?} with {}: {verdict:?}\n{dossier:#?}",
                strong.name
            );
            let named = verdict.because.iter().any(|id| {
                let fact = &dossier.items()[usize::from(*id)].fact;
                strong.facts.iter().any(|(_, named)| named == fact)
            });
            assert!(named, "{setting:?} does not stand on {}: {verdict:?}", strong.name);
        }
    }
}

#[test]
fn of_two_strong_facts_the_verdict_follows_one_that_is_not_the_weaker() {
    for setting in Setting::ALL {
        let facts = strong_facts();
        let fitting: Vec<&Strong> = facts.iter().filter(|strong| !libvirt_did_it(setting, strong)).collect();
        for a in &fitting {
            for b in &fitting {
                let verdict = decide(&dossier_of(setting, &[a, b]), at(END));
                // A guest that panicked may shut down after it: both are told by one verdict.
                if verdict.cause == Cause::GuestPanic && [a.name, b.name].contains(&"panic") {
                    continue;
                }
                let follows = |one: &Strong, other: &Strong| {
                    one.agree.contains(&verdict.cause) && one.rank >= other.rank
                };
                assert!(
                    follows(a, b) || follows(b, a),
                    "{setting:?} with {} and {}: {verdict:?}",
                    a.name,
                    b.name
                );
            }
        }
    }
}

#[test]
fn what_interprets_a_state_is_never_said_where_a_strong_fact_is_known() {
    let interpretations = [
        Cause::UnknownEnded,
        Cause::UnknownVanished,
        Cause::ProcessLost,
        Cause::KilledByLibvirt,
        Cause::CoreDumped,
        Cause::HostLost,
    ];
    for setting in Setting::ALL {
        for strong in strong_facts().iter().filter(|strong| !libvirt_did_it(setting, strong)) {
            for more in [
                vec![(END, Fact::LogEnd { word: LogWord::Crashed, at: Some(at(END)) })],
                vec![(END, Fact::LogEnd { word: LogWord::Daemon, at: Some(at(END)) })],
                vec![(END, Fact::Gone)],
                vec![(END, Fact::LogSilent)],
                vec![(END - 1, Fact::LibvirtSince(at(END - 30)))],
            ] {
                let mut dossier = dossier_of(setting, &[strong]);
                for (second, fact) in more {
                    dossier.add(at(second), fact);
                }
                let verdict = decide(&dossier, at(END));
                assert!(
                    !interpretations.contains(&verdict.cause),
                    "{setting:?} with {}: {verdict:?}\n{dossier:#?}",
                    strong.name
                );
            }
        }
    }
}
