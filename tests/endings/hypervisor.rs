//! Endings that only others on the host can bring about: migration, snapshots, dumps, the monitor, the kernel.

use std::path::{Path, PathBuf};

use serde_json::Value;
use whydown_lab::{
    BootDisk, Guest, OnCrash, Result, Serial, Signal, WatchdogAction, empty_qcow2, wait_until,
};

use whydown_lab::host::{Host, PATIENCE, says, told};

#[test]
fn a_vm_that_moves_is_told_as_moved_and_shown_where_it_is() -> Result<()> {
    let (here, there) = (Host::start("here")?, Host::start("there")?);
    let guest = here.guest("moves")?;
    let _serial = here.up(&guest)?;
    let run = here.run(&guest).expect("it runs");
    // Both ends are on one machine, so the other end needs a socket path of its own.
    let arrived = there.folder.path().join("moved.ser");
    let document = there.folder.path().join("moved.xml");
    let changed = guest.xml().replace(&*guest.serial_path().to_string_lossy(), &arrived.to_string_lossy());
    std::fs::write(&document, changed).expect("written");
    let (to, document) = (there.libvirtd.uri(), document.to_string_lossy().into_owned());
    let migrate = |by: &str| {
        here.libvirtd.try_virsh(&[
            "migrate",
            "moves",
            "--live",
            "--desturi",
            &to,
            "--migrateuri",
            by,
            "--xml",
            &document,
        ])
    };

    assert!(!migrate("tcp://no-such-host.invalid:49300")?.status.success(), "there is no way there");
    let ending = there.check(&guest, &told("incoming-migration-failed", 1, 8), "certain")?;
    assert!(says(&ending["because"], "incoming migration"), "{ending:#}");
    assert_eq!((here.status(&guest).as_deref(), here.run(&guest)), (Some("up"), Some(run)), "it never left");
    assert_eq!(here.history(&guest)?, []);

    let done = migrate(&format!("unix://{}/m.sock", there.folder.path().display()))?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    here.check(&guest, &told("migrated-away", 0, 4), "certain")?;
    there.wait_status(&guest, "up");
    Serial::connect(&arrived, PATIENCE)?.power_off()?;
    there.check(&guest, &told("guest-poweroff", 0, 7), "certain")?;
    assert_eq!(here.history(&guest)?, [("migrated-away".to_owned(), run)], "told here once");
    Ok(())
}

#[test]
fn what_is_done_through_libvirt_or_qemus_monitor_is_told_apart() -> Result<()> {
    let host = Host::start("monitor")?;
    let quit = host.guest("quit")?;
    let _quit = host.up(&quit)?;
    // QEMU is gone before virsh has its answer.
    let _ = host.libvirtd.try_virsh(&["qemu-monitor-command", "quit", "--hmp", "quit"])?;
    // On a busy host it is gone before libvirt has read its last words, and then this is only likely.
    host.check(&quit, &told("monitor-quit", 1, 11), "certain|probable")?;

    let dumped = host.guest("dumped")?;
    let _dumped = host.up_persistent(&dumped)?;
    let file = host.folder.path().join("dump");
    host.libvirtd.virsh(&["dump", "dumped", "--crash", &file.to_string_lossy()])?;
    host.check(&dumped, &told("core-dumped", 1, 2), "probable")?;

    let dog = host.guest("dog")?.watchdog(WatchdogAction::Shutdown);
    host.up(&dog)?.arm_watchdog()?;
    host.check(&dog, &told("watchdog-shutdown", 1, 1), "probable")?;

    let undefined = host.guest("undefined")?;
    let mut serial = host.up_persistent(&undefined)?;
    let run = host.run(&undefined);
    host.libvirtd.virsh(&["undefine", "undefined"])?;
    serial.power_off()?;
    let ending = host.check(&undefined, &told("guest-poweroff", 0, 7), "certain")?;
    assert_eq!(ending["run"].as_i64(), run, "it became transient and stayed the same run");

    // What it had been through before is told beside the cause, and is not the cause.
    for (name, killed) in [("kept", false), ("kept-too", true)] {
        let kept = host.guest(name)?.on_crash(OnCrash::Preserve);
        host.up(&kept)?.panic()?;
        host.libvirtd.wait_state(name, Some("crashed (panicked)"), PATIENCE)?;
        let (wanted, certainty) = if killed {
            host.libvirtd.qemu(name)?.signal(Signal::KILL)?;
            (told("process-killed", 1, 2), "probable")
        } else {
            host.libvirtd.destroy(name)?;
            (told("outside-destroyed", 1, 2), "certain")
        };
        let ending = host.check(&kept, &wanted, certainty)?;
        assert!(says(&ending["evidence"], "the guest panicked"), "{ending:#}");
    }
    Ok(())
}

