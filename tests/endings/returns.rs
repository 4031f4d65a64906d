//! libvirtd dies as VMs end, or comes back and cannot reach one: what had been said before counts, and not what it then
//! makes of what is left.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use whydown_lab::{Result, Signal};

use whydown_lab::host::{Host, PATIENCE, told};

/// The sockets of QEMU's monitors below libvirtd's folder.
fn monitors(host: &Host) -> Vec<PathBuf> {
    let lib = host.libvirtd.directory().join("lib");
    let folders = std::fs::read_dir(&lib)
        .into_iter()
        .flatten()
        .chain(std::fs::read_dir(lib.join("qemu")).into_iter().flatten());
    let sockets = folders.filter_map(|entry| Some(entry.ok()?.path().join("monitor.sock")));
    sockets.filter(|socket| socket.exists()).collect()
}

#[test]
fn what_ended_a_vm_is_told_as_that_though_libvirtd_dies_with_it() -> Result<()> {
    let mut host = Host::start("dies")?;
    // libvirtd is killed as soon as QEMU is gone: whether it had said so yet is left to chance, and changes nothing.
    let off = host.guest("off")?;
    let mut serial = host.up_persistent(&off)?;
    let qemu = host.libvirtd.qemu("off")?;
    serial.power_off()?;
    qemu.wait_gone(PATIENCE)?;
    host.libvirtd.kill_9()?;
    let links = host.links();
    host.libvirtd.start_again()?;
    host.wait_link(links);
    host.check(&off, &told("guest-poweroff", 0, 7), "certain|probable")?;

    let killed = host.guest("killed")?;
    let _serial = host.up_persistent(&killed)?;
    let qemu = host.libvirtd.qemu("killed")?;
    host.libvirtd.kill_9()?;
    qemu.signal(Signal::KILL)?;
    qemu.wait_gone(PATIENCE)?;
    let links = host.links();
    host.libvirtd.start_again()?;
    host.wait_link(links);
    host.check(&killed, &told("process-killed", 1, 2), "probable")?;
    Ok(())
}

#[test]
fn a_vm_that_a_returning_libvirtd_cannot_reach_is_told_as_killed_by_it_and_not_as_panicked() -> Result<()> {
    let mut host = Host::start("returns")?;
    let well = host.guest("well")?;
    let _serial = host.up_persistent(&well)?;
    let qemu = host.libvirtd.qemu("well")?;
    let sockets = monitors(&host);
    assert_eq!(sockets.len(), 1, "the socket of its monitor: {sockets:?}");
    host.libvirtd.kill_9()?;
    std::fs::remove_file(&sockets[0]).expect("it is there");
    let links = host.links();
    host.libvirtd.start_again()?;
    host.wait_link(links);
    qemu.wait_gone(PATIENCE)?;
    host.check(&well, &told("killed-by-libvirt", 1, 2), "probable")?;
    Ok(())
}

#[test]
fn a_start_that_libvirt_is_still_at_when_whydown_is_killed_goes_on_as_the_run_that_was_asked_for()
-> Result<()> {
    let mut host = Host::start("still-at-it")?;
    // libvirt asks an emulator that it does not know yet what it can, before it knows the domain: this one takes its time.
    let (emulator, gate) = (host.folder.path().join("slow-qemu"), host.folder.path().join("gate"));
    std::fs::write(&gate, "").expect("a file can be written");
    let asked = "case \"$*\" in *'-machine none'*) while [ -e \"$0.gate\" ]; do sleep 0.1; done ;; esac";
    let script = format!("#!/bin/sh\n{asked}\nexec /usr/bin/qemu-system-x86_64 \"$@\"\n")
        .replace("$0.gate", &gate.display().to_string());
    std::fs::write(&emulator, script).expect("a file can be written");
    std::fs::set_permissions(&emulator, Permissions::from_mode(0o755)).expect("its mode can be set");
    let guest = host.guest("slow")?.device_xml(&format!("<emulator>{}</emulator>", emulator.display()));
    assert_eq!(host.create(&guest)?, 0);
    let run = host.run(&guest).expect("it is shown");
    let links = host.links();
    host.daemon.kill_9()?;
    host.daemon.start_again()?;
    host.wait_link(links);
    assert_eq!(host.status(&guest).as_deref(), Some("launching"));
    std::fs::remove_file(&gate).expect("it is there");
    host.wait_status(&guest, "up");
    assert_eq!(host.run(&guest), Some(run));
    assert_eq!(host.history(&guest)?, []);
    guest.serial(PATIENCE)?.power_off()?;
    host.check(&guest, &told("guest-poweroff", 0, 7), "certain|probable")?;
    assert_eq!(host.history(&guest)?.len(), 1);
    Ok(())
}
