//! Endings behind our back, kind by kind: what is left of each, and that nothing is made up where nothing is left.

use whydown_lab::{Guest, OnCrash, OnEnd, Result, Signal, WatchdogAction, wait_until};

use whydown_lab::host::{Host, PATIENCE, says, told};

const OFF: &str = "shut off (shutdown)";

#[test]
fn while_the_daemon_is_away_every_kind_of_ending_leaves_its_own_trace() -> Result<()> {
    let mut host = Host::start("kinds")?;
    let [termed, termed_too] = [host.guest("termed")?, host.guest("termed-too")?];
    let [destroyed, destroyed_too] = [host.guest("destroyed")?, host.guest("destroyed-too")?];
    let [saved, panicked, killed] = [host.guest("saved")?, host.guest("panicked")?, host.guest("killed")?];
    let [off, off_too, stays] = [host.guest("off")?, host.guest("off-too")?, host.guest("stays")?];
    let reset = host.guest("reset")?.on_reboot(OnEnd::Destroy);
    let dumped = host.guest("dumped")?.panic_device(false);
    let dumped_too = host.guest("dumped-too")?.on_crash(OnCrash::Preserve);
    let mut off_serials = [host.up(&off)?, host.up_persistent(&off_too)?];
    let _stays = host.up(&stays)?;
    let run = host.run(&stays);
    let _transient = (host.up(&termed)?, host.up(&destroyed)?);
    let _persistent = (host.up_persistent(&termed_too)?, host.up_persistent(&destroyed_too)?);
    let _ending = (host.up_persistent(&saved)?, host.up_persistent(&killed)?);
    let mut panicking = host.up_persistent(&panicked)?;
    let mut resetting = host.up_persistent(&reset)?;
    let _dumping = (host.up(&dumped)?, host.up_persistent(&dumped_too)?);

    host.daemon.terminate()?;
    host.libvirtd.qemu("termed")?.signal(Signal::TERM)?;
    host.libvirtd.qemu("termed-too")?.signal(Signal::TERM)?;
    host.libvirtd.destroy("destroyed")?;
    host.libvirtd.destroy("destroyed-too")?;
    host.libvirtd.virsh(&["managedsave", "saved"])?;
    panicking.panic()?;
    resetting.reset()?;
    for name in ["dumped", "dumped-too"] {
        let file = host.folder.path().join(name).with_extension("dump");
        host.libvirtd.virsh(&["dump", name, &file.display().to_string(), "--crash"])?;
    }
    for serial in &mut off_serials {
        serial.power_off()?;
    }
    host.libvirtd.qemu("killed")?.signal(Signal::KILL)?;
    for (name, state) in [
        ("termed", None),
        ("termed-too", Some(OFF)),
        ("panicked", Some("shut off (crashed)")),
        ("reset", Some(OFF)),
        ("off", None),
        ("off-too", Some(OFF)),
        ("killed", Some("shut off (crashed)")),
        ("dumped", None),
        ("dumped-too", Some("shut off (crashed)")),
    ] {
        host.libvirtd.wait_state(name, state, PATIENCE)?;
    }
    host.daemon.start_again()?;

    let me = format!("from process {}", std::process::id());
    for guest in [&termed, &termed_too] {
        let ending = host.check(guest, &told("process-terminated", 1, 11), "probable")?;
        assert!(says(&ending["because"], &me), "the sender is named: {ending:#}");
    }
    host.check(&destroyed, &told("outside-destroyed", 1, 2), "probable")?;
    host.check(&destroyed_too, &told("outside-destroyed", 1, 2), "probable")?;
    host.check(&saved, &told("managed-saved", 0, 5), "probable")?;
    host.check(&off, &told("guest-poweroff", 0, 7), "probable")?;
    host.check(&off_too, &told("guest-poweroff", 0, 7), "probable")?;
    let ending = host.check(&killed, &told("process-lost", 1, 2), "probable")?;
    assert!(ending["ended_not_before"].is_string(), "nobody heard it, so a window is told: {ending:#}");
    host.check(&panicked, &told("guest-panic", 1, 2), "probable")?;
    // A reset that ends the VM leaves the same trace as a power-off: the rule is told, and never as certain, and that a
    // reboot would have ended it as well.
    let ending = host.check(&reset, &told("guest-poweroff", 0, 7), "probable")?;
    assert!(says(&ending["because"], "a reboot of its guest ends it"), "{ending:#}");
    // A dump with the order to crash looks like a panic, but not where no panic can have ended it.
    let ending = host.check(&dumped, &told("core-dumped", 1, 2), "probable")?;
    assert!(
        says(&ending["because"], "without a device by which its guest could report a panic"),
        "{ending:#}"
    );
    let ending = host.check(&dumped_too, &told("core-dumped", 1, 2), "probable")?;
    assert!(says(&ending["because"], "a panic of its guest does not end it"), "{ending:#}");
    assert_eq!(
        (host.status(&stays).as_deref(), host.run(&stays)),
        (Some("up"), run),
        "what runs keeps its run"
    );
    Ok(())
}

