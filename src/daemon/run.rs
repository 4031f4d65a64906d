//! From settings to a running daemon, and back down in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, info, warn};
use whydown_core::evidence::Fact;
use whydown_core::id::BootId;
use whydown_core::lifecycle::{Engine, Input, Subject};
use whydown_core::time::Wall;
use whydown_ledger::{Ledger, Retention};
use whydown_wire::{Board, Generation};
use whydown_witness::daemon_log::DaemonLog;
use whydown_witness::host::GoingDown;
use whydown_witness::libvirt::LibvirtProcess;
use whydown_witness::process;

use super::absence::Absence;
use super::alone::Alone;
use super::doctor::Doctor;
use super::engine::{EngineTask, Published};
use super::error::StartError;
use super::failed::{FailedStarts, Sources};
use super::hands::Hands;
use super::host::Host;
use super::link::listen;
use super::mailbox::Mailbox;
use super::sample::{self, Sampler};
use super::sources::going_down::{HostsWord, Told};
use super::work::Works;
use super::{clock, embed, sources};
use crate::config::{Profile, Settings};
use crate::http;
use crate::http::handlers::xmlrpc::Service;
use crate::http::listeners::{Listeners, reload_on};

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

/// Runs until SIGTERM or SIGINT; SIGHUP reads the certificates again. `inherited` are the sockets that systemd made.
///
/// # Errors
/// [`StartError`] if it cannot start; libvirt or the ledger being away is not among it.
pub async fn run(settings: Settings, inherited: http::Inherited) -> Result<(), StartError> {
    let started = clock::wall();
    // What is written here is secret, also where whoever starts it has another mask than the unit.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    http::take_all_files().map_err(StartError::Files)?;
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
    // The listeners are opened first: a second daemon stops here, before it touches the ledger.
    let listeners = Listeners::open(&settings, inherited)?;
    let reloading = tokio::spawn(reload_on(hangup, listeners.tls.clone()));

    let (mailbox, messages) = Mailbox::new();
    let (ledger, engine, alive) = recover(&settings, &boot, &mailbox);
    let own_pid = settings.libvirt.uri.embed_root().map(|_| std::process::id());
    let libvirt = LibvirtProcess::new(own_pid, settings.libvirt.uri.sockets());
    let observing = sources::start(&mailbox, &settings, &libvirt, alive);
    let (news, heard) = sample::news();
    let past = Absence::new(alive, settings.libvirt.log_dir.clone(), libvirt.clone());
    let hypervisor = listen(&settings, &mailbox, news.clone(), past);
    let works = Works::default();
    let hands = Hands::new(
        hypervisor.clone(),
        mailbox.clone(),
        &observing,
        settings.libvirt.log_dir.clone(),
        libvirt.clone(),
        works.clone(),
        news,
    );

    let watchdog = sd_notify::watchdog_enabled().map(|period| period / 3);
    let board = Board::new(settings.xmlrpc.profile.into());
    let unread = whydown_core::sample::Samples {
        awaited: settings.sampling.enabled,
        reads_documents: settings.sampling.enabled,
        ..Default::default()
    };
    let (sampled, samples) = watch::channel(Arc::new(unread));
    let (task, published, changes) =
        EngineTask::new(engine, messages, hands, ledger.clone(), board.clone(), samples, watchdog);
    let engine_task = tokio::spawn(task.run());
    let vm_sampler = settings.sampling.enabled.then(|| {
        let (settings, hypervisor) = (settings.sampling.clone(), hypervisor.clone());
        let (works, mailbox) = (works.clone(), mailbox.clone());
        let sampler = Sampler::new(settings, hypervisor, published.clone(), sampled, board, works, mailbox);
        tokio::spawn(sampler.run(heard))
    });

    let sources = Sources {
        logs: settings.libvirt.log_dir.clone(),
        libvirt,
        daemon_log: daemon_log(&settings),
        audited: observing.audited.clone(),
    };
    let failed = FailedStarts::new(
        hypervisor.clone(),
        mailbox.clone(),
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
    let doctor = Doctor::new(&settings, hypervisor.clone(), published.clone(), ledger.clone(), &observing);
    let service: Arc<dyn http::Service> = Arc::new(Service::new(
        &settings,
        mailbox.clone(),
        works,
        published.clone(),
        changes,
        ledger.clone(),
        host,
        started,
        doctor,
        closing.clone(),
        listeners.tls.clone(),
    ));
    listeners.write_addresses(&folder);
    let mut serving = Vec::new();
    for listener in listeners.all {
        let mut closing = closing.clone();
        let shutdown = async move {
            let _ = closing.wait_for(|closed| *closed).await;
        };
        serving.push(tokio::spawn(http::serve(listener, Arc::clone(&service), limits(&settings), shutdown)));
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
        last_words(&mailbox, observing.host.clone(), published).await;
    }
    let _ = close.send(true);
    for listener in serving {
        let _ = tokio::time::timeout(DRAIN * 2, listener).await;
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
    let _ = mailbox.barrier().await;
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
async fn last_words(mailbox: &Mailbox, host: HostsWord, mut published: watch::Receiver<Published>) {
    let asked = tokio::task::spawn_blocking(move || host.ask()).await;
    if let Some(GoingDown { at, by }) = asked.ok().and_then(Told::down) {
        warn!("the host is going down: {by}");
        let fact = Fact::HostGoingDown { by };
        mailbox.post(Input::Observed { subject: Subject::Host, at, fact }).await;
        let all_down = published.wait_for(|now| now.snapshot.domains.values().all(|d| d.ending.is_some()));
        let _ = tokio::time::timeout(LAST_LOOK, all_down).await;
    }
    let _ = mailbox.barrier().await;
}

impl From<Profile> for Generation {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Common => Self::Common,
            Profile::V3_4 => Self::V3_4,
            Profile::V3_5 => Self::V3_5,
            Profile::V3_6 => Self::V3_6,
            Profile::V4_0 => Self::V4_0,
        }
    }
}

fn limits(settings: &Settings) -> http::Limits {
    http::Limits {
        handshake_timeout: settings.xmlrpc.header_timeout,
        header_timeout: settings.xmlrpc.header_timeout,
        body_timeout: settings.xmlrpc.body_timeout,
        idle_timeout: settings.xmlrpc.idle_timeout,
        write_timeout: settings.xmlrpc.write_timeout,
        max_connections: settings.xmlrpc.max_connections,
        max_body_bytes: settings.xmlrpc.max_request_bytes,
        drain_timeout: DRAIN,
        ..http::Limits::default()
    }
}

fn signal(kind: tokio::signal::unix::SignalKind) -> Result<tokio::signal::unix::Signal, StartError> {
    tokio::signal::unix::signal(kind).map_err(StartError::Signals)
}

/// Where libvirt's own daemon writes its errors.
fn daemon_log(settings: &Settings) -> DaemonLog {
    settings.libvirt.daemon_log.clone().map_or(DaemonLog::Journal, DaemonLog::File)
}

/// The ledger, the engine as it was left, and when whydown last listened.
fn recover(settings: &Settings, boot: &BootId, mailbox: &Mailbox) -> (Ledger, Engine, Option<Wall>) {
    let told = mailbox.clone();
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
