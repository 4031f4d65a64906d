//! The full form of `list`: what a VM is made of is told from its first moment to its last, over restarts too.

use whydown_lab::{Guest, Result, Signal, xmlrpc_client};

use crate::verbs::create;
use whydown_lab::host::{Host, PATIENCE};

/// The first answers that are not 99, on one connection and asked for without a pause: status, hash, memory, processors, devices, and how
/// many of these have an address.
fn first_answers(host: &Host, guest: &Guest) -> Result<String> {
    let id = guest.uuid_text();
    let code = format!(
        "import time\n\
         deadline = time.monotonic() + 60\n\
         reply = server.getVmStats('{id}')\n\
         while reply['status']['code'] == 99 and time.monotonic() < deadline:\n\
         \x20   reply = server.getVmStats('{id}')\n\
         vm = server.list('true', ['{id}'])['vmList'][0]\n\
         stats = reply['statsList'][0]\n\
         placed = sum('address' in device for device in vm['devices'])\n\
         print(stats['status'], stats.get('hash'), vm['memSize'], vm['smp'], len(vm['devices']), placed)"
    );
    let client = xmlrpc_client(host.daemon.port()?, &code)?;
    Ok(client.trim().to_owned())
}

#[test]
fn what_a_vm_is_made_of_is_told_from_its_first_moment_to_its_last() -> Result<()> {
    let mut host = Host::start("made")?;
    let guest = host.guest("made")?;
    assert_eq!(create(&host, &guest)?, 0);
    let first = first_answers(&host, &guest)?;
    let words: Vec<&str> = first.split(' ').collect();
    let [_, hash, memory, processors, devices, _] = words[..] else { panic!("{first}") };
    assert!(hash != "None" && memory != "0" && processors == "1" && devices != "0", "{first}");
    host.wait_status(&guest, "up");
    let mut serial = guest.serial(PATIENCE)?;

    // Once libvirt's own document was read, it stays what it is.
    whydown_lab::wait_until("its document was read", PATIENCE, || {
        first_answers(&host, &guest)
            .is_ok_and(|answer| !answer.starts_with("WaitForLaunch") && !answer.ends_with(" 0"))
    });
    let up = first_answers(&host, &guest)?;
    for _ in 0..3 {
        host.daemon.kill_9()?;
        host.daemon.start_again()?;
        assert_eq!(first_answers(&host, &guest)?, up, "the first answer after a restart");
    }
    host.libvirtd.kill_9()?;
    assert_eq!(first_answers(&host, &guest)?, up, "without libvirtd");
    host.libvirtd.start_again()?;
    host.wait_status(&guest, "up");
    assert_eq!(first_answers(&host, &guest)?, up, "with a new libvirtd");

    serial.power_off()?;
    host.wait_status(&guest, "down");
    let down = first_answers(&host, &guest)?;
    host.daemon.kill_9()?;
    host.daemon.start_again()?;
    assert_eq!(first_answers(&host, &guest)?, down);
    assert!(down.starts_with("Down "), "{down}");
    let machine = |answer: &str| answer.split(' ').skip(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(machine(&down), machine(&up));
    Ok(())
}

/// It was told as up for some seconds once, while what was left of it was looked at.
#[test]
fn a_vm_that_died_while_nobody_listened_is_down_from_the_first_answer_on() -> Result<()> {
    let mut host = Host::start("died")?;
    let guest = host.guest("died")?;
    assert_eq!(create(&host, &guest)?, 0);
    host.wait_status(&guest, "up");
    host.daemon.kill_9()?;
    host.libvirtd.qemu(guest.name())?.signal(Signal::KILL)?;
    host.daemon.start_again()?;
    let first = first_answers(&host, &guest)?;
    assert!(first.starts_with("Down "), "{first}");
    Ok(())
}

/// What all polls show of one VM from before its start until it has been up for a while: status, hash, memory and devices of each
/// answer that held it, once each.
const SEEN: &str = "import time\n\
    seen, over = [], None\n\
    deadline = time.monotonic() + 60\n\
    while time.monotonic() < deadline and (over is None or time.monotonic() < over):\n\
    \x20   stats = {vm['vmId']: vm for vm in server.getAllVmStats().get('statsList', [])}.get(ID)\n\
    \x20   vms = {vm['vmId']: vm for vm in server.list('true').get('vmList', [])}.get(ID)\n\
    \x20   if stats is None or vms is None:\n\
    \x20       continue\n\
    \x20   if stats['status'] == 'Up' and over is None:\n\
    \x20       over = time.monotonic() + 3\n\
    \x20   shown = (stats.get('hash'), vms['memSize'] > 0, vms['smp'], len(vms['devices']) > 0)\n\
    \x20   if shown not in seen:\n\
    \x20       seen.append(shown)\n\
    print(seen)";

#[test]
fn a_vm_that_another_client_starts_is_told_with_what_it_is_made_of() -> Result<()> {
    let host = Host::start("others")?;
    let guest = host.guest("theirs")?;
    let port = host.daemon.port()?;
    let code = SEEN.replace("ID", &format!("'{}'", guest.uuid_text()));
    let watching = std::thread::spawn(move || xmlrpc_client(port, &code).map_err(|e| e.to_string()));
    let _serial = host.up(&guest)?;
    let seen = watching.join().expect("it reads").expect("it is polled");
    let seen = seen.trim();
    assert!(seen.starts_with("[('"), "{seen}");
    assert_eq!(
        seen.matches("('").count(),
        seen.matches("True, '1', True)").count(),
        "all of it each time: {seen}"
    );
    Ok(())
}

/// Its monitor answers nothing, and libvirt nothing that it needs it for: managers are told what was known of it.
#[test]
fn a_vm_whose_qemu_hangs_keeps_no_host_waiting_and_is_told_as_it_was() -> Result<()> {
    let mut host = Host::start("hangs")?;
    let (guest, other) = (host.guest("hung")?, host.guest("well")?);
    let (_serial, _other) = (host.up(&guest)?, host.up(&other)?);
    whydown_lab::wait_until("its document was read", PATIENCE, || {
        first_answers(&host, &guest).is_ok_and(|answer| !answer.ends_with(" 0"))
    });
    let up = first_answers(&host, &guest)?;
    let qemu = host.libvirtd.qemu(guest.name())?;
    qemu.signal(Signal::STOP)?;
    for _ in 0..2 {
        host.daemon.kill_9()?;
        host.daemon.start_again()?;
        assert_eq!(first_answers(&host, &guest)?, up);
    }
    // A new libvirtd waits for its monitor, and lists it meanwhile.
    host.libvirtd.kill_9()?;
    host.libvirtd.start_again()?;
    host.daemon.kill_9()?;
    host.daemon.start_again()?;
    assert_eq!(first_answers(&host, &guest)?, up);
    qemu.signal(Signal::CONT)?;
    host.wait_status(&guest, "up");
    assert_eq!(first_answers(&host, &guest)?, up);
    Ok(())
}

#[test]
fn a_vm_that_is_renamed_while_it_is_off_is_listed_by_its_new_name() -> Result<()> {
    let mut host = Host::start("renamed")?;
    let guest = host.guest("before")?;
    let mut serial = host.up_persistent(&guest)?;
    serial.power_off()?;
    host.wait_status(&guest, "down");
    let name = |host: &Host| {
        let named = format!("server.list('true', ['{}'])['vmList'][0]['vmName']", guest.uuid_text());
        crate::verbs::ask(host, &named)
    };
    assert_eq!(name(&host)?, "before");
    assert!(host.libvirtd.virsh(&["domrename", "before", "after"])?.status.success());
    whydown_lab::wait_until("it has its new name", PATIENCE, || {
        name(&host).is_ok_and(|name| name == "after")
    });
    host.daemon.kill_9()?;
    host.daemon.start_again()?;
    whydown_lab::wait_until("it is listed", PATIENCE, || name(&host).is_ok());
    assert_eq!(name(&host)?, "after", "from the first answer on");
    // Renamed while nobody listened.
    host.daemon.kill_9()?;
    assert!(host.libvirtd.virsh(&["domrename", "after", "later"])?.status.success());
    host.daemon.start_again()?;
    whydown_lab::wait_until("it is listed", PATIENCE, || name(&host).is_ok());
    assert_eq!(name(&host)?, "later");
    assert_eq!(host.ending(&guest)["name"], "before", "it was called so when it ended");
    Ok(())
}
