//! `create` with VDSM's own parameters: a real machine comes of it.

use whydown_lab::{Guest, Result, Serial};

use crate::ask;
use crate::host::{Host, PATIENCE, told};

/// VDSM's parameters for the guest, with its serial line as a console.
fn classic(guest: &Guest) -> String {
    format!(
        "{{'vmId': '{id}', 'vmName': '{name}', 'vmType': 'kvm', 'kvmEnable': 'false', 'memSize': '2', 'smp': '1', \
         'maxVCpus': '2', 'display': 'vnc', 'displayIp': '127.0.0.1', 'acpiEnable': 'true', 'boot': 'c', \
         'timeOffset': '0', 'emulatedMachine': 'pc', 'nice': '0', 'memGuaranteedSize': 2, 'custom': {{}}, \
         'devices': [\
          {{'type': 'disk', 'device': 'disk', 'iface': 'virtio', 'index': '0', 'format': 'raw', 'path': '{image}', \
            'readonly': 'true', 'propagateErrors': 'off', 'deviceId': 'x', 'specParams': {{}}}},\
          {{'type': 'console', 'device': 'console', 'specParams': {{'consoleType': 'serial'}}, 'path': '{serial}'}},\
          {{'type': 'video', 'device': 'vga', 'specParams': {{'vram': '16384'}}}},\
          {{'type': 'watchdog', 'device': 'watchdog', 'specParams': {{'model': 'ib700', 'action': 'none'}}}},\
          {{'type': 'rng', 'device': 'virtio', 'model': 'virtio', 'specParams': {{'source': 'urandom'}}}},\
          {{'type': 'channel', 'device': 'unix', 'name': 'org.qemu.guest_agent.0'}},\
          {{'type': 'balloon', 'device': 'memballoon', 'specParams': {{'model': 'virtio'}}}}\
         ]}}",
        id = guest.uuid_text(),
        name = guest.name(),
        image = guest.image_path().display(),
        serial = guest.serial_path().display(),
    )
}

#[test]
fn a_classic_vm_boots_from_its_disk_has_its_devices_and_powers_off() -> Result<()> {
    let host = Host::start("classic")?;
    let guest = host.guest("old")?;
    let created = ask(&host, &format!("server.create({})['vmList']['status']", classic(&guest)))?;
    assert_eq!(created, "WaitForLaunch");
    let mut serial: Serial = guest.serial(PATIENCE)?;
    host.wait_status(&guest, "up");
    let document = host.libvirtd.virsh(&["dumpxml", "old"])?;
    let document = String::from_utf8_lossy(&document.stdout).into_owned();
    for part in [
        "<domain type='qemu'",
        "<vcpu placement='static' current='1'>2</vcpu>",
        "<clock offset='variable' adjustment='0'",
        "<graphics type='vnc'",
        "listen='127.0.0.1'",
        "<watchdog model='ib700' action='none'>",
        "<rng model='virtio'>",
        "name='org.qemu.guest_agent.0'",
        "<memballoon model='virtio'>",
        "error_policy='stop'",
    ] {
        assert!(document.contains(part), "{part}: {document}");
    }
    // It has a balloon; and an agent's channel with nobody behind it.
    let id = guest.uuid_text();
    assert_eq!(host.call(&format!("setBalloonTarget('{id}', '1536')"))?, 0);
    assert_eq!(host.call(&format!("setVmTicket('{id}', 'secret', 120)"))?, 0);
    serial.power_off()?;
    host.check(&guest, &told("guest-poweroff", 0, 7), "certain")?;
    Ok(())
}

#[test]
fn a_classic_vm_that_libvirt_refuses_is_down_with_its_text() -> Result<()> {
    let host = Host::start("broken")?;
    let guest = host.guest("b")?.image(host.folder.path().join("no-such-disk"));
    assert_eq!(host.call(&format!("create({})", classic(&guest)))?, 0);
    let ending = host.check(&guest, &told("start-failed", 1, 1), "certain")?;
    assert!(ending["message"].as_str().is_some_and(|m| m.contains("no-such-disk")), "{ending:#}");
    Ok(())
}
