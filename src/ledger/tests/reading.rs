//! Reads are pages: bounded, one behind the other, given up with whoever asked, and in nobody's way.

mod common;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use common::*;
use whydown_core::id::RunId;
use whydown_core::record::{Ending, Keep, When};
use whydown_ledger::{Busy, Cursor, Ledger, NotACursor, Page, Query, Reading};

fn ask(ledger: &Ledger, query: Query, bytes: usize) -> Page {
    let (deliver, delivered) = channel();
    let _reading = ledger.ask("somebody", query, bytes, move |page| drop(deliver.send(page))).unwrap();
    delivered.recv_timeout(PATIENCE).unwrap()
}

/// All pages, with `between` done after each.
fn pages(ledger: &Ledger, query: &Query, bytes: usize, mut between: impl FnMut(usize)) -> Vec<Page> {
    let (mut query, mut pages) = (query.clone(), Vec::new());
    loop {
        let page = ask(ledger, query.clone(), bytes);
        query.after = page.next;
        pages.push(page);
        between(pages.len());
        if query.after.is_none() {
            return pages;
        }
    }
}

fn all(pages: Vec<Page>) -> Vec<Ending> {
    assert!(pages.iter().all(|page| page.unread.is_empty()), "{pages:?}");
    pages.into_iter().flat_map(|page| page.endings).collect()
}

/// Several runs end in the same moment.
fn ending_at(run: u64, second: i64) -> Keep {
    Keep::Ending(Arc::new(Ending { ended: When::At(at(second)), ..ending(run, run as u8) }))
}

#[test]
fn pages_together_are_the_whole_whatever_ends_meanwhile() {
    let folder = Folder::new();
    let (ledger, ..) = open(&folder.ledger());
    (1..=200).for_each(|run| ledger.keep(ending_at(run, (run / 7) as i64)));
    ledger.flush(PATIENCE).unwrap();
    let whole = history(&ledger, &everything());
    assert_eq!(runs(&whole), (1..=200).rev().collect::<Vec<_>>());
    let mut next = 1000;
    for bytes in [0, 1, 5_000, 1 << 20] {
        let seen = pages(&ledger, &everything(), bytes, |page| {
            // Some are on disk by the next page, and some still wait.
            (0..3).for_each(|n| ledger.keep(ending_at(next + n, 10_000 + page as i64)));
            next += 3;
        });
        let together = all(seen);
        assert_eq!(runs(&together)[together.len() - 200..], runs(&whole), "in pages of {bytes} bytes");
    }
    let few = pages(&ledger, &Query { limit: 2, ..everything() }, 1 << 20, |_| ());
    assert!(few.iter().all(|page| page.endings.len() <= 2));
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(all(few), history(&ledger, &everything()));
}

