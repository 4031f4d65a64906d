//! Calls of XML-RPC, answered from the snapshot or by the engine.
//!
//! A poll is answered from memory and copies nothing. A request that acts waits for the engine's answer. Trouble is a
//! status, never a fault: a manager reads a fault as a broken host.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use whydown_core::evidence::tame;
use whydown_core::id::DomainId;
use whydown_core::lifecycle::{Reply, Wanted};
use whydown_core::operation::{NewDevice, Operation, Pluggable};
use whydown_wire::{
    BadCall, Bodies, Body, CallLimits, ClassicVm, Code, Documents, HostFacts, OnHost, Range, Refused, Verb,
    done, status_reply,
};

use crate::config::{self, Client, ExitReasons, Settings};
use crate::daemon::judge::Judge;
use crate::daemon::policy::Forbidden;
use crate::daemon::{clock, host, network};
use crate::http::rights::{Want, told_of};
use crate::http::state::AppState;
use crate::http::visibility::{Visibility, public_host};
use crate::http::{Call, Calls, Peer, ReplyFuture, Share, Turns, noise};

/// The header with which a newer manager asks for exit reasons above 8.
pub const REASONS_HEADER: &str = "x-whydown-exit-reasons";

/// The manager's own name of a request, for logs: as in the original.
const FLOW_HEADER: &str = "flowid";

/// Requests longer than this are not kept to be known again.
const POLL_BYTES: usize = 512;

/// Calls longer than this are large. Almost all honest ones are shorter; a hostile one of this length is read in
/// milliseconds.
const LARGE_CALL_BYTES: usize = 32 << 10;

/// VMs whose list is written at once, in less than a millisecond; longer ones are written on a thread of their own.
const VMS_AT_ONCE: usize = 64;

mod ignored;
mod operations;

use ignored::Ignored;
use operations::Start;

/// See the module page.
pub struct XmlRpc {
    state: Arc<AppState>,
    settings: config::XmlRpc,
    limits: CallLimits,
    /// Whose turn it is among the large calls.
    large_calls: Turns,
    /// The bytes of the last poll of all VMs. A manager sends the same ones each time: they are known by sight, and
    /// not read again.
    poll: RwLock<Box<[u8]>>,
    ignored: Ignored,
    /// What documents may have.
    judge: Judge,
}

/// Why there is no verb.
enum Unread {
    Call(BadCall),
    Verb { method: String, refused: Refused },
}

/// What a call asks for, and what in it has no effect.
struct Read {
    verb: Verb,
    method: String,
    ignored: Vec<String>,
}

fn read(body: &[u8], limits: &CallLimits) -> Result<Read, Unread> {
    let call = whydown_wire::Call::read(body, limits).map_err(Unread::Call)?;
    let method = tame(&call.method);
    match Verb::read(&call) {
        Ok((verb, ignored)) => Ok(Read { verb, method, ignored }),
        Err(refused) => Err(Unread::Verb { method, refused }),
    }
}

impl XmlRpc {
    /// As configured.
    pub fn new(settings: &Settings, state: Arc<AppState>) -> Self {
        Self {
            state,
            settings: settings.xmlrpc.clone(),
            limits: CallLimits { bytes: settings.xmlrpc.max_request_bytes, ..CallLimits::default() },
            large_calls: Turns::new(1, 1),
            poll: RwLock::default(),
            ignored: Ignored::default(),
            judge: Judge::new(settings),
        }
    }

    async fn answer(&self, peer: &Peer, call: &Call) -> Arc<Body> {
        if self.is_the_last_poll(&call.body) {
            return match self.state.check(peer, Want::Read) {
                Ok(visibility) => self.perform(Verb::GetAllVmStats, peer, call, visibility).await,
                Err(denied) => own(status_reply(Code::NotSupported, &denied.to_string())),
            };
        }
        let Read { verb, method, ignored } = match self.read(peer.share(), &call.body).await {
            Ok(read) => read,
            Err(Unread::Call(bad)) => {
                if noise::may_say(peer.share()) {
                    tracing::info!(%peer, "a call that cannot be read: {bad}");
                }
                return own(bad.reply());
            }
            Err(Unread::Verb { method, refused }) => {
                if noise::may_say(peer.share()) {
                    tracing::info!(%peer, ?method, "refused: {refused}");
                }
                return own(refused.reply());
            }
        };
        if matches!(verb, Verb::GetAllVmStats) && call.body.len() <= POLL_BYTES {
            *self.poll.write().unwrap_or_else(PoisonError::into_inner) = call.body.to_vec().into();
        }
        match self.state.check(peer, Want::of(&verb, &method)) {
            Ok(visibility) => {
                self.ignored.say(peer, &method, &ignored);
                self.perform(verb, peer, call, visibility).await
            }
            Err(denied) => own(status_reply(Code::NotSupported, &denied.to_string())),
        }
    }