#[test]
fn a_vm_without_room_is_paused_and_says_why() -> Result<()> {
    let host = Host::start("room")?;
    let disk = host.libvirtd.full_disk("full")?;
    let guest = host.guest("full")?.boot_disk(BootDisk::Writable("stop")).image(disk.image());
    host.up(&guest)?.write_sector()?;
    host.wait_status(&guest, "paused-io-error");
    let code = format!(
        "vm = server.getVmStats('{}')['statsList'][0]\nprint(vm['status'], vm['pauseCode'])",
        guest.uuid_text()
    );
    assert_eq!(whydown_lab::xmlrpc_client(host.daemon.port()?, &code)?, "Paused ENOSPC");
    // Where it is, and how much room there was, is looked at meanwhile.
    let place = format!("is the file \"{}\": 0 bytes were free", disk.image().display());
    wait_until("the disk is looked at", PATIENCE, || {
        let told = host.why(&guest).expect("it runs");
        told["domain"]["paused_by"].as_str().is_some_and(|said| said.contains(&place))
    });
    host.libvirtd.destroy("full")?;
    let ending = host.check(&guest, &told("outside-destroyed", 1, 2), "certain")?;
    assert!(says(&ending["led_by"], "(enospc): the guest was paused"), "{ending:#}");
    assert!(says(&ending["led_by"], &place), "{ending:#}");
    let room = format!("Make room for \"{}\" (0 bytes were free there): the disk", disk.image().display());
    assert!(ending["advice"].as_str().is_some_and(|said| said.contains(&room)), "{ending:#}");
    Ok(())
}

#[test]
fn a_vm_that_goes_back_to_a_snapshot_ends_one_run_and_begins_another() -> Result<()> {
    let host = Host::start("snapshot")?;
    let disk = host.folder.path().join("data.qcow2");
    std::fs::write(&disk, empty_qcow2()).expect("written");
    let guest = host.guest("snapshot")?.device_xml(&format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}'/>\
         <target dev='vdb' bus='virtio'/></disk>",
        disk.display()
    ));
    drop(host.up_persistent(&guest)?);
    let first = host.run(&guest).expect("it runs");
    host.libvirtd.virsh(&["snapshot-create-as", "snapshot", "before"])?;
    assert_eq!((host.status(&guest).as_deref(), host.run(&guest)), (Some("up"), Some(first)), "no ending");
    host.libvirtd.virsh(&["snapshot-revert", "snapshot", "before"])?;
    wait_until("the next run is shown", PATIENCE, || {
        host.status(&guest).as_deref() == Some("up") && host.run(&guest).is_some_and(|run| run > first)
    });
    wait_until("the ending is known", PATIENCE, || host.history(&guest).is_ok_and(|past| !past.is_empty()));
    let past = host.past(&guest)?;
    assert_eq!(past.len(), 1, "{past:#?}");
    assert_eq!(
        (&past[0]["cause"], &past[0]["run"]),
        (&"snapshot-reverted".into(), &first.into()),
        "{past:#?}"
    );
    host.libvirtd.virsh(&["snapshot-create-as", "snapshot", "off", "--halt"])?;
    host.check(&guest, &told("snapshot-stopped", 0, 0), "probable")?;
    Ok(())
}

/// A VM with a disk that keeps snapshots inside, one of them taken while it ran.
fn with_a_snapshot(host: &Host) -> Result<(Guest, PathBuf)> {
    let disk = host.folder.path().join("data.qcow2");
    std::fs::write(&disk, empty_qcow2()).expect("written");
    let guest = host.guest("snapshot")?.device_xml(&format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}'/>\
         <target dev='vdb' bus='virtio'/></disk>",
        disk.display()
    ));
    drop(host.up_persistent(&guest)?);
    host.libvirtd.virsh(&["snapshot-create-as", "snapshot", "before"])?;
    Ok((guest, disk))
}

