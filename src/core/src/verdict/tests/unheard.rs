//! Ends that nobody listened to: what came before what, and what is left where nothing tells.

use super::*;

fn by_libvirt(second: i64) -> (i64, Fact) {
    let signal = Fact::LogSignal {
        signal: 15,
        pid: 9,
        program: "libvirtd".into(),
        sender: Sender::Libvirt,
        at: Some(at(second)),
    };
    (900, signal)
}

#[test]
fn what_libvirt_ended_before_it_was_asked_or_long_after_was_not_our_shutdown() {
    let started = (0, host(Happening::Started(StartDetail::Booted)));
    let shutdown = |second| (second, asked(OperationKind::Shutdown));
    for (reason, word, ours, others) in [
        (ShutOffReason::Crashed, LogWord::Crashed, "X26", "X20"),
        (ShutOffReason::Daemon, LogWord::Daemon, "K9", "K8"),
    ] {
        let told = |requests: &[i64], signal: i64, row: &str| {
            let mut facts = vec![started.clone()];
            facts.extend(requests.iter().map(|second| shutdown(*second)));
            facts.extend([
                (900, Fact::Gap { from: at(700), to: at(900), why: Deaf::LinkLost }),
                by_libvirt(signal),
                (900, Fact::LogEnd { word, at: Some(at(890)) }),
                (900, found(DomainState::ShutOff(reason))),
            ]);
            says(&facts, 900, row, Certainty::Probable)
        };
        told(&[600], 610, ours);
        told(&[600, 605], 610, ours);
        // The signal came first.
        told(&[600], 590, others);
        told(&[600], 599, others);
        // Asked, and ended ten minutes later; we stopped hearing sooner than that after the request.
        told(&[50], 640, others);
        // Asked long ago, and again when it had been ended.
        told(&[50, 645], 640, others);
        told(&[600, 645], 640, ours);
    }
}

#[test]
fn a_shutdown_that_was_asked_for_when_libvirt_had_ended_it_led_to_nothing() {
    let told = |request: i64| {
        let facts = [
            (0, host(Happening::Started(StartDetail::Booted))),
            (request, asked(OperationKind::Shutdown)),
            (900, Fact::Gap { from: at(700), to: at(900), why: Deaf::LinkLost }),
            by_libvirt(640),
            (900, Fact::LogEnd { word: LogWord::Shutdown, at: Some(at(641)) }),
            (900, found(DomainState::ShutOff(ShutOffReason::Shutdown))),
        ];
        decide(&dossier(&facts), at(900)).cause
    };
    assert_eq!(told(630), Cause::AdminShutdown);
    assert_ne!(told(645), Cause::AdminShutdown);
}