    /// Large calls are read one at a time, each peer's behind its own, on a thread of their own: however many are sent at once, polls are answered
    /// meanwhile, and no more than one of them is in memory as values.
    async fn read(&self, share: Share, body: &Bytes) -> Result<Read, Unread> {
        let limits = self.limits;
        if body.len() <= LARGE_CALL_BYTES {
            return read(body, &limits);
        }
        let _turn = self.large_calls.take(share).await;
        let body = body.clone();
        tokio::task::spawn_blocking(move || read(&body, &limits)).await.expect("reading ends")
    }

    /// Long lists are written as large calls are read: one at a time, and each peer's behind its own.
    async fn list(
        &self,
        share: Share,
        bodies: Arc<Bodies>,
        full: bool,
        vms: Option<Vec<DomainId>>,
        range: Range,
    ) -> Arc<Body> {
        let length = vms.as_ref().map_or_else(|| bodies.snapshot().domains.len(), Vec::len);
        if !full && vms.is_none() || length <= VMS_AT_ONCE {
            return bodies.list(full, vms.as_deref(), range);
        }
        let _turn = self.large_calls.take(share).await;
        let written = tokio::task::spawn_blocking(move || bodies.list(full, vms.as_deref(), range));
        written.await.expect("writing ends")
    }

    fn is_the_last_poll(&self, body: &[u8]) -> bool {
        !body.is_empty() && **self.poll.read().unwrap_or_else(PoisonError::into_inner) == *body
    }

    async fn perform(&self, verb: Verb, peer: &Peer, call: &Call, visibility: Visibility) -> Arc<Body> {
        let now = self.state.published_for(visibility);
        if !verb.answers_while_recovering()
            && let Some(recovering) = now.bodies.recovering()
        {
            return recovering;
        }
        let range = self.range(peer, call);
        match verb {
            Verb::Ping => own(done()),
            Verb::List { full, vms } => self.list(peer.share(), now.bodies, full, vms, range).await,
            Verb::GetVmStats { vm } => own(now.bodies.vm_stats(vm, range, clock::wall())),
            Verb::GetAllVmStats => now.bodies.all_vm_stats(range, clock::wall()),
            Verb::Create { vm, xml } => {
                self.create(peer, call, vm, Start { xml, judged: None, paused: false }).await
            }
            Verb::CreateClassic(plan) => match documents(&plan, &self.state.host.facts()) {
                Ok(made) => {
                    let paused = plan.paused;
                    let xml = on_the_bridge_to_nowhere(made.xml);
                    let start = Start { xml, judged: Some(made.judged), paused };
                    self.create(peer, call, Some(plan.domain), start).await
                }
                Err(refused) => own(refused.reply()),
            },
            Verb::Shutdown { vm, delay_s, message, reboot, timeout_s, force } => {
                if let Some(message) = message {
                    // QEMU's agent has no words for a guest's user: only the log keeps them.
                    tracing::info!(%vm, ?message, "a shutdown was asked for with a message");
                }
                let timeout = Duration::from_secs(u64::from(timeout_s));
                let what = Wanted::Shutdown {
                    domain: vm,
                    again: reboot,
                    agent_first: Some(Duration::from_secs(u64::from(delay_s)) + timeout),
                    force_after: force.then_some(timeout),
                };
                own(whydown_wire::shutdown_reply(reboot, &self.ask(peer, call, what).await))
            }
            Verb::Do { vm, act } => self.act(peer, call, vm, act).await,
            Verb::Device { vm, mut act, judged } => {
                if let Operation::Plug(NewDevice { kind: Pluggable::Card, document, .. }) = &mut act {
                    *document = on_the_bridge_to_nowhere(std::mem::take(document));
                }
                self.device(peer, call, vm, act, judged).await
            }
            Verb::Snapshot { vm, disks, frozen } => self.snapshot(peer, call, vm, disks, frozen).await,
            Verb::MigrateStatus { vm } => own(match now.snapshot.domains.get(&vm) {
                Some(vm) => whydown_wire::work_reply(&self.state.works.of(vm)),
                None => status_reply(Code::NoSuchVm, ""),
            }),
            Verb::MigrationCreate { vm } => own(match now.snapshot.domains.get(&vm) {
                Some(_) => status_reply(Code::Exists, ""),
                None => whydown_wire::migration_create_reply(vm),
            }),
            Verb::Destroy { vm, .. } => {
                let outcome = self.ask(peer, call, Wanted::Do { domain: vm, act: Operation::Destroy }).await;
                own(whydown_wire::destroy_reply(&outcome))
            }
            Verb::GetVdsCapabilities if !self.state.host.is_learned() => {
                own(status_reply(Code::Recovering, ""))
            }
            Verb::GetVdsCapabilities => {
                let facts = public_host(self.state.host.facts(), visibility);
                own(whydown_wire::capabilities(&facts, self.settings.profile.into(), peer.ip()))
            }
            Verb::GetVdsStats => own(whydown_wire::host_stats(
                &self.state.host.facts(),
                &self.state.host.stats(),
                now.bodies.counts(),
            )),
            Verb::GetVdsHardwareInfo => own(whydown_wire::hardware(&self.state.host.facts().hardware)),
            Verb::ListMethods => own(whydown_wire::list_methods()),
            Verb::MethodHelp { name } => own(whydown_wire::method_help(&name)),
            Verb::MethodSignature { name } => own(whydown_wire::method_signature(&name)),
        }
    }