#[test]
fn what_waits_in_memory_is_paged_with_what_is_on_disk() {
    let folder = Folder::new();
    let path = folder.path().join("later/ledger.db");
    let heard = Heard::default();
    let ledger = Ledger::open(settings(&path), heard.listener()).ledger;
    (1..=50).for_each(|run| ledger.keep(ending_at(run, run as i64)));
    heard.wait(|told| told.len() == 50);
    let mut query = Query { limit: 7, ..everything() };
    let mut seen = Vec::new();
    loop {
        let page = ask(&ledger, query.clone(), 1 << 20);
        assert!(page.endings.len() <= 7 && page.unread.len() == 1, "{page:?}");
        seen.extend(runs(&page.endings));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert_eq!(seen, (1..=50).rev().collect::<Vec<_>>());
    // Half of it reaches the disk, and is found there.
    std::fs::create_dir(folder.path().join("later")).unwrap();
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(runs(&all(pages(&ledger, &query, 2_000, |_| ()))), (1..=50).rev().collect::<Vec<_>>());
}

#[test]
fn a_place_in_history_is_a_text_and_back() {
    let cursor = Cursor::of(&ending(7, 7));
    assert_eq!(cursor.to_string().parse(), Ok(cursor));
    for text in ["", ".", "1", "1.", ".1", "1.-1", "1.2.3", "x.1", "99999999999999999999.1"] {
        assert_eq!(text.parse::<Cursor>(), Err(NotACursor), "{text}");
    }
}

/// Reads whose delivery waits, so that they stay under way.
struct Held {
    _readings: Vec<Reading>,
    _go_on: Vec<Sender<()>>,
}

fn hold(ledger: &Ledger, asker: &str, count: usize) -> Held {
    let (mut readings, mut go_on, mut begun) = (Vec::new(), Vec::new(), Vec::<Receiver<()>>::new());
    for _ in 0..count {
        let (go, wait) = channel::<()>();
        let (begin, has_begun) = channel();
        readings.push(
            ledger
                .ask(asker, everything(), 1, move |_| {
                    begin.send(()).unwrap();
                    let _ = wait.recv();
                })
                .unwrap(),
        );
        go_on.push(go);
        begun.push(has_begun);
    }
    begun.iter().for_each(|begun| begun.recv_timeout(PATIENCE).unwrap());
    Held { _readings: readings, _go_on: go_on }
}

#[test]
fn a_full_queue_is_said_at_once_and_each_has_a_share_of_it() {
    let folder = Folder::new();
    let (ledger, ..) = open(&folder.ledger());
    ledger.keep(keep_ending(1, 1));
    ledger.flush(PATIENCE).unwrap();
    // Both readers are kept busy.
    let held = hold(&ledger, "greedy", 2);
    let ask = |asker: &str| ledger.ask(asker, everything(), 1, |_| ());
    let mut waiting = Vec::new();
    let refused = loop {
        match ask("greedy") {
            Ok(reading) => waiting.push(reading),
            Err(busy) => break busy,
        }
    };
    assert_eq!((refused, waiting.len()), (Busy::Yours, 14), "a share, two of them under way");
    let mut others = Vec::new();
    let refused = loop {
        match ask(&format!("{}", others.len())) {
            Ok(reading) => others.push(reading),
            Err(busy) => break busy,
        }
    };
    assert_eq!((refused, waiting.len() + others.len()), (Busy::Others, 64));
    // Who goes makes room.
    waiting.clear();
    let _room = ask("another").unwrap();
    let _mine = ask("greedy").unwrap();
    drop(held);
    drop(others);
    assert_eq!(runs(&history(&ledger, &everything())), [1]);
}

#[test]
fn a_read_that_was_given_up_is_never_delivered() {
    let folder = Folder::new();
    let (ledger, ..) = open(&folder.ledger());
    ledger.keep(keep_ending(1, 1));
    ledger.flush(PATIENCE).unwrap();
    let held = hold(&ledger, "holder", 2);
    let (deliver, delivered) = channel();
    let given_up = ledger.ask("a", everything(), 1, move |page| drop(deliver.send(page))).unwrap();
    drop(given_up);
    drop(held);
    // Everything that was asked before has been done when this is answered.
    assert_eq!(runs(&history(&ledger, &everything())), [1]);
    assert!(delivered.recv_timeout(PATIENCE).is_err(), "nobody is there to be told");
}

#[test]
fn the_end_of_the_ledger_waits_for_no_reader() {
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    let _held = hold(&ledger, "holder", 2);
    let _waiting: Vec<_> = (0..10).map(|_| ledger.ask("a", everything(), 1, |_| ()).unwrap()).collect();
    ledger.keep(keep_ending(1, 1));
    heard.wait(|told| told == kept([1]));
    ledger.close(PATIENCE).unwrap();
    assert_eq!(ledger.health().lost, 0);
    let (_, recovered, _) = open(&folder.ledger());
    assert_eq!(recovered.unacknowledged[0].run, RunId(1));
}
