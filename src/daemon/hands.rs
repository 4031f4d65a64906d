//! What the engine wants done in the world, done on threads that may block.
//!
//! A hung QEMU or libvirtd blocks only its own call: looks and acts have separate bounds, so that a storm of looks
//! never delays what a manager asked for. A question always gets its answer, if only that there is none.

mod unplug;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use whydown_core::evidence::{Fact, Sender, tame};
use whydown_core::hypervisor::{DomainState, DomainView, PauseReason, Process};
use whydown_core::id::{BootId, DomainId, RequestId, RunId};
use whydown_core::lifecycle::attribution::{self, Marks};
use whydown_core::lifecycle::{Answer, Definition, Input, Outcome, Question, Subject, internal_error};
use whydown_core::limits;
use whydown_core::operation::{Console, Operation, SnapshotDisk};
use whydown_core::time::Wall;
use whydown_libvirt::{Hypervisor, RebootHow, Refusal, ShutdownHow, read_planned};
use whydown_witness::exit::ExitWatch;
use whydown_witness::host::GoingDown;
use whydown_witness::libvirt::LibvirtProcess;
use whydown_witness::log;
use whydown_witness::process;
use whydown_witness::processes::Processes;

use self::unplug::Awaited;
use super::calls::Calls;
use super::mailbox::Mailbox;
use super::plug::{self, Leaving};
use super::sample::{Heard, News};
use super::sources::Sources;
use super::sources::going_down::{BootsBefore, HostsWord, Told};
use super::work::{AT_ONCE, LOOK, Works};
use super::{clock, device, space};

/// Looks under way at once. Each holds one thread, and takes milliseconds unless libvirt hangs.
const LOOKS: usize = 32;

/// Glances at runs that go on under way at once: a storm of them must keep no ending waiting.
const GLANCES: usize = 8;

/// Acts under way at once. A destroy of a hung QEMU holds its thread for some ten to thirty seconds.
const ACTS: usize = 256;

/// Disks of a VM that are looked at.
const DISKS: usize = 64;

/// Threads for all of these together, for what runs long, and for what asks how far it is.
const THREADS: usize = LOOKS + GLANCES + ACTS + 2 * AT_ONCE;

/// See the module page. Cheap to clone.
#[derive(Clone)]
pub struct Hands {
    calls: Arc<Calls>,
    hypervisor: Hypervisor,
    mailbox: Mailbox,
    exits: Arc<ExitWatch>,
    processes: Processes,
    /// Where QEMU's logs are; `None` where the connection has none.
    logs: Option<PathBuf>,
    /// Our own process, where libvirt runs inside it.
    libvirt: LibvirtProcess,
    looks: Arc<Semaphore>,
    glances: Arc<Semaphore>,
    acts: Arc<Semaphore>,
    works: Works,
    /// Where what VMs are made of is read.
    news: News,
    host: HostsWord,
    boots: BootsBefore,
}

/// The answer to a question that could not be put.
fn no_answer(question: &Question) -> Answer {
    match question {
        Question::Host => Answer::Host { going_down: None },
        Question::Look { domain } => Answer::Looked { domain: *domain, view: None },
        Question::Glance { run, .. } => Answer::Glanced { run: *run, view: None, facts: Vec::new() },
        Question::Remains { run, .. } => Answer::Remains { run: *run, view: None, facts: Vec::new() },
        Question::Perform { run, request, act, .. } => {
            Answer::Performed { run: *run, request: *request, what: act.kind(), outcome: Outcome::NoLink }
        }
    }
}

