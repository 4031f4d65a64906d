//! What comes in by XML-RPC and JSON, answered from the pictures, the ledger, or by the engine.
//!
//! A poll is answered from memory and copies nothing. A request that acts waits for the engine's answer. Trouble is a
//! status, never a fault: a manager reads a fault as a broken host.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::{Semaphore, broadcast, watch};
use whydown_core::evidence::tame;
use whydown_core::id::DomainId;
use whydown_core::lifecycle::{Reply, Wanted};
use whydown_core::operation::{NewDevice, Operation, Pluggable};
use whydown_core::time::Wall;
use whydown_ledger::{Condition, Ledger};
use whydown_wire::{BadCall, Bodies, Body, Call, CallLimits, Code, Range, Refused, Verb, done, status_reply};

use super::history::{Asked, Reader, Reads, json_in_pieces};
use crate::config::{Client, ExitReasons, Settings, XmlRpc};
use crate::daemon::doctor::{Doctor, Unwell};
use crate::daemon::engine::{Change, Published};
use crate::daemon::host::Host;
use crate::daemon::judge::Judge;
use crate::daemon::mailbox::Mailbox;
use crate::daemon::meant::Meant;
use crate::daemon::policy::Forbidden;
use crate::daemon::work::Works;
use crate::daemon::{clock, network};
use crate::http::query::Parameters;
use crate::http::rights::{Denied, Rights, Sight, Want, told_of};
use crate::http::visibility::{PlainBoard, plain_host};
use crate::http::{Answer, AnswerFuture, Door, Peer, Request, Share, Tls, Turns, noise};
use crate::told;

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

/// Domains that are told in one piece; more are told as they are taken in.
const DOMAINS_AT_ONCE: usize = 16;

/// Doctors at work at once. Each asks libvirt, where acts want room too.
const DOCTORS: usize = 2;

mod ignored;
mod operations;

use ignored::Ignored;
use operations::Start;

/// See the module page.
pub struct Service {
    xmlrpc: XmlRpc,
    call_limits: CallLimits,
    /// Whose turn it is among the large calls.
    large_calls: Turns,
    mailbox: Mailbox,
    works: Works,
    published: watch::Receiver<Published>,
    changes: broadcast::Sender<Change>,
    ledger: Ledger,
    reads: Reads,
    host: Host,
    started: Wall,
    doctor: Arc<Doctor>,
    doctors: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
    /// The bytes of the last poll of all VMs. A manager sends the same ones each time: they are known by sight, and
    /// not read again.
    poll: RwLock<Box<[u8]>>,
    rights: Rights,
    ignored: Ignored,
    /// What documents may have.
    judge: Judge,
    /// For those who may be told what is no secret only.
    plain: PlainBoard,
    tls: Option<Arc<Tls>>,
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
    let call = Call::read(body, limits).map_err(Unread::Call)?;
    let method = tame(&call.method);
    match Verb::read(&call) {
        Ok((verb, ignored)) => Ok(Read { verb, method, ignored }),
        Err(refused) => Err(Unread::Verb { method, refused }),
    }
}

/// What a call gives back.
enum Given {
    /// Shared by all who ask.
    Shared(Arc<Body>),
    /// Made for this caller.
    Own(Bytes),
}

impl Service {
    /// A service over these.
    #[expect(clippy::too_many_arguments, reason = "each is a room of its own")]
    pub fn new(
        settings: &Settings,
        mailbox: Mailbox,
        works: Works,
        published: watch::Receiver<Published>,
        changes: broadcast::Sender<Change>,
        ledger: Ledger,
        host: Host,
        started: Wall,
        doctor: Doctor,
        stopping: watch::Receiver<bool>,
        tls: Option<Arc<Tls>>,
    ) -> Self {
        let call_limits = CallLimits { bytes: settings.xmlrpc.max_request_bytes, ..CallLimits::default() };
        let xmlrpc = settings.xmlrpc.clone();
        let rights = Rights::new(settings, doctor.refusals());
        Self {
            xmlrpc,
            call_limits,
            large_calls: Turns::new(1, 1),
            mailbox,
            works,
            published,
            changes,
            reads: Reads::new(ledger.clone(), stopping.clone()),
            ledger,
            host,
            started,
            doctor: Arc::new(doctor),
            doctors: Arc::new(Semaphore::new(DOCTORS)),
            stopping,
            poll: RwLock::default(),
            rights,
            ignored: Ignored::default(),
            judge: Judge::new(settings),
            plain: PlainBoard::new(settings.xmlrpc.profile.into()),
            tls,
        }
    }

    fn picture(&self) -> Published {
        self.published.borrow().clone()
    }

