//! The doctor: which causes this host, and one VM's definition, can tell apart, and what to add where they cannot.
//!
//! It changes nothing. libvirt is asked on a thread of its own, for at most [`PATIENCE`], and by few at once, so that a
//! libvirt or a QEMU that hangs delays nobody else.

mod definition;
mod findings;
mod needs;
mod sources;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use whydown_core::cause::Cause;
use whydown_core::evidence::{Fact, tame};
use whydown_core::hypervisor::{DomainState, ShutOffReason};
use whydown_core::id::DomainId;
use whydown_core::snapshot::{DomainPublic, Link};
use whydown_core::verdict::describe;
use whydown_ledger::{Condition, Ledger};
use whydown_libvirt::Hypervisor;
use whydown_witness::daemon_log::DaemonLog;
use whydown_witness::exit;

use self::definition::Definition;
use self::findings::{State, divided, finding, libvirts_log, listeners, note, of_definition};
use self::needs::Need;
use self::sources::of_sources;
use super::engine::Published;
use super::meant::Meant;
use super::refusals::Refusals;
use super::sources::{Registry, Sources};
use crate::config::{ExitReasons, Settings, open_emulators, opened, system_folders};
use crate::files;
use crate::told::{self, Finding};

/// How long libvirt may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who may be asked about at once.
const ROOM: usize = 4;

/// Where an enabled libvirt-guests is.
const LIBVIRT_GUESTS: &str = "/etc/systemd/system/multi-user.target.wants/libvirt-guests.service";

/// See the module page.
pub struct Doctor {
    hypervisor: Hypervisor,
    published: watch::Receiver<Published>,
    ledger: Ledger,
    sources: Registry,
    logs: Option<PathBuf>,
    daemon_log: DaemonLog,
    /// Whether this libvirt keeps pid files of VMs.
    has_processes: bool,
    /// Whether the kernel's audit has told who sent a signal.
    audit_names_senders: Arc<AtomicBool>,
    reasons: ExitReasons,
    /// What the settings open, in sentences, and whether that is more than is delivered.
    opened: (Vec<String>, bool),
    refusals: Arc<Refusals>,
    room: Arc<Semaphore>,
}

/// Why there is no answer: an HTTP status, and words.
pub struct Unwell(pub u16, pub String);

/// What libvirt says of a VM, and of itself.
struct Asked {
    versions: Result<(String, String, String), String>,
    /// libvirt's version as a number; zero where it is not known.
    libvirt: u64,
    vm: Option<Result<(Definition, bool), String>>,
}

impl Doctor {
    /// A doctor for this daemon.
    pub fn new(
        settings: &Settings,
        hypervisor: Hypervisor,
        published: watch::Receiver<Published>,
        ledger: Ledger,
        sources: &Sources,
    ) -> Self {
        Self {
            hypervisor,
            published,
            ledger,
            sources: sources.registry.clone(),
            logs: settings.libvirt.log_dir.clone(),
            daemon_log: settings.libvirt.daemon_log.clone().map_or(DaemonLog::Journal, DaemonLog::File),
            has_processes: settings.libvirt.run_dir.is_some(),
            audit_names_senders: Arc::clone(&sources.audit_names_senders),
            reasons: settings.xmlrpc.exit_reasons,
            opened: (opened(settings), is_wide(settings)),
            refusals: Arc::default(),
            room: Arc::new(Semaphore::new(ROOM)),
        }
    }

