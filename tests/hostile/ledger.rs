//! The ledger's file, the certificates and the folder of state, taken away or replaced while the daemon runs.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use whydown_lab::wait_until;

use crate::attacker::{PATIENCE, get, param, post, xml};
use crate::host::{Host, LIMITS, Listener, VM, other_vm};

fn health(host: &Host) -> serde_json::Value {
    let answer = host.connect(Listener::Unix).ask(get("/v1/health"));
    serde_json::from_str(answer.text()).expect("it is JSON")
}

fn endings(host: &Host) -> (u16, usize) {
    let answer = host.connect(Listener::Unix).ask(get("/v1/history"));
    let told: serde_json::Value = serde_json::from_str(answer.text()).expect("it is JSON");
    (answer.status, told["endings"].as_array().map_or(0, Vec::len))
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo runs").success());
}

#[test]
fn a_ledger_that_is_taken_away_is_put_back_and_history_is_never_empty_meanwhile() {
    let mut host = Host::start(LIMITS);
    assert_eq!(host.connect(Listener::Unix).ask(post(xml("destroy", &param(VM)))).code(), 0);
    wait_until("the ending is told", PATIENCE, || endings(&host) == (200, 1));
    let state = host.state_dir();
    let ledger = state.join("ledger.db");
    let file = |suffix: &str| state.join(format!("ledger.db{suffix}"));
    let deeds: [(&str, &dyn Fn()); 5] = [
        ("without its log", &|| fs::remove_file(file("-wal")).unwrap()),
        ("cut", &|| fs::File::options().write(true).open(&ledger).unwrap().set_len(0).unwrap()),
        ("renamed", &|| fs::rename(&ledger, file(".old")).unwrap()),
        ("removed", &|| {
            ["", "-wal", "-shm"].iter().for_each(|suffix| fs::remove_file(file(suffix)).unwrap())
        }),
        ("without its folder", &|| fs::remove_dir_all(&state).unwrap()),
    ];
    for (what, deed) in deeds {
        deed();
        let (status, count) = endings(&host);
        assert!(status == 503 || count == 1, "{what}: {status} with {count} endings");
        wait_until(what, PATIENCE, || {
            ledger.is_file() && endings(&host) == (200, 1) && health(&host)["ledger_trouble"].is_null()
        });
        let mended = health(&host)["ledger_mended"].as_str().expect("health says it").to_owned();
        assert!(mended.contains("put back whole"), "{what}: {mended}");
        host.restart();
        assert_eq!(endings(&host), (200, 1), "{what}: after a restart");
        assert!(health(&host)["ledger_mended"].is_null());
    }
}

/// Of each ending in history: run and cause.
fn told(host: &Host) -> BTreeSet<String> {
    let told: serde_json::Value =
        serde_json::from_slice(&host.whydown(&["--json", "history"])).expect("it is JSON");
    let one = |ending: &serde_json::Value| format!("{} {}", ending["run"], ending["cause"]);
    told["endings"].as_array().expect("a list").iter().map(one).collect()
}

#[test]
fn a_ledger_with_a_hole_in_it_tells_nothing_anew() {
    const VMS: usize = 60;
    const PAGE: u64 = 4096;
    for (seek, count) in [(5, 7), (13, 7), (3, 1)] {
        let mut host = Host::start_with(LIMITS, VMS);
        for vm in (0..VMS).map(other_vm) {
            assert_eq!(host.connect(Listener::Unix).ask(post(xml("destroy", &param(&vm)))).code(), 0);
        }
        wait_until("all are told", PATIENCE, || told(&host).len() == VMS);
        let before = told(&host);
        let ledger = host.state_dir().join("ledger.db");
        host.restart_after(|| {
            let file = fs::File::options().write(true).open(&ledger).unwrap();
            let length = file.metadata().unwrap().len();
            assert!(length > (seek + count) * PAGE, "the hole is within the file of {length} bytes");
            file.write_all_at(&vec![0; (count * PAGE) as usize], seek * PAGE).unwrap();
        });
        wait_until("libvirt is listed", PATIENCE, || health(&host)["settled"] == true);
        let health = health(&host);
        assert!(health["ledger_damaged"].is_string(), "{health}");
        let after = told(&host);
        // The one that went on may have ended with the daemon: libvirt's test driver is inside of it.
        let news: Vec<_> = after.difference(&before).collect();
        assert!(news.len() <= 1, "{seek}+{count}: {news:?}, {health}");
        let lost = before.difference(&after).count();
        assert!(lost == 0 || health["ledger_lost"].as_u64() > Some(0), "{seek}+{count}: {lost}, {health}");
    }
}

#[test]
fn a_fifo_in_place_of_a_file_holds_nobody_up() {
    let mut host = Host::start(LIMITS);
    let ca = host.folder().join("ca.pem");
    let good = fs::read(&ca).unwrap();
    fs::remove_file(&ca).unwrap();
    fifo(&ca);
    host.signal(Signal::HUP);
    wait_until("health names the certificates", PATIENCE, || {
        health(&host)["tls_trouble"].as_str().is_some_and(|trouble| trouble.contains("no plain file"))
    });
    fs::remove_file(&ca).unwrap();
    fs::write(&ca, good).unwrap();
    host.signal(Signal::HUP);
    wait_until("the next reload works", PATIENCE, || health(&host)["tls_trouble"].is_null());

    let ledger = host.state_dir().join("ledger.db");
    fs::remove_file(&ledger).unwrap();
    fifo(&ledger);
    wait_until("health names the ledger", PATIENCE, || {
        health(&host)["ledger_trouble"].as_str().is_some_and(|trouble| trouble.contains("no plain file"))
    });
    assert_eq!(endings(&host).0, 503);
    // The next start is no different.
    host.restart();
    assert_eq!(endings(&host).0, 503);
    fs::remove_file(&ledger).unwrap();
    wait_until("the ledger works", PATIENCE, || health(&host)["ledger_trouble"].is_null());
}

#[test]
fn a_second_daemon_never_uses_the_folder_of_a_running_one_though_it_was_removed() {
    let host = Host::start(LIMITS);
    fs::remove_dir_all(host.state_dir()).unwrap();
    let second = Command::new(env!("CARGO_BIN_EXE_whydownd"))
        .args(["--connect", "test:///default", "--listen", "127.0.0.1:0", "--state-dir"])
        .arg(host.state_dir())
        .arg("--socket")
        .arg(host.folder().join("second.sock"))
        .env("WHYDOWN_WITNESS__TRACEFS", "")
        .env("WHYDOWN_WITNESS__AUDIT", "false")
        .output()
        .expect("it runs");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another whydownd uses it"), "{said}");
    wait_until("the first one has its ledger again", PATIENCE, || {
        host.state_dir().join("ledger.db").is_file() && health(&host)["ledger_trouble"].is_null()
    });
}
