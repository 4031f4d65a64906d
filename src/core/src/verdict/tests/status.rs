//! Whatever the setting, no verdict contradicts how the process is known to have ended.

use super::strong::{END, bare};
use super::*;

/// Whether a cause can be told of a QEMU that ended so. Causes that are none of the process's own leave it to libvirt, or to
/// nobody, to end what was over already.
fn agrees(cause: Cause, status: ExitStatus) -> bool {
    use ExitStatus::{Code, Signal};
    match cause {
        // It left no word, they say.
        Cause::ProcessLost | Cause::HostLost | Cause::UnknownVanished => false,
        Cause::ProcessKilled | Cause::OomKilled => status == Signal(9),
        Cause::QemuCrashed => matches!(status, Signal(n) if crate::evidence::FAULTS.contains(&n)),
        Cause::ProcessTerminated => !matches!(status, Code(1..)) && status != Signal(9),
        Cause::QemuFailed => matches!(status, Code(1..)),
        Cause::MonitorQuit | Cause::WatchdogPoweroff => status == Code(0),
        Cause::GuestExit => matches!(status, Code(1..)),
        Cause::KilledByLibvirt => matches!(status, Code(0) | Signal(9 | 15)),
        _ => true,
    }
}

/// Rows that say that nothing tells how it ended, though the status tells something.
fn says_nothing(row: &str) -> bool {
    ["N15", "N16", "X10", "F14"].contains(&row)
}

#[test]
fn no_verdict_contradicts_the_known_status_of_the_process_whatever_the_setting() {
    use ExitStatus::{Code, Signal};
    let boots = Fact::NewBoot { before: BootId("a".into()), now: BootId("b".into()) };
    let log =
        |sender| Fact::LogSignal { signal: 15, pid: 7, program: "x".into(), sender, at: Some(at(END - 3)) };
    let mut others: Vec<Vec<(i64, Fact)>> = vec![
        vec![],
        vec![(END, Fact::LogSilent)],
        vec![(END, Fact::LogCut), (END, Fact::LogSilent)],
        vec![(END, Fact::LogUnread("no".into()))],
        vec![(END - 3, signalled(15, Sender::Libvirt))],
        vec![(END - 3, signalled(9, Sender::Libvirt))],
        vec![(END - 3, signalled(9, Sender::Outside))],
        vec![(END - 3, log(Sender::Libvirt))],
        vec![(END - 3, host(Happening::Watchdog(WatchdogAction::PowerOff)))],
        vec![(END, boots), (END, Fact::LogSilent)],
    ];
    let words = [LogWord::Shutdown, LogWord::Destroyed, LogWord::Crashed, LogWord::Daemon, LogWord::Failed];
    others.extend(words.map(|word| vec![(END - 1, Fact::LogEnd { word, at: Some(at(END - 1)) })]));
    others.push(vec![
        (END - 1, Fact::LogEnd { word: LogWord::Crashed, at: None }),
        (END - 3, log(Sender::Libvirt)),
    ]);
    let statuses =
        [Code(0), Code(1), Code(3), Signal(2), Signal(6), Signal(9), Signal(10), Signal(11), Signal(15)];
    let mut wrong = Vec::new();
    for setting in Setting::ALL.into_iter().filter(|setting| *setting != Setting::NotStarted) {
        for status in statuses {
            for other in &others {
                let mut facts = bare(setting);
                facts.push((0, host(Happening::Started(StartDetail::Booted))));
                facts.push((END - 2, Fact::Exit(status)));
                facts.extend(other.iter().cloned());
                facts.sort_by_key(|(second, _)| *second);
                let verdict = decide(&dossier(&facts), at(END));
                // libvirt ended it so itself, and that is what is said.
                let by_libvirt = match verdict.row.as_str() {
                    "F17" => status == Signal(9),
                    "F25" => matches!(status, Code(0) | Signal(9 | 15)),
                    _ => false,
                };
                if !by_libvirt && (!agrees(verdict.cause, status) || says_nothing(&verdict.row)) {
                    wrong.push(format!(
                        "{setting:?}, {status:?}, {other:?}: {} {}",
                        verdict.row,
                        verdict.cause.word()
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