impl Hands {
    /// Hands for this connection.
    pub fn new(
        hypervisor: Hypervisor,
        mailbox: Mailbox,
        sources: &Sources,
        logs: Option<PathBuf>,
        libvirt: LibvirtProcess,
        works: Works,
        news: News,
    ) -> Self {
        let (looks, acts) = (Arc::new(Semaphore::new(LOOKS)), Arc::new(Semaphore::new(ACTS)));
        let glances = Arc::new(Semaphore::new(GLANCES));
        let calls = Arc::new(Calls::new(THREADS));
        Self {
            calls,
            hypervisor,
            mailbox,
            exits: Arc::clone(&sources.exits),
            processes: sources.processes.clone(),
            logs,
            libvirt,
            looks,
            glances,
            acts,
            works,
            news,
            host: sources.host.clone(),
            boots: BootsBefore::default(),
        }
    }

    /// Has a process's exit told, and signals to its threads.
    pub fn watch(&self, process: Process) {
        self.processes.threads.note(process.pid);
        self.watch_exit(process);
        let hands = self.clone();
        // It reads some files of /proc.
        tokio::task::spawn_blocking(move || {
            hands.processes.units.note(process);
            let (facts, inner) = hands.processes.emulators.came_up(process);
            if let Some(inner) = inner {
                hands.processes.threads.note(inner.pid);
                hands.watch_exit(inner);
            }
            for fact in facts {
                let (subject, at) = (Subject::Process(process), clock::wall());
                hands.mailbox.post_blocking(Input::Observed { subject, at, fact });
            }
        });
    }

    fn watch_exit(&self, process: Process) {
        if let Err(error) = self.exits.watch(process) {
            tracing::debug!(pid = process.pid, %error, "its exit will not be told");
        }
    }

    /// Takes on a question. Never blocks; the answer comes by post.
    pub fn ask(&self, question: Question) {
        let hands = self.clone();
        let room = match &question {
            Question::Perform { run, domain, act, .. } if act.kind().is_long() => {
                self.works.begin(*domain, *run, act);
                return hands.begin_work(*run, *domain, act.clone());
            }
            Question::Perform { .. } => Arc::clone(&self.acts),
            Question::Remains { .. } | Question::Look { .. } | Question::Host => Arc::clone(&self.looks),
            Question::Glance { .. } => Arc::clone(&self.glances),
        };
        match Arc::clone(&room).try_acquire_owned() {
            Ok(room) => hands.put(question, room),
            Err(_) => drop(tokio::spawn(async move {
                if let Ok(room) = room.acquire_owned().await {
                    hands.put(question, room);
                }
            })),
        }
    }

    /// Asks on a thread that may block, and posts the answer from there, or when what is to be waited for has come.
    fn put(self, question: Question, room: OwnedSemaphorePermit) {
        let (calls, runtime) = (Arc::clone(&self.calls), Handle::current());
        calls.begin(move || {
            let unanswered = no_answer(&question);
            let answer = match catch_unwind(AssertUnwindSafe(|| self.answer(question))) {
                Ok(Ok(answer)) => answer,
                Ok(Err(awaited)) => {
                    runtime.spawn(async move {
                        let answer = self.when_gone(*awaited).await;
                        self.mailbox.post(Input::Answered(answer)).await;
                        drop(room);
                    });
                    return;
                }
                Err(_) => {
                    tracing::error!("a question to libvirt broke off by a bug");
                    unanswered
                }
            };
            self.mailbox.post_blocking(Input::Answered(answer));
            drop(room);
        });
    }

    /// The answer, or what is to be waited for before there is one.
    fn answer(&self, question: Question) -> Result<Answer, Box<Awaited>> {
        match question {
            Question::Perform { run, domain, request, act } => {
                let (what, changes) = (act.kind(), act.changes_devices());
                let done = match self.perform(domain, act) {
                    Ok(Some((leaving, heard))) => {
                        return Err(Box::new(Awaited { run, domain, request, what, leaving, heard }));
                    }
                    Ok(None) => Ok(()),
                    Err(refusal) => Err(refusal),
                };
                if changes {
                    self.tell_devices(run, domain);
                }
                Ok(Answer::Performed { run, request, what, outcome: outcome(done) })
            }
            Question::Host => Ok(Answer::Host { going_down: self.host_goes_down() }),
            Question::Look { domain } => Ok(Answer::Looked { domain, view: self.view(domain) }),
            Question::Glance { run, domain, name, marks, full } => {
                Ok(self.glance(run, domain, &name, marks, &full))
            }
            Question::Remains { run, domain, name, marks, boot_before, definition } => {
                Ok(self.remains(run, domain, &name, marks, (boot_before, definition)))
            }
        }
    }

