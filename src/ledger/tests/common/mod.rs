//! What the ledger's tests share: a ledger in a temporary folder, and records to put into it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use whydown_core::cause::Cause;
use whydown_core::evidence::{Evidence, Fact, OperationKind};
use whydown_core::hypervisor::{Happening, Process, StopDetail};
use whydown_core::id::{BootId, DomainId, RunId};
use whydown_core::record::{
    Acknowledged, Certainty, Ending, Incarnation, Keep, Recovered, RunStart, Verdict, When,
};
use whydown_core::time::Wall;
use whydown_ledger::{Ledger, Opened, Query, Settings, Told, Uptime};

/// Long enough for any disk; nothing that works waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A moment in 2027, some seconds later for each number.
pub fn at(seconds: i64) -> Wall {
    Wall::from_millis((1_800_000_000 + seconds) * 1000)
}

pub fn domain(number: u8) -> DomainId {
    DomainId::from_bytes([number; 16])
}

pub fn settings(path: &Path) -> Settings {
    Settings {
        path: path.to_owned(),
        // Tests ask for the next attempt by `flush`; by itself it comes soon, too.
        retry_min: Duration::from_millis(20),
        retry_max: Duration::from_millis(200),
        clock: Arc::new(|| at(1_000_000)),
        ..Settings::default()
    }
}

/// An uptime that the test sets, in seconds.
pub fn told_uptime() -> (Uptime, Arc<AtomicU64>) {
    let seconds = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&seconds);
    (Arc::new(move || Duration::from_secs(told.load(Ordering::SeqCst))), seconds)
}

pub fn start(run: u64, of: u8) -> RunStart {
    RunStart {
        run: RunId(run),
        domain: domain(of),
        name: format!("vm-{of}"),
        at: at(run as i64),
        seen: true,
        incarnation: Incarnation {
            libvirt_id: Some(7),
            process: Some(Process { pid: 4242, start_ticks: u64::MAX - 3 }),
            boot: BootId("0f1e2d3c".into()),
        },
    }
}

pub fn evidence(seconds: i64, fact: Fact) -> Evidence {
    Evidence { first: at(seconds), last: at(seconds + 1), times: 2, fact }
}

pub fn facts(run: u64) -> Vec<Evidence> {
    let run = run as i64;
    vec![
        evidence(
            run,
            Fact::Requested { what: OperationKind::Destroy, who: "ovirt-engine \"quoted\" ü".into() },
        ),
        evidence(run + 1, Fact::Host(Happening::Stopped(StopDetail::Other(99)))),
        evidence(run + 2, Fact::LogText("qemu: line one\nline two\t\\".into())),
    ]
}

pub fn ending(run: u64, of: u8) -> Ending {
    let cause = Cause::AdminDestroyed;
    Ending {
        run: RunId(run),
        domain: domain(of),
        name: format!("vm-{of}"),
        started: at(run as i64),
        ended: When::At(at(run as i64 + 10)),
        verdict: Verdict {
            cause,
            certainty: Certainty::Certain,
            row: "S4".into(),
            because: vec![0, 1],
            despite: vec![2],
        },
        exit_code: 0,
        exit_reason: 4,
        message: "Admin shut down from the engine".into(),
        evidence: facts(run),
        acknowledged: None,
        earlier: Vec::new(),
    }
}

pub fn keep_ending(run: u64, of: u8) -> Keep {
    Keep::Ending(Arc::new(ending(run, of)))
}

pub fn acknowledge(run: u64) -> Keep {
    Keep::Acknowledge(RunId(run), by("engine"))
}

pub fn by(who: &str) -> Acknowledged {
    Acknowledged { at: at(500), by: who.into() }
}

/// What the ledger told of endings, in order.
#[derive(Clone, Default)]
pub struct Heard(Arc<(Mutex<Vec<Told>>, Condvar)>, Arc<Mutex<Vec<Told>>>);

impl Heard {
    pub fn listener(&self) -> impl Fn(Told) + Send + 'static {
        let heard = self.clone();
        move |told| {
            match told {
                Told::Kept(_) | Told::NotKept(_) | Told::KeptRevision(..) => {
                    heard.0.0.lock().unwrap().push(told)
                }
                Told::Written(_) | Told::Unwritten(_) => heard.1.lock().unwrap().push(told),
            }
            heard.0.1.notify_all();
        }
    }

    /// What it told of all that it was handed, in order.
    pub fn counts(&self) -> Vec<Told> {
        self.1.lock().unwrap().clone()
    }

    pub fn all(&self) -> Vec<Told> {
        self.0.0.lock().unwrap().clone()
    }

    /// Waits until `enough` is content with what was told.
    pub fn wait(&self, enough: impl Fn(&[Told]) -> bool) -> Vec<Told> {
        let (told, changed) = &*self.0;
        let (told, timed_out) =
            changed.wait_timeout_while(told.lock().unwrap(), PATIENCE, |told| !enough(told)).unwrap();
        assert!(!timed_out.timed_out(), "the ledger told only {told:?}");
        told.clone()
    }
}

pub fn kept(runs: impl IntoIterator<Item = u64>) -> Vec<Told> {
    runs.into_iter().map(|run| Told::Kept(RunId(run))).collect()
}

/// Opens a ledger that must open without trouble.
pub fn open(path: &Path) -> (Ledger, Recovered, Heard) {
    open_with(settings(path))
}

pub fn open_with(settings: Settings) -> (Ledger, Recovered, Heard) {
    let heard = Heard::default();
    let Opened { ledger, recovered, trouble } = Ledger::open(settings, heard.listener());
    assert_eq!(trouble, None);
    (ledger, recovered, heard)
}

/// Puts these into a fresh ledger and closes it.
pub fn write(path: &Path, ops: impl IntoIterator<Item = Keep>) {
    let (ledger, _, _) = open(path);
    ops.into_iter().for_each(|op| ledger.keep(op));
    ledger.close(PATIENCE).unwrap();
}

pub fn everything() -> Query {
    Query { limit: usize::MAX, ..Query::default() }
}

/// All endings, of which every one must be readable.
pub fn history(ledger: &Ledger, query: &Query) -> Vec<Ending> {
    let history = ledger.history(query);
    assert_eq!(history.unread, []);
    history.endings
}

pub fn runs(endings: &[Ending]) -> Vec<u64> {
    endings.iter().map(|ending| ending.run.0).collect()
}

/// Waits for a condition that no callback tells of.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Where nothing waits for a disk, for many files one after the other.
    pub fn in_memory() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    pub fn ledger(&self) -> PathBuf {
        self.0.path().join("ledger.db")
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Damaged ledgers that were moved away, without the files that SQLite keeps beside them.
    pub fn damaged(&self) -> Vec<PathBuf> {
        let mut found: Vec<_> = std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.starts_with("ledger.db.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
            })
            .collect();
        found.sort();
        found
    }
}
