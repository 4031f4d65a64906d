//! From settings to a running daemon, and back down in order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, error, info, warn};
use whydown_core::evidence::{ExitStatus, Fact};
use whydown_core::hypervisor::Happening;
use whydown_core::id::BootId;
use whydown_core::lifecycle::{Engine, Input, Whom};
use whydown_core::time::Wall;
use whydown_ledger::{Ledger, Retention};
use whydown_libvirt::Hypervisor;
use whydown_wire::{Board, Generation};
use whydown_witness::audit::{Audit, AuditWord, SILENT};
use whydown_witness::core_dump;
use whydown_witness::daemon_log::DaemonLog;
use whydown_witness::exit::ExitWatch;
use whydown_witness::host::GoingDown;
use whydown_witness::kernel::{KernelLog, KernelWord};
use whydown_witness::libvirt::LibvirtProcess;
use whydown_witness::process;
use whydown_witness::signal::{SignalTrace, SignalWord};

use super::absence::Absence;
use super::alone::Alone;
use super::deaf::{Deaf, Sense};
use super::doctor::Doctor;
use super::doors::{Doors, reload_on};
use super::emulators::Emulators;
use super::engine::{EngineTask, Published};
use super::failed::{Audited, FailedStarts, Sources};
use super::going_down::{HostsWord, Told};
use super::hands::{self, Hands};
use super::host::Host;
use super::post::Postbox;
use super::rpc::Service;
use super::sample::{self, Sampler};
use super::threads::Threads;
use super::units::Units;
use super::work::Works;
use super::{clock, embed};
use crate::config::{Profile, Settings};
use crate::edge;

/// How long the end waits for the ledger. What is not written by then stays lost only if the disk does.
const LEDGER_PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of the VMs is watched when the host goes down; systemd gives us 60 s in all.
const LAST_LOOK: Duration = Duration::from_secs(15);

/// How long libvirt may take to let go: one that is elsewhere goes on without us, a driver inside must leave nothing behind.
const STOP_ELSEWHERE: Duration = Duration::from_secs(5);
const STOP_INSIDE: Duration = Duration::from_secs(13);

/// How long requests under way may go on when we stop.
const DRAIN: Duration = Duration::from_secs(5);

/// systemd is told that we are ready without libvirt after this long: supervision then starts when libvirt does.
const READY_WITHOUT_LIBVIRT: Duration = Duration::from_secs(20);

