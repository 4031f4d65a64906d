//! Pause, shutdown by its steps, reboot, and what is changed while a guest runs.

use whydown_lab::{BootDisk, Result, wait_until};

use crate::verbs::{ask, create, polled};
use whydown_lab::host::{Host, PATIENCE, says, told};

#[test]
fn a_paused_vm_is_paused_for_managers_and_goes_on() -> Result<()> {
    let host = Host::start("pause")?;
    let guest = host.guest("p")?;
    assert_eq!(create(&host, &guest)?, 0);
    let mut serial = guest.serial(PATIENCE)?;
    host.wait_status(&guest, "up");
    let id = guest.uuid_text();
    assert_eq!(ask(&host, &format!("server.pause('{id}')['output']"))?, "['']");
    host.libvirtd.wait_state("p", Some("paused (user)"), PATIENCE)?;
    host.wait_status(&guest, "paused");
    assert_eq!(
        (polled(&host, &guest, "status")?.as_str(), polled(&host, &guest, "pauseCode")?.as_str()),
        ("Paused", "NOERR")
    );
    assert_eq!(host.call(&format!("cont('{id}')"))?, 0);
    host.wait_status(&guest, "up");
    serial.answer(PATIENCE)?;
    serial.power_off()?;
    let ending = host.check(&guest, &told("guest-poweroff", 0, 7), "certain")?;
    assert!(says(&ending["evidence"], "asked whydown to pause it"), "{ending:#}");
    assert_eq!(host.call(&format!("pause('{id}')"))?, 16, "as in the original");
    assert_eq!(host.call(&format!("setBalloonTarget('{id}', 2048)"))?, 1);
    Ok(())
}

#[test]
fn a_shutdown_goes_from_agent_to_button_to_force_and_each_step_is_evidence() -> Result<()> {
    let host = Host::start("steps")?;
    let deaf = host.guest("deaf")?;
    host.up(&deaf)?.ignore_button()?;
    let call = format!(
        "server.shutdown('{}', '1', 'bye', 'false', '1', 'true')['status']['message']",
        deaf.uuid_text()
    );
    assert_eq!(ask(&host, &call)?, "Machine shutting down");
    let ending = host.check(&deaf, &told("admin-forced-off", 0, 6), "certain")?;
    for step in [
        "asked whydown to shut it down",
        "asked whydown to have its agent shut it down",
        "libvirt refused to have its agent shut it down",
        "QEMU: the power button was pressed",
        "asked whydown to force it off",
    ] {
        assert!(says(&ending["evidence"], step), "{step}: {ending:#}");
    }
    Ok(())
}

#[test]
fn a_reboot_starts_the_guest_again_in_the_same_run() -> Result<()> {
    let host = Host::start("reboot")?;
    let guest = host.guest("again")?;
    let mut serial = host.up(&guest)?;
    let run = host.run(&guest);
    let reboot = |timeout| {
        format!(
            "server.shutdown('{}', '1', '', True, '{timeout}', True)['status']['message']",
            guest.uuid_text()
        )
    };
    assert_eq!(ask(&host, &reboot(60))?, "Machine rebooting");
    serial.started_again(PATIENCE)?;
    // A guest that does not obey is reset in the end.
    serial.answer(PATIENCE)?;
    serial.ignore_button()?;
    assert_eq!(ask(&host, &reboot(1))?, "Machine rebooting");
    serial.started_again(PATIENCE)?;
    host.wait_status(&guest, "up");
    assert_eq!(host.run(&guest), run);
    assert_eq!(host.history(&guest)?, []);
    Ok(())
}

