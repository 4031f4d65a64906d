//! The daemon's own troubles: no room, no listener, nobody there who embeds libvirt. And what people read of it all.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;
use whydown_lab::{EmbedRoot, Launch, OnCrash, Result, Signal, Whydownd, lab_dir, wait_until};

use crate::daemon::{Embedded, Filler, Mount};
use whydown_lab::host::{Held, PATIENCE};

#[test]
fn vms_that_end_while_nobody_embeds_libvirt_are_told_by_the_next_daemon() -> Result<()> {
    let mut host = Embedded::start("")?;
    let [stays, off, killed] = [host.guest("stays")?, host.guest("off")?, host.guest("killed")?];
    let termed = host.guest("termed")?;
    let kept = host.guest("kept")?.on_crash(OnCrash::Preserve);
    let _running = (host.create(&stays)?, host.create(&killed)?, host.create(&termed)?);
    let (mut off_serial, mut kept_serial) = (host.create(&off)?, host.create(&kept)?);
    for guest in [&stays, &off, &killed, &termed, &kept] {
        host.wait(guest, "Up");
    }
    let run = host.json(&["--json", "why", "stays"])["domain"]["run"].clone();
    let (off_qemu, killed_qemu) = (host.root.qemu("off")?, host.root.qemu("killed")?);
    let termed_qemu = host.root.qemu("termed")?;
    host.daemon.kill_9()?;
    off_serial.power_off()?;
    kept_serial.panic()?;
    killed_qemu.signal(Signal::KILL)?;
    termed_qemu.signal(Signal::TERM)?;
    killed_qemu.wait_gone(PATIENCE)?;
    termed_qemu.wait_gone(PATIENCE)?;
    assert!(off_qemu.is_alive(), "it waits for libvirt to end it");
    host.daemon.start_again()?;
    for (guest, cause, code, reason) in [
        (&off, "guest-poweroff", 0, 7),
        (&killed, "process-lost", 1, 2),
        (&termed, "process-terminated", 1, 11),
    ] {
        host.wait(guest, "Down");
        let ending = host.json(&["--json", "why", guest.name()])["ending"].clone();
        assert_eq!(
            (&ending["cause"], &ending["certainty"]),
            (&cause.into(), &"probable".into()),
            "{ending:#}"
        );
        assert_eq!(
            (&ending["exit_code"], &ending["exit_reason"]),
            (&code.into(), &reason.into()),
            "{ending:#}"
        );
    }
    assert!(!off_qemu.is_alive());
    let why = host.json(&["--json", "why", "stays"]);
    assert_eq!((&why["domain"]["status"], &why["domain"]["run"]), (&"up".into(), &run));
    assert!(why["ending"].is_null());
    assert_ne!(host.stats(&kept, "status").as_deref(), Some("Down"), "a panic that is kept is no ending");
    Ok(())
}

#[test]
fn a_daemon_killed_with_a_full_disk_tells_the_ending_again_and_writes_it_when_there_is_room() -> Result<()> {
    let folder = lab_dir()?;
    let mount = Mount::tmpfs(&folder.path().join("d/state"))?;
    let root = EmbedRoot::new(folder.path().join("e"))?;
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
    let mut host = Embedded { daemon: Whydownd::start(launch)?, root, folder };
    let [guest, before] = [host.guest("full")?, host.guest("before")?];
    let (mut serial, mut before_serial) = (host.create(&guest)?, host.create(&before)?);
    before_serial.power_off()?;
    host.wait(&guest, "Up");
    host.wait(&before, "Down");
    let run = host.json(&["--json", "why", "full"])["domain"]["run"].clone();
    let filler = Filler::start(&mount);
    serial.power_off()?;
    let shown = |host: &Embedded| host.json(&["--json", "why", "full"])["domain"].clone();
    let is_down = |host: &Embedded, durable: bool| {
        let domain = shown(host);
        domain["status"] == "down" && domain["durable"] == durable
    };
    wait_until("it is Down, and not on disk", PATIENCE, || is_down(&host, false));
    host.daemon.kill_9()?;
    host.daemon.start_again()?;
    wait_until("it is Down again", PATIENCE, || shown(&host)["status"] == "down");
    let told = shown(&host)["ending"].clone();
    assert_eq!((&told["cause"], &told["run"]), (&"guest-poweroff".into(), &run), "{told:#}");
    let old = host.json(&["--json", "why", "before"])["ending"].clone();
    assert_eq!(old["cause"], "guest-poweroff", "what was written can be read with no room to write: {old:#}");
    filler.make_room();
    wait_until("it is on disk", PATIENCE, || is_down(&host, true));
    host.daemon.restart()?;
    wait_until("it is Down, and on disk", PATIENCE, || is_down(&host, true));
    let history = host.json(&["--json", "history", "full"]);
    assert_eq!(history["endings"].as_array().map(Vec::len), Some(1), "{history:#}");
    assert_eq!(shown(&host)["ending"], told, "what was told once stays so");
    drop(host);
    drop(mount);
    Ok(())
}

