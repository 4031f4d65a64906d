//! Callers let in by every listener, told when all is ready, and let go at the end.

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;
use whydown_wire::Generation;

use super::engine::Published;
use crate::config::{Profile, Settings};
use crate::http;
use crate::http::listeners::Listeners;

/// How long requests under way may go on when we stop.
const DRAIN: Duration = Duration::from_secs(5);

/// systemd is told that we are ready without libvirt after this long: supervision then starts when libvirt does.
const READY_WITHOUT_LIBVIRT: Duration = Duration::from_secs(20);

/// A task for each listener.
pub struct Serving(Vec<JoinHandle<()>>);

impl Serving {
    /// Serves until `closing` says so. Where callers come in is written into this folder.
    pub fn begin(
        listeners: Listeners,
        service: http::Service,
        settings: &Settings,
        folder: &Path,
        closing: &watch::Receiver<bool>,
    ) -> Self {
        listeners.write_addresses(folder);
        let serve = |listener| {
            let mut closing = closing.clone();
            let shutdown = async move {
                let _ = closing.wait_for(|closed| *closed).await;
            };
            tokio::spawn(http::serve(listener, service.clone(), limits(settings), shutdown))
        };
        Self(listeners.all.into_iter().map(serve).collect())
    }

    /// Waits for what is under way, not for ever.
    pub async fn drain(self) {
        for listener in self.0 {
            let _ = tokio::time::timeout(DRAIN * 2, listener).await;
        }
    }
}

/// Tells systemd when managers are answered.
pub async fn tell_when_ready(mut published: watch::Receiver<Published>) {
    let answers = published.wait_for(|published| published.bodies.recovering().is_none());
    let waited = tokio::time::timeout(READY_WITHOUT_LIBVIRT, answers).await;
    let status = if waited.is_ok() { "watching" } else { "waiting for libvirt" };
    info!("{status}");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(status)]);
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
