//! Verbs that act on a VM: judged by the policy, asked of the engine, and answered in VDSM's words.

use std::sync::Arc;

use whydown_core::evidence::tame;
use whydown_core::id::DomainId;
use whydown_core::lifecycle::{Reply, Wanted};
use whydown_core::operation::{Operation, OperationKind, SnapshotDisk};
use whydown_wire::{Body, Code, WorkKind, status_reply};

use super::{XmlRpc, own, refused};
use crate::daemon::document::Document;
use crate::daemon::space;
use crate::http::{Call, Peer};

/// A VM to be started.
pub(super) struct Start {
    pub xml: String,
    /// What of the document is its sender's, where that is not the whole.
    pub judged: Option<String>,
    /// With its CPUs stopped.
    pub paused: bool,
}

impl XmlRpc {
    pub(super) async fn create(
        &self,
        peer: &Peer,
        call: &Call,
        vm: Option<DomainId>,
        start: Start,
    ) -> Arc<Body> {
        let Start { xml, judged, paused } = start;
        let document = match Document::read(xml, vm) {
            Ok(document) => document,
            Err(bad) => return own(status_reply(Code::CreateError, &tame(&bad.to_string()))),
        };
        if let Err(forbidden) = self.judge.document(judged.as_deref().unwrap_or(&document.xml)).await {
            return refused(peer, Code::CreateError, &forbidden);
        }
        let domain = document.domain;
        let made = whydown_libvirt::read_planned(&document.xml).ok().map(Arc::new);
        let what = Wanted::Do {
            domain,
            act: Operation::Create { name: document.name, xml: document.xml, made, paused },
        };
        let outcome = self.ask(peer, call, what).await;
        own(whydown_wire::create_reply(domain, &outcome))
    }

    pub(super) async fn act(&self, peer: &Peer, call: &Call, vm: DomainId, mut act: Operation) -> Arc<Body> {
        if let Operation::Migrate(how) = &mut act
            && let Err(forbidden) = self.judge.migration(how).await
        {
            return refused(peer, Code::NotSupported, &forbidden);
        }
        let what = act.kind();
        let outcome = self.ask(peer, call, Wanted::Do { domain: vm, act }).await;
        own(match what {
            OperationKind::Save => whydown_wire::work_begun_reply(WorkKind::Save, &outcome),
            OperationKind::Migrate => whydown_wire::work_begun_reply(WorkKind::Migration, &outcome),
            OperationKind::Abort => whydown_wire::cancel_reply(&outcome),
            OperationKind::SetVcpus if matches!(outcome, Reply::Done | Reply::DoneUnwritten) => {
                self.state.published().bodies.the_vm(vm, self.range(peer, call))
            }
            _ => whydown_wire::act_reply(what, &outcome),
        })
    }

    /// What of it names things of the host may name what `create` may, and nothing else.
    pub(super) async fn device(
        &self,
        peer: &Peer,
        call: &Call,
        vm: DomainId,
        act: Operation,
        judged: Option<String>,
    ) -> Arc<Body> {
        if let Some(document) = judged
            && let Err(forbidden) = self.judge.document(&document).await
        {
            return refused(peer, Code::NotSupported, &forbidden);
        }
        let what = act.kind();
        let medium = match &act {
            Operation::ChangeMedium(medium) => medium.path.clone(),
            _ => None,
        };
        let outcome = self.ask(peer, call, Wanted::Do { domain: vm, act }).await;
        own(match (outcome, medium) {
            (Reply::Done | Reply::DoneUnwritten, _) => {
                self.state.published().bodies.the_vm(vm, self.range(peer, call))
            }
            (Reply::Refused(text), Some(path)) if space::is_missing(path.clone()).await => {
                whydown_wire::no_image_reply(&text)
            }
            (other, _) => whydown_wire::device_reply(what, &other),
        })
    }

    /// With the guest's help where it has an agent, and without where it has none: as the original did.
    pub(super) async fn snapshot(
        &self,
        peer: &Peer,
        call: &Call,
        vm: DomainId,
        disks: Vec<SnapshotDisk>,
        frozen: bool,
    ) -> Arc<Body> {
        if let Err(forbidden) = self.judge.snapshot(&disks) {
            return refused(peer, Code::NotSupported, &forbidden);
        }
        if !frozen {
            let act = Operation::Snapshot { disks: disks.clone(), quiesce: true };
            let outcome = self.ask(peer, call, Wanted::Do { domain: vm, act }).await;
            if !matches!(outcome, Reply::Refused(_)) {
                return own(whydown_wire::snapshot_reply(true, &outcome));
            }
        }
        let act = Operation::Snapshot { disks, quiesce: false };
        let outcome = self.ask(peer, call, Wanted::Do { domain: vm, act }).await;
        own(whydown_wire::snapshot_reply(false, &outcome))
    }
}
