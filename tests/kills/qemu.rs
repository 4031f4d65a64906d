//! Rounds with real guests under a libvirtd of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use whydown_lab::{Guest, Launch, Libvirtd, Result, Signal, Whydownd, lab_dir, wait_for};

use crate::book::Book;
use crate::client::{Client, create, texts};
use crate::dice::Dice;
use crate::slow::SlowDisk;

/// Longer than anything here takes: a libvirtd that comes back may look at its guests for half a minute.
const PATIENCE: Duration = Duration::from_secs(60);

/// From before the first word of libvirt to behind the last commit.
const LONGEST_MS: u64 = 400;

/// Syncs of a slow disk, in milliseconds.
const SLOW_MS: u64 = 300;

/// A VM, and whether its definition stays.
struct Vm {
    guest: Guest,
    persistent: bool,
}

/// What befalls a VM in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// It is off and stays so.
    Off,
    /// It is Down, and acknowledged.
    Acknowledged,
    /// It is off and started through us.
    Created,
    /// It is off and started by another client.
    Started,
    /// It runs on.
    Left,
    /// It is destroyed through us.
    Destroyed,
    /// By another client.
    DestroyedOutside,
    /// By itself.
    PoweredOff,
    /// Its process is killed.
    Killed,
}

impl Fate {
    /// What may be told of its end.
    const fn causes(self) -> &'static [&'static str] {
        match self {
            Self::Destroyed => &["admin-destroyed", "destroyed-at-start"],
            Self::DestroyedOutside => &["outside-destroyed"],
            Self::PoweredOff => &["guest-poweroff"],
            Self::Killed => &["process-killed", "process-lost"],
            Self::Created => &["start-failed", "start-failed-silent"],
            Self::Off | Self::Acknowledged | Self::Started | Self::Left => &[],
        }
    }
}

/// Where libvirtd died as well, nobody may know; and a libvirtd that comes back may itself end what it cannot take over.
const WITHOUT_LIBVIRTD: &[&str] = &[
    "unknown-ended",
    "unknown-vanished",
    "process-lost",
    "process-killed",
    "killed-by-libvirt",
    "start-failed",
    "start-failed-silent",
];

/// How many there were of each.
type Counts = BTreeMap<String, u64>;

pub fn rounds(count: u64, dice: &mut Dice) -> Result<Vec<String>> {
    let mut host = Host::start()?;
    let mut counts = Counts::new();
    let book = Mutex::new(Book::default());
    let stop = AtomicBool::new(false);
    let client = host.client.clone();
    let done = std::thread::scope(|scope| {
        // Also where a round breaks off.
        let _stopping = Stopping(&stop);
        scope.spawn(|| watch(&client, &book, &stop));
        (0..count).try_for_each(|round| host.round(round, dice, &book, &mut counts))
    });
    let book = book.into_inner().unwrap_or_else(PoisonError::into_inner);
    eprintln!(
        "QEMU: {count} rounds, {} runs, {} endings, {} pictures, {} faults; {counts:?}",
        book.runs.len(),
        book.endings.len(),
        book.pictures,
        book.faults.len()
    );
    done.map(|()| book.faults)
}

struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn locked(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks at every picture that it can get.
fn watch(client: &Client, book: &Mutex<Book>, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        let destroyed: BTreeSet<u64> = locked(book).destroyed.clone();
        if let Some(picture) = client.get("/v1/domains") {
            locked(book).picture(&picture, &destroyed, false);
        }
        // As often as a manager in a hurry; the processor is wanted elsewhere.
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Host {
    daemon: Whydownd,
    libvirtd: Libvirtd,
    vms: Vec<Vm>,
    disk: SlowDisk,
    client: Client,
    _folder: TempDir,
}

impl Host {
    fn start() -> Result<Self> {
        let folder = lab_dir()?;
        let libvirtd = Libvirtd::start(folder.path().join("l"), "kills")?;
        let its = libvirtd.directory();
        let config = format!(
            "[libvirt]\nlog_dir = '{}'\nrun_dir = '{}'\n",
            its.join("log/qemu").display(),
            its.join("run/qemu").display()
        );
        let disk = SlowDisk::new(folder.path())?;
        let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &libvirtd.uri());
        let daemon = Whydownd::start(disk.under(launch.config(&config)))?;
        let client = Client::new(&daemon.socket_path());
        let mut vms = Vec::new();
        for number in 0..4 {
            let guest = Guest::new(folder.path(), &format!("vm{number}"))?;
            let persistent = number % 2 == 0;
            if persistent {
                libvirtd.define(&guest)?;
            }
            vms.push(Vm { guest, persistent });
        }
        Ok(Self { daemon, libvirtd, vms, disk, client, _folder: folder })
    }

    fn round(&mut self, round: u64, dice: &mut Dice, book: &Mutex<Book>, counts: &mut Counts) -> Result<()> {
        let shown = self.shown();
        let mut fates = Vec::new();
        for vm in &self.vms {
            let fate = if self.runs(vm)? {
                *dice.of(&[
                    Fate::Left,
                    Fate::Destroyed,
                    Fate::Destroyed,
                    Fate::DestroyedOutside,
                    Fate::PoweredOff,
                    Fate::Killed,
                ])
            } else if shown.contains_key(vm.guest.uuid_text()) {
                *dice.of(&[Fate::Off, Fate::Acknowledged, Fate::Acknowledged, Fate::Started])
            } else if vm.persistent {
                *dice.of(&[Fate::Started, Fate::Started, Fate::Off])
            } else {
                *dice.of(&[Fate::Created, Fate::Created, Fate::Started, Fate::Off])
            };
            fates.push(fate);
        }
        let slow = dice.one_in(3);
        let victims = *dice.of(&["whydownd", "whydownd", "libvirtd", "both"]);
        let wait = dice.up_to(if slow { LONGEST_MS + 3 * SLOW_MS } else { LONGEST_MS });
        let libvirtd_first = dice.one_in(2);
        locked(book).place = format!(
            "round {round}, {victims} killed after {wait} ms{}, {fates:?}",
            if slow { ", slow disk" } else { "" }
        );
        self.disk.set(if slow { SLOW_MS } else { 0 });
        self.befall(&fates, &shown, victims, Duration::from_millis(wait), book, counts)?;
        if libvirtd_first {
            self.libvirtd.start_again()?;
            self.daemon.start_again()?;
        } else {
            // It is ready without libvirt, too, but only after a while.
            std::thread::scope(|scope| {
                let (daemon, libvirtd) = (&mut self.daemon, &mut self.libvirtd);
                let starting = scope.spawn(|| daemon.start_again());
                libvirtd.start_again()?;
                starting.join().expect("no panic")
            })?;
        }
        self.disk.set(0);
        for count in [victims, if slow { "slow disk" } else { "fast disk" }] {
            *counts.entry(count.into()).or_default() += 1;
        }
        for vm in &self.vms {
            let mut seen = String::new();
            let rests = wait_for("rest", PATIENCE, || match self.unrest(vm) {
                None => Some(()),
                Some(why) => {
                    seen = why;
                    None
                }
            });
            if rests.is_err() {
                locked(book).fault(format!("{} does not come to rest: {seen}", vm.guest.name()));
                // The next rounds begin from what both agree on.
                drop(self.libvirtd.try_virsh(&["destroy", vm.guest.name()]));
            }
        }
        self.check(&fates, victims, book)
    }

    /// All of it at one moment, and the kill `wait` later.
    fn befall(
        &mut self,
        fates: &[Fate],
        shown: &BTreeMap<String, u64>,
        victims: &str,
        wait: Duration,
        book: &Mutex<Book>,
        counts: &mut Counts,
    ) -> Result<()> {
        let (libvirtd, client) = (&self.libvirtd, &self.client);
        let documents: Vec<String> = self.vms.iter().map(|vm| vm.guest.xml()).collect();
        let answered = Mutex::new(Counts::new());
        let count = |what: &str| {
            *answered.lock().unwrap_or_else(PoisonError::into_inner).entry(what.into()).or_default() += 1;
        };
        std::thread::scope(|scope| {
            for ((vm, fate), xml) in self.vms.iter().zip(fates).zip(&documents) {
                let count = &count;
                scope.spawn(move || {
                    let uuid = vm.guest.uuid_text();
                    match fate {
                        Fate::Off | Fate::Left => {}
                        Fate::Acknowledged | Fate::Destroyed => {
                            if client.call("destroy", &texts(&[uuid])) == Some(0) {
                                locked(book).destroyed.extend(shown.get(uuid));
                                count(if *fate == Fate::Destroyed {
                                    "destroys answered"
                                } else {
                                    "acknowledgements answered"
                                });
                            }
                        }
                        Fate::Created => {
                            if client.call("create", &create(uuid, xml)) == Some(0) {
                                count("creates answered");
                            }
                        }
                        // What fails because libvirtd is killed has not happened.
                        Fate::Started if vm.persistent => {
                            drop(libvirtd.try_virsh(&["start", vm.guest.name()]))
                        }
                        Fate::Started => {
                            let path = vm.guest.write_xml().expect("the folder takes a file");
                            drop(libvirtd.try_virsh(&["create", &path.display().to_string()]));
                        }
                        Fate::DestroyedOutside => drop(libvirtd.try_virsh(&["destroy", vm.guest.name()])),
                        Fate::PoweredOff => {
                            // A guest that has not come so far does not power off.
                            drop(
                                vm.guest
                                    .serial(Duration::from_secs(5))
                                    .and_then(|mut serial| serial.power_off()),
                            );
                        }
                        Fate::Killed => {
                            drop(libvirtd.qemu(vm.guest.name()).and_then(|qemu| qemu.signal(Signal::KILL)))
                        }
                    }
                });
            }
            // The moment of the kill is what is tried here; nothing waits for it.
            std::thread::sleep(wait);
            let daemon = &mut self.daemon;
            if victims != "libvirtd" {
                daemon.kill_9()?;
            }
            if victims != "whydownd" {
                let pid = libvirtd.pid().expect("it runs");
                let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process");
                rustix::process::kill_process(pid, Signal::KILL).expect("it is our child");
            }
            Ok(())
        })?;
        if victims != "whydownd" {
            self.libvirtd.kill_9()?;
        }
        for (what, times) in answered.into_inner().unwrap_or_else(PoisonError::into_inner) {
            *counts.entry(what).or_default() += times;
        }
        Ok(())
    }

    fn check(&self, fates: &[Fate], victims: &str, book: &Mutex<Book>) -> Result<()> {
        for (vm, fate) in self.vms.iter().zip(fates) {
            let uuid = vm.guest.uuid_text();
            let mut told = self.told(vm)?;
            // A libvirtd that is back for a moment may only now give up a process that it has taken over.
            let _ = wait_for("an ending, or none", PATIENCE, || {
                told = self.told(vm).ok()?;
                let (endings, current) = &told;
                locked(book).holds(uuid, endings, *current).then_some(())
            });
            let (endings, current) = told;
            let known: BTreeSet<u64> = locked(book).endings.keys().copied().collect();
            locked(book).history(uuid, &endings, current);
            let cause = |ending: &Value| ending["cause"].as_str().unwrap_or_default().to_owned();
            for ending in
                endings.iter().filter(|ending| !known.contains(&ending["run"].as_u64().unwrap_or_default()))
            {
                let honest = victims != "whydownd" && WITHOUT_LIBVIRTD.contains(&&*cause(ending));
                // A destroy that nobody answered is in doubt for a minute: libvirtd may have been at it.
                let doubtful = cause(ending) == "admin-destroyed"
                    && ending["certainty"] == "probable"
                    && ending["because"].to_string().contains("asked whydown to destroy it");
                let right = fate.causes().contains(&&*cause(ending)) || doubtful;
                if !(right || honest) {
                    locked(book).fault(format!("{fate:?} is told as {}: {ending}", cause(ending)));
                }
            }
        }
        Ok(())
    }

    /// The newest endings of a VM, and its run that goes on.
    fn told(&self, vm: &Vm) -> Result<(Vec<Value>, Option<u64>)> {
        let runs = self.runs(vm)?;
        let current = self.shown().get(vm.guest.uuid_text()).copied().filter(|_| runs);
        Ok((self.history(vm.guest.uuid_text()), current))
    }

    fn history(&self, uuid: &str) -> Vec<Value> {
        let history =
            self.client.get(&format!("/v1/history?vm={uuid}&limit=50")).expect("the daemon answers");
        history["endings"].as_array().expect("a list").clone()
    }

    /// The runs that are shown, by VM.
    fn shown(&self) -> BTreeMap<String, u64> {
        let picture = self.client.get("/v1/domains").expect("the daemon answers");
        let domains = picture["domains"].as_array().expect("a list").clone();
        let text = |domain: &Value| domain["domain"].as_str().expect("a UUID").to_owned();
        domains.iter().map(|domain| (text(domain), domain["run"].as_u64().expect("a number"))).collect()
    }

    fn runs(&self, vm: &Vm) -> Result<bool> {
        let state = self.libvirtd.state(vm.guest.name())?;
        Ok(state.is_some_and(|state| !state.starts_with("shut off")))
    }

    /// Where whydown and libvirt disagree, or something is under way; `None` at rest.
    fn unrest(&self, vm: &Vm) -> Option<String> {
        let state = match self.libvirtd.state(vm.guest.name()) {
            Ok(state) => state,
            Err(error) => return Some(format!("libvirt does not say: {error}")),
        };
        let Some(picture) = self.client.get("/v1/domains") else {
            return Some("whydown does not answer".into());
        };
        if picture["settled"] != true || !picture["link_lost_since"].is_null() {
            return Some("whydown has no link to libvirt".into());
        }
        let domains = picture["domains"].as_array().cloned().unwrap_or_default();
        let status = domains
            .iter()
            .find(|domain| domain["domain"] == vm.guest.uuid_text())
            .map(|domain| domain["status"].as_str().unwrap_or_default().to_owned());
        let agree = match &state {
            Some(state) if state.starts_with("running") => status.as_deref() == Some("up"),
            // A start that broke off with libvirtd leaves a VM that stands still.
            Some(state) if !state.starts_with("shut off") => {
                status.as_ref().is_some_and(|status| status != "down")
            }
            _ => status.as_ref().is_none_or(|status| status == "down"),
        };
        (!agree).then(|| format!("libvirt says {state:?}, whydown {status:?}"))
    }
}