#[test]
fn a_vm_that_ended_and_was_started_again_behind_our_back_has_its_old_ending_and_a_new_run() -> Result<()> {
    let mut host = Host::start("again")?;
    let [off, killed, broken] = [host.guest("off")?, host.guest("killed")?, host.guest("broken")?];
    let mut off_serial = host.up_persistent(&off)?;
    let _killed = host.up_persistent(&killed)?;
    let mut broken_serial = host.up_persistent(&broken)?;
    let run = |guest: &Guest| host.run(guest).expect("it runs");
    let (first_off, first_killed) = (run(&off), run(&killed));

    host.daemon.terminate()?;
    off_serial.power_off()?;
    broken_serial.power_off()?;
    host.libvirtd.qemu("killed")?.signal(Signal::KILL)?;
    host.libvirtd.wait_state("off", Some(OFF), PATIENCE)?;
    host.libvirtd.wait_state("broken", Some(OFF), PATIENCE)?;
    host.libvirtd.wait_state("killed", Some("shut off (crashed)"), PATIENCE)?;
    host.libvirtd.start_domain("off")?;
    host.libvirtd.start_domain("killed")?;
    std::fs::remove_file(broken.image_path()).expect("the image was there");
    assert!(!host.libvirtd.try_virsh(&["start", "broken"])?.status.success(), "it has no disk");
    host.libvirtd.wait_state("broken", Some("shut off (failed)"), PATIENCE)?;
    host.daemon.start_again()?;

    for (guest, first, cause) in
        [(&off, first_off, "guest-poweroff"), (&killed, first_killed, "process-lost")]
    {
        host.wait_status(guest, "up");
        assert!(host.run(guest).is_some_and(|run| run > first), "another run");
        wait_until("the old ending is known", PATIENCE, || {
            host.past(guest).is_ok_and(|past| !past.is_empty())
        });
        let past = host.past(guest)?;
        assert_eq!(past.len(), 1, "{past:#?}");
        assert_eq!(
            (&past[0]["cause"], &past[0]["certainty"]),
            (&cause.into(), &"probable".into()),
            "{past:#?}"
        );
        assert_eq!(past[0]["run"], first);
    }
    // The state tells of the start that failed, and of nothing else; the log still tells of the run before it.
    host.check(&broken, &told("start-failed", 1, 1), "probable")?;
    let past = host.past(&broken)?;
    let causes: Vec<_> = past.iter().map(|ending| ending["cause"].as_str().unwrap_or_default()).collect();
    assert_eq!(causes, ["start-failed", "guest-poweroff"], "{past:#?}");
    assert_eq!(past[1]["certainty"], "probable", "{past:#?}");
    Ok(())
}

