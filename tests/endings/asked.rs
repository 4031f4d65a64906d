//! What managers ask of us: who asked is kept, a refusal is told in libvirt's words, and nobody waits for another's VM.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use whydown_lab::{Result, Signal, wait_until};

use whydown_lab::host::{Host, PATIENCE, code_of, post, says, told};

/// What no answer from memory takes, however busy the machine is.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn who_destroyed_a_vm_is_in_its_history() -> Result<()> {
    let host = Host::start("who")?;
    let [by_address, by_socket] = [host.guest("by-address")?, host.guest("by-socket")?];
    let _serials = (host.up(&by_address)?, host.up(&by_socket)?);

    let manager = host.connect()?;
    let address = manager.local_addr().expect("it has one").to_string();
    let answer = post(manager, "FlowID: 4f2a\r\n", "destroy", &[by_address.uuid_text()]);
    assert_eq!(code_of(&answer), Some(0), "{answer}");
    let admin = UnixStream::connect(host.daemon.socket_path()).expect("the daemon listens");
    let answer = post(admin, "", "destroy", &[by_socket.uuid_text()]);
    assert_eq!(code_of(&answer), Some(0), "{answer}");
    // The answer comes when it is gone: no poll after it may show the VM.
    for verb in ["getAllVmStats", "list"] {
        let all = post(host.connect()?, "", verb, &[]);
        assert!(code_of(&all) == Some(0) && !all.contains(by_address.uuid_text()), "{all}");
        assert!(!all.contains(by_socket.uuid_text()), "{all}");
    }
    for (guest, who) in [
        (&by_address, format!("root (uid 0) at {address}, flow 4f2a")),
        (&by_socket, format!("root (uid 0, pid {})", std::process::id())),
    ] {
        wait_until("its ending is known", PATIENCE, || host.past(guest).is_ok_and(|past| !past.is_empty()));
        let past = host.past(guest)?;
        assert_eq!(past.len(), 1, "{past:#?}");
        assert_eq!(
            (&past[0]["cause"], &past[0]["certainty"]),
            (&"admin-destroyed".into(), &"certain".into())
        );
        assert!(says(&past[0]["because"], &format!("{who} asked whydown to destroy it")), "{past:#?}");
        assert_eq!(past[0]["acknowledged_by"], who);
    }
    Ok(())
}

#[test]
fn a_start_that_fails_is_told_in_the_words_of_whoever_refused_it() -> Result<()> {
    let host = Host::start("starts")?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it has one").port();
    let on_port = format!(
        "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='{port}'/><protocol type='raw'/></serial>"
    );
    let plain = host.folder.path().join("plain.img");
    whydown_lab::write_image(&plain)?;
    let not_qcow = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}'/>\
         <target dev='vdz' bus='virtio'/></disk>",
        plain.display()
    );
    let no_disk = not_qcow.replace("plain.img", "no-such-disk").replace("qcow2", "raw");
    for (name, devices, words) in [
        ("disk", no_disk.as_str(), "no-such-disk"),
        ("port", on_port.as_str(), "Address already in use"),
        ("image", not_qcow.as_str(), "not in qcow2 format"),
        ("device", "<controller type='nonsense'/>", "nonsense"),
    ] {
        let guest = host.guest(name)?.device_xml(devices);
        assert_eq!(host.create(&guest)?, 0, "{name}: the start goes on after the answer");
        let ending = host.check(&guest, &told("start-failed", 1, 1), "certain")?;
        assert!(ending["message"].as_str().is_some_and(|m| m.contains(words)), "{name}: {ending:#}");
        assert!(says(&ending["because"], "libvirt refused to start it"), "{name}: {ending:#}");
    }
    // Somebody else's start is told from what QEMU left in its log; libvirt told it only to them.
    for (name, persistent) in [("theirs", true), ("passing", false)] {
        let guest = host.guest(name)?.device_xml(&not_qcow);
        let failed = match persistent {
            true => host.libvirtd.define(&guest).and_then(|()| host.libvirtd.start_domain(name)),
            false => host.libvirtd.create(&guest),
        };
        assert!(failed.is_err(), "{name}");
        let ending = host.check(&guest, &told("start-failed", 1, 1), "probable")?;
        assert!(ending["message"].as_str().is_some_and(|m| m.contains("not in qcow2 format")), "{ending:#}");
    }
    let id = "0c3cf9a1-6e0d-4a39-9b61-2f3d4c5b6a79";
    assert_eq!(host.call(&format!("create({{'vmId': '{id}', 'xml': '<domain><name>x</name>'}})"))?, 9);
    assert_eq!(host.call(&format!("getVmStats('{id}')"))?, 1, "what cannot be read is no VM");
    Ok(())
}

