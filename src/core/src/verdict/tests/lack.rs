//! What is not known counts for nothing: another boot's host, and a log that was not read whole.

use super::*;

#[test]
fn a_host_that_is_up_since_a_new_boot_says_nothing_of_the_shutdown_before() {
    let boot = |name: &str| BootId(name.into());
    let signal = Fact::LogSignal {
        signal: 15,
        pid: 1,
        program: "systemd".into(),
        sender: Sender::Init,
        at: Some(at(50)),
    };
    let facts = [
        (50, signal),
        (90, Fact::NewBoot { before: boot("a"), now: boot("b") }),
        (90, Fact::Found { state: DomainState::ShutOff(ShutOffReason::Unknown), managed_save: None }),
    ];
    let with = |more: &[(i64, Fact)]| facts.iter().cloned().chain(more.to_vec()).collect::<Vec<_>>();
    let silent = says(&with(&[(90, Fact::LogSilent), (91, up())]), 91, "N4", Certainty::Probable);
    assert_eq!((silent.cause, silent.despite), (Cause::HostShutdown, Vec::new()));
    let end = (52, Fact::LogEnd { word: LogWord::Shutdown, at: Some(at(52)) });
    let farewell = says(&with(&[end, (91, up())]), 91, "E12", Certainty::Probable);
    assert_eq!((farewell.cause, farewell.despite), (Cause::HostShutdown, Vec::new()));
}

#[test]
fn what_a_log_does_not_say_counts_only_where_it_was_read_whole() {
    let shut =
        (100, Fact::Found { state: DomainState::ShutOff(ShutOffReason::Shutdown), managed_save: None });
    let farewell = (99, Fact::LogEnd { word: LogWord::Shutdown, at: Some(at(99)) });
    let unread = (100, Fact::LogUnread("no such file".into()));
    let cut = (100, Fact::LogCut);
    let signal = Fact::LogSignal {
        signal: 15,
        pid: 7,
        program: "libvirtd".into(),
        sender: Sender::Libvirt,
        at: Some(at(99)),
    };
    let text = |text: &str| (99, Fact::LogText(text.into()));
    says(&[shut.clone(), farewell.clone(), (99, signal)], 100, "U9", Certainty::Probable);
    // libvirt ends what is off by a signal, which QEMU names: where it names none, something else may have ended it, or the
    // line was lost.
    says(&[shut.clone(), farewell.clone()], 100, "U14", Certainty::Unknown);
    says(&[shut.clone(), farewell.clone(), text("warning: x")], 100, "U14", Certainty::Unknown);
    let told = text("qemu: terminating on signal 15 from pid 7 (libvirtd)");
    says(&[shut.clone(), farewell.clone(), told], 100, "U9", Certainty::Probable);
    says(&[shut.clone(), farewell.clone(), cut.clone()], 100, "U10", Certainty::Unknown);
    says(&[shut.clone(), unread.clone()], 100, "U10", Certainty::Unknown);
    says(&[shut, unread.clone(), farewell], 100, "U14", Certainty::Unknown);
    // Nor is a quit known by the lack of a signal.
    let left = (99, Fact::Exit(ExitStatus::Code(0)));
    let gone = (100, host(Happening::Stopped(StopDetail::Failed)));
    says(&[left.clone(), (100, Fact::LogSilent), gone.clone()], 100, "F20", Certainty::Probable);
    says(&[left, (100, Fact::LogSilent), cut.clone(), gone], 100, "F24", Certainty::Unknown);
    let began = (98, host(Happening::ShutdownBegan(ShutdownDetail::Host)));
    let lost = (99, host(Happening::ControlError));
    let stopped = (100, host(Happening::Stopped(StopDetail::Shutdown)));
    says(&[began.clone(), lost.clone(), stopped.clone()], 100, "H6", Certainty::Probable);
    says(&[began, lost, stopped, cut], 100, "H9", Certainty::Unknown);
    // Nor a lost host by the lack of a farewell.
    let booted = (100, Fact::NewBoot { before: BootId("a".into()), now: BootId("b".into()) });
    let off = (100, Fact::Found { state: DomainState::ShutOff(ShutOffReason::Unknown), managed_save: None });
    says(&[booted.clone(), off.clone(), (100, Fact::LogSilent)], 100, "N6", Certainty::Probable);
    says(&[booted, off, unread], 100, "N16", Certainty::Unknown);
}