#[test]
fn when_nothing_is_left_nothing_is_made_up() -> Result<()> {
    let mut host = Host::start("nothing")?;
    let [off, transient, logged] = [host.guest("off")?, host.guest("transient")?, host.guest("logged")?];
    let mut serials = [host.up_persistent(&off)?, host.up(&transient)?, host.up_persistent(&logged)?];
    host.daemon.terminate()?;
    for serial in &mut serials {
        serial.power_off()?;
    }
    host.libvirtd.wait_state("off", Some(OFF), PATIENCE)?;
    host.libvirtd.wait_state("logged", Some(OFF), PATIENCE)?;
    host.libvirtd.wait_state("transient", None, PATIENCE)?;
    // A restarted libvirtd has forgotten why its domains are off, and these two logs are gone.
    host.libvirtd.restart()?;
    for name in ["off", "transient"] {
        std::fs::remove_file(host.libvirtd.domain_log_path(name)).expect("there was a log");
    }
    host.daemon.start_again()?;
    host.check(&off, &told("unknown-ended", 1, 1), "unknown")?;
    host.check(&transient, &told("unknown-vanished", 1, 9), "unknown")?;
    host.check(&logged, &told("guest-poweroff", 0, 7), "probable")?;
    Ok(())
}

#[test]
fn a_libvirtd_that_is_away_is_said_and_nothing_is_asked_of_it() -> Result<()> {
    let mut host = Host::start("silent")?;
    let guest = host.guest("stays")?;
    let mut serial = host.up(&guest)?;
    let run = host.run(&guest);
    for round in 0..2 {
        let links = host.links();
        let _ = if round == 0 { host.libvirtd.stop()? } else { host.libvirtd.kill_9()? };
        wait_until("the loss is said", PATIENCE, || {
            host.whydown(&["--json", "health"]).is_ok_and(|health| health["link_lost_since"].is_string())
        });
        assert_eq!(host.call("getAllVmStats()")?, 0, "a poll is answered all the same");
        assert_eq!(
            (host.status(&guest).as_deref(), host.run(&guest)),
            (Some("up"), run),
            "absence is no ending"
        );
        assert_ne!(host.call(&format!("destroy('{}')", guest.uuid_text()))?, 0);
        assert_ne!(host.call(&format!("shutdown('{}', '0', '')", guest.uuid_text()))?, 0);
        host.libvirtd.start_again()?;
        host.wait_link(links);
        assert_eq!((host.status(&guest).as_deref(), host.run(&guest)), (Some("up"), run), "the run is kept");
        serial.answer(PATIENCE)?;
    }
    serial.power_off()?;
    let ending = host.check(&guest, &told("guest-poweroff", 0, 7), "probable")?;
    let evidence = ending["evidence"].as_array().expect("a list");
    let gaps =
        evidence.iter().filter(|e| e["what"].as_str().is_some_and(|w| w.contains("was not listening")));
    assert_eq!(gaps.count(), 2, "both gaps are marked: {ending:#}");
    assert!(!says(&ending["evidence"], "asked whydown"), "what was refused is nobody's doing: {ending:#}");
    Ok(())
}