    /// Where it is told as it happens nobody need be asked.
    fn host_goes_down(&self) -> Option<(Wall, String)> {
        let asked = (!self.host.is_told()).then(|| self.host.ask());
        asked.and_then(Told::down).map(|GoingDown { at, by }| (at, by))
    }

    fn glance(&self, run: RunId, domain: DomainId, name: &str, marks: Marks, full: &[String]) -> Answer {
        let view = self.view(domain);
        let unsaid = DomainState::Paused(PauseReason::Unknown);
        let failed = DomainState::Paused(PauseReason::IoError);
        let facts = match &view {
            Some(Some(view)) if view.state == unsaid => {
                let mut facts = self.log(name, marks);
                facts.retain(
                    |(_, fact)| matches!(fact, Fact::LogText(text) if internal_error(text).is_some()),
                );
                facts
            }
            Some(Some(view)) if view.state == failed && !full.is_empty() => self.disks(view, full),
            _ => Vec::new(),
        };
        Answer::Glanced { run, view, facts }
    }

    fn remains(
        &self,
        run: RunId,
        domain: DomainId,
        name: &str,
        marks: Marks,
        (boot_before, definition): (Option<BootId>, Definition),
    ) -> Answer {
        let view = self.view(domain);
        let mut facts = self.log(name, marks);
        let wanted = match definition {
            Definition::Unwanted => false,
            Definition::IfPanicked => facts.iter().any(|(_, fact)| matches!(fact, Fact::LogPanic(_))),
            Definition::Wanted => true,
        };
        if wanted && matches!(&view, Some(Some(view)) if !view.state.is_active()) {
            facts.extend(self.fate(domain));
        }
        facts.extend(boot_before.and_then(|boot| self.boots.how_it_ended(&boot, marks.started)));
        facts.extend(self.host.ask().fact());
        Answer::Remains { run, view, facts }
    }

    /// What its definition says now of reboots and panics.
    fn fate(&self, domain: DomainId) -> Vec<(Wall, Fact)> {
        let Ok(xml) = self.hypervisor.domain_xml(domain) else { return Vec::new() };
        let Ok(made) = read_planned(&xml) else { return Vec::new() };
        made.fate().map(|fact| (clock::wall(), fact)).collect()
    }

    /// Some hypervisors know no choice of means.
    fn press_button(&self, domain: DomainId) -> Result<(), Refusal> {
        match self.hypervisor.shutdown(domain, ShutdownHow::Acpi) {
            Err(refusal) if refusal.is_unsupported() => {
                self.hypervisor.shutdown(domain, ShutdownHow::AcpiOrAgent)
            }
            done => done,
        }
    }