#[test]
fn what_is_changed_in_a_running_guest_is_seen_by_libvirt() -> Result<()> {
    let host = Host::start("change")?;
    let data = host.folder.path().join("data.img");
    std::fs::File::create(&data).and_then(|file| file.set_len(1 << 20)).expect("a file can be made");
    let guest = host
        .guest("c")?
        .boot_disk(BootDisk::Writable("report"))
        .data_disk(&data)
        .device_xml("<graphics type='vnc' autoport='yes' passwd='x' passwdValidTo='1970-01-01T00:00:01'/><video><model type='vga'/></video>\
            <interface type='user'><mac address='52:54:00:12:34:57'/><model type='e1000'/></interface>");
    let _serial = host.up(&guest)?;
    let id = guest.uuid_text();
    let status =
        |call: &str| ask(&host, &format!("(lambda s: (s['code'], s['message']))(server.{call}['status'])"));

    assert_eq!(status(&format!("setVmTicket('{id}', 'secret', '120', 'disconnect', {{}})"))?, "(0, 'Done')");
    let document = host.libvirtd.virsh(&["dumpxml", "--security-info", "c"])?;
    let document = String::from_utf8_lossy(&document.stdout).into_owned();
    assert!(document.contains("passwd='secret'") && document.contains("passwdValidTo="), "{document}");
    let card = |rest: &str| {
        let call = format!("vmUpdateDevice('{id}', {{'deviceType': 'interface', 'alias': {rest}}})");
        ask(
            &host,
            &format!("(lambda r: (r['status']['code'], r.get('vmList', {{}}).get('vmId')))(server.{call})"),
        )
    };
    let link = || -> Result<String> {
        let said = host.libvirtd.virsh(&["domif-getlink", "c", "52:54:00:12:34:57"])?;
        Ok(String::from_utf8_lossy(&said.stdout).split_whitespace().last().unwrap_or_default().to_owned())
    };
    assert_eq!(link()?, "up");
    let empty = "'specParams': {'inbound': {}, 'outbound': {}}, 'portMirroring': [], 'custom': {}";
    assert_eq!(card(&format!("'net0', 'linkActive': 'false', {empty}"))?, format!("(0, '{id}')"));
    assert_eq!(link()?, "down");
    assert_eq!(card("'net0', 'linkActive': 'true'")?, format!("(0, '{id}')"));
    assert_eq!(link()?, "up");
    assert_eq!(card("'net7', 'linkActive': 'true'")?, "(56, None)", "it has no such card");
    assert_eq!(card("'net0', 'linkActive': 'true', 'network': 'b'")?, "(56, None)", "it is on no bridge");
    let update = |rest: &str| {
        let call = format!("vmUpdateDevice('{id}', {{'deviceType': 'graphics', 'ttl': '120', {rest}}})");
        ask(
            &host,
            &format!("(lambda r: (r['status']['code'], r.get('vmList', {{}}).get('vmId')))(server.{call})"),
        )
    };
    assert_eq!(
        update(
            "'graphicsType': 'vnc', 'password': 'secret2x', 'existingConnAction': 'keep', 'params': {'userName': 'x'}"
        )?,
        format!("(0, '{id}')")
    );
    let document = host.libvirtd.virsh(&["dumpxml", "--security-info", "c"])?;
    let document = String::from_utf8_lossy(&document.stdout).into_owned();
    assert!(document.contains("passwd='secret2x'"), "{document}");
    assert_eq!(update("'graphicsType': 'spice', 'password': 'x'")?, "(56, None)", "it has no such screen");
    assert!(!host.daemon.output_tail().contains("secret"), "a password is never logged");

    let overlay = host.folder.path().join("overlay.qcow2");
    let drives = format!("[{{'name': 'vdb', 'path': '{}'}}]", overlay.display());
    assert_eq!(ask(&host, &format!("server.snapshot('{id}', {drives})['quiesce']"))?, "False");
    let disks = host.libvirtd.virsh(&["domblklist", "c"])?;
    let disks = String::from_utf8_lossy(&disks.stdout).into_owned();
    assert!(disks.contains("overlay.qcow2") && disks.contains("c.img"), "{disks}");

    // This guest has one processor, no balloon and no agent; libvirt says so, and each verb has its code.
    for (call, code) in [
        (format!("setBalloonTarget('{id}', '1024')"), 53),
        (format!("setNumberOfCpus('{id}', '4')"), 60),
        (format!("freeze('{id}')"), 76),
        (format!("thaw('{id}')"), 77),
        (format!("migrateCancel('{id}')"), 47),
        (format!("snapshot('{id}', [{{'name': 'vdz', 'path': '/tmp/x'}}])"), 48),
    ] {
        let told = status(&call)?;
        assert!(told.starts_with(&format!("({code}, ")) && told.len() > 20, "{call}: {told}");
    }
    assert_eq!(ask(&host, &format!("server.setNumberOfCpus('{id}', '1')['vmList']['vmId']"))?, id);
    wait_until("it runs on", PATIENCE, || host.status(&guest).as_deref() == Some("up"));
    Ok(())
}
