//! `create` with VDSM's own parameters: a real machine comes of it.

use whydown_lab::{Guest, Result, Serial, wait_until};

use crate::verbs::ask;
use whydown_lab::host::{Host, PATIENCE, told};

/// VDSM's parameters for the guest, with its serial line as a console. `ID` stands where the manager gives a device its id.
const CLASSIC: &str = "{'vmId': 'VM', 'vmName': 'NAME', 'vmType': 'kvm', 'kvmEnable': 'false', 'memSize': '2', 'smp': '1', \
     'maxVCpus': '2', 'display': 'vnc', 'displayIp': '127.0.0.1', 'acpiEnable': 'true', 'boot': 'c', \
     'timeOffset': '0', 'emulatedMachine': 'pc', 'nice': '0', 'memGuaranteedSize': 2, 'custom': {}, \
     'devices': [\
      {'type': 'disk', 'device': 'disk', 'iface': 'virtio', 'index': '0', 'format': 'raw', 'path': 'IMAGE', \
        'readonly': 'true', 'propagateErrors': 'off', 'deviceId': 'ID', 'specParams': {}},\
      {'type': 'console', 'device': 'console', 'specParams': {'consoleType': 'serial'}, 'path': 'SERIAL', \
        'deviceId': 'no-uuid'},\
      {'type': 'video', 'device': 'vga', 'specParams': {'vram': '16384'}, 'deviceId': 'ID'},\
      {'type': 'watchdog', 'device': 'watchdog', 'specParams': {'model': 'ib700', 'action': 'none'}, 'deviceId': 'ID'},\
      {'type': 'rng', 'device': 'virtio', 'model': 'virtio', 'specParams': {'source': 'urandom'}, 'deviceId': 'ID'},\
      {'type': 'channel', 'device': 'unix', 'name': 'org.qemu.guest_agent.0', 'deviceId': 'ID'},\
      {'type': 'controller', 'device': 'scsi', 'model': 'virtio-scsi', 'index': '0', 'deviceId': 'ID'},\
      {'type': 'controller', 'device': 'virtio-serial', 'index': '0', 'deviceId': 'ID'},\
      {'type': 'controller', 'device': 'usb', 'model': 'piix3-uhci', 'index': '0', 'deviceId': 'ID'},\
      {'type': 'controller', 'device': 'ide', 'index': '0', 'deviceId': 'ID'},\
      {'type': 'disk', 'device': 'cdrom', 'iface': 'ide', 'index': '2', 'path': '', 'deviceId': 'ID'},\
      {'type': 'sound', 'device': 'ac97', 'deviceId': 'ID'},\
      {'type': 'balloon', 'device': 'memballoon', 'specParams': {'model': 'virtio'}, 'deviceId': 'ID'}\
     ]}";

fn classic(guest: &Guest) -> String {
    let (image, serial) =
        (guest.image_path().display().to_string(), guest.serial_path().display().to_string());
    let vm = CLASSIC
        .replace("VM'", &format!("{}'", guest.uuid_text()))
        .replace("NAME", guest.name())
        .replace("IMAGE", &image)
        .replace("SERIAL", &serial);
    let mut parts = vm.split("'ID'");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.enumerate().fold(first, |vm, (number, part)| format!("{vm}'{}'{part}", device_id(number)))
}

/// The id that the manager gives to a device.
fn device_id(number: usize) -> String {
    format!("0d0d0d0d-0000-4000-8000-{number:012x}")
}

