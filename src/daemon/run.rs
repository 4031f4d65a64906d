//! From settings to a running daemon, and back down in order.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind};
use tokio::sync::{Semaphore, watch};
use tracing::{error, info};
use whydown_wire::Board;
use whydown_witness::daemon_log::DaemonLog;
use whydown_witness::libvirt::LibvirtProcess;
use whydown_witness::process;

use super::absence::Absence;
use super::alone::Alone;
use super::doctor::Doctor;
use super::engine::EngineTask;
use super::error::StartError;
use super::failed::{self, FailedStarts};
use super::hands::Hands;
use super::host::Host;
use super::link::listen;
use super::mailbox::Mailbox;
use super::recovery::{Left, recover};
use super::sample::{self, Sampler};
use super::serving::{Serving, tell_when_ready};
use super::stopping::{last_look, let_go};
use super::work::Works;
use super::{clock, embed, sources};
use crate::config::Settings;
use crate::http::handlers::history::History;
use crate::http::listeners::{Listeners, reload_on};
use crate::http::rights::Rights;
use crate::http::state::DOCTORS;
use crate::http::visibility::PublicReplies;
use crate::http::{self, AppState, handlers};

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
    let mut terminate = caught(SignalKind::terminate())?;
    let mut interrupt = caught(SignalKind::interrupt())?;
    let hangup = caught(SignalKind::hangup())?;

    let _alone = Alone::take(&folder)?;
    if let Some(root) = settings.libvirt.uri.embed_root() {
        embed::prepare(&root).map_err(|source| StartError::EmbedRoot { path: root, source })?;
    }
    // The listeners are opened first: a second daemon stops here, before it touches the ledger.
    let listeners = Listeners::open(&settings, inherited)?;
    let reloading = tokio::spawn(reload_on(hangup, listeners.tls.clone()));

    let (mailbox, messages) = Mailbox::new();
    let Left { ledger, engine, alive } = recover(&settings, boot, &mailbox);
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

    let told_by = failed::Sources {
        logs: settings.libvirt.log_dir.clone(),
        libvirt,
        daemon_log: settings.libvirt.daemon_log.clone().map_or(DaemonLog::Journal, DaemonLog::File),
        audited: observing.audited.clone(),
    };
    let failed = FailedStarts::new(
        hypervisor.clone(),
        mailbox.clone(),
        ledger.clone(),
        published.clone(),
        told_by,
        alive,
    );
    let failed = tokio::spawn(failed.run());
    let host = Host::read(&folder, started);
    let sampler = tokio::spawn(host.clone().sample(folder.clone()));
    let versions = tokio::spawn(host.clone().learn(hypervisor.clone(), published.clone()));
    let (close, closing) = watch::channel(false);
    let doctor = Doctor::new(&settings, hypervisor.clone(), published.clone(), ledger.clone(), &observing);
    let state = AppState {
        mailbox: mailbox.clone(),
        works,
        published: published.clone(),
        changes,
        ledger: ledger.clone(),
        history: History::new(ledger.clone(), closing.clone()),
        host,
        started,
        rights: Rights::new(&settings, doctor.refusals()),
        doctor: Arc::new(doctor),
        doctors: Arc::new(Semaphore::new(DOCTORS)),
        stopping: closing.clone(),
        tls: listeners.tls.clone(),
        public: PublicReplies::new(settings.xmlrpc.profile.into()),
    };
    let service = handlers::service(&settings, state);
    let serving = Serving::begin(listeners, service, &settings, &folder, &closing);
    let ready = tokio::spawn(tell_when_ready(published.clone()));

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
        last_look(&mailbox, observing.host.clone(), published).await;
    }
    let _ = close.send(true);
    serving.drain().await;
    for task in [reloading, sampler, failed, versions].into_iter().chain(vm_sampler) {
        task.abort();
    }
    let left = let_go(hypervisor, own_pid.is_some(), &mailbox, ledger).await;
    ended.map(|_| ()).and(left)
}

fn caught(kind: SignalKind) -> Result<Signal, StartError> {
    tokio::signal::unix::signal(kind).map_err(StartError::Signals)
}