    /// The engine's answer. A daemon that stops meanwhile has none, and says so.
    async fn ask(&self, peer: &Peer, call: &Call, what: Wanted) -> Reply {
        let who = tame(&who(peer, call));
        tracing::info!("{} is asked for by {who}", told_of(&what));
        let answered = self.state.mailbox.ask(who, what, || call.begun.now()).await;
        answered.unwrap_or_else(|stopping| Reply::Unavailable(stopping.to_string()))
    }

    fn range(&self, peer: &Peer, call: &Call) -> Range {
        let client = match peer {
            Peer::Tcp { address, .. } | Peer::Tls { address, .. } => Client::Address(address.ip()),
            Peer::Unix { .. } => Client::Unix,
        };
        let wanted = header(call, REASONS_HEADER).map(str::trim);
        wanted.and_then(Range::from_word).unwrap_or_else(|| match self.settings.exit_reasons_for(client) {
            ExitReasons::Classic => Range::Classic,
            ExitReasons::V4_1 => Range::V4_1,
            ExitReasons::Full => Range::Full,
        })
    }
}

impl Calls for XmlRpc {
    fn call(self: Arc<Self>, peer: Peer, call: Call) -> ReplyFuture {
        Box::pin(async move { self.answer(&peer, &call).await })
    }
}

fn header<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.headers.get(name).and_then(|value| value.to_str().ok())
}

/// Made for this caller.
fn own(reply: Bytes) -> Arc<Body> {
    Arc::new(Body::new(reply))
}

/// What the administrator has not allowed is in the log too: somebody tried it.
fn refused(peer: &Peer, code: Code, forbidden: &Forbidden) -> Arc<Body> {
    let why = tame(&forbidden.to_string());
    if noise::may_say(peer.share()) {
        tracing::warn!(%peer, "refused: {why}");
    }
    own(status_reply(code, &why))
}

fn who(peer: &Peer, call: &Call) -> String {
    match header(call, FLOW_HEADER) {
        Some(flow) => format!("{peer}, flow {}", flow.chars().take(64).collect::<String>()),
        None => peer.to_string(),
    }
}

/// The document of a VM on this host, as it is now.
fn documents(vm: &ClassicVm, facts: &HostFacts) -> Result<Documents, Refused> {
    let processors = host::processors();
    let address_on = |network: &str| facts.address_on(network);
    let (kvm, now) = (facts.kvm, clock::wall());
    vm.document(&OnHost { kvm, processors: &processors, now, address_on: &address_on })
}

/// A document that was made of parameters. Where the host has such a bridge, a card that is plugged into nothing can be
/// plugged elsewhere later.
fn on_the_bridge_to_nowhere(document: String) -> String {
    match network::nowhere() {
        Some(bridge) => whydown_wire::led_to(bridge, &document),
        None => document,
    }
}