#[test]
fn what_ends_while_libvirtd_is_away_is_told_when_it_is_back() -> Result<()> {
    let mut host = Host::start("behind")?;
    let [off, killed, termed] = [host.guest("off")?, host.guest("killed")?, host.guest("termed")?];
    let panicked = host.guest("panicked")?.on_crash(OnCrash::Destroy);
    let barked = host.guest("barked")?.watchdog(WatchdogAction::Poweroff);
    let mut off_serial = host.up(&off)?;
    let mut barking = host.up_persistent(&barked)?;
    let _running = (host.up_persistent(&killed)?, host.up(&termed)?);
    let mut panicking = host.up_persistent(&panicked)?;
    let qemus = (host.libvirtd.qemu("killed")?, host.libvirtd.qemu("termed")?);
    let barks = host.libvirtd.qemu("barked")?;
    host.libvirtd.kill_9()?;
    off_serial.power_off()?;
    panicking.panic()?;
    barking.arm_watchdog()?;
    qemus.0.signal(Signal::KILL)?;
    qemus.1.signal(Signal::TERM)?;
    qemus.0.wait_gone(PATIENCE)?;
    qemus.1.wait_gone(PATIENCE)?;
    barks.wait_gone(PATIENCE)?;
    let links = host.links();
    host.libvirtd.start_again()?;
    host.wait_link(links);
    host.check(&off, &told("guest-poweroff", 0, 7), "probable")?;
    // The process was watched although libvirtd was not there.
    let ending = host.check(&killed, &told("process-killed", 1, 2), "probable")?;
    assert!(says(&ending["because"], "killed by signal 9"), "{ending:#}");
    let ending = host.check(&termed, &told("process-terminated", 1, 11), "probable")?;
    assert!(says(&ending["because"], &format!("from process {}", std::process::id())), "{ending:#}");
    // Status 0 and a log that names no signal: its watchdog does that, and nobody heard it.
    let ending = host.check(&barked, &told("watchdog-poweroff", 1, 2), "probable")?;
    assert!(says(&ending["because"], "exited with status 0"), "{ending:#}");
    // libvirt does not carry out on_crash for what it did not hear: the VM is still there, stopped.
    assert_ne!(host.status(&panicked).as_deref(), Some("down"), "{:#?}", host.why(&panicked));
    host.libvirtd.destroy("panicked")?;
    // Whether the panic is in its evidence depends on when libvirtd had found it: it reports nothing of it.
    host.check(&panicked, &told("outside-destroyed", 1, 2), "probable")?;
    Ok(())
}

#[test]
fn both_may_be_away_at_once() -> Result<()> {
    let mut host = Host::start("both")?;
    let [stays, off] = [host.guest("stays")?, host.guest("off")?];
    let _stays = host.up(&stays)?;
    let mut serial = host.up_persistent(&off)?;
    let run = host.run(&stays);
    host.daemon.kill_9()?;
    host.libvirtd.kill_9()?;
    serial.power_off()?;
    // Ready without libvirt takes the daemon 20 s; it is there long before.
    host.libvirtd.start_again()?;
    host.daemon.start_again()?;
    host.check(&off, &told("guest-poweroff", 0, 7), "probable")?;
    assert_eq!(host.history(&off)?.len(), 1);
    assert_eq!((host.status(&stays).as_deref(), host.run(&stays)), (Some("up"), run));
    Ok(())
}

#[test]
fn a_daemon_that_comes_before_libvirt_waits_for_it_and_says_so() -> Result<()> {
    let mut host = Host::start("early")?;
    let guest = host.guest("early")?;
    let _serial = host.up(&guest)?;
    let run = host.run(&guest);
    host.daemon.terminate()?;
    host.libvirtd.stop()?;
    let links = host.links();
    host.daemon.start_again()?;
    let health = host.whydown(&["--json", "health"])?;
    assert_eq!(health["settled"], false, "{health:#}");
    assert_eq!(host.call("getAllVmStats()")?, 99, "VDSM's code for a host that is not ready");
    assert_eq!(host.call("ping()")?, 99, "as in the original, no verb of VMs or the host is left out");
    let notified = host.daemon.notifications();
    assert!(notified.iter().any(|line| line == "STATUS=waiting for libvirt"), "{notified:?}");
    host.libvirtd.start_again()?;
    host.wait_link(links);
    assert_eq!((host.status(&guest).as_deref(), host.run(&guest)), (Some("up"), run));
    // What it is made of is read first.
    wait_until("managers are answered", PATIENCE, || {
        host.call("getAllVmStats()").is_ok_and(|code| code == 0)
    });
    Ok(())
}