/// The next process is held while it loads, for longer than anything is waited for.
#[test]
fn a_revert_that_takes_long_is_a_revert() -> Result<()> {
    let host = Host::start("slow-revert")?;
    let (guest, _) = with_a_snapshot(&host)?;
    let first = host.run(&guest).expect("it runs");
    let before = host.libvirtd.qemu("snapshot")?.pid();
    std::thread::scope(|scope| -> Result<()> {
        let reverting = scope.spawn(|| host.libvirtd.virsh(&["snapshot-revert", "snapshot", "before"]));
        let next = || host.libvirtd.qemu("snapshot").ok().filter(|qemu| qemu.pid() != before);
        wait_until("the next process is there", PATIENCE, || {
            next().is_some_and(|qemu| qemu.signal(Signal::STOP).is_ok())
        });
        // libvirt counts how long it waits for it.
        let waited = |done: std::process::Output| {
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            let seconds = said.split_once('(').and_then(|(_, s)| s.split_once("s)")?.0.parse::<f64>().ok());
            seconds.is_some_and(|seconds| seconds > 12.0)
        };
        wait_until("libvirt has waited for long", PATIENCE, || {
            host.libvirtd.try_virsh(&["domcontrol", "snapshot"]).is_ok_and(waited)
        });
        assert_eq!(host.past(&guest)?.len(), 0, "nobody knows yet");
        assert_ne!(host.status(&guest).as_deref(), Some("down"));
        next().expect("it is held").signal(Signal::CONT)?;
        reverting.join().expect("no panic").map(drop)
    })?;
    wait_until("the next run is shown", PATIENCE, || {
        host.status(&guest).as_deref() == Some("up") && host.run(&guest).is_some_and(|run| run > first)
    });
    wait_until("the ending is known", PATIENCE, || host.past(&guest).is_ok_and(|past| !past.is_empty()));
    let past = host.past(&guest)?;
    let told = (&past[0]["cause"], &past[0]["certainty"], &past[0]["revision"]);
    assert_eq!(told, (&"snapshot-reverted".into(), &"certain".into(), &Value::Null), "{past:#?}");
    Ok(())
}

/// Whether it went back is told by the start that came next, whoever heard of it.
#[test]
fn reverts_that_nobody_heard_are_told_by_what_came_next() -> Result<()> {
    let mut host = Host::start("unheard-revert")?;
    let (guest, _) = with_a_snapshot(&host)?;
    let first = host.run(&guest).expect("it runs");
    host.daemon.terminate()?;
    // Back twice, then left off by another snapshot, and started as any other.
    host.libvirtd.virsh(&["snapshot-revert", "snapshot", "before"])?;
    host.libvirtd.virsh(&["snapshot-revert", "snapshot", "before"])?;
    host.libvirtd.virsh(&["snapshot-create-as", "snapshot", "off", "--halt"])?;
    host.libvirtd.start_domain("snapshot")?;
    host.daemon.start_again()?;
    host.wait_status(&guest, "up");
    wait_until("all are told", PATIENCE, || host.past(&guest).is_ok_and(|past| past.len() >= 3));
    let past = host.history(&guest)?;
    let causes: Vec<&str> = past.iter().map(|(cause, _)| cause.as_str()).collect();
    assert_eq!(causes, ["snapshot-stopped", "snapshot-reverted", "snapshot-reverted"], "{past:#?}");
    assert_eq!(past[2].1, first);

    // To one that was taken when it was off: it is off again.
    host.daemon.kill_9()?;
    host.libvirtd.virsh(&["snapshot-create-as", "snapshot", "later"])?;
    host.libvirtd.destroy("snapshot")?;
    host.libvirtd.virsh(&["snapshot-create-as", "snapshot", "empty"])?;
    host.libvirtd.start_domain("snapshot")?;
    host.libvirtd.virsh(&["snapshot-revert", "snapshot", "empty"])?;
    host.daemon.start_again()?;
    host.wait_status(&guest, "down");
    wait_until("all are told", PATIENCE, || host.past(&guest).is_ok_and(|past| past.len() >= 5));
    let causes: Vec<String> = host.history(&guest)?.into_iter().map(|(cause, _)| cause).take(2).collect();
    assert_eq!(causes, ["snapshot-stopped", "outside-destroyed"], "{:#?}", host.past(&guest)?);
    Ok(())
}

