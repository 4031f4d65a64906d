//! Rounds with libvirt's test driver, which lives in the daemon's process: with it its VMs end and begin anew, and a
//! destroy that is not on disk is undone. Cheap, and with more VMs at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use whydown_lab::{Launch, Result, Whydownd, lab_dir, wait_until};

use crate::book::Book;
use crate::client::{Client, texts};
use crate::dice::Dice;
use crate::slow::SlowDisk;

const PATIENCE: Duration = Duration::from_secs(120);
const VMS: u64 = 12;
const LONGEST_MS: u64 = 30;
const SLOW_MS: u64 = 100;

fn uuid(number: u64) -> String {
    format!("7e57d000-0000-4000-8000-{number:012x}")
}

fn document() -> String {
    let mut document = "<node>".to_owned();
    for number in 0..VMS {
        let uuid = uuid(number);
        write!(
            document,
            "<domain type='test'><name>vm{number}</name><uuid>{uuid}</uuid><memory>65536</memory>\
             <os><type arch='x86_64'>hvm</type></os></domain>"
        )
        .expect("a string takes it");
    }
    document + "</node>"
}

pub fn rounds(count: u64, dice: &mut Dice) -> Result<Vec<String>> {
    let folder = lab_dir()?;
    let host = folder.path().join("host.xml");
    fs::write(&host, document()).expect("the folder takes a file");
    let disk = SlowDisk::new(folder.path())?;
    let launch = Launch::new(
        env!("CARGO_BIN_EXE_whydownd"),
        folder.path().join("d"),
        &format!("test://{}", host.display()),
    );
    let mut daemon = Whydownd::start(disk.under(launch))?;
    let client = Client::new(&daemon.socket_path());
    let book = Mutex::new(Book::default());
    let (mut answered, mut slow_rounds) = (0, 0);
    for round in 0..count {
        let slow = dice.one_in(3);
        slow_rounds += u64::from(slow);
        let wait = dice.up_to(if slow { LONGEST_MS + 4 * SLOW_MS } else { LONGEST_MS });
        let wanted: Vec<&str> =
            (0..VMS).map(|_| *dice.of(&["", "destroy", "destroy", "shutdown", "both"])).collect();
        locked(&book).place = format!("test driver, round {round}, killed after {wait} ms, {wanted:?}");
        disk.set(if slow { SLOW_MS } else { 0 });
        answered += befall(&mut daemon, &client, &wanted, Duration::from_millis(wait), &book)?;
        daemon.start_again()?;
        disk.set(0);
        check(&client, &book);
    }
    let book = book.into_inner().unwrap_or_else(PoisonError::into_inner);
    eprintln!(
        "test driver: {count} rounds, {count} kills of whydownd, {slow_rounds} with a slow disk, {} runs, {} endings, \
         {answered} destroys answered, {} pictures, {} faults",
        book.runs.len(),
        book.endings.len(),
        book.pictures,
        book.faults.len()
    );
    Ok(book.faults)
}

fn locked(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look(client: &Client, book: &Mutex<Book>) -> Option<BTreeMap<String, u64>> {
    let destroyed: BTreeSet<u64> = locked(book).destroyed.clone();
    let picture = client.get("/v1/domains")?;
    locked(book).picture(&picture, &destroyed, true);
    let domains = picture["domains"].as_array()?.iter();
    let known =
        domains.filter_map(|domain| Some((domain["domain"].as_str()?.to_owned(), domain["run"].as_u64()?)));
    Some(known.collect())
}

/// Each VM is destroyed, shut down, or shut down and then acknowledged. Gives how many destroys were answered as done.
fn befall(
    daemon: &mut Whydownd,
    client: &Client,
    wanted: &[&str],
    wait: Duration,
    book: &Mutex<Book>,
) -> Result<u64> {
    let shown = look(client, book).expect("the daemon answers");
    std::thread::scope(|scope| {
        let asking: Vec<_> = wanted
            .iter()
            .zip(0..)
            .map(|(what, number)| {
                let shown = &shown;
                scope.spawn(move || {
                    let uuid = uuid(number);
                    if matches!(*what, "shutdown" | "both") {
                        client.call("shutdown", &texts(&[&uuid, "0", "0"]));
                        look(client, book);
                    }
                    if !matches!(*what, "destroy" | "both")
                        || client.call("destroy", &texts(&[&uuid])) != Some(0)
                    {
                        return 0;
                    }
                    locked(book).destroyed.extend(shown.get(&uuid));
                    look(client, book);
                    1
                })
            })
            .collect();
        // The moment of the kill is what is tried here; nothing waits for it.
        std::thread::sleep(wait);
        daemon.kill_9()?;
        Ok(asking.into_iter().map(|asking| asking.join().expect("no panic")).sum())
    })
}

/// All VMs run again, and what was told of their last runs holds.
fn check(client: &Client, book: &Mutex<Book>) {
    let place = locked(book).place.clone();
    let mut shown = BTreeMap::new();
    wait_until(&format!("all VMs are up, {place}"), PATIENCE, || {
        let Some(picture) = client.get("/v1/domains") else { return false };
        let all = picture["domains"].as_array().cloned().unwrap_or_default();
        shown = look(client, book).unwrap_or_default();
        all.len() as u64 == VMS && all.iter().all(|domain| domain["status"] == "up")
    });
    for number in 0..VMS {
        let uuid = uuid(number);
        let history = client.get(&format!("/v1/history?vm={uuid}&limit=50")).expect("the daemon answers");
        let endings = history["endings"].as_array().expect("a list");
        for ending in endings {
            let cause = ending["cause"].as_str().unwrap_or_default();
            if !["admin-destroyed", "admin-shutdown"].contains(&cause) {
                locked(book).fault(format!("told as {cause}: {ending}"));
            }
        }
        locked(book).history(&uuid, endings, shown.get(&uuid).copied());
    }
}