#[test]
fn a_vm_that_is_down_is_started_again_and_its_old_ending_stays_in_history() -> Result<()> {
    let host = Host::start("next")?;
    let guest = host.guest("next")?;
    assert_eq!(host.create(&guest)?, 0);
    let mut serial = guest.serial(PATIENCE)?;
    host.wait_status(&guest, "up");
    assert_eq!(host.create(&guest)?, 4, "it exists");
    let mut runs = vec![host.run(&guest).expect("it runs")];
    serial.power_off()?;
    host.wait_status(&guest, "down");
    assert_eq!(host.create(&guest)?, 4, "a manager must have taken note of its end first");
    assert_eq!(host.call(&format!("shutdown('{}', '0', '')", guest.uuid_text()))?, 1, "it is down already");
    assert_eq!(host.call(&format!("destroy('{}')", guest.uuid_text()))?, 0);
    assert_eq!(host.create(&guest)?, 0);
    let mut serial = guest.serial(PATIENCE)?;
    host.wait_status(&guest, "up");
    runs.push(host.run(&guest).expect("it runs"));
    serial.power_off()?;
    host.wait_status(&guest, "down");
    // Others need not ask us: their start replaces what was shown, taken note of or not.
    let _serial = host.up(&guest)?;
    runs.push(host.run(&guest).expect("it runs"));
    assert!(runs.is_sorted_by(|a, b| a < b), "{runs:?}");
    let past = host.past(&guest)?;
    let told: Vec<_> = past.iter().map(|e| (e["run"].as_i64(), e["acknowledged_by"].is_string())).collect();
    assert_eq!(told, [(Some(runs[1]), false), (Some(runs[0]), true)]);
    let why = host.why(&guest).expect("it is known");
    assert_eq!((&why["domain"]["status"], &why["ending"]["run"]), (&"up".into(), &runs[1].into()));
    Ok(())
}

#[test]
fn a_destroy_on_the_heels_of_a_create_leaves_nothing_running_unseen() -> Result<()> {
    let host = Host::start("heels")?;
    for round in 0..8u32 {
        let guest = host.guest(&format!("h{round}"))?;
        let document = guest.write_xml()?;
        let port = host.daemon.port()?;
        // Both on their way at once; the pause is what is tried here.
        let create = format!("server.create({{'vmId': vm, 'xml': open('{}').read()}})", document.display());
        let code = format!(
            "import time\nvm = '{}'\na = {create}\ntime.sleep({})\nb = server.destroy(vm)\n\
             print(a['status']['code'], b['status']['code'])",
            guest.uuid_text(),
            f64::from(round) * 0.001
        );
        assert_eq!(whydown_lab::xmlrpc_client(port, &code)?, "0 0", "round {round}");
        wait_until(&format!("libvirt has no h{round}, or whydown shows it"), PATIENCE, || {
            let gone = host.libvirtd.state(guest.name()).is_ok_and(|state| state.is_none());
            let shown = host.status(&guest).is_some();
            gone && !shown || !gone && shown
        });
        assert_eq!(host.libvirtd.state(guest.name())?, None, "round {round}: what was destroyed runs");
        wait_until("its ending is known", PATIENCE, || host.past(&guest).is_ok_and(|past| past.len() == 1));
        let past = host.past(&guest)?;
        let cause = past[0]["cause"].as_str().expect("a word");
        assert!(matches!(cause, "destroyed-at-start" | "admin-destroyed"), "round {round}: {past:#?}");
    }
    Ok(())
}

#[test]
fn a_shutdown_that_the_guest_ignores_is_not_blamed_for_what_comes_later() -> Result<()> {
    let host = Host::start("ignored")?;
    let guest = host.guest("ignored")?;
    let mut serial = host.up(&guest)?;
    serial.ignore_button()?;
    assert_eq!(host.call(&format!("shutdown('{}', '0', '')", guest.uuid_text()))?, 0);
    serial.answer(PATIENCE)?;
    assert_eq!(host.status(&guest).as_deref(), Some("up"), "asked is not done");
    host.libvirtd.destroy("ignored")?;
    let ending = host.check(&guest, &told("outside-destroyed", 1, 2), "certain")?;
    assert!(says(&ending["evidence"], "asked whydown to shut it down"), "{ending:#}");
    Ok(())
}