    /// As much of the picture as somebody may be told.
    fn picture_for(&self, sight: Sight) -> Published {
        let whole = self.picture();
        match sight {
            Sight::Whole => whole,
            Sight::Plain => self.plain.published(&whole.snapshot),
        }
    }

    async fn xmlrpc(&self, peer: &Peer, asked: &Request) -> Given {
        if self.is_the_last_poll(&asked.body) {
            return match self.may(peer, Want::Read) {
                Ok(sight) => self.perform(Verb::GetAllVmStats, peer, asked, sight).await,
                Err(denied) => Given::Own(status_reply(Code::NotSupported, &denied.to_string())),
            };
        }
        let Read { verb, method, ignored } = match self.read(peer.share(), &asked.body).await {
            Ok(read) => read,
            Err(Unread::Call(bad)) => {
                if noise::may_say(peer.share()) {
                    tracing::info!(%peer, "a call that cannot be read: {bad}");
                }
                return Given::Own(bad.reply());
            }
            Err(Unread::Verb { method, refused }) => {
                if noise::may_say(peer.share()) {
                    tracing::info!(%peer, ?method, "refused: {refused}");
                }
                return Given::Own(refused.reply());
            }
        };
        if matches!(verb, Verb::GetAllVmStats) && asked.body.len() <= POLL_BYTES {
            *self.poll.write().unwrap_or_else(PoisonError::into_inner) = asked.body.to_vec().into();
        }
        match self.may(peer, Want::of(&verb, &method)) {
            Ok(sight) => {
                self.ignored.say(peer, &method, &ignored);
                self.perform(verb, peer, asked, sight).await
            }
            Err(denied) => Given::Own(status_reply(Code::NotSupported, &denied.to_string())),
        }
    }

    /// Large calls are read one at a time, each peer's behind its own, on a thread of their own: however many are sent at once, polls are answered
    /// meanwhile, and no more than one of them is in memory as values.
    async fn read(&self, share: Share, body: &Bytes) -> Result<Read, Unread> {
        let limits = self.call_limits;
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

    /// Every refusal is in the log: somebody wanted something here.
    fn may(&self, peer: &Peer, want: Want<'_>) -> Result<Sight, Denied> {
        self.rights.check(peer, want).inspect_err(|denied| {
            if noise::may_say(peer.share()) {
                tracing::warn!("refused: {denied}");
            }
        })
    }

    async fn perform(&self, verb: Verb, peer: &Peer, asked: &Request, sight: Sight) -> Given {
        let now = self.picture_for(sight);
        if !verb.answers_while_recovering()
            && let Some(recovering) = now.bodies.recovering()
        {
            return Given::Shared(recovering);
        }
        let range = self.range(peer, asked);
        match verb {
            Verb::Ping => Given::Own(done()),
            Verb::List { full, vms } => {
                Given::Shared(self.list(peer.share(), now.bodies, full, vms, range).await)
            }
            Verb::GetVmStats { vm } => Given::Own(now.bodies.vm_stats(vm, range, clock::wall())),
            Verb::GetAllVmStats => Given::Shared(now.bodies.all_vm_stats(range, clock::wall())),
            Verb::Create { vm, xml } => {
                self.create(peer, asked, vm, Start { xml, judged: None, paused: false }).await
            }
            Verb::CreateClassic(plan) => {
                let facts = self.host.facts();
                match plan.document(facts.kvm, |network| facts.address_on(network)) {
                    Ok(made) => {
                        let paused = plan.paused;
                        let xml = on_the_bridge_to_nowhere(made.xml);
                        let start = Start { xml, judged: Some(made.judged), paused };
                        self.create(peer, asked, Some(plan.domain), start).await
                    }
                    Err(refused) => Given::Own(refused.reply()),
                }
            }
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
                Given::Own(whydown_wire::shutdown_reply(reboot, &self.ask(peer, asked, what).await))
            }
            Verb::Do { vm, act } => self.act(peer, asked, vm, act).await,
            Verb::Device { vm, mut act, judged } => {
                if let Operation::Plug(NewDevice { kind: Pluggable::Card, document, .. }) = &mut act {
                    *document = on_the_bridge_to_nowhere(std::mem::take(document));
                }
                self.device(peer, asked, vm, act, judged).await
            }
            Verb::Snapshot { vm, disks, frozen } => self.snapshot(peer, asked, vm, disks, frozen).await,
            Verb::MigrateStatus { vm } => Given::Own(match now.snapshot.domains.get(&vm) {
                Some(vm) => whydown_wire::work_reply(&self.works.of(vm)),
                None => status_reply(Code::NoSuchVm, ""),
            }),
            Verb::MigrationCreate { vm } => Given::Own(match now.snapshot.domains.get(&vm) {
                Some(_) => status_reply(Code::Exists, ""),
                None => whydown_wire::migration_create_reply(vm),
            }),
            Verb::Destroy { vm, .. } => {
                let outcome = self.ask(peer, asked, Wanted::Do { domain: vm, act: Operation::Destroy }).await;
                Given::Own(whydown_wire::destroy_reply(&outcome))
            }
            Verb::GetVdsCapabilities if !self.host.is_learned() => {
                Given::Own(status_reply(Code::Recovering, ""))
            }
            Verb::GetVdsCapabilities => {
                let facts = plain_host(self.host.facts(), sight);
                Given::Own(whydown_wire::capabilities(&facts, self.xmlrpc.profile.into(), peer.ip()))
            }
            Verb::GetVdsStats => Given::Own(whydown_wire::host_stats(
                &self.host.facts(),
                &self.host.stats(),
                now.bodies.counts(),
            )),
            Verb::GetVdsHardwareInfo => Given::Own(whydown_wire::hardware(&self.host.facts().hardware)),
            Verb::ListMethods => Given::Own(whydown_wire::list_methods()),
            Verb::MethodHelp { name } => Given::Own(whydown_wire::method_help(&name)),
            Verb::MethodSignature { name } => Given::Own(whydown_wire::method_signature(&name)),
        }
    }

