//! Starts everything that witnesses what befalls VMs, beside libvirt. What cannot be had is named.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{debug, warn};
use whydown_core::evidence::ExitStatus;
use whydown_core::lifecycle::Input;
use whydown_core::time::Wall;
use whydown_witness::audit::{Audit, AuditWord, SILENT};
use whydown_witness::core_dump;
use whydown_witness::exit::ExitWatch;
use whydown_witness::kernel::{KernelLog, KernelWord};
use whydown_witness::libvirt::LibvirtProcess;
use whydown_witness::signal::{SignalTrace, SignalWord};

use super::clock;
use super::deaf::{Deaf, Sense};
use super::emulators::Emulators;
use super::failed::Audited;
use super::going_down::HostsWord;
use super::hands;
use super::mailbox::Mailbox;
use super::threads::Threads;
use super::units::Units;
use crate::config::Settings;

/// The witnesses that can be heard. They end when this is dropped.
pub struct Witnesses {
    /// Those that the hands give work.
    pub worked: hands::Witnesses,
    _kernel: Option<KernelLog>,
    _signals: Option<SignalTrace>,
    _audit: Option<Audit>,
    /// Whether the audit has told who sent a signal: there is a rule for it.
    pub audit_names_senders: Arc<AtomicBool>,
    /// What libvirt tells the audit of starts that failed.
    pub audited: Audited,
    /// Those that cannot be heard, each with the reason.
    pub deaf: Deaf,
}

/// Starts every witness that can be had; the others are named. What the kernel said after `alive` is in the mailbox then.
pub fn witnesses(
    mailbox: &Mailbox,
    settings: &Settings,
    libvirt: &LibvirtProcess,
    alive: Option<Wall>,
) -> Witnesses {
    let wanted = &settings.witness;
    let deaf = Deaf::default();
    let emulators = Emulators::new(settings.libvirt.run_dir.clone());
    let (told, ended, told_begun) = (mailbox.clone(), emulators.clone(), mailbox.clone());
    let begun = emulators.clone();
    let exits = ExitWatch::start_and_choose(
        move |pid| {
            let begun = begun.begun(pid)?;
            for fact in begun.facts {
                let at = clock::wall();
                told_begun.post_blocking(Input::Witness { whom: begun.whom, at, fact });
            }
            Some(begun.process)
        },
        move |process, at, status| {
            let (whom, fact) = ended.ended(process, status);
            // Where its memory is comes first: the end may be decided as soon as its status is known.
            if status.is_some_and(ExitStatus::may_dump_core)
                && let Some(fact) = core_dump::of(process.pid)
            {
                told.post_blocking(Input::Witness { whom, at, fact });
            }
            if let Some(fact) = fact {
                told.post_blocking(Input::Witness { whom, at, fact });
            }
        },
        clock::wall,
    );
    let exits = match exits {
        Ok(watch) => {
            if let Some(why) = watch.trouble() {
                deaf.add(Sense::ExitStatuses, why);
            }
            Some(Arc::new(watch))
        }
        Err(error) => {
            deaf.add(Sense::Exits, error);
            None
        }
    };
    let (told, lost, whose) = (mailbox.clone(), deaf.clone(), emulators.clone());
    let kernel = KernelLog::start(
        alive,
        move |word| match word {
            KernelWord::Killed { pid, at, fact } => {
                told.post_blocking(Input::Witness { whom: whose.whom(pid), at, fact });
            }
            KernelWord::Overrun { .. } => {
                warn!("the kernel's log was overrun: an out-of-memory kill may be missed")
            }
            KernelWord::Lost { why, .. } => lost.add(Sense::KernelLog, why),
        },
        clock::wall,
    );
    let kernel = kernel.map_err(|error| deaf.add(Sense::KernelLog, error)).ok();
    let threads = Threads::default();
    let tracing = |root: &Path| trace(root, libvirt, threads.clone(), emulators.clone(), mailbox, &deaf);
    let signals = wanted.tracefs.as_deref().and_then(tracing);
    let (audit_names_senders, audited) = (Arc::new(AtomicBool::new(false)), Audited::default());
    let audit = wanted
        .audit
        .then(|| listen_to_audit(libvirt, emulators.clone(), mailbox, &deaf, &audit_names_senders, &audited));
    let units = Units::default();
    let host = HostsWord::listen(mailbox, &deaf, units.clone());
    Witnesses {
        worked: hands::Witnesses { exits, threads, emulators, units, host },
        _kernel: kernel,
        _signals: signals,
        _audit: audit.flatten(),
        audit_names_senders,
        audited,
        deaf,
    }
}

/// Listens to the kernel's audit, or says why not.
fn listen_to_audit(
    libvirt: &LibvirtProcess,
    emulators: Emulators,
    mailbox: &Mailbox,
    deaf: &Deaf,
    names_senders: &Arc<AtomicBool>,
    audited: &Audited,
) -> Option<Audit> {
    let (told, ears, names_senders) = (mailbox.clone(), deaf.clone(), Arc::clone(names_senders));
    let audited = audited.clone();
    let audit = Audit::start(
        libvirt.clone(),
        move |word| match word {
            AuditWord::Seen { pid, at, fact } => {
                let whom = emulators.whom(pid);
                let fact = emulators.as_told_of(pid, fact);
                told.post_blocking(Input::Witness { whom, at, fact });
            }
            AuditWord::NotStarted { domain, name, started_for, at } => {
                audited.note(domain, name, started_for, at);
            }
            AuditWord::Speaks => ears.lift(Sense::Audit),
            AuditWord::NamesSenders => names_senders.store(true, Ordering::Relaxed),
            AuditWord::Silent => ears.add(Sense::Audit, SILENT),
            AuditWord::Overrun { .. } => {
                debug!("more audit records than there is room for: some are not told")
            }
            AuditWord::Lost { why, .. } => ears.add(Sense::Audit, why),
        },
        clock::wall,
    );
    audit.map_err(|error| deaf.add(Sense::Audit, error)).ok()
}

/// Follows who sends signals, or says why not.
fn trace(
    root: &Path,
    libvirt: &LibvirtProcess,
    threads: Threads,
    emulators: Emulators,
    mailbox: &Mailbox,
    deaf: &Deaf,
) -> Option<SignalTrace> {
    let (told, lost) = (mailbox.clone(), deaf.clone());
    let trace = SignalTrace::start(
        root,
        libvirt.clone(),
        move |word| match word {
            SignalWord::Signalled { pid, at, fact } => {
                let pid = threads.process_of(pid);
                told.post_blocking(Input::Witness { whom: emulators.whom(pid), at, fact });
            }
            // The next words are as true as ever; which were missed nobody can tell.
            SignalWord::Overrun { .. } => {
                debug!("more signals than the kernel's buffers hold: some are not told")
            }
            SignalWord::Lost { why, .. } => lost.add(Sense::Signals, why),
        },
        clock::wall,
    );
    trace.map_err(|error| deaf.add(Sense::Signals, error)).ok()
}