/// libvirt takes it only by force, and starts QEMU anew.
#[test]
fn a_revert_to_another_definition_is_a_revert() -> Result<()> {
    let host = Host::start("other-revert")?;
    let (guest, _) = with_a_snapshot(&host)?;
    let first = host.run(&guest).expect("it runs");
    host.libvirtd.destroy("snapshot")?;
    host.check(&guest, &told("outside-destroyed", 1, 2), "certain")?;
    host.libvirtd.virsh(&["setmaxmem", "snapshot", "4096", "--config"])?;
    host.libvirtd.start_domain("snapshot")?;
    host.wait_status(&guest, "up");
    let second = host.run(&guest).expect("it runs");
    assert!(second > first);
    host.libvirtd.virsh(&["snapshot-revert", "snapshot", "before", "--force"])?;
    wait_until("the ending is known", PATIENCE, || host.past(&guest).is_ok_and(|past| past.len() == 2));
    let past = host.past(&guest)?;
    assert_eq!(
        (&past[0]["cause"], &past[0]["certainty"], &past[0]["run"]),
        (&"snapshot-reverted".into(), &"certain".into(), &second.into()),
        "{past:#?}"
    );
    host.wait_status(&guest, "up");
    Ok(())
}

/// The memory in the snapshot is spoiled: libvirt stops the VM, and QEMU cannot load it.
#[test]
fn a_revert_that_fails_at_loading_is_a_failed_start_with_qemus_words() -> Result<()> {
    let host = Host::start("failed-revert")?;
    let (guest, disk) = with_a_snapshot(&host)?;
    let bytes = std::fs::read(&disk).expect("read");
    let memory =
        bytes.windows(4).position(|four| four == b"QEVM").expect("a snapshot's memory begins with it");
    {
        use std::os::unix::fs::FileExt;
        let open = std::fs::OpenOptions::new().write(true).open(&disk).expect("opened");
        open.write_all_at(b"JUNK", memory as u64).expect("written");
    }
    let done = host.libvirtd.try_virsh(&["snapshot-revert", "snapshot", "before"])?;
    assert!(!done.status.success(), "libvirt says that it failed");
    wait_until("both endings are known", PATIENCE, || host.past(&guest).is_ok_and(|past| past.len() == 2));
    let past = host.past(&guest)?;
    assert_eq!(past[0]["cause"], "start-failed", "{past:#?}");
    let message = past[0]["message"].as_str().expect("a text");
    assert!(message.contains("while loading VM state"), "{message}");
    assert_eq!(past[1]["cause"], "snapshot-stopped", "{past:#?}");
    host.wait_status(&guest, "down");
    Ok(())
}

#[test]
fn a_vm_that_the_kernel_killed_for_memory_is_told_as_that() -> Result<()> {
    let host = Host::start("memory")?;
    let guest = host.guest("memory")?;
    let _serial = host.up(&guest)?;
    let group = MemoryGroup::of(host.libvirtd.qemu("memory")?.pid());
    // QEMU takes more than it may have. It dies of that, so virsh has no answer to expect.
    let _ = host.libvirtd.try_virsh(&[
        "qemu-monitor-command",
        "memory",
        "--hmp",
        "object_add memory-backend-ram,id=big,size=256M,prealloc=on",
    ])?;
    let ending = host.check(&guest, &told("oom-killed", 1, 2), "certain")?;
    assert!(says(&ending["because"], "the kernel says"), "{ending:#}");
    drop(group);
    Ok(())
}

/// A control group with little memory for one process; needs root, as the libvirtd of the other tests does.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// More than QEMU needs to start anything, and less than it will want.
    const BYTES: &str = "33554432";

    fn of(pid: u32) -> Self {
        let old = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = match old.is_dir() {
            true => (old, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let group = Self(root.join(format!("whydown-test-{pid}")));
        std::fs::create_dir(&group.0).expect("control groups can be made: mount them writable");
        let write = |file: &str, value: &str| {
            let path = group.0.join(file);
            std::fs::write(&path, value).unwrap_or_else(|error| {
                panic!("{}: {error}: the memory controller must be on", path.display());
            });
        };
        write(limit, Self::BYTES);
        write("cgroup.procs", &pid.to_string());
        group
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A group with a process in it stays, and is empty when that has ended.
        let _ = std::fs::remove_dir(&self.0);
    }
}