    /// The engine's answer. A daemon that stops meanwhile has none, and says so.
    async fn ask(&self, peer: &Peer, asked: &Request, what: Wanted) -> Reply {
        let who = tame(&who(peer, asked));
        tracing::info!("{} is asked for by {who}", told_of(&what));
        let answered = self.mailbox.ask(who, what, || asked.begun.now()).await;
        answered.unwrap_or_else(|stopping| Reply::Unavailable(stopping.to_string()))
    }

    fn range(&self, peer: &Peer, asked: &Request) -> Range {
        let client = match peer {
            Peer::Tcp { address, .. } | Peer::Tls { address, .. } => Client::Address(address.ip()),
            Peer::Unix { .. } => Client::Unix,
        };
        let wanted = header(asked, REASONS_HEADER).map(str::trim);
        wanted.and_then(Range::from_word).unwrap_or_else(|| match self.xmlrpc.exit_reasons_for(client) {
            ExitReasons::Classic => Range::Classic,
            ExitReasons::V4_1 => Range::V4_1,
            ExitReasons::Full => Range::Full,
        })
    }

    async fn json(&self, peer: &Peer, asked: &Request, sight: Sight) -> Answer {
        let reader = Reader { share: peer.share(), sight };
        let query = match Parameters::read(&asked.path, asked.query.as_deref()) {
            Ok(query) => query,
            Err(why) => return trouble(400, &why),
        };
        let of = |name: &str| query.get(name);
        match asked.path.as_str() {
            "/v1/domains" => self.domains(sight),
            "/v1/health" => self.health().await,
            "/v1/doctor" => self.examine(peer, of("vm")).await,
            "/v1/watch" => {
                // First the changes: none falls between the picture and them.
                let changes = self.changes.subscribe();
                super::watch::answer(self.picture_for(sight).snapshot, changes, self.stopping.clone(), sight)
            }
            "/v1/why" => match of("vm") {
                None => trouble(400, "vm is missing: a name or a UUID"),
                Some(vm) => self.why(reader, vm).await,
            },
            "/v1/history" => {
                let (vm, since, limit, after) = (of("vm"), of("since"), of("limit"), of("after"));
                self.reads.history(reader, Asked { vm, since, limit, after }).await
            }
            _ => trouble(404, "there is nothing at this path"),
        }
    }

    async fn why(&self, reader: Reader, vm: &str) -> Answer {
        let snapshot = self.picture_for(reader.sight).snapshot;
        let meant = Meant::by(vm);
        let known = match meant.why(&snapshot, &self.reads, reader).await {
            Ok(known) => known,
            Err(answer) => return answer,
        };
        let shown = known.as_ref().is_some_and(|known| known.domain.is_some());
        let ending = known.as_ref().and_then(|known| known.ending.as_ref());
        let defined = if shown { None } else { self.doctor.find_off(&meant, ending).await };
        let known = match (known, &defined) {
            // It was renamed since it ran: what is known of it stands under its UUID.
            (None, Some(defined)) => {
                match Meant::by(&defined.domain).why(&snapshot, &self.reads, reader).await {
                    Ok(known) => known,
                    Err(answer) => return answer,
                }
            }
            (known, _) => known,
        };
        match (known, defined) {
            (None, None) if snapshot.settled => trouble(404, "no VM of this name or UUID is or was known"),
            (None, None) => trouble(
                503,
                "libvirt has not listed its VMs yet, and no ending of this one is known: try again",
            ),
            (known, defined) => json(200, &told::Why { defined, ..known.unwrap_or_default() }),
        }
    }