#[test]
fn a_classic_vm_boots_from_its_disk_has_its_devices_and_powers_off() -> Result<()> {
    let host = Host::start("classic")?;
    let guest = host.guest("old")?;
    let vm = classic(&guest).replacen("'maxVCpus': '2'", "'maxVCpus': '3'", 1);
    let created = ask(&host, &format!("server.create({vm})['vmList']['status']"))?;
    assert_eq!(created, "WaitForLaunch");
    let mut serial: Serial = guest.serial(PATIENCE)?;
    host.wait_status(&guest, "up");
    let document = host.libvirtd.virsh(&["dumpxml", "old"])?;
    let document = String::from_utf8_lossy(&document.stdout).into_owned();
    for part in [
        "<domain type='qemu'",
        "<vcpu placement='static' current='1'>3</vcpu>",
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
    let id = guest.uuid_text();
    // An engine unplugs in its database whatever does not come back by the id that it gave.
    let devices = format!("server.list('true', ['{id}'])['vmList'][0]['devices']");
    let known = format!("sorted(d['deviceId'] for d in {devices} if 'deviceId' in d)");
    let given = CLASSIC.matches("'ID'").count();
    wait_until("all ids come back", PATIENCE, || {
        ask(&host, &format!("len({known})")).is_ok_and(|count| count == given.to_string())
    });
    let all: Vec<String> = (0..given).map(device_id).collect();
    assert_eq!(ask(&host, &format!("' '.join({known})"))?, all.join(" "));
    // Processors are those that it has now, also in the moment after it was given another.
    let processors = format!(
        "(server.list('true', ['{id}'])['vmList'][0]['smp'], server.getVmStats('{id}')['statsList'][0]['vcpuCount'])"
    );
    assert_eq!(ask(&host, &processors)?, "('1', '1')");
    assert_eq!(ask(&host, &format!("server.setNumberOfCpus('{id}', '2')['vmList']['smp']"))?, "2");
    assert_eq!(ask(&host, &processors)?, "('2', '2')");
    host.libvirtd.virsh(&["setvcpus", "old", "3"])?;
    wait_until("what another client gave is told", PATIENCE, || {
        ask(&host, &processors).is_ok_and(|told| told == "('3', '3')")
    });
    // Its disk, as managers want it that take it over with its VM.
    let disk = |device: &str| {
        let names = "('format', 'iface', 'index', 'name', 'apparentsize')";
        ask(
            &host,
            &format!(
                "[[d.get(name) for name in {names}] for d in {devices} if d['device'] == '{device}'][0]"
            ),
        )
    };
    let size = std::fs::metadata(guest.image_path()).expect("it is there").len();
    wait_until("it was measured", PATIENCE, || disk("disk").is_ok_and(|told| !told.ends_with("None]")));
    assert_eq!(disk("disk")?, format!("['raw', 'virtio', '0', 'vda', '{size}']"));
    assert_eq!(disk("cdrom")?, "[None, 'ide', '2', 'hdc', None]", "libvirt says of an empty drive no format");
    let medium = host.folder.path().join("medium.iso");
    std::fs::write(&medium, [0; 4096]).expect("written");
    assert_eq!(host.call(&format!("changeCD('{id}', '{}')", medium.display()))?, 0);
    let snapshot = |target: &str| {
        let drives =
            format!("[{{'name': '{target}', 'path': '{}/over.qcow2'}}]", host.folder.path().display());
        ask(
            &host,
            &format!("(lambda s: (s['code'], s['message']))(server.snapshot('{id}', {drives})['status'])"),
        )
    };
    let told_of_cd = snapshot("hdc")?;
    assert!(told_of_cd.starts_with("(48, ") && told_of_cd.contains("cdrom"), "{told_of_cd}");
    assert!(!host.folder.path().join("over.qcow2").exists());
    // It has a balloon; and an agent's channel with nobody behind it.
    assert_eq!(host.call(&format!("setBalloonTarget('{id}', '1536')"))?, 0);
    assert_eq!(host.call(&format!("setVmTicket('{id}', 'secret', 120)"))?, 0);
    serial.power_off()?;
    host.check(&guest, &told("guest-poweroff", 0, 7), "certain")?;
    Ok(())
}

/// What the original passed over is passed over and said once; how far a clock is ahead no 32 bits need to hold.
#[test]
fn what_changes_nothing_is_said_in_the_log_and_a_clock_may_be_centuries_ahead() -> Result<()> {
    let host = Host::start("passed")?;
    let guest = host.guest("passed")?;
    let vm = classic(&guest)
        .replacen('{', "{'cpuPinning': {'0': '0', '5': '0'}, ", 1)
        .replacen("'timeOffset': '0'", "'timeOffset': '5000000000'", 1)
        .replacen("'display': 'vnc', 'displayIp': '127.0.0.1', ", "", 1)
        .replacen("'index': '0', 'format'", "'index': '0', 'name': 'sdx', 'format'", 1);
    assert_eq!(host.call(&format!("create({vm})"))?, 0);
    host.wait_status(&guest, "up");
    assert_eq!(crate::verbs::polled(&host, &guest, "timeOffset")?, "5000000000");
    let document = host.libvirtd.virsh(&["dumpxml", "passed"])?;
    let document = String::from_utf8_lossy(&document.stdout).into_owned();
    for part in
        ["<vcpupin vcpu='0' cpuset='0'/>", "<target dev='vda' bus='virtio'/>", "adjustment='5000000000'"]
    {
        assert!(document.contains(part), "{part}: {document}");
    }
    let said = std::fs::read_to_string(host.daemon.output_path()).expect("it says something");
    for name in ["cpuPinning.5", "devices.deviceId", "devices.name"] {
        assert_eq!(said.matches(name).count(), 1, "{name}: {said}");
    }
    assert_eq!(host.call(&format!("destroy('{}')", guest.uuid_text()))?, 0);
    Ok(())
}

#[test]
fn a_vm_that_is_launched_paused_stands_still_until_it_is_let_run() -> Result<()> {
    let host = Host::start("launched")?;
    let guest = host.guest("still")?;
    let nodes = "'guestNumaNodes': [{'nodeIndex': 1, 'cpus': '1', 'memory': '1'}, {'nodeIndex': 0, 'cpus': '0', 'memory': '1'}]";
    let tuned = "'numaTune': {'mode': 'preferred', 'nodeset': '0'}";
    // As engines of clusters from 3.6 on say it.
    let threads = "'numOfIoThreads': 2, 'maxMemSize': 4194304, 'maxMemSlots': 16";
    let vm = classic(&guest)
        .replacen('{', &format!("{{'launchPaused': 'true', {nodes}, {tuned}, {threads}, "), 1)
        .replacen("'specParams': {}", "'specParams': {'pinToIoThread': 2}", 1)
        .replacen("'model': 'virtio-scsi',", "'model': 'virtio-scsi', 'specParams': {'ioThreadId': '1'},", 1);
    assert_eq!(host.call(&format!("create({vm})"))?, 0);
    host.wait_status(&guest, "paused");
    let document = host.libvirtd.virsh(&["dumpxml", "still"])?;
    let document = String::from_utf8_lossy(&document.stdout).into_owned();
    for part in [
        "<cell id='0' cpus='0'",
        "<cell id='1' cpus='1'",
        "<memory mode='preferred' nodeset='0'/>",
        "<iothreads>2</iothreads>",
        "error_policy='stop' iothread='2'/>",
        "<driver iothread='1'/>",
    ] {
        assert!(document.contains(part), "{part}: {document}");
    }
    let polled = |member: &str| crate::verbs::polled(&host, &guest, member);
    assert_eq!((polled("status")?.as_str(), polled("pauseCode")?.as_str()), ("Paused", "NOERR"));
    host.libvirtd.wait_state("still", Some("paused (user)"), PATIENCE)?;
    assert_eq!(host.call(&format!("cont('{}')", guest.uuid_text()))?, 0);
    let mut serial: Serial = guest.serial(PATIENCE)?;
    host.wait_status(&guest, "up");
    serial.answer(PATIENCE)?;
    serial.power_off()?;
    host.check(&guest, &told("guest-poweroff", 0, 7), "certain")?;
    Ok(())
}

/// What VDSM's own command line sends: no devices, and some things twice.
#[test]
fn a_vm_of_the_older_form_has_its_disk_its_cards_and_its_sound() -> Result<()> {
    let host = Host::start_with_bridges("older", &["lab0"])?;
    let guest = host.guest("older")?;
    let (id, image) = (guest.uuid_text(), guest.image_path().display().to_string());
    let vm = format!(
        "{{'vmId': '{id}', 'vmName': 'older', 'memSize': '16', 'display': 'vnc', 'vt': 'false', 'kvmEnable': 'false', \
         'imageFile': '{image}', 'hda': '{image}', 'boot': 'c', 'soundDevice': 'ac97', 'bridge': 'lab0', \
         'macAddr': '52:54:00:00:00:01, 52:54:00:00:00:02', 'nicModel': 'pv,e1000'}}"
    );
    assert_eq!(host.call(&format!("create({vm})"))?, 0);
    host.wait_status(&guest, "up");
    let document = host.libvirtd.virsh(&["dumpxml", "older"])?;
    let document = String::from_utf8_lossy(&document.stdout).into_owned();
    for part in [
        "<domain type='qemu'",
        "<target dev='hda' bus='ide'/>",
        "<sound model='ac97'>",
        "<mac address='52:54:00:00:00:01'/>",
        "<mac address='52:54:00:00:00:02'/>",
        "<model type='virtio'/>",
        "<model type='e1000'/>",
    ] {
        assert!(document.contains(part), "{part}: {document}");
    }
    assert_eq!(document.matches("<source bridge='lab0'/>").count(), 2, "{document}");
    assert_eq!(host.call(&format!("destroy('{id}')"))?, 0);
    let refused = vm.replace("'bridge': 'lab0', ", "");
    let told =
        ask(&host, &format!("(lambda s: (s['code'], s['message']))(server.create({refused})['status'])"))?;
    assert!(told.contains("bridge"), "nobody knows where they are to lead: {told}");
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
