//! Endings that are heard as they happen.

use whydown_lab::{OnCrash, OnEnd, Result, Signal, WatchdogAction, wait_until};

use whydown_lab::host::{Host, PATIENCE, says, told};

#[test]
fn guests_that_end_by_themselves_are_told_apart() -> Result<()> {
    let host = Host::start("guests")?;
    let off = host.guest("off")?;
    host.up(&off)?.power_off()?;
    host.check(&off, &told("guest-poweroff", 0, 7), "certain")?;

    let panic = host.guest("panic")?;
    host.up(&panic)?.panic()?;
    host.check(&panic, &told("guest-panic", 1, 2), "certain")?;

    let reset = host.guest("reset")?.on_reboot(OnEnd::Destroy);
    host.up(&reset)?.reset()?;
    host.check(&reset, &told("destroyed-on-reboot", 0, 13), "certain")?;

    let dog = host.guest("dog")?.watchdog(WatchdogAction::Poweroff);
    host.up(&dog)?.arm_watchdog()?;
    host.check(&dog, &told("watchdog-poweroff", 1, 2), "certain")?;
    Ok(())
}

#[test]
fn what_is_not_an_ending_is_not_told_as_one() -> Result<()> {
    let host = Host::start("alive")?;
    let reset = host.guest("reset")?;
    let mut serial = host.up(&reset)?;
    let run = host.run(&reset);
    serial.reset()?;
    serial.started_again(PATIENCE)?;
    assert_eq!((host.status(&reset).as_deref(), host.run(&reset)), (Some("up"), run));
    assert_eq!(host.history(&reset)?, []);

    let dog = host.guest("dog")?.watchdog(WatchdogAction::Reset);
    let mut serial = host.up(&dog)?;
    serial.arm_watchdog()?;
    serial.started_again(PATIENCE)?;
    let told = format!(
        "told = server.getVmStats('{}')['statsList'][0]\nprint(told['status'], told.get('watchdogEvent', {{}}).get('action'))",
        dog.uuid_text()
    );
    wait_until("its watchdog is told of", PATIENCE, || {
        whydown_lab::xmlrpc_client(host.daemon.port().unwrap_or(0), &told)
            .is_ok_and(|told| told.trim() == "Up reset")
    });

    let kept = host.guest("kept")?.on_crash(OnCrash::Preserve);
    host.up(&kept)?.panic()?;
    host.libvirtd.wait_state("kept", Some("crashed (panicked)"), PATIENCE)?;
    assert_ne!(host.status(&kept).as_deref(), Some("down"));
    Ok(())
}

#[test]
fn what_a_manager_asks_through_us_is_the_admins_doing() -> Result<()> {
    let host = Host::start("admin")?;
    let shut = host.guest("shut")?;
    let _serial = host.up(&shut)?;
    assert_eq!(host.call(&format!("shutdown('{}', '0', '')", shut.uuid_text()))?, 0);
    let ending = host.check(&shut, &told("admin-shutdown", 0, 6), "probable")?;
    assert!(says(&ending["because"], "asked whydown to shut it down"), "{ending:#}");

    let deaf = host.guest("deaf")?;
    host.up(&deaf)?.ignore_button()?;
    assert_eq!(host.call(&format!("shutdown('{}', '0', '', False, '1', True)", deaf.uuid_text()))?, 0);
    host.check(&deaf, &told("admin-forced-off", 0, 6), "certain")?;

    let gone = host.guest("gone")?;
    let _serial = host.up(&gone)?;
    assert_eq!(host.call(&format!("destroy('{}')", gone.uuid_text()))?, 0);
    assert_eq!(host.call(&format!("getVmStats('{}')", gone.uuid_text()))?, 1, "it is forgotten");
    assert_eq!(host.call(&format!("destroy('{}')", gone.uuid_text()))?, 1, "and stays so");
    wait_until("its ending is in history", PATIENCE, || host.history(&gone).is_ok_and(|h| !h.is_empty()));
    assert_eq!(host.history(&gone)?[0].0, "admin-destroyed");

    assert_eq!(host.call(&format!("destroy('{}')", shut.uuid_text()))?, 0, "a Down VM is acknowledged");
    assert_eq!(host.call(&format!("getVmStats('{}')", shut.uuid_text()))?, 1);
    Ok(())
}

#[test]
fn what_others_do_on_the_host_is_not_the_users_doing() -> Result<()> {
    let host = Host::start("others")?;
    let destroyed = host.guest("destroyed")?;
    let _a = host.up(&destroyed)?;
    host.libvirtd.destroy("destroyed")?;
    host.check(&destroyed, &told("outside-destroyed", 1, 2), "certain")?;

    let killed = host.guest("killed")?;
    let _b = host.up(&killed)?;
    host.libvirtd.qemu("killed")?.signal(Signal::KILL)?;
    let ending = host.check(&killed, &told("process-killed", 1, 2), "probable")?;
    assert!(says(&ending["because"], "killed by signal 9"), "{ending:#}");

    let crashed = host.guest("crashed")?;
    let _c = host.up(&crashed)?;
    host.libvirtd.qemu("crashed")?.signal(Signal::SEGV)?;
    // Where nobody saw who sent the signal.
    host.check(&crashed, &told("qemu-crashed", 1, 2), "probable")?;

    let ended = host.guest("ended")?;
    let _d = host.up(&ended)?;
    host.libvirtd.qemu("ended")?.signal(Signal::TERM)?;
    // Where its monitor breaks before QEMU has said so too, only its log names the sender.
    let ending = host.check(&ended, &told("process-terminated", 1, 11), "certain|probable")?;
    let me = format!("from process {}", std::process::id());
    assert!(says(&ending["because"], &me), "the sender is named: {ending:#}");

    let pressed = host.guest("pressed")?;
    let _e = host.up(&pressed)?;
    host.libvirtd.virsh(&["shutdown", "pressed", "--mode", "acpi"])?;
    host.check(&pressed, &told("other-shutdown", 0, 6), "probable")?;
    Ok(())
}

