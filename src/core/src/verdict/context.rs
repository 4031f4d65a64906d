//! What led to an ending: the trouble before it, which neither speaks for the cause nor against it.
//!
//! A VM that stood still for want of disk space and was then destroyed was destroyed, certainly; but whoever asks why it
//! went down wants to hear of the disk as well.

use crate::cause::Cause;
use crate::evidence::{Evidence, EvidenceId, Fact, OperationKind};
use crate::hypervisor::{DomainState, Happening, PauseReason, ResumeDetail, SuspendDetail, WatchdogAction};
use crate::lifecycle::internal_error;
use crate::record::Verdict;

/// Pieces that are told; the newest are.
pub const LED_BY: usize = 12;

/// libvirt pauses a VM itself this long before the end of a save, a dump, a snapshot or a migration, at most: what is paused for
/// longer was paused by somebody.
const OWN_PAUSE: std::time::Duration = std::time::Duration::from_secs(60);

/// The trouble before the end, the newest first: at most [`LED_BY`] pieces, none of which stands in because or despite.
pub fn led_by(evidence: &[Evidence], verdict: &Verdict) -> Vec<EvidenceId> {
    let end = evidence.iter().filter(|e| ends(&e.fact)).map(|e| e.last).min();
    let told = |id: &EvidenceId| verdict.because.contains(id) || verdict.despite.contains(id);
    let qemu_told_of_resets =
        evidence.iter().any(|e| matches!(e.fact, Fact::Host(Happening::QemuReset { .. })));
    let mut led: Vec<EvidenceId> = (0..)
        .zip(evidence)
        .filter(|(id, e)| {
            let own_pause = matches!(e.fact, Fact::Host(Happening::Suspended(SuspendDetail::Paused)))
                && pauses_by_itself(verdict.cause)
                && e.times == 1
                && end.is_some_and(|end| end.since(e.last) <= OWN_PAUSE);
            // A monitor breaks when its QEMU ends.
            let of_the_end = matches!(e.fact, Fact::Host(Happening::ControlError))
                && end.is_some_and(|end| end.since(e.first) <= OWN_PAUSE);
            let twice = qemu_told_of_resets && matches!(e.fact, Fact::Host(Happening::Rebooted));
            !told(id)
                && !own_pause
                && !of_the_end
                && !twice
                && is_trouble(&e.fact)
                && end.is_none_or(|end| e.first <= end)
        })
        .map(|(id, _)| id)
        .collect();
    led.sort_by_key(|id| std::cmp::Reverse((evidence[usize::from(*id)].last, *id)));
    led.truncate(LED_BY);
    led
}

/// What is part of the end itself, or came after it.
fn ends(fact: &Fact) -> bool {
    match fact {
        Fact::Host(Happening::Stopped(_)) | Fact::Exit(_) | Fact::Gone | Fact::Replaced => true,
        Fact::Found { state, .. } => !state.is_active(),
        _ => false,
    }
}

/// Causes before which libvirt pauses the VM itself.
const fn pauses_by_itself(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::ManagedSaved
            | Cause::SavedToFile
            | Cause::CoreDumped
            | Cause::SnapshotStopped
            | Cause::SnapshotReverted
            | Cause::MigratedAway
    )
}

