//! XML-RPC clients of many languages read every reply of a real daemon with real machines, and read the same.
//!
//! Python's own client is the one that all are compared with, value by value and type by type.
//! Each client is a small program in `clients/`, which calls its library as anybody would and tells what it read
//! ([`line`]). They are asked through a wire that keeps what they sent ([`relay`]).

mod line;

mod relay;

mod peer;

mod world;

mod compare;
mod life;
mod reads;
mod sends;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::compare::Between;
use self::life::{Step, live};
use self::line::{Reply, Value};
use self::peer::{Astral, KINDS, Kind, Peer};
use self::reads::{Call, astral_calls, astral_echo, calls};
use self::world::{ASTRAL, World};
use whydown_lab::Result;

/// How many clients work at once where they keep the processors busy, and where they wait for machines.
const BUSY: usize = 2;
const WAITING: usize = 5;

/// Where compiled clients lie.
fn out() -> PathBuf {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("peers");
    std::fs::create_dir_all(&out).expect("a folder can be made");
    out
}

/// Does the same for each of `items`, some at once; results stand in their order.
fn for_all<T: Sync, R: Send>(at_once: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((number, item)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, items.get(n)?)))
                {
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

/// What one client read otherwise than Python's.
fn misread(kind: &Kind, calls: &[Call], wanted: &[Reply], got: &[Reply]) -> Vec<String> {
    let between = Between { reads: &kind.reads, lives: false };
    let mut found = Vec::new();
    for ((call, wanted), got) in calls.iter().zip(wanted).zip(got) {
        let place = format!("{}: {}{} {:?}", kind.name, call.path, call.method, call.arguments);
        found.extend(between.differences(wanted, got).into_iter().map(|found| format!("{place}: {found}")));
    }
    found
}

fn none(found: &[String]) {
    assert!(found.is_empty(), "{} things:\n{}", found.len(), found.join("\n"));
}

#[test]
fn every_client_reads_every_reply_as_pythons_does() -> Result<()> {
    let out = out();
    let missing: Vec<String> =
        for_all(BUSY, &KINDS, |kind| peer::prepare(kind, &out).err()).into_iter().flatten().collect();
    none(&missing);

    let world = World::start()?;
    let addresses = world.addresses()?;
    let kinds: Vec<&'static Kind> = KINDS.iter().collect();
    let peers: Vec<_> = for_all(BUSY, &kinds, |kind| {
        Mutex::new(Peer::start(kind, &out, &addresses, world.host.folder.path()))
    });
    let by_all = |calls: &[Call]| {
        for_all(BUSY, &peers, |peer| ask_all(&mut peer.lock().expect("not poisoned"), calls))
    };

    // What all share, read by all.
    let calls = calls(&world);
    let read = by_all(&calls);
    none(&wrong_codes(&calls, &read[0]));
    none(&world.wrong_anchors(&calls, &read[0]));
    let pairs = || kinds.iter().copied().zip(&read).skip(1);
    none(&pairs().flat_map(|(kind, got)| misread(kind, &calls, &read[0], got)).collect::<Vec<_>>());

    // How they sent it.
    none(
        &peers
            .iter()
            .flat_map(|peer| sends::differences(&peer.lock().expect("not poisoned")))
            .collect::<Vec<_>>(),
    );

    // Letters beyond U+FFFF, which one of them cannot read at all, for as long as a message has them.
    let odd = world::fail(&world.host, "astral", ASTRAL)?;
    let astral = astral_calls(odd.uuid_text());
    let read = by_all(&astral);
    none(&wrong_codes(&astral, &read[0]));
    let message = match &read[0][0] {
        Reply::Value(value) => value.text("statsList.0.exitMessage").unwrap_or_default(),
        _ => "",
    };
    assert!(message.contains(ASTRAL), "{message}");
    for (kind, got) in kinds.iter().zip(&read).skip(1) {
        if kind.reads.no_astral {
            assert!(
                got.iter().all(|reply| matches!(reply, Reply::Error(_))),
                "{}: it can: {got:?}",
                kind.name
            );
        } else {
            none(&misread(kind, &astral, &read[0], got));
        }
    }
    let echo = [astral_echo()];
    let read = by_all(&echo);
    none(&wrong_codes(&echo, &read[0]));
    for (kind, got) in kinds.iter().zip(&read) {
        match kind.sends.astral {
            Astral::Arrive => none(&misread(kind, &echo, &read[0], got)),
            Astral::AreNoXml => assert!(matches!(got[0], Reply::Fault(400, _)), "{}: {got:?}", kind.name),
            Astral::StayAtHome => assert!(matches!(got[0], Reply::Error(_)), "{}: {got:?}", kind.name),
        }
    }
    assert_eq!(world.host.call(&format!("destroy('{}')", odd.uuid_text()))?, 0);

    // A life for each.
    let lives: Vec<Vec<Step>> =
        for_all(WAITING, &peers, |peer| live(&mut peer.lock().expect("not poisoned"), &world.host))
            .into_iter()
            .collect::<Result<_>>()?;
    let mut found = Vec::new();
    for (kind, got) in kinds.iter().zip(&lives).skip(1) {
        let between = Between { reads: &kind.reads, lives: true };
        assert_eq!(got.len(), lives[0].len());
        for (wanted, got) in lives[0].iter().zip(got) {
            let place = format!("{}: {}", kind.name, got.asked);
            let differences = between.differences(&wanted.read, &got.read);
            found.extend(differences.into_iter().map(|difference| format!("{place}: {difference}")));
        }
    }
    none(&found);

    // Nothing that is served was left out.
    let asked: BTreeSet<&str> =
        calls.iter().map(|call| call.method).chain(lives[0].iter().map(|step| step.asked.as_str())).collect();
    let served: toml::Table = include_str!("../../../proto-schemas/verbs.toml").parse().expect("TOML");
    let verbs = served["verb"].as_table().expect("a table");
    let silent: Vec<_> = verbs.keys().filter(|verb| !asked.contains(verb.as_str())).collect();
    assert!(silent.is_empty(), "never asked: {silent:?}");
    Ok(())
}

#[test]
fn the_page_says_of_each_client_what_is_tested() {
    let page = include_str!("../../../docs/reference/xmlrpc.md");
    let rows: Vec<String> = KINDS.iter().map(Kind::row).collect();
    assert!(page.contains(&rows.join("\n")), "docs/reference/xmlrpc.md should have:\n{}", rows.join("\n"));
}
