//! Those who read history by the thousand, and take nothing in: acts, and the end, must not wait for them.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use whydown_core::cause::Cause;
use whydown_core::evidence::{Evidence, Fact};
use whydown_core::id::{DomainId, RunId};
use whydown_core::record::{Acknowledged, Certainty, Ending, Keep, Verdict, When};
use whydown_core::time::Wall;
use whydown_lab::wait_until;
use whydown_ledger::{Ledger, Settings};

use crate::attacker::{Attacker, PATIENCE, get, param, post, xml};
use crate::host::{Host, Listener, VM};

/// Endings in the ledger: an answer with ten thousand of them has some thirty megabytes.
const ENDINGS: u64 = 20_000;

/// The most memory that the daemon may have under any of this.
const MEMORY_KIB: u64 = 150 << 10;

/// From SIGTERM to the end.
const STOP: Duration = Duration::from_secs(15);

/// A question whose whole answer nobody should have to hold.
const ALL: &str = "/v1/history?limit=10000";

/// The last of them ended a minute ago, each other a second earlier: nothing is old enough to leave.
fn ending(run: u64) -> Ending {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_secs();
    let moment = Wall::from_millis((now - 60 - (ENDINGS - run)) as i64 * 1000);
    let said =
        |n: u64| Fact::LogText(format!("{n}: qemu-system-x86_64: terminating on signal 15 from pid {run}"));
    let evidence = |n| Evidence { first: moment, last: moment, times: 1, fact: said(n) };
    Ending {
        run: RunId(run),
        domain: DomainId::from_bytes(std::array::from_fn(|byte| (run % 500).to_be_bytes()[byte % 8])),
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
        evidence: (0..4).map(evidence).collect(),
        acknowledged: Some(Acknowledged { at: moment, by: "engine".into() }),
        earlier: Vec::new(),
    }
}

fn fill(state: &Path) {
    let settings =
        Settings { path: state.join("ledger.db"), memory_max_ops: ENDINGS as usize, ..Settings::default() };
    let ledger = Ledger::open(settings, |_| ()).ledger;
    (1..=ENDINGS).for_each(|run| ledger.keep(Keep::Ending(std::sync::Arc::new(ending(run)))));
    ledger.close(PATIENCE * 5).expect("the ledger is written");
}

fn host() -> Host {
    Host::start_over("", fill)
}

#[test]
fn thousands_who_ask_for_all_of_history_and_go_leave_acts_and_the_end_alone() {
    let mut host = host();
    let pause = post(xml("pause", &param(VM)));
    let mut actor = host.connect(Listener::Plain);
    assert_eq!(actor.ask(post(xml("ping", ""))).code(), 0);
    host.under_attack(|host| {
        for number in 0..700 {
            let listener = if number % 2 == 0 { Listener::Plain } else { Listener::Unix };
            let mut attacker = Attacker::raw(host, listener).expect("the backlog is long enough");
            let _ = attacker.send(get(ALL));
        }
        // The honest managers of the host poll all the while; one more acts.
        assert_eq!(actor.ask(&pause).code(), 0);
    });
    for _ in 0..100 {
        let _ = Attacker::raw(&host, Listener::Unix).expect("the backlog is long enough").send(get(ALL));
    }
    assert!(host.memory_peak_kib() < MEMORY_KIB, "{} KiB", host.memory_peak_kib());
    host.stop(STOP);
}

#[test]
fn hundreds_who_ask_for_all_of_history_and_read_nothing_take_little_memory_and_hold_nobody_up() {
    let mut host = host();
    host.forget_peak();
    let mut unread: Vec<Attacker> = Vec::new();
    for _ in 0..240 {
        let mut attacker = host.connect(Listener::Plain);
        attacker.take_little();
        // Whoever comes while too many of its own are read is turned away, and comes again.
        loop {
            assert!(attacker.send(get(ALL)));
            if attacker.peek_status() == 200 {
                break;
            }
            let turned_away = attacker.response().expect("an answer");
            assert_eq!(turned_away.status, 503, "{turned_away:?}");
            assert!(turned_away.head.contains("retry-after: 1"), "{}", turned_away.head);
        }
        unread.push(attacker);
    }
    for path in ["/v1/domains", "/v1/health", "/v1/why?vm=vm-7", "/v1/history?limit=1"] {
        // The user's own share may be taken by what is still read for the others: who is told so comes again.
        wait_until(path, PATIENCE, || {
            let answer = host.connect(Listener::Unix).ask(get(path));
            let turned_away = answer.status == 503 && answer.head.contains("retry-after: 1");
            assert!(answer.status == 200 || turned_away, "{path}: {answer:?}");
            answer.status == 200
        });
    }
    assert_eq!(host.connect(Listener::Unix).ask(post(xml("destroy", &param(VM)))).code(), 0);
    assert!(host.memory_peak_kib() < MEMORY_KIB, "{} KiB", host.memory_peak_kib());
    host.stop(STOP);
}

#[test]
fn who_follows_the_cursor_is_told_all_of_history_whatever_ends_meanwhile() {
    let host = host();
    let (mut after, mut seen, mut answers) = (String::new(), Vec::new(), 0);
    loop {
        let mut reader = host.connect(Listener::Unix);
        // Without chunks: it ends with the connection.
        assert!(reader.send(format!("GET {ALL}{after} HTTP/1.0\r\n\r\n")));
        let said = reader.rest();
        let (head, body) = said.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        assert!(body.len() < 10 << 20, "an answer has {} bytes", body.len());
        let told: serde_json::Value = serde_json::from_str(body).expect("it is JSON");
        let endings = told["endings"].as_array().expect("a list");
        seen.extend(endings.iter().map(|ending| ending["run"].as_u64().expect("a number")));
        answers += 1;
        if answers == 1 {
            assert_eq!(host.connect(Listener::Unix).ask(post(xml("destroy", &param(VM)))).code(), 0);
        }
        match told["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert!(seen.iter().copied().eq((1..=ENDINGS).rev()), "{} of them, in another order", seen.len());
    assert!(answers > 2, "in {answers} answers");
    // The command line follows it by itself.
    let told = host.whydown(&["history", "--json", "--limit", "15000"]);
    let told: serde_json::Value = serde_json::from_slice(&told).expect("it is JSON");
    assert_eq!(told["endings"].as_array().expect("a list").len(), 15_000);
    wait_until("the destroyed VM is told too", PATIENCE, || {
        let newest = host.connect(Listener::Unix).ask(get("/v1/history?limit=1"));
        newest.text().contains(VM)
    });
}
