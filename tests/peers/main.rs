//! XML-RPC clients of many languages read every reply of a real daemon with real machines, and read the same.
//!
//! Python's own client is the one that all are compared with, value by value and type by type.
//! Each client is a small program in `clients/`, which calls its library as anybody would and tells what it read
//! ([`line`]). They are asked through a wire that keeps what they sent ([`relay`]).

#[path = "../endings/host.rs"]
#[allow(dead_code, reason = "the other tests need the rest")]
mod host;

mod line;

mod relay;

mod peer;

mod world;

mod compare;
mod reads;

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use compare::Between;
use line::{Reply, Value};
use peer::{KINDS, Kind, Peer};
use reads::{Call, astral_calls, calls};
use whydown_lab::Result;
use world::{ASTRAL, NAME, World};

/// How many clients work at once: as many as a small machine has processors.
const AT_ONCE: usize = 2;

/// Where compiled clients lie.
fn out() -> PathBuf {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("peers");
    std::fs::create_dir_all(&out).expect("a folder can be made");
    out
}

/// Does the same for each of `items`, some at once; results stand in their order.
fn for_all<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((number, item)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, items.get(n)?))) {
                    let result = work(item);
                    results.lock().expect("nobody panics here").push((number, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("nobody panics here");
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

fn ask_all(peer: &mut Peer, calls: &[Call]) -> Vec<Reply> {
    calls.iter().map(|call| peer.ask(call.daemon, call.path, call.method, &call.arguments)).collect()
}

/// The codes that the call must have, by what Python read.
fn wrong_codes(calls: &[Call], replies: &[Reply]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (call, reply) in calls.iter().zip(replies) {
        let Some(code) = call.code else { continue };
        let told = match reply {
            Reply::Value(value) => value.at("status.code"),
            _ => None,
        };
        if told != Some(&Value::Int(code)) {
            wrong.push(format!("{}({:?}): {code} is due, {reply:?}", call.method, call.arguments));
        }
    }
    wrong
}

#[test]
fn every_client_reads_every_reply_as_pythons_does() -> Result<()> {
    let out = out();
    let missing: Vec<String> = for_all(&KINDS, |kind| peer::prepare(kind, &out).err()).into_iter().flatten().collect();
    assert!(missing.is_empty(), "{}", missing.join("\n\n"));

    let world = World::start()?;
    let addresses = world.addresses()?;
    let start = |kind: &'static Kind| Peer::start(kind, &out, &addresses, world.host.folder.path());
    let calls = calls(&world);

    let mut python = start(&KINDS[0]);
    let wanted = ask_all(&mut python, &calls);
    let wrong = wrong_codes(&calls, &wanted);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let kinds: Vec<&'static Kind> = KINDS[1..].iter().collect();
    let found = for_all(&kinds, |kind| {
        let mut peer = start(kind);
        let got = ask_all(&mut peer, &calls);
        let between = Between { reads: &kind.reads, lives: false };
        let mut found = Vec::new();
        for ((call, wanted), got) in calls.iter().zip(&wanted).zip(&got) {
            found.extend(between.differences(wanted, got).into_iter().map(|difference| {
                format!("{}: {}{} {:?}: {difference}", kind.name, call.path, call.method, call.arguments)
            }));
        }
        (peer, found)
    });
    for (_, f) in &found { for l in f { eprintln!("{l}"); } }
    panic!("end");
}