    /// All domains. Whoever takes them in slowly holds the picture, which others hold too, and a piece of the answer.
    fn domains(&self, sight: Sight) -> Answer {
        let snapshot = self.picture_for(sight).snapshot;
        if snapshot.domains.len() <= DOMAINS_AT_ONCE {
            return json(200, &told::Domains::of(&snapshot));
        }
        let mut head = to_json(&told::Domains::frame(&snapshot));
        let tail = b"]}";
        head.truncate(head.len() - tail.len());
        let ids: Vec<DomainId> = snapshot.domains.keys().copied().collect();
        let items = ids
            .into_iter()
            .filter_map(move |id| snapshot.domains.get(&id).map(|domain| to_json(&told::Domain::of(domain))));
        json_in_pieces(head, items, tail)
    }

    /// It asks libvirt, on threads that go on when the client has gone: so few are at work at once, to their end.
    async fn examine(&self, peer: &Peer, vm: Option<&str>) -> Answer {
        if let Err(denied) = self.may(peer, Want::Secret("ask what this host and its VMs lack")) {
            return trouble(403, &denied.to_string());
        }
        let Ok(turn) = Arc::clone(&self.doctors).acquire_owned().await else {
            return trouble(503, "whydown is stopping");
        };
        let (doctor, vm) = (Arc::clone(&self.doctor), vm.map(str::to_owned));
        let examined = tokio::spawn(async move {
            let _turn = turn;
            doctor.examine(vm.as_deref()).await
        });
        match examined.await {
            Ok(Ok(told)) => json(200, &told),
            Ok(Err(Unwell(status, why))) => trouble(status, &why),
            Err(error) => trouble(500, &error.to_string()),
        }
    }

    async fn health(&self) -> Answer {
        let ledger = self.ledger.health();
        let snapshot = self.picture().snapshot;
        json(
            200,
            &told::Health {
                version: env!("CARGO_PKG_VERSION").into(),
                started: told::timestamp(self.started),
                settled: snapshot.settled,
                link_lost_since: told::lost_since(&snapshot).filter(|_| snapshot.settled),
                ledger_trouble: match ledger.condition {
                    Condition::Working => None,
                    Condition::Failing { error, .. } => Some(error),
                },
                ledger_waiting: ledger.waiting,
                ledger_damaged: ledger.damaged.map(|path| path.display().to_string()),
                ledger_mended: ledger.mended,
                ledger_lost: ledger.lost + ledger.unreadable,
                unavailable_sources: self.doctor.unavailable_sources(),
                tls_trouble: self.tls.as_ref().and_then(|tls| tls.trouble()),
            },
        )
    }
}

impl crate::http::Service for Service {
    fn call(self: Arc<Self>, peer: Peer, request: Request) -> AnswerFuture {
        Box::pin(async move {
            match request.door {
                Door::Call => match self.xmlrpc(&peer, &request).await {
                    Given::Shared(body) => Answer::shared_xml(body),
                    Given::Own(bytes) => Answer::xml(bytes),
                },
                Door::Look => match self.may(&peer, Want::Read) {
                    Ok(sight) => self.json(&peer, &request, sight).await,
                    Err(denied) => trouble(403, &denied.to_string()),
                },
            }
        })
    }
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.get(name).and_then(|value| value.to_str().ok())
}

/// What the administrator has not allowed is in the log too: somebody tried it.
fn refused(peer: &Peer, code: Code, forbidden: &Forbidden) -> Given {
    let why = tame(&forbidden.to_string());
    if noise::may_say(peer.share()) {
        tracing::warn!(%peer, "refused: {why}");
    }
    Given::Own(status_reply(code, &why))
}

fn who(peer: &Peer, asked: &Request) -> String {
    match header(asked, FLOW_HEADER) {
        Some(flow) => format!("{peer}, flow {}", flow.chars().take(64).collect::<String>()),
        None => peer.to_string(),
    }
}

fn json<T: serde::Serialize>(status: u16, value: &T) -> Answer {
    let body = to_json(value);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer::json(status, body)
}

fn to_json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("told types have only texts, numbers and lists")
}

fn trouble(status: u16, error: &str) -> Answer {
    json(status, &told::Trouble { error: error.into() })
}

/// A document that was made of parameters. Where the host has such a bridge, a card that is plugged into nothing can be
/// plugged elsewhere later.
fn on_the_bridge_to_nowhere(document: String) -> String {
    match network::nowhere() {
        Some(bridge) => whydown_wire::led_to(bridge, &document),
        None => document,
    }
}