/// Something else is in the place of QEMU's log until the ending was told: who ended it is then not known, and later it is.
#[test]
fn a_log_that_can_be_read_only_later_corrects_the_cause_and_not_the_exit_code() -> Result<()> {
    let host = Host::start("late")?;
    let guest = host.guest("late")?;
    let _serial = host.up(&guest)?;
    let log = host.libvirtd.domain_log_path("late");
    let kept = log.with_extension("kept");
    std::fs::rename(&log, &kept).expect("moved away");
    std::fs::create_dir(&log).expect("made");
    host.libvirtd.qemu("late")?.signal(Signal::TERM)?;
    let first = host.check(&guest, &told("process-terminated", 1, 11), "probable")?;
    assert_eq!(
        (first["revision"].as_u64(), says(&first["evidence"], "could not be read")),
        (None, true),
        "{first:#}"
    );
    std::fs::remove_dir(&log).expect("removed");
    std::fs::rename(&kept, &log).expect("back");
    wait_until("it is corrected", PATIENCE, || {
        host.past(&guest).is_ok_and(|past| past[0]["revision"].as_u64().is_some())
    });
    let corrected = host.check(&guest, &told("process-terminated", 1, 11), "certain")?;
    let me = format!("from process {}", std::process::id());
    assert!(says(&corrected["because"], &me), "{corrected:#}");
    let before = &corrected["earlier"][0];
    assert_eq!((&before["certainty"], &before["row"]), (&first["certainty"], &first["row"]), "{corrected:#}");
    assert_eq!(before["evidence"], first["evidence"], "what it stood on stays readable");
    let code = format!(
        "vm = server.getVmStats('{}')['statsList'][0]\nprint(vm['exitCode'], vm['exitReasonExact'], vm['exitRevision'])",
        guest.uuid_text()
    );
    assert_eq!(whydown_lab::xmlrpc_client(host.daemon.port()?, &code)?, "1 11 1");
    assert_eq!(host.past(&guest)?, [corrected]);
    Ok(())
}

#[test]
fn a_saved_vm_is_told_and_its_next_run_is_shown() -> Result<()> {
    let host = Host::start("saved")?;
    let saved = host.guest("saved")?;
    let _serial = host.up_persistent(&saved)?;
    let first = host.run(&saved).expect("it runs");
    host.libvirtd.virsh(&["managedsave", "saved"])?;
    host.check(&saved, &told("managed-saved", 0, 5), "certain")?;
    host.libvirtd.start_domain("saved")?;
    host.wait_status(&saved, "up");
    assert!(host.run(&saved).expect("it runs") > first);
    assert_eq!(host.history(&saved)?, [("managed-saved".to_owned(), first)]);

    let file = host.folder.path().join("image");
    host.libvirtd.virsh(&["save", "saved", file.to_str().expect("plain")])?;
    host.check(&saved, &told("saved-to-file", 0, 5), "certain")?;
    Ok(())
}

#[test]
fn twenty_that_end_at_once_are_all_told() -> Result<()> {
    let host = Host::start("storm")?;
    let guests: Vec<_> = (0..20).map(|n| host.guest(&format!("s{n}"))).collect::<Result<_>>()?;
    let mut serials = Vec::new();
    for guest in &guests {
        serials.push(host.up(guest)?);
    }
    for (n, serial) in serials.iter_mut().enumerate() {
        match n % 2 {
            0 => serial.power_off()?,
            _ => host.libvirtd.qemu(guests[n].name())?.signal(Signal::KILL)?,
        }
    }
    for (n, guest) in guests.iter().enumerate() {
        // A SIGKILL may have had a reason that nobody wrote down.
        match n % 2 {
            0 => host.check(guest, &told("guest-poweroff", 0, 7), "certain")?,
            _ => host.check(guest, &told("process-killed", 1, 2), "probable")?,
        };
    }
    Ok(())
}

#[test]
fn a_vm_that_was_renamed_while_it_was_off_is_found_by_its_new_name() -> Result<()> {
    let host = Host::start("renamed")?;
    let guest = host.guest("before")?;
    host.up_persistent(&guest)?.power_off()?;
    host.check(&guest, &told("guest-poweroff", 0, 7), "certain")?;
    host.libvirtd.virsh(&["domrename", "before", "after"])?;
    let why = host.whydown(&["--json", "why", "after"])?;
    assert_eq!(
        (&why["ending"]["cause"], &why["ending"]["name"]),
        (&"guest-poweroff".into(), &"before".into())
    );
    Ok(())
}
