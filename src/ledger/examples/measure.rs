//! Measures the ledger on the disk under a folder (the first argument, or the system's folder for temporary files).
//!
//! `cargo run --release -p whydown-ledger --example measure -- /var/lib`

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use whydown_core::cause::Cause;
use whydown_core::evidence::{Evidence, Fact};
use whydown_core::id::{DomainId, RunId};
use whydown_core::record::{Certainty, Ending, Keep, Verdict, When};
use whydown_core::time::Wall;
use whydown_ledger::{Ledger, Query, Settings, Told};

const BURST: u64 = 20_000;
const SINGLE: u64 = 200;

fn ending(run: u64) -> Ending {
    let moment = Wall::from_millis(1_800_000_000_000 + run as i64);
    let evidence = |n: usize| Evidence {
        first: moment,
        last: moment,
        times: 1,
        fact: Fact::LogText(format!(
            "{n}: qemu-system-x86_64: terminating on signal 15 from pid {run} (libvirtd)"
        )),
    };
    let domain = (run % 500).to_be_bytes();
    Ending {
        run: RunId(run),
        domain: DomainId::from_bytes(std::array::from_fn(|byte| domain[byte % 8])),
        name: format!("vm-{}", run % 500),
        started: moment,
        ended: When::At(moment),
        verdict: Verdict {
            cause: Cause::GuestPoweroff,
            certainty: Certainty::Certain,
            row: "S1".into(),
            because: vec![0],
            despite: vec![],
        },
        exit_code: 0,
        exit_reason: 7,
        message: "User shut down from within the guest".into(),
        evidence: (0..8).map(evidence).collect(),
        acknowledged: None,
        earlier: Vec::new(),
    }
}

fn main() {
    let folder = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(folder).expect("a temporary folder");
    let path = folder.path().join("ledger.db");
    let (confirm, confirmed) = mpsc::channel();
    let settings = Settings { path, memory_max_ops: BURST as usize, ..Settings::default() };
    let opened = Ledger::open(settings.clone(), move |told| {
        if let Told::Kept(_) = told {
            let _ = confirm.send(());
        }
    });
    assert_eq!(opened.trouble, None);
    let ledger = opened.ledger;
    let mut out = std::io::stdout().lock();
    let mut say = |text: String| writeln!(out, "{text}").expect("standard output");

    let mut waits: Vec<Duration> = (1..=SINGLE)
        .map(|run| {
            let begun = Instant::now();
            ledger.keep(Keep::Ending(Arc::new(ending(run))));
            confirmed.recv().expect("it is kept");
            begun.elapsed()
        })
        .collect();
    waits.sort();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    say(format!("one ending, from keep to kept: median {:?}, 99 % {:?}, most {:?}", at(50), at(99), at(100)));

    for burst in [1_000, BURST] {
        let first = ledger.history(&Query { limit: 1, ..Query::default() }).endings[0].run.0 + 1;
        let endings: Vec<_> = (first..first + burst).map(|run| Keep::Ending(Arc::new(ending(run)))).collect();
        let commits = ledger.health().commits;
        let begun = Instant::now();
        endings.into_iter().for_each(|op| ledger.keep(op));
        let handed_over = begun.elapsed();
        (0..burst).for_each(|_| confirmed.recv().expect("it is kept"));
        let took = begun.elapsed();
        say(format!(
            "{burst} endings of 8 facts: {:.0} a second in {} commits; handed over in {handed_over:?}, on disk after {took:?}",
            burst as f64 / took.as_secs_f64(),
            ledger.health().commits - commits,
        ));
    }
    let begun = Instant::now();
    let found = ledger.history(&Query { limit: 1000, ..Query::default() });
    say(format!("history of {}: {:?}", found.endings.len(), begun.elapsed()));
    say(format!("file: {} bytes for {} endings", ledger.file_bytes().unwrap_or(0), ledger.health().endings));
    ledger.close(Duration::from_secs(60)).expect("it closes");
    drop(ledger);
    let begun = Instant::now();
    let again = Ledger::open(settings, |_| ());
    say(format!(
        "opened with {} unacknowledged: {:?}",
        again.recovered.unacknowledged.len(),
        begun.elapsed()
    ));
}
