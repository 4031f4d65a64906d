//! Down in order: what ends with the host is still seen, nothing comes behind the last heartbeat, and the ledger takes all.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{error, warn};
use whydown_core::evidence::Fact;
use whydown_core::lifecycle::{Input, Subject};
use whydown_core::record::Keep;
use whydown_ledger::Ledger;
use whydown_libvirt::Hypervisor;
use whydown_witness::host::GoingDown;

use super::clock;
use super::engine::Published;
use super::error::StartError;
use super::mailbox::Mailbox;
use super::sources::going_down::{HostsWord, Told};

/// How long the end waits for the ledger. What is not written by then stays lost only if the disk does.
const LEDGER_PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of the VMs is watched when the host goes down; systemd gives us 60 s in all.
const LAST_LOOK: Duration = Duration::from_secs(15);

/// How long libvirt may take to let go: one that is elsewhere goes on without us, a driver inside must leave nothing behind.
const STOP_ELSEWHERE: Duration = Duration::from_secs(5);
const STOP_INSIDE: Duration = Duration::from_secs(13);

/// If the host is going down, its VMs end now: they should know why, and we should see it.
pub async fn last_look(mailbox: &Mailbox, host: HostsWord, mut published: watch::Receiver<Published>) {
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

/// Lets libvirt go, which is `inside` this process or not, and then the ledger.
///
/// # Errors
/// What the ledger could not take.
pub async fn let_go(
    hypervisor: Hypervisor,
    inside: bool,
    mailbox: &Mailbox,
    ledger: Ledger,
) -> Result<(), StartError> {
    // No event may come behind the last heartbeat, or it would be lost in a window that we call heard.
    let within = if inside { STOP_INSIDE } else { STOP_ELSEWHERE };
    let _ = tokio::time::timeout(within, tokio::task::spawn_blocking(move || hypervisor.stop())).await;
    let _ = mailbox.barrier().await;
    ledger.keep(Keep::Alive(clock::wall()));
    match tokio::task::spawn_blocking(move || ledger.close(LEDGER_PATIENCE)).await {
        Ok(closed) => closed.map_err(|left| {
            let left = StartError::Unwritten(left);
            error!("{left}");
            left
        }),
        Err(broken) => {
            error!("the ledger's thread broke: {broken}");
            Ok(())
        }
    }
}