/// Why the daemon cannot start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder of the ledger.
    #[error("state.dir {}: {source}", path.display())]
    StateDir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder of the embedded driver.
    #[error("libvirt.uri: the root {} cannot be prepared: {source}", path.display())]
    EmbedRoot {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another daemon uses the folder.
    #[error("state.dir {}: another whydownd uses it", path.display())]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// An address.
    #[error("{key} {address}: {source}")]
    Listen {
        /// Of which key.
        key: &'static str,
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The unix socket.
    #[error("socket.path: {source}")]
    Socket {
        /// Why, with the file's name.
        source: edge::BindError,
    },
    /// The Unix socket that systemd made.
    #[error("the socket of systemd: {0}")]
    Inherited(std::io::Error),
    /// A socket that systemd made and nobody wants.
    #[error("systemd passed {what}: it is neither in xmlrpc.listen nor in tls.listen, nor is it socket.path")]
    Stray {
        /// Which.
        what: String,
    },
    /// The kernel's name of this boot.
    #[error("the boot id of the host cannot be read: {0}")]
    BootId(std::io::Error),
    /// Open files.
    #[error(transparent)]
    Files(edge::TooFewFiles),
    /// A signal handler.
    #[error("signals: {0}")]
    Signals(std::io::Error),
    /// What the ledger could not take is lost with this process.
    #[error("the ledger could not be written to the end: {0}")]
    Unwritten(whydown_ledger::LedgerError),
    /// The engine's task is gone.
    #[error("the engine ended")]
    EngineEnded,
}

/// Runs until SIGTERM or SIGINT; SIGHUP reads the certificates again. `inherited` are the sockets that systemd made.
///
/// # Errors
/// [`StartError`] if it cannot start; libvirt or the ledger being away is not among it.
pub async fn run(settings: Settings, inherited: edge::Inherited) -> Result<(), StartError> {
    let started = clock::wall();
    // What is written here is secret, also where whoever starts it has another mask than the unit.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    edge::take_all_files().map_err(StartError::Files)?;
    let folder = settings.state.dir.clone();
    std::fs::create_dir_all(&folder)
        .map_err(|source| StartError::StateDir { path: folder.clone(), source })?;
    let boot = process::boot_id().map_err(StartError::BootId)?;
    let mut terminate = signal(tokio::signal::unix::SignalKind::terminate())?;
    let mut interrupt = signal(tokio::signal::unix::SignalKind::interrupt())?;
    let hangup = signal(tokio::signal::unix::SignalKind::hangup())?;

    let _alone = Alone::take(&folder)?;
    if let Some(root) = settings.libvirt.uri.embed_root() {
        embed::prepare(&root).map_err(|source| StartError::EmbedRoot { path: root, source })?;
    }
    // The doors are opened first: a second daemon stops here, before it touches the ledger.
    let doors = Doors::open(&settings, inherited)?;
    let reloading = tokio::spawn(reload_on(hangup, doors.tls.clone()));

    let (postbox, letters) = Postbox::new();
    let (ledger, engine, alive) = recover(&settings, &boot, &postbox);
    let own_pid = settings.libvirt.uri.embed_root().map(|_| std::process::id());
    let libvirt = LibvirtProcess::new(own_pid, settings.libvirt.uri.sockets());
    let witnesses = witnesses(&postbox, &settings, &libvirt, alive);
    let (news, heard) = sample::news();
    let past = Absence::new(alive, settings.libvirt.log_dir.clone(), libvirt.clone());
    let hypervisor = listen(&settings, &postbox, news.clone(), past);
    let works = Works::default();
    let hands = Hands::new(
        hypervisor.clone(),
        postbox.clone(),
        witnesses.worked.clone(),
        settings.libvirt.log_dir.clone(),
        libvirt.clone(),
        works.clone(),
        news,
    );

    let watchdog = sd_notify::watchdog_enabled().map(|period| period / 3);
    let board = Board::new(generation(settings.xmlrpc.profile));
    let unread = whydown_core::sample::Samples {
        awaited: settings.sampling.enabled,
        reads_documents: settings.sampling.enabled,
        ..Default::default()
    };
    let (sampled, samples) = watch::channel(Arc::new(unread));
    let (task, published, changes) =
        EngineTask::new(engine, letters, hands, ledger.clone(), board.clone(), samples, watchdog);
    let engine_task = tokio::spawn(task.run());
    let vm_sampler = settings.sampling.enabled.then(|| {
        let (settings, hypervisor) = (settings.sampling.clone(), hypervisor.clone());
        let (works, postbox) = (works.clone(), postbox.clone());
        let sampler = Sampler::new(settings, hypervisor, published.clone(), sampled, board, works, postbox);
        tokio::spawn(sampler.run(heard))
    });

    let sources = Sources {
        logs: settings.libvirt.log_dir.clone(),
        libvirt,
        daemon_log: daemon_log(&settings),
        audited: witnesses.audited.clone(),
    };
    let failed = FailedStarts::new(
        hypervisor.clone(),
        postbox.clone(),
        ledger.clone(),
        published.clone(),
        sources,
        alive,
    );
    let failed = tokio::spawn(failed.run());
    let host = Host::read(&folder, started);
    let sampler = tokio::spawn(host.clone().sample(folder.clone()));
    let versions = tokio::spawn(host.clone().learn(hypervisor.clone(), published.clone()));
    let (close, closing) = watch::channel(false);
    let doctor = Doctor::new(
        &settings,
        hypervisor.clone(),
        published.clone(),
        ledger.clone(),
        witnesses.deaf.clone(),
        witnesses.audit_names_senders.clone(),
    );
    let service: Arc<dyn edge::Service> = Arc::new(Service::new(
        &settings,
        postbox.clone(),
        works,
        published.clone(),
        changes,
        ledger.clone(),
        host,
        started,
        witnesses.deaf.clone(),
        doctor,
        closing.clone(),
        doors.tls.clone(),
    ));
    doors.write_addresses(&folder);
    let mut serving = Vec::new();
    for listener in doors.listeners {
        let mut closing = closing.clone();
        let shutdown = async move {
            let _ = closing.wait_for(|closed| *closed).await;
        };
        serving.push(tokio::spawn(edge::serve(listener, Arc::clone(&service), limits(&settings), shutdown)));
    }

    let mut seen = published.clone();
    let ready = tokio::spawn(async move {
        // From then on managers are answered.
        let answers = seen.wait_for(|published| published.bodies.recovering().is_none());
        let waited = tokio::time::timeout(READY_WITHOUT_LIBVIRT, answers).await;
        let status = if waited.is_ok() { "watching" } else { "waiting for libvirt" };
        info!("{status}");
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
    });

    tokio::pin!(engine_task);
    let ended = tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = &mut engine_task => Err(StartError::EngineEnded),
    };
    ready.abort();
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    match &ended {
        Ok(by) => info!("stopping on {by}"),
        Err(broken) => error!("{broken}"),
    }
    if ended.is_ok() {
        last_words(&postbox, witnesses.worked.host.clone(), published).await;
    }
    let _ = close.send(true);
    for door in serving {
        let _ = tokio::time::timeout(DRAIN * 2, door).await;
    }
    reloading.abort();
    sampler.abort();
    if let Some(vm_sampler) = vm_sampler {
        vm_sampler.abort();
    }
    failed.abort();
    versions.abort();
    // No event may come behind the last heartbeat, or it would be lost in a window that we call heard.
    let stopping = hypervisor.clone();
    let within = if own_pid.is_some() { STOP_INSIDE } else { STOP_ELSEWHERE };
    let _ = tokio::time::timeout(within, tokio::task::spawn_blocking(move || stopping.stop())).await;
    let _ = postbox.barrier().await;
    ledger.keep(whydown_core::record::Keep::Alive(clock::wall()));
    let closing = tokio::task::spawn_blocking(move || ledger.close(LEDGER_PATIENCE));
    match closing.await {
        Ok(Ok(())) => {}
        Ok(Err(left)) => {
            let left = StartError::Unwritten(left);
            error!("{left}");
            return ended.and(Err(left));
        }
        Err(broken) => error!("the ledger's thread broke: {broken}"),
    }
    ended.map(|_| ())
}

