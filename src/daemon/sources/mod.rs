//! The sources of evidence beside libvirt: the list of those that there are, the one sink into which all of them speak, and
//! how each stands. How to add one: `docs/internals/adding-a-source.md`.

pub mod going_down;
mod registry;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::warn;
use whydown_core::evidence::Fact;
use whydown_core::lifecycle::Input;
use whydown_core::time::Wall;
use whydown_witness::exit::{self, ExitWatch};
use whydown_witness::host::{self, HostWatch};
use whydown_witness::libvirt::LibvirtProcess;
use whydown_witness::processes::Processes;
use whydown_witness::source::{About, Report, Sink, Source};
use whydown_witness::{audit, kernel, signal};

use self::going_down::HostsWord;
use super::clock;
use super::failed::Audited;
use super::mailbox::Mailbox;
use crate::config::Settings;

pub use self::registry::{Registry, State};

/// Every source that there is, in the order in which they are told.
pub const ALL: [&About; 5] = [&exit::ABOUT, &signal::ABOUT, &audit::ABOUT, &kernel::ABOUT, &host::ABOUT];

/// All sources, running. They end when this is dropped.
pub struct Sources {
    /// How each stands.
    pub registry: Registry,
    /// What is known of the processes that they speak of.
    pub processes: Processes,
    /// The ends of processes: it is given those to watch.
    pub exits: Arc<ExitWatch>,
    /// Whether the host goes down: it is asked, too.
    pub host: HostsWord,
    /// What libvirt tells the audit of starts that failed.
    pub audited: Audited,
    /// Whether the audit has told who sent a signal: there is a rule for it.
    pub audit_names_senders: Arc<AtomicBool>,
    _others: Vec<Source>,
}

/// Starts every source that is wanted. What the kernel said after `alive` is in the mailbox then.
pub fn start(
    mailbox: &Mailbox,
    settings: &Settings,
    libvirt: &LibvirtProcess,
    alive: Option<Wall>,
) -> Sources {
    let (registry, wanted, clock) = (Registry::of(&ALL), &settings.witness, clock::wall as fn() -> Wall);
    let processes = Processes::new(settings.libvirt.run_dir.clone());
    let (audited, audit_names_senders) = (Audited::default(), Arc::<AtomicBool>::default());
    let begin = |about: &'static About| {
        registry.begins(about);
        sink(about, registry.clone(), mailbox.clone())
    };

    let exits = exit::Config { processes: processes.clone(), clock };
    let exits = ExitWatch::start(exits, begin(&exit::ABOUT));
    let mut others = Vec::new();
    let (since, device) = (alive, kernel::DEVICE.into());
    let kernel = kernel::Config { device, since, processes: processes.clone(), clock };
    others.push(kernel::start(kernel, begin(&kernel::ABOUT)));
    if let Some(root) = wanted.tracefs.clone() {
        let (libvirt, processes) = (libvirt.clone(), processes.clone());
        others.push(signal::start(signal::Config { root, libvirt, processes, clock }, begin(&signal::ABOUT)));
    }
    if wanted.audit {
        let (failed, names_senders) = (audited.clone(), Arc::clone(&audit_names_senders));
        let audit = audit::Config {
            libvirt: libvirt.clone(),
            processes: processes.clone(),
            clock,
            names_senders,
            not_started: Box::new(move |start| failed.note(start)),
        };
        others.push(audit::start(audit, begin(&audit::ABOUT)));
    }
    let bus = host::booted().then(|| {
        let bus = host::Config { bus: host::SYSTEM_BUS.into(), processes: processes.clone(), clock };
        HostWatch::start(bus, begin(&host::ABOUT))
    });
    Sources {
        processes,
        exits: Arc::new(exits),
        host: HostsWord::new(bus),
        audited,
        audit_names_senders,
        _others: others,
        registry,
    }
}

/// Where this source speaks: what it observes goes to the engine, how it stands to the registry.
fn sink(about: &'static About, registry: Registry, mailbox: Mailbox) -> Sink {
    let going_down = AtomicBool::new(false);
    Sink::new(move |report| match report {
        Report::Observed { subject, at, fact } => {
            match &fact {
                Fact::HostGoingDown { by } => {
                    going_down.store(true, Ordering::Relaxed);
                    warn!("the host is going down: {by}");
                }
                Fact::HostStays if going_down.swap(false, Ordering::Relaxed) => {
                    warn!("the host is not going down any more");
                }
                _ => {}
            }
            mailbox.post_blocking(Input::Observed { subject, at, fact });
        }
        Report::Overrun => registry.overrun(about),
        Report::Unavailable { why } => registry.unavailable(about, why, clock::wall()),
        Report::Available => registry.available(about),
    })
}