    /// Has libvirt do this; gives what is to be waited for besides.
    fn perform(&self, domain: DomainId, act: Operation) -> Result<Option<(Leaving, Heard)>, Refusal> {
        let libvirt = &self.hypervisor;
        let done = match act {
            Operation::Unplug(old) => return self.ask_to_give_up(domain, &old).map(Some),
            Operation::Create { xml, paused, .. } => libvirt.create_or_restore(domain, &xml, paused),
            Operation::AgentShutdown => libvirt.shutdown(domain, ShutdownHow::Agent),
            Operation::Shutdown => self.press_button(domain),
            Operation::ForceOff | Operation::Destroy => libvirt.destroy(domain),
            Operation::AgentReboot => libvirt.reboot(domain, RebootHow::Agent),
            Operation::Reboot => libvirt.reboot(domain, RebootHow::Acpi),
            Operation::ForceReset => libvirt.reset(domain),
            Operation::Pause => libvirt.pause(domain),
            Operation::Resume => libvirt.resume(domain),
            Operation::Save => libvirt.save(domain),
            Operation::Migrate(how) => {
                let screen = how.console.as_deref().map(|host| {
                    let document = libvirt.domain_xml(domain)?;
                    device::screen_at(&document, host).map_err(unreadable)
                });
                libvirt.migrate(domain, &how, screen.transpose()?.flatten().as_deref())
            }
            Operation::Abort if self.works.give_up(domain) => Ok(()),
            Operation::Abort => libvirt.abort_job(domain),
            Operation::SetMemory { kib } => libvirt.set_memory(domain, kib),
            Operation::SetVcpus { count } => libvirt.set_vcpus(domain, count),
            Operation::SetLink(link) => {
                let document = libvirt.secret_xml(domain)?;
                match device::with_link(&document, &link).map_err(unreadable)? {
                    Ok(card) => libvirt.update_device(domain, &card),
                    Err(why) => Err(refused(format!("{}: {why}", link.alias))),
                }
            }
            Operation::ChangeMedium(medium) => {
                let document = libvirt.domain_xml(domain)?;
                libvirt.change_medium(domain, &plug::with_medium(&document, &medium)?)
            }
            Operation::Plug(device) => match &device.targets {
                None => libvirt.attach_device(domain, &device.document),
                Some(targets) => {
                    let document = libvirt.domain_xml(domain)?;
                    libvirt.attach_device(domain, &plug::in_its_place(&device.document, &document, targets)?)
                }
            },
            Operation::Freeze => libvirt.freeze(domain),
            Operation::Thaw => libvirt.thaw(domain),
            Operation::SetTicket(ticket) => {
                let document = libvirt.secret_xml(domain)?;
                let consoles = device::with_ticket(&document, &ticket, clock::wall()).map_err(unreadable)?;
                if consoles.is_empty() {
                    let of_kind = ticket.console.map_or("", |console| match console {
                        Console::Vnc => " of VNC",
                        Console::Spice => " of SPICE",
                    });
                    return Err(refused(format!("the VM has no console{of_kind}")));
                }
                consoles.iter().try_for_each(|console| libvirt.update_device(domain, console))
            }
            Operation::Snapshot { disks, quiesce } => {
                let made = libvirt.devices(domain)?;
                let kind_of = |target: &str| made.disks.iter().find(|disk| disk.target == target);
                for SnapshotDisk { target, .. } in &disks {
                    match kind_of(target).map(|disk| disk.kind.as_str()) {
                        Some("disk" | "lun") => {}
                        // libvirt would let a drive go on in an image that it takes for a disk's.
                        Some(kind) => {
                            return Err(refused(format!("{target} is no disk: a {kind} has no snapshots")));
                        }
                        None => return Err(refused(format!("the VM has no disk {target}"))),
                    }
                }
                let all: Vec<String> = made.disks.into_iter().map(|disk| disk.target).collect();
                libvirt.snapshot_disks(domain, &device::snapshot(&disks, &all), quiesce)
            }
        };
        done.map(|()| None)
    }