#[test]
fn while_a_hung_vm_is_being_destroyed_others_are_served() -> Result<()> {
    let host = Host::start("hangs")?;
    let [hung, other, off] = [host.guest("hung")?, host.guest("other")?, host.guest("off")?];
    let (_hung, _other, mut off_serial) = (host.up(&hung)?, host.up(&other)?, host.up(&off)?);
    let qemu = host.libvirtd.qemu("hung")?;
    qemu.signal(Signal::STOP)?;
    let slow = host.connect()?;
    let uuid = hung.uuid_text().to_owned();
    // libvirt takes ten seconds and more until it sends SIGKILL.
    let slow = std::thread::spawn(move || post(slow, "", "destroy", &[&uuid]));
    let asked = Instant::now();
    let answer = post(host.connect()?, "", "destroy", &[other.uuid_text()]);
    assert_eq!(code_of(&answer), Some(0), "{answer}");
    off_serial.power_off()?;
    host.check(&off, &told("guest-poweroff", 0, 7), "certain")?;
    while !slow.is_finished() {
        let polled = Instant::now();
        let all = post(host.connect()?, "", "getAllVmStats", &[]);
        assert_eq!(code_of(&all), Some(0), "{all}");
        assert!(polled.elapsed() < AT_ONCE, "a poll took {:?}", polled.elapsed());
        assert!(asked.elapsed() < PATIENCE, "the hung VM was never destroyed");
    }
    assert!(asked.elapsed() > Duration::from_secs(5), "it was not hung at all");
    let answer = slow.join().expect("no panic");
    assert_eq!(code_of(&answer), Some(0), "{answer}");
    assert!(!qemu.is_alive());
    wait_until("its ending is known", PATIENCE, || host.history(&hung).is_ok_and(|past| !past.is_empty()));
    assert_eq!(host.history(&hung)?[0].0, "admin-destroyed");
    Ok(())
}

#[test]
fn a_hung_libvirtd_is_noticed_and_takes_nobody_with_it() -> Result<()> {
    let host = Host::start_with("frozen", "keepalive_interval_s = 1\nkeepalive_count = 2\n")?;
    let guest = host.guest("stays")?;
    let mut serial = host.up(&guest)?;
    let late = host.guest("late")?;
    let (run, links) = (host.run(&guest), host.links());
    // It is told to managers when it is known what it is made of.
    wait_until("managers are told of it", PATIENCE, || {
        let all = post(host.connect().expect("a connection"), "", "getAllVmStats", &[]);
        all.contains(guest.uuid_text())
    });
    host.libvirtd.pause()?;
    assert_eq!(host.create(&late)?, 0, "the start goes on after the answer");
    let asking = host.connect()?;
    let uuid = guest.uuid_text().to_owned();
    let asking = std::thread::spawn(move || post(asking, "", "destroy", &[&uuid]));
    wait_until("the loss is said", PATIENCE, || {
        let polled = Instant::now();
        let all = post(host.connect().expect("a connection"), "", "getAllVmStats", &[]);
        assert!(code_of(&all) == Some(0) && all.contains(guest.uuid_text()), "{all}");
        assert!(polled.elapsed() < AT_ONCE, "a poll took {:?}", polled.elapsed());
        host.whydown(&["--json", "health"]).is_ok_and(|health| health["link_lost_since"].is_string())
    });
    // Nobody knows whether either will be done once libvirtd goes on; that is what the answer says.
    let answer = asking.join().expect("no panic");
    assert!(code_of(&answer).is_some_and(|code| code != 0), "{answer}");
    host.libvirtd.unpause()?;
    host.wait_link(links);
    if host.libvirtd.state("stays")?.is_some() {
        serial.answer(PATIENCE)?;
        assert_eq!((host.status(&guest).as_deref(), host.run(&guest)), (Some("up"), run));
    } else {
        let ending = host.check(&guest, &told("admin-destroyed", 0, 6), "probable")?;
        assert!(says(&ending["because"], "asked whydown to destroy it"), "{ending:#}");
    }
    // A start whose answer was lost is not taken for one that failed: what runs was never told as ended.
    wait_until("both agree on the start", PATIENCE, || {
        let runs = host.libvirtd.state("late").is_ok_and(|state| state.is_some());
        host.status(&late).as_deref() == Some(if runs { "up" } else { "down" })
    });
    if host.status(&late).as_deref() == Some("up") {
        assert_eq!(host.history(&late)?, []);
    }
    Ok(())
}