#[test]
fn a_second_daemon_at_the_same_door_is_refused_and_the_first_is_not_disturbed() -> Result<()> {
    let folder = lab_dir()?;
    let launch = |name: &str| {
        let folder = folder.path().join(name);
        Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder, "test:///default")
    };
    let mut first = Whydownd::start(launch("a"))?;
    let second = |socket: &std::path::Path, listen: &str| {
        Command::new(env!("CARGO_BIN_EXE_whydownd"))
            .args(["--connect", "test:///default", "--listen", listen, "--state-dir"])
            .arg(folder.path().join("b"))
            .arg("--socket")
            .arg(socket)
            .output()
            .expect("it runs")
    };
    let answers = |daemon: &Whydownd| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
        command.arg("--socket").arg(daemon.socket_path()).arg("list").status().is_ok_and(|s| s.success())
    };
    let refused = second(&first.socket_path(), "127.0.0.1:0");
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("socket.path") && said.contains("a/socket"), "{said}");
    assert!(answers(&first));
    let address = first.addresses()?[0].to_string();
    let refused = second(&folder.path().join("other"), &address);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("xmlrpc.listen") && said.contains(&address), "{said}");
    assert!(answers(&first));
    // A socket that a killed daemon left behind is in nobody's way.
    first.kill_9()?;
    assert!(first.socket_path().exists());
    first.start_again()?;
    assert!(answers(&first));
    Ok(())
}

#[test]
fn people_read_the_same_as_programs() -> Result<()> {
    let host = Embedded::start("")?;
    let [web, db] = [host.guest("web")?, host.guest("db")?];
    let (mut web_serial, _db_serial) = (host.create(&web)?, host.create(&db)?);
    host.wait(&db, "Up");
    let text = |arguments: &[&str]| {
        let done = host.whydown(arguments);
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    };
    assert!(text(&["why", "web"]).contains("web is up (run "), "{}", text(&["why", "web"]));
    let watching = Command::new(env!("CARGO_BIN_EXE_whydown"))
        .arg("--socket")
        .arg(host.daemon.socket_path())
        .args(["--json", "watch"])
        .stdout(Stdio::piped())
        .spawn();
    let mut watching = Held(watching.expect("it runs"));
    let mut lines = BufReader::new(watching.0.stdout.take().expect("piped")).lines();
    let mut next = || -> Value {
        let line = lines.next().expect("the stream goes on").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    };
    // First all that is there, then what changes.
    let mut there = [next(), next()].map(|change| change["domain"]["name"].as_str().map(str::to_owned));
    there.sort();
    assert_eq!(there, [Some("db".to_owned()), Some("web".to_owned())]);
    web_serial.power_off()?;
    host.wait(&web, "Down");
    let ending = loop {
        let change = next();
        if change["domain"]["status"] == "down" {
            break change["domain"]["ending"].clone();
        }
    };
    let why = host.json(&["--json", "why", "web"]);
    assert_eq!(why["ending"], ending, "the stream tells the whole ending");
    let list = host.json(&["--json", "list"]);
    let listed = list["domains"].as_array().expect("a list").iter().find(|d| d["name"] == "web");
    assert_eq!(listed.map(|domain| &domain["ending"]), Some(&ending));

    let sentence = ending["sentence"].as_str().expect("a text");
    let story = text(&["why", "web"]);
    for words in [sentence, "guest-poweroff", "certain", "exitCode 0, exitReason 7", "guest-shutdown"] {
        assert!(story.contains(words), "{words}: {story}");
    }
    assert!(
        text(&["list"])
            .lines()
            .any(|line| line.trim_start().starts_with("web ") && line.contains("guest-poweroff"))
    );
    assert!(text(&["list"]).lines().any(|line| line.trim_start().starts_with("db ") && line.contains("up")));
    assert!(text(&["history"]).contains("guest-poweroff"));
    assert!(text(&["health"]).contains("libvirt: connected and listening\nledger: fine\n"));

    assert_eq!(host.python(&format!("print(server.destroy('{}')['status']['code'])", web.uuid_text()))?, "0");
    while next()["left"] != web.uuid_text() {}
    assert!(!text(&["list"]).contains("web"));
    let history = host.json(&["--json", "history", "web"]);
    let by = history["endings"][0]["acknowledged_by"].as_str().expect("a manager");
    assert!(text(&["why", "web"]).contains(&format!("by {by}")), "{}", text(&["why", "web"]));
    assert_eq!(host.json(&["--json", "history", "--since", "2h", "web"])["endings"], history["endings"]);
    assert_eq!(host.json(&["--json", "history", "--since", "2100-01-01"])["endings"], Value::Array(vec![]));
    assert!(host.json(&["--json", "why", "web"])["domain"].is_null(), "it is in history only");
    Ok(())
}

#[test]
fn a_right_configuration_is_shown_with_where_each_value_came_from() -> Result<()> {
    let folder = lab_dir()?;
    let file = folder.path().join("right.toml");
    std::fs::write(&file, "[unacknowledged]\nmax_count = 3\n").expect("written");
    let checked = Command::new(env!("CARGO_BIN_EXE_whydownd"))
        .args(["--check-config", "--connect", "test:///default", "--config"])
        .arg(&file)
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.code(), Some(0), "{said}");
    let shown =
        |value: &str, origin: &str| said.lines().any(|line| line.starts_with(value) && line.contains(origin));
    assert!(shown("max_count = 3  # ", "right.toml:2"), "{said}");
    assert!(shown("uri = \"test:///default\"  # ", "--connect"), "{said}");
    assert!(said.lines().any(|line| line == "settle_ms = 300"), "a default has no origin: {said}");
    Ok(())
}