/// If the host is going down, its VMs end now: they should know why, and we should see it.
async fn last_words(postbox: &Postbox, host: HostsWord, mut published: watch::Receiver<Published>) {
    let asked = tokio::task::spawn_blocking(move || host.ask()).await;
    if let Some(GoingDown { at, by }) = asked.ok().and_then(Told::down) {
        warn!("the host is going down: {by}");
        let fact = Fact::HostGoingDown { by };
        postbox.post(Input::Witness { whom: Whom::Host, at, fact }).await;
        let all_down = published.wait_for(|now| now.snapshot.domains.values().all(|d| d.ending.is_some()));
        let _ = tokio::time::timeout(LAST_LOOK, all_down).await;
    }
    let _ = postbox.barrier().await;
}

/// The wire's word for a profile.
pub(super) fn generation(profile: Profile) -> Generation {
    match profile {
        Profile::Common => Generation::Common,
        Profile::V3_4 => Generation::V3_4,
        Profile::V3_5 => Generation::V3_5,
        Profile::V3_6 => Generation::V3_6,
        Profile::V4_0 => Generation::V4_0,
    }
}

fn limits(settings: &Settings) -> edge::Limits {
    edge::Limits {
        handshake_timeout: settings.xmlrpc.header_timeout,
        header_timeout: settings.xmlrpc.header_timeout,
        body_timeout: settings.xmlrpc.body_timeout,
        idle_timeout: settings.xmlrpc.idle_timeout,
        write_timeout: settings.xmlrpc.write_timeout,
        max_connections: settings.xmlrpc.max_connections,
        max_body_bytes: settings.xmlrpc.max_request_bytes,
        drain_timeout: DRAIN,
        ..edge::Limits::default()
    }
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, StartError> {
    tokio::signal::unix::signal(kind).map_err(StartError::Signals)
}

/// The ledger, the engine as it was left, and when whydown last listened.
fn recover(settings: &Settings, boot: &BootId, postbox: &Postbox) -> (Ledger, Engine, Option<Wall>) {
    let told = postbox.clone();
    let opened = Ledger::open(
        whydown_ledger::Settings {
            retention: Retention {
                endings_max_age: settings.ledger.endings_max_age,
                endings_max_count: settings.ledger.endings_max_count,
                evidence_max_age: settings.ledger.evidence_max_age,
                evidence_max_count: settings.ledger.evidence_max_count,
            },
            memory_max_ops: settings.ledger.memory_max_ops,
            path: settings.state.dir.join("ledger.db"),
            clock: Arc::new(clock::wall),
            ..whydown_ledger::Settings::default()
        },
        move |word| match word {
            whydown_ledger::Told::Kept(run) => told.post_blocking(Input::Kept(run)),
            whydown_ledger::Told::NotKept(run) => told.post_blocking(Input::NotKept(run)),
            whydown_ledger::Told::KeptRevision(run, number) => {
                told.post_blocking(Input::KeptRevision(run, number));
            }
            whydown_ledger::Told::Written(count) => told.post_blocking(Input::Written(count)),
            whydown_ledger::Told::Unwritten(count) => told.post_blocking(Input::Unwritten(count)),
        },
    );
    if let Some(trouble) = &opened.trouble {
        error!("{trouble}");
    }
    let alive = opened.recovered.alive;
    let engine = Engine::recover(
        whydown_core::lifecycle::Settings {
            settle: settings.deciding.settle,
            settle_snapshot: settings.deciding.settle_snapshot,
            heartbeat: settings.deciding.heartbeat,
            unacknowledged_max_age: settings.unacknowledged.max_age,
            unacknowledged_max_count: settings.unacknowledged.max_count,
            boot: boot.clone(),
            booted: process::booted(),
            driver_inside: settings.libvirt.uri.driver_is_inside(),
        },
        opened.recovered,
    );
    (opened.ledger, engine, alive)
}

/// The witnesses that can be heard. They end when this is dropped.
struct Witnesses {
    /// Those that the hands give work.
    worked: hands::Witnesses,
    _kernel: Option<KernelLog>,
    _signals: Option<SignalTrace>,
    _audit: Option<Audit>,
    /// Whether the audit has told who sent a signal: there is a rule for it.
    audit_names_senders: Arc<AtomicBool>,
    /// What libvirt tells the audit of starts that failed.
    audited: Audited,
    /// Those that cannot be heard, each with the reason.
    deaf: Deaf,
}

/// Starts every witness that can be had; the others are named. What the kernel said after `alive` is in the postbox then.
fn witnesses(
    postbox: &Postbox,
    settings: &Settings,
    libvirt: &LibvirtProcess,
    alive: Option<Wall>,
) -> Witnesses {
    let wanted = &settings.witness;
    let deaf = Deaf::default();
    let emulators = Emulators::new(settings.libvirt.run_dir.clone());
    let (told, ended, told_begun) = (postbox.clone(), emulators.clone(), postbox.clone());
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
    let (told, lost, whose) = (postbox.clone(), deaf.clone(), emulators.clone());
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
    let tracing = |root: &Path| trace(root, libvirt, threads.clone(), emulators.clone(), postbox, &deaf);
    let signals = wanted.tracefs.as_deref().and_then(tracing);
    let (audit_names_senders, audited) = (Arc::new(AtomicBool::new(false)), Audited::default());
    let audit = wanted
        .audit
        .then(|| listen_to_audit(libvirt, emulators.clone(), postbox, &deaf, &audit_names_senders, &audited));
    let units = Units::default();
    let host = HostsWord::listen(postbox, &deaf, units.clone());
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

/// Where libvirt's own daemon writes its errors.
fn daemon_log(settings: &Settings) -> DaemonLog {
    settings.libvirt.daemon_log.clone().map_or(DaemonLog::Journal, DaemonLog::File)
}

/// Listens to the kernel's audit, or says why not.
fn listen_to_audit(
    libvirt: &LibvirtProcess,
    emulators: Emulators,
    postbox: &Postbox,
    deaf: &Deaf,
    names_senders: &Arc<AtomicBool>,
    audited: &Audited,
) -> Option<Audit> {
    let (told, ears, names_senders) = (postbox.clone(), deaf.clone(), Arc::clone(names_senders));
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
    postbox: &Postbox,
    deaf: &Deaf,
) -> Option<SignalTrace> {
    let (told, lost) = (postbox.clone(), deaf.clone());
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

fn listen(settings: &Settings, postbox: &Postbox, news: sample::News, past: Absence) -> Hypervisor {
    let told = postbox.clone();
    let libvirt = &settings.libvirt;
    let wanted = whydown_libvirt::Settings {
        keepalive_interval_s: i32::try_from(libvirt.keepalive_interval.as_secs()).unwrap_or(i32::MAX),
        keepalive_count: libvirt.keepalive_count,
        reconnect_min: libvirt.reconnect_min,
        reconnect_max: libvirt.reconnect_max,
        run_dir: libvirt.run_dir.clone(),
        log_dir: libvirt.log_dir.clone(),
        ..whydown_libvirt::Settings::new(libvirt.uri.as_str(), clock::wall)
    };
    Hypervisor::start(wanted, move |word| match word {
        whydown_libvirt::Told::Event(event) => {
            match event.what {
                Happening::Started(_)
                | Happening::Defined
                | Happening::Rebooted
                | Happening::Agent { .. } => news.of(event.domain.id),
                Happening::Stopped(_) => news.over(event.domain.id),
                _ => {}
            }
            told.post_blocking(Input::Host(event));
        }
        whydown_libvirt::Told::Devices(id) => news.of(id),
        whydown_libvirt::Told::LinkLost { at, why } => {
            warn!("the link to libvirt is lost: {why}");
            past.began(at);
            told.post_blocking(Input::LinkLost { at });
        }
        whydown_libvirt::Told::LinkUp(mut listing) => {
            info!("libvirt is there: {} domains", listing.domains.len());
            // Of what was plugged in and out meanwhile nobody told.
            listing.domains.iter().for_each(|view| news.of(view.domain.id));
            let (logs, server) = past.ends();
            listing.server = server;
            told.post_blocking(Input::Past(logs));
            told.post_blocking(Input::LinkUp(listing));
        }
        whydown_libvirt::Told::StillDown { why, attempts } => {
            // One that is away for days would fill the log: each doubling is told.
            if attempts.is_power_of_two() {
                warn!("libvirt cannot be reached (attempt {attempts}): {why}");
            } else {
                debug!("libvirt cannot be reached (attempt {attempts}): {why}");
            }
        }
    })
}