/// Whether it is trouble, or a request that was not obeyed.
fn is_trouble(fact: &Fact) -> bool {
    match fact {
        Fact::Host(happening) => match happening {
            Happening::IoError { .. }
            | Happening::Rebooted
            | Happening::QemuReset { .. }
            | Happening::GuestCrashed(_)
            | Happening::QemuPanicked
            | Happening::MemoryFailure { .. }
            | Happening::ControlError
            | Happening::QemuPowerdown
            | Happening::PmSuspended(_)
            | Happening::Resumed(ResumeDetail::PostcopyFailed) => true,
            Happening::Suspended(detail) => !matches!(
                detail,
                SuspendDetail::Migrated
                    | SuspendDetail::Restored
                    | SuspendDetail::FromSnapshot
                    | SuspendDetail::Postcopy
            ),
            Happening::Watchdog(action) => !matches!(action, WatchdogAction::Ignore),
            _ => false,
        },
        Fact::Found { state: DomainState::Paused(reason), .. } => matches!(
            reason,
            PauseReason::Unknown
                | PauseReason::User
                | PauseReason::IoError
                | PauseReason::Watchdog
                | PauseReason::Crashed
                | PauseReason::PostcopyFailed
        ),
        Fact::Found { state: DomainState::Crashed, .. } => true,
        Fact::Requested { what, .. } => matches!(
            what,
            OperationKind::Shutdown
                | OperationKind::AgentShutdown
                | OperationKind::Reboot
                | OperationKind::AgentReboot
                | OperationKind::ForceReset
                | OperationKind::Pause
                | OperationKind::Save
                | OperationKind::Migrate
        ),
        Fact::Refused { what, .. } => what.may_end_it() && *what != OperationKind::Create,
        Fact::LogText(text) => internal_error(text).is_some(),
        Fact::DiskSpace { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{advice, decide, describe};
    use super::*;
    use crate::evidence::{Deaf, Dossier, ExitStatus, Sender};
    use crate::hypervisor::{IoErrorAction, ShutdownDetail, StartDetail, StopDetail};
    use crate::id::{DomainId, RunId};
    use crate::record::{Ending, When};
    use crate::time::Wall;

    const SECOND: i64 = 1_000_000_000;

    fn host(happening: Happening) -> Fact {
        Fact::Host(happening)
    }

    fn full() -> Fact {
        host(Happening::IoError {
            disk: "virtio-disk0".into(),
            action: IoErrorAction::Pause,
            reason: "enospc".into(),
        })
    }

    /// What is told of these facts, a second apart, after a start that was heard long before.
    fn told(facts: impl IntoIterator<Item = Fact>) -> Ending {
        let mut dossier = Dossier::default();
        let mut at = 1000 * SECOND;
        dossier.add(Wall(at), host(Happening::Started(StartDetail::Booted)));
        at += 500 * SECOND;
        for fact in facts {
            at += SECOND;
            dossier.add(Wall(at), fact);
        }
        let verdict = decide(&dossier, Wall(at));
        Ending {
            run: RunId(1),
            domain: DomainId::from_bytes([1; 16]),
            name: "vm".into(),
            started: Wall(0),
            ended: When::At(Wall(at)),
            exit_code: verdict.cause.row().exit_code,
            exit_reason: verdict.cause.row().exit_reason,
            message: verdict.cause.message(None),
            verdict,
            evidence: dossier.items().to_vec(),
            acknowledged: None,
            earlier: Vec::new(),
        }
    }

    fn led(ending: &Ending) -> Vec<&Fact> {
        let ids = led_by(&ending.evidence, &ending.verdict);
        ids.into_iter().map(|id| &ending.evidence[usize::from(id)].fact).collect()
    }

    #[test]
    fn a_full_disk_before_a_destroy_is_told_with_it_and_the_advice_names_it() {
        let paused = host(Happening::Suspended(SuspendDetail::IoError));
        let ending = told([full(), paused.clone(), host(Happening::Stopped(StopDetail::Destroyed))]);
        assert_eq!(ending.verdict.cause, Cause::OutsideDestroyed);
        assert_eq!((led(&ending), &ending.verdict.despite), (vec![&paused, &full()], &vec![]));
        let said = advice(&ending);
        assert!(said.contains("\"virtio-disk0\"") && said.contains("no space left"), "{said}");
    }

    #[test]
    fn advice_names_the_file_and_its_room_the_core_and_the_senders_unit() {
        let place =
            |free| Fact::DiskSpace { disk: "virtio-disk0".into(), path: "/images/a.img".into(), free };
        let ended = |space: Fact| told([full(), space, host(Happening::Stopped(StopDetail::Destroyed))]);
        let said = advice(&ended(place(Some(4096))));
        let room =
            "Make room for \"/images/a.img\" (4096 bytes were free there): the disk \"virtio-disk0\" had";
        assert!(said.contains(room), "{said}");
        let said = advice(&ended(place(None)));
        assert!(said.contains("Make room for \"/images/a.img\": the disk"), "{said}");

        let crashed = |core: Option<Fact>| {
            let end = [Fact::Exit(ExitStatus::Signal(11)), host(Happening::Stopped(StopDetail::Failed))];
            advice(&told(core.into_iter().chain(end)))
        };
        let taken = |by: &str| Some(Fact::CoreTaken { by: by.into(), pid: 77 });
        for (core, words) in [
            (None, "Keep QEMU's log and core dump"),
            (Some(Fact::CoreDump { file: "/var/core.77".into() }), "the core dump in \"/var/core.77\", and"),
            (taken("/lib/systemd/systemd-coredump"), "the core dump that \"coredumpctl info 77\" shows, and"),
            (taken("/usr/share/apport/apport"), "the core dump that the kernel gave to \"/usr/share/apport"),
        ] {
            assert!(crashed(core).contains(words), "{words}");
        }

        let unit = |pid| Fact::SenderUnit { pid, unit: "cron.service".into() };
        let kill = Fact::Signalled {
            signal: 9,
            code: 0,
            pid: 7,
            program: "kill".into(),
            sender: Sender::Outside,
            audit: None,
        };
        let ending = told([unit(8), unit(7), kill, host(Happening::Stopped(StopDetail::Failed))]);
        let because = |fact: &Fact| {
            ending.verdict.because.iter().any(|id| ending.evidence[usize::from(*id)].fact == *fact)
        };
        assert!(because(&unit(7)) && !because(&unit(8)), "{ending:?}");
        let said = advice(&ending);
        assert!(said.contains("process 7, \"kill\", in \"cron.service\" of systemd, kills VMs"), "{said}");
    }

    #[test]
    fn a_limit_is_named_in_the_evidence_and_the_advice_and_a_sigkill_without_a_word_may_be_of_one() {
        let sent = |signal, sender| Fact::Signalled {
            signal,
            code: 128,
            pid: 0,
            program: String::new(),
            sender,
            audit: None,
        };
        let ended = |facts: &[Fact]| {
            told(facts.iter().cloned().chain([host(Happening::Stopped(StopDetail::Failed))]))
        };
        let exit = |signal| Fact::Exit(ExitStatus::Signal(signal));
        for (signal, sender, what) in [
            (24, Some(Sender::Kernel), "processor time"),
            (25, Some(Sender::Itself), "the size of files"),
            (24, None, "processor time"),
        ] {
            let facts: Vec<Fact> =
                sender.map(|sender| sent(signal, sender)).into_iter().chain([exit(signal)]).collect();
            let ending = ended(&facts);
            assert_eq!(ending.verdict.cause, Cause::LimitReached, "{ending:?}");
            let said = advice(&ending);
            assert!(said.starts_with(&format!("Find out who set a limit on {what} for QEMU's")), "{said}");
            assert!(
                sender.is_none() || describe(&facts[0]).contains(&format!("for a limit on {what}")),
                "{facts:?}"
            );
        }
        let killed = [sent(9, Sender::Kernel), exit(9)];
        let words = "The kernel itself sent SIGKILL, and said no word of memory";
        assert!(advice(&ended(&killed)).contains(words), "{}", advice(&ended(&killed)));
        let named = [sent(9, Sender::Kernel), exit(9), Fact::OomKilled { line: "out of memory".into() }];
        assert!(!advice(&ended(&named)).contains("processor time"), "{}", advice(&ended(&named)));
    }

    #[test]
    fn advice_names_the_unit_that_was_stopped_and_no_process_that_is_gone() {
        let term = |pid, program: &str, sender| Fact::LogSignal {
            signal: 15,
            pid,
            program: program.into(),
            sender,
            at: None,
        };
        let up = Fact::HostUp { by: "systemd says so".into() };
        let unit = Fact::UnitStopping { unit: "machine-a.scope".into() };
        let ended = |facts: &[Fact]| {
            let shut = [
                host(Happening::ShutdownBegan(ShutdownDetail::Host)),
                host(Happening::Stopped(StopDetail::Shutdown)),
            ];
            advice(&told(facts.iter().cloned().chain(shut)))
        };
        let by_init = term(1, "systemd", Sender::Init);
        let said = ended(&[by_init.clone(), unit, up.clone()]);
        assert!(said.starts_with("Find out who stopped \"machine-a.scope\": systemd ended"), "{said}");
        let said = ended(&[by_init, up]);
        assert!(said.contains("process 1, \"systemd\", sent SIGTERM"), "{said}");
        let said = ended(&[term(948, "", Sender::Outside)]);
        assert!(said.contains("what process 948 was, which sent SIGTERM"), "{said}");
        let said = ended(&[term(948, "/bin/kill", Sender::Outside)]);
        assert!(said.contains("Find out why process 948, \"/bin/kill\" ends VMs"), "{said}");
    }

    #[test]
    fn advice_on_what_nobody_knows_speaks_of_a_gap_only_where_there_was_one() {
        let heard = told([host(Happening::Stopped(StopDetail::Crashed))]);
        assert_eq!(heard.verdict.cause, Cause::UnknownEnded);
        assert!(
            advice(&heard).contains("doctor") && !advice(&heard).contains("running"),
            "{}",
            advice(&heard)
        );
        let gap = Fact::Gap { from: Wall(1), to: Wall(2), why: Deaf::DaemonAway };
        let mut missed = told([gap, Fact::Gone]);
        missed.ended = When::Between(Wall(1), Wall(2));
        let said = advice(&missed);
        assert!(
            said.contains("Keep whydown and libvirt running") && said.contains("was not running"),
            "{said}"
        );
    }

    #[test]
    fn an_internal_error_before_a_destroy_is_told_with_it() {
        let text = Fact::LogText("KVM internal error. Suberror: 1\nemulation failure".into());
        let paused = Fact::Found { state: DomainState::Paused(PauseReason::Unknown), managed_save: None };
        let ending = told([text.clone(), paused.clone(), host(Happening::Stopped(StopDetail::Destroyed))]);
        assert_eq!(led(&ending), [&paused, &text]);
        assert!(advice(&ending).contains("KVM internal error. Suberror: 1"), "{}", advice(&ending));
    }

    #[test]
    fn pauses_are_counted_and_what_libvirt_pauses_for_itself_is_no_trouble() {
        let paused = host(Happening::Suspended(SuspendDetail::Paused));
        let stopped = host(Happening::Stopped(StopDetail::Destroyed));
        let ending = told(vec![paused.clone(); 180].into_iter().chain([stopped]));
        assert_eq!(led(&ending), [&paused]);
        let id = usize::from(led_by(&ending.evidence, &ending.verdict)[0]);
        assert_eq!(ending.evidence[id].times, 180);
        let saved = told([paused, host(Happening::Stopped(StopDetail::Saved))]);
        assert_eq!(led(&saved), Vec::<&Fact>::new());
    }

    #[test]
    fn a_button_that_was_ignored_an_hour_ago_led_to_it_and_one_of_the_hosts_shutdown_supports_that() {
        let pressed = host(Happening::QemuPowerdown);
        let ending = told([pressed.clone(), host(Happening::Stopped(StopDetail::Destroyed))]);
        assert_eq!(led(&ending), [&pressed]);
        let down = Fact::HostGoingDown { by: "systemd".into() };
        let began = host(Happening::ShutdownBegan(ShutdownDetail::Guest));
        let ending = told([down, pressed.clone(), began, host(Happening::Stopped(StopDetail::Shutdown))]);
        assert_eq!(ending.verdict.cause, Cause::HostShutdown);
        assert_eq!(ending.verdict.despite, [] as [u16; 0]);
    }

    /// on_reboot ended what we had asked to reboot: the press of its button was ours.
    #[test]
    fn a_button_that_we_pressed_for_a_reboot_was_pressed_by_nobody_else() {
        let asked = Fact::Requested { what: OperationKind::Reboot, who: "engine".into() };
        let began = host(Happening::ShutdownBegan(ShutdownDetail::Guest));
        let pressed = host(Happening::QemuPowerdown);
        let ending = told([asked.clone(), pressed, began, host(Happening::Stopped(StopDetail::Shutdown))]);
        assert_eq!((ending.verdict.cause, ending.verdict.row.as_ref()), (Cause::AdminShutdown, "G5"));
        let because = |id: &u16| ending.evidence[usize::from(*id)].fact == asked;
        assert!(
            ending.verdict.because.iter().any(because) && ending.verdict.despite.is_empty(),
            "{ending:?}"
        );
    }

    #[test]
    fn it_is_bounded_and_the_newest_is_first() {
        let disk = |n: i32| {
            host(Happening::IoError {
                disk: format!("disk{n}"),
                action: IoErrorAction::Report,
                reason: String::new(),
            })
        };
        let ending = told((0..40).map(disk).chain([host(Happening::Stopped(StopDetail::Destroyed))]));
        let led = led(&ending);
        assert_eq!((led.len(), led[0]), (LED_BY, &disk(39)));
    }
}