    /// A call into libvirt on a thread of its own.
    async fn call<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let done = self.calls.ask(what).await;
        done.unwrap_or_else(|error| {
            // Nobody knows how far it came.
            tracing::error!(%error, "a call to libvirt broke off");
            Err(Refusal::NoLink)
        })
    }

    /// What the VM is made of is read and told before who asked for a change of it is answered: whoever looks then sees it.
    fn tell_devices(&self, run: RunId, domain: DomainId) {
        let read = clock::now().mono;
        if let Ok(devices) = self.hypervisor.devices(domain) {
            self.mailbox.post_blocking(Input::Made { run, devices: Arc::new(devices), read });
        }
        self.news.of(domain);
    }

    /// What takes long waits for its turn, then runs on a thread of its own while another asks how far it is.
    fn begin_work(self, run: RunId, domain: DomainId, act: Operation) {
        let what = act.kind();
        tokio::spawn(async move {
            let _leaving = match &act {
                Operation::Migrate(how) => Some(self.works.leave(how.outgoing_most).await),
                _ => None,
            };
            let Ok(_room) = Arc::clone(&self.works.room).acquire_owned().await else { return };
            let done = if self.works.go(domain) {
                let (hands, looking) = (self.clone(), tokio::spawn(self.clone().look_at_work(domain)));
                let done = self.call(move || hands.perform(domain, act).map(|_| ())).await;
                looking.abort();
                done
            } else {
                Err(refused("it was given up before it began"))
            };
            self.works.end(domain, &done);
            let request: Option<RequestId> = None;
            let answer = Answer::Performed { run, request, what, outcome: outcome(done) };
            self.mailbox.post(Input::Answered(answer)).await;
        });
    }

    async fn look_at_work(self, domain: DomainId) {
        loop {
            tokio::time::sleep(LOOK).await;
            let libvirt = self.hypervisor.clone();
            let looked = self.calls.ask(move || libvirt.progress(domain)).await;
            let progress = looked.ok().and_then(Result::ok).flatten();
            if !self.works.looked(domain, progress) {
                return;
            }
        }
    }

    fn view(&self, domain: DomainId) -> Option<Option<DomainView>> {
        match self.hypervisor.view(domain) {
            Ok(view) => Some(view),
            Err(Refusal::NoDomain) => Some(None),
            Err(Refusal::NoLink | Refusal::Refused { .. }) => None,
        }
    }

    /// What these disks are on this host, and how much room there is.
    fn disks(&self, view: &DomainView, full: &[String]) -> Vec<(Wall, Fact)> {
        let disks = self.hypervisor.domain_xml(view.domain.id).ok();
        let disks = disks.and_then(|document| device::disk_places(&document).ok()).unwrap_or_default();
        let now = clock::wall();
        let place = |(disk, path): (String, String)| {
            let free = space::free(view.process, Path::new(&path));
            (now, Fact::DiskSpace { disk: tame(&disk), path: tame(&path), free })
        };
        disks.into_iter().filter(|(disk, _)| full.contains(disk)).take(DISKS).map(place).collect()
    }

    fn log(&self, name: &str, marks: Marks) -> Vec<(Wall, Fact)> {
        let Some(folder) = &self.logs else { return Vec::new() };
        let now = clock::wall();
        let mut facts = attribution::facts_of(&log::read(folder, name, &self.libvirt, now), marks, now);
        facts.extend(libvirt_since(&facts));
        facts
    }
}

/// Since when the libvirt that ended the process has been running, if it runs still.
pub(super) fn libvirt_since(facts: &[(Wall, Fact)]) -> Option<(Wall, Fact)> {
    facts.iter().find_map(|(_, fact)| match fact {
        Fact::LogSignal { sender: Sender::Libvirt, pid, at: Some(at), .. } => {
            // Another process has that pid now if it began later.
            let since =
                process::running_since(*pid).filter(|since| *since <= at.after(limits::CLOCK_GRACE))?;
            Some((*at, Fact::LibvirtSince(since)))
        }
        _ => None,
    })
}

fn outcome(done: Result<(), Refusal>) -> Outcome {
    match done {
        Ok(()) => Outcome::Done,
        Err(Refusal::NoDomain) => Outcome::NoDomain,
        Err(Refusal::NoLink) => Outcome::NoLink,
        Err(Refusal::Refused { text, .. }) => Outcome::Refused(text),
    }
}

/// A refusal of our own.
pub(super) fn refused(text: impl Into<String>) -> Refusal {
    Refusal::Refused { code: 0, text: text.into() }
}

fn unreadable(error: quick_xml::Error) -> Refusal {
    refused(format!("libvirt's document cannot be read: {error}"))
}