    /// Where it is counted who was refused.
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.refusals)
    }

    /// Looks at the host, and at the VM of this name or UUID.
    pub async fn examine(&self, vm: Option<&str>) -> Result<told::Doctor, Unwell> {
        let snapshot = self.published.borrow().snapshot.clone();
        let found = match vm {
            None => None,
            Some(name) => {
                let found = Meant::by(name).shown(&snapshot).into_iter().next();
                Some(found.ok_or_else(|| Unwell(404, "no VM of this name or UUID is shown".into()))?)
            }
        };
        let asked = self.ask(found.as_ref().map(|domain| domain.domain)).await?;
        let link = match snapshot.link {
            _ if !snapshot.settled => Some("libvirt has not been seen yet".to_owned()),
            Link::Down { .. } => Some("the link to libvirt is lost".to_owned()),
            Link::Up => None,
        };
        let name = found.as_ref().map(|domain| domain.name.clone());
        let logs = self.logs.clone();
        let unread = tokio::task::spawn_blocking(move || unread_log(logs.as_deref(), name.as_deref())).await;
        let mut all = self.host(link, &asked, unread.unwrap_or_else(|broken| Some(broken.to_string())));
        match asked.vm {
            None => {}
            Some(Ok((definition, persistent))) => {
                all.extend(of_definition(&definition, persistent, asked.libvirt))
            }
            Some(Err(why)) => {
                return Err(Unwell(503, format!("libvirt does not tell the VM's definition: {why}")));
            }
        }
        let (can_tell, cannot_tell) = divided(&all);
        let (libvirt, hypervisor, _) = asked.versions.unwrap_or_default();
        Ok(told::Doctor {
            version: env!("CARGO_PKG_VERSION").into(),
            libvirt: Some(libvirt).filter(|text| !text.is_empty()),
            hypervisor: Some(hypervisor).filter(|text| !text.is_empty()),
            vm: found.as_deref().map(told::Domain::of),
            can_tell,
            cannot_tell,
            findings: all,
        })
    }

    /// Sources that are unavailable, and what they cannot see of what runs now.
    pub fn unavailable_sources(&self) -> Vec<told::UnavailableSource> {
        let unseen = self.unseen_processes().map(|why| told::UnavailableSource {
            name: exit::ABOUT.name.into(),
            gives: exit::ABOUT.gives.into(),
            why,
            since: None,
        });
        self.sources.told_unavailable().into_iter().chain(unseen).collect()
    }

    /// Why the ends of VMs that run now will not be seen: their processes are not, as where libvirt runs in a pid namespace of
    /// its own. `None` where all are seen, and with drivers that have no processes.
    fn unseen_processes(&self) -> Option<String> {
        if !self.has_processes {
            return None;
        }
        let snapshot = self.published.borrow().snapshot.clone();
        let runs = |domain: &&Arc<DomainPublic>| {
            use whydown_core::snapshot::Status::{Ending, Launching, PoweringDown};
            domain.ending.is_none() && !matches!(domain.status, Launching | PoweringDown | Ending)
        };
        let all = snapshot.domains.values().filter(runs).count();
        let unseen = snapshot.domains.values().filter(runs).filter(|domain| domain.pid.is_none()).count();
        (unseen > 0).then(|| {
            format!(
                "the process of {unseen} of {all} VMs that run cannot be seen: libvirt's pids are not those that whydown sees, \
                 or libvirt.run_dir is elsewhere"
            )
        })
    }

    /// What libvirt has under this name or UUID, if that is off. Where it does not answer soon, nothing is told of it.
    pub async fn find_off(&self, meant: &Meant, ending: Option<&told::Ending>) -> Option<told::Defined> {
        let place = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let (hypervisor, names) = (self.hypervisor.clone(), meant.names.clone());
        // An ending knows its domain by its UUID, and the name may be another's by now.
        let id = ending.and_then(|ending| ending.domain.parse().ok()).or(meant.id);
        let looking = tokio::task::spawn_blocking(move || {
            let _place = place;
            match id.map(|id| hypervisor.view(id)) {
                Some(Ok(None)) | None => names
                    .iter()
                    .map(|name| hypervisor.view_named(name))
                    .find(|view| !matches!(view, Ok(None)))
                    .unwrap_or(Ok(None)),
                Some(view) => view,
            }
        });
        let view = tokio::time::timeout(PATIENCE, looking).await.ok()?.ok()?.ok()??;
        let DomainState::ShutOff(reason) = view.state else { return None };
        let told = ending.is_some_and(told::Ending::tells_a_failed_start);
        Some(told::Defined {
            domain: view.domain.id.to_string(),
            name: tame(&view.domain.name),
            state: describe(&Fact::Found { state: view.state, managed_save: view.managed_save }),
            start_failed: reason == ShutOffReason::Failed && !told,
        })
    }

    fn host(&self, link: Option<String>, asked: &Asked, unread: Option<String>) -> Vec<Finding> {
        let ledger = match self.ledger.health().condition {
            Condition::Working => None,
            Condition::Failing { error, .. } => Some(error),
        };
        let events = match &asked.versions {
            Ok((_, _, driver)) if driver == "QEMU" => None,
            Ok((_, _, driver)) => {
                Some(format!("libvirt's driver is {driver}: it has none of QEMU's own events"))
            }
            Err(why) => Some(format!("libvirt does not say which driver it is: {why}")),
        };
        let mut all = vec![
            finding(Need::Link, State::of(link)),
            finding(Need::Ledger, State::of(ledger)),
            finding(Need::QemuEvents, State::of(events)),
            finding(Need::QemuLog, State::of(unread)),
        ];
        let names_senders = self.audit_names_senders.load(Ordering::Relaxed);
        all.extend(of_sources(&self.sources.all(), self.unseen_processes(), names_senders));
        all.push(libvirts_log(self.daemon_log.trouble()));
        if !Path::new(LIBVIRT_GUESTS).exists() {
            all.push(note(
                "libvirt-guests",
                "libvirt-guests is not enabled: when the host goes down its VMs are killed, not shut down",
                &[Cause::HostShutdown],
                "If guests should be shut down with their host:",
                "systemctl enable libvirt-guests",
            ));
        }
        let most = match self.reasons {
            ExitReasons::Classic => Some(8),
            ExitReasons::V4_1 => Some(12),
            ExitReasons::Full => None,
        };
        if let Some(most) = most {
            let above: Vec<Cause> =
                Cause::ALL.iter().copied().filter(|cause| cause.row().exit_reason > most).collect();
            all.push(note(
                "exit-reasons",
                format!("managers get exit reasons up to {most}, unless they ask for more: to them some causes look alike"),
                &above,
                "If all managers know the numbers up to 14:",
                "[xmlrpc]\nexit_reasons = \"full\"",
            ));
        }
        all.push(listeners(&self.opened.0, self.opened.1, self.refusals.told()));
        all
    }

    /// What libvirt says, in bounded time. A call that hangs keeps its place until it is over.
    async fn ask(&self, vm: Option<DomainId>) -> Result<Asked, Unwell> {
        let busy = || Unwell(503, "libvirt does not answer: others are waiting for it already".into());
        let place = Arc::clone(&self.room).try_acquire_owned().map_err(|_| busy())?;
        let libvirt = self.hypervisor.clone();
        let asking = tokio::task::spawn_blocking(move || {
            let _place = place;
            let versions = libvirt.versions().map_err(|refusal| refusal.to_string());
            let number = versions.as_ref().map_or(0, |all| all.libvirt);
            let versions = versions.map(|all| {
                let hypervisor = all.hypervisor.map(dotted).unwrap_or_default();
                (dotted(all.libvirt), hypervisor, all.driver)
            });
            let vm = vm.map(|id| {
                let view = libvirt.view(id).map_err(|refusal| refusal.to_string())?;
                let persistent = view.ok_or("it is gone")?.persistent;
                let xml = libvirt.domain_xml(id).map_err(|refusal| refusal.to_string())?;
                Definition::read(&xml).map(|read| (read, persistent)).map_err(|bad| bad.to_string())
            });
            Asked { versions, libvirt: number, vm }
        });
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(Ok(asked)) => Ok(asked),
            Ok(Err(broken)) => Err(Unwell(500, broken.to_string())),
            Err(_) => Err(Unwell(503, format!("libvirt did not answer within {} s", PATIENCE.as_secs()))),
        }
    }
}

/// Whether people come in whom nobody has named.
fn is_wide(settings: &Settings) -> bool {
    let plain = settings.xmlrpc.plain_may_act && !settings.xmlrpc.listen.is_empty();
    plain
        || settings.tls.actors.iter().any(|name| name == "*")
        || !settings.create.allow.is_empty()
        || !system_folders(settings).is_empty()
        || !open_emulators(settings).is_empty()
}

/// Why QEMU's logs, or that of this VM, cannot be read; `None` if they can.
fn unread_log(folder: Option<&Path>, vm: Option<&str>) -> Option<String> {
    let Some(folder) = folder else { return Some("this libvirt.uri has no folder of QEMU's logs".into()) };
    let said = |path: &Path, why: std::io::Error| Some(format!("{}: {why}", path.display()));
    if let Err(why) = std::fs::read_dir(folder) {
        return said(folder, why);
    }
    let name = vm.filter(|name| !name.contains('/'))?;
    let path = folder.join(format!("{name}.log"));
    files::open_plain(&path).err().and_then(|why| said(&path, why))
}

/// libvirt's versions are millions, thousands and ones.
fn dotted(number: u64) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000)
}
