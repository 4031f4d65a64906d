//! Starts by other clients that fail, of which libvirt reports no event: seen, told with libvirt's text, each once.

use serde_json::Value;
use whydown_lab::{Guest, Result, wait_until};

use whydown_lab::host::{Host, PATIENCE, says};

const NETWORK: &str = "<interface type='network'><source network='nowhere'/></interface>";
const CPU: &str = "<cpu mode='custom' match='exact'><model fallback='forbid'>Nonesuch</model></cpu>";

fn start_refused(host: &Host, guest: &Guest) {
    assert!(host.libvirtd.start_domain(guest.name()).is_err(), "{} started", guest.name());
}

/// Waits until so many endings of it are in history; gives them, the newest first.
fn past(host: &Host, guest: &Guest, count: usize) -> Result<Vec<Value>> {
    wait_until(&format!("{} has {count} endings", guest.name()), PATIENCE, || {
        host.past(guest).is_ok_and(|past| past.len() >= count)
    });
    let past = host.past(guest)?;
    assert_eq!(past.len(), count, "{past:#?}");
    Ok(past)
}

fn tells(ending: &Value, words: &str) {
    assert_eq!(
        (&ending["cause"], &ending["exit_code"], &ending["exit_reason"]),
        (&"start-failed".into(), &1.into(), &1.into()),
        "{ending:#}"
    );
    assert!(ending["message"].as_str().is_some_and(|message| message.contains(words)), "{ending:#}");
}

fn why(host: &Host, guest: &Guest) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_whydown"));
    command.arg("--socket").arg(host.daemon.socket_path()).args(["why", guest.name()]);
    let done = whydown_lab::run(&mut command, PATIENCE).expect("it is known");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn starts_that_libvirt_refuses_to_others_are_told_with_its_text_each_once() -> Result<()> {
    let mut host = Host::start("refused")?;
    let disk = host.guest("nodisk")?;
    let network = host.guest("nonet")?.device_xml(NETWORK);
    let cpu = host.guest("nocpu")?.domain_xml(CPU);
    for guest in [&disk, &network, &cpu] {
        host.libvirtd.define(guest)?;
    }
    std::fs::rename(disk.image_path(), disk.image_path().with_extension("away")).expect("moved");
    let said = why(&host, &network);
    assert!(said.contains("nonet is defined and has never run"), "{said}");

    for guest in [&disk, &network, &cpu] {
        start_refused(&host, guest);
    }
    tells(&past(&host, &disk, 1)?[0], "Cannot access storage file");
    let told = past(&host, &network, 1)?;
    tells(&told[0], "no network with matching name 'nowhere'");
    assert!(says(&told[0]["because"], "a start that whydown was not asked for failed"), "{told:#?}");
    tells(&past(&host, &cpu, 1)?[0], "Unknown CPU model Nonesuch");
    assert_eq!(host.status(&disk).as_deref(), Some("down"));
    let said = why(&host, &disk);
    assert!(said.contains("Cannot access storage file"), "{said}");

    // Another one is another ending, also where nobody has looked in between.
    start_refused(&host, &disk);
    past(&host, &disk, 2)?;

    // One while whydown is away is found, and the others are not told again.
    host.daemon.terminate()?;
    start_refused(&host, &disk);
    host.daemon.start_again()?;
    past(&host, &disk, 3)?;
    assert_eq!((host.past(&network)?.len(), host.past(&cpu)?.len()), (1, 1));

    // It comes up after all, ends well, and fails again: the newest is told.
    std::fs::rename(disk.image_path().with_extension("away"), disk.image_path()).expect("moved");
    host.libvirtd.start_domain("nodisk")?;
    let mut serial = disk.serial(PATIENCE)?;
    host.wait_status(&disk, "up");
    let said = why(&host, &disk);
    assert!(said.contains("It has not gone down since"), "{said}");
    serial.power_off()?;
    assert_eq!(past(&host, &disk, 4)?[0]["cause"], "guest-poweroff");
    host.libvirtd.wait_state("nodisk", Some("shut off (shutdown)"), PATIENCE)?;
    std::fs::remove_file(disk.image_path()).expect("removed");
    start_refused(&host, &disk);
    tells(&past(&host, &disk, 5)?[0], "Cannot access storage file");
    Ok(())
}

#[test]
fn a_start_that_qemu_refuses_to_another_is_told_once_with_qemus_text() -> Result<()> {
    let mut host = Host::start("taken")?;
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let number = port.local_addr().expect("an address").port().max(5900);
    let graphics = format!("<graphics type='vnc' port='{number}' autoport='no' listen='127.0.0.1'/>");
    let guest = host.guest("vnc")?.device_xml(&graphics);
    host.libvirtd.define(&guest)?;
    start_refused(&host, &guest);
    tells(&past(&host, &guest, 1)?[0], "Address already in use");
    // What is looked for every few seconds finds others in the meantime, and this one is not told again.
    let later = host.guest("later")?.domain_xml(CPU);
    host.libvirtd.define(&later)?;
    start_refused(&host, &later);
    past(&host, &later, 1)?;
    past(&host, &guest, 1)?;

    // One while whydown is away has a part of its own in QEMU's log, and is found in libvirt's state as well.
    host.daemon.terminate()?;
    start_refused(&host, &guest);
    host.daemon.start_again()?;
    tells(&past(&host, &guest, 2)?[0], "Address already in use");
    start_refused(&host, &later);
    past(&host, &later, 2)?;
    past(&host, &guest, 2)?;
    Ok(())
}

/// A script of libvirt's, which runs before each start; here it refuses them.
fn hook(host: &Host) {
    use std::os::unix::fs::PermissionsExt;
    let folder = host.libvirtd.directory().join("etc/hooks");
    std::fs::create_dir_all(&folder).expect("made");
    let refuse = "#!/bin/sh\n[ \"$2\" != prepare ] || { echo no licence >&2; exit 1; }\n";
    std::fs::write(folder.join("qemu"), refuse).expect("written");
    std::fs::set_permissions(folder.join("qemu"), std::fs::Permissions::from_mode(0o755)).expect("set");
}

#[test]
fn a_hook_that_refuses_a_network_that_is_off_and_an_autostart_in_vain_are_told() -> Result<()> {
    let mut host = Host::start("hooked")?;
    let network = host.guest("offnet")?.device_xml(&NETWORK.replace("nowhere", "off &amp; away"));
    let document = host.folder.path().join("network.xml");
    let xml = "<network><name>off &amp; away</name><bridge name='whyoff0'/></network>";
    std::fs::write(&document, xml).expect("written");
    host.libvirtd.virsh(&["net-define", &document.display().to_string()])?;
    host.libvirtd.define(&network)?;
    start_refused(&host, &network);
    tells(&past(&host, &network, 1)?[0], "network 'off & away' is not active");

    // With libvirt's start it starts what it should, and nobody asks.
    let auto = host.guest("auto")?;
    host.libvirtd.define(&auto)?;
    host.libvirtd.virsh(&["autostart", "auto"])?;
    let links = host.links();
    std::fs::remove_file(auto.image_path()).expect("removed");
    // It does so once a boot.
    std::fs::remove_file(host.libvirtd.directory().join("run/qemu/autostarted")).expect("removed");
    host.libvirtd.restart()?;
    host.wait_link(links);
    tells(&past(&host, &auto, 1)?[0], "Cannot access storage file");
    assert_eq!(host.past(&network)?.len(), 1, "libvirt has forgotten it, and history has not");

    let hooked = host.guest("hooked")?;
    host.libvirtd.define(&hooked)?;
    hook(&host);
    // libvirt looks for its scripts when it starts.
    let links = host.links();
    host.libvirtd.restart()?;
    host.wait_link(links);
    start_refused(&host, &hooked);
    tells(&past(&host, &hooked, 1)?[0], "no licence");
    let said = why(&host, &hooked);
    assert!(said.contains("no licence"), "{said}");
    Ok(())
}

/// Its file is somewhere else while the start fails, as one that a full disk or a log collector holds up; libvirtd writes on.
#[test]
fn libvirts_own_log_that_can_be_read_only_later_corrects_what_was_told_and_not_its_exit_code() -> Result<()> {
    let host = Host::start("late-log")?;
    let guest = host.guest("nocpu")?.domain_xml(CPU);
    host.libvirtd.define(&guest)?;
    let log = host.libvirtd.log_path();
    let away = log.with_extension("away");
    std::fs::rename(&log, &away).expect("moved");
    start_refused(&host, &guest);
    let told = past(&host, &guest, 1)?.remove(0);
    assert_eq!(
        (&told["cause"], &told["certainty"], &told["exit_code"]),
        (&"start-failed-silent".into(), &"probable".into(), &1.into()),
        "{told:#}"
    );
    std::fs::rename(&away, &log).expect("moved");
    wait_until("what was told is corrected", PATIENCE, || {
        host.past(&guest).is_ok_and(|past| past[0]["cause"] == "start-failed")
    });
    let corrected = past(&host, &guest, 1)?.remove(0);
    tells(&corrected, "Unknown CPU model Nonesuch");
    assert_eq!((&corrected["revision"], &corrected["run"]), (&1.into(), &told["run"]), "{corrected:#}");
    assert_eq!(corrected["exit_code"], told["exit_code"]);
    Ok(())
}

/// Starts it in vain so often, as fast as libvirt refuses.
fn refused_times(host: &Host, guest: &Guest, count: usize) {
    for _ in 0..count {
        start_refused(host, guest);
    }
}

/// Their moments differ, the newest first, and none began after its end.
fn in_order(past: &[Value]) {
    // Without its letter, which comes behind all digits, a moment is a text in the order of time.
    let moment = |ending: &Value, name: &str| {
        ending[name].as_str().and_then(|moment| moment.strip_suffix('Z')).expect("a moment").to_owned()
    };
    for ending in past {
        assert!(moment(ending, "started") <= moment(ending, "ended"), "{ending:#}");
    }
    assert!(past.windows(2).all(|two| moment(&two[0], "ended") > moment(&two[1], "ended")), "{past:#?}");
}

#[test]
fn several_starts_in_a_row_that_fail_and_one_that_works_are_all_told_and_the_run_goes_on() -> Result<()> {
    let mut host = Host::start("row")?;
    let disk = host.guest("disk")?;
    host.libvirtd.define(&disk)?;
    let away = disk.image_path().with_extension("away");
    std::fs::rename(disk.image_path(), &away).expect("moved");
    refused_times(&host, &disk, 3);
    std::fs::rename(&away, disk.image_path()).expect("moved");
    host.libvirtd.start_domain("disk")?;
    let mut serial = disk.serial(PATIENCE)?;
    let told = past(&host, &disk, 3)?;
    told.iter().for_each(|ending| tells(ending, "Cannot access storage file"));
    in_order(&told);
    host.wait_status(&disk, "up");
    let run = host.run(&disk);

    // Over a restart nothing is told twice, and the run is the same.
    host.daemon.restart()?;
    host.wait_status(&disk, "up");
    let later = host.guest("later")?.domain_xml(CPU);
    host.libvirtd.define(&later)?;
    start_refused(&host, &later);
    past(&host, &later, 1)?;
    assert_eq!((past(&host, &disk, 3)?.len(), host.run(&disk)), (3, run));
    serial.power_off()?;
    let ended = host.check(&disk, &whydown_lab::host::told("guest-poweroff", 0, 7), "certain|probable")?;
    assert_eq!(ended["run"].as_i64(), run, "{ended:#}");

    // And all of it while whydown is away.
    host.libvirtd.wait_state("disk", Some("shut off (shutdown)"), PATIENCE)?;
    host.daemon.terminate()?;
    std::fs::rename(disk.image_path(), &away).expect("moved");
    refused_times(&host, &disk, 2);
    std::fs::rename(&away, disk.image_path()).expect("moved");
    host.libvirtd.start_domain("disk")?;
    host.daemon.start_again()?;
    host.wait_status(&disk, "up");
    in_order(&past(&host, &disk, 6)?);
    assert_eq!(host.status(&disk).as_deref(), Some("up"));
    Ok(())
}

#[test]
fn several_starts_in_a_row_that_qemu_gives_up_are_told_each_with_its_own_words() -> Result<()> {
    let host = Host::start("rowq")?;
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let number = port.local_addr().expect("an address").port().max(5900);
    let graphics = format!("<graphics type='vnc' port='{number}' autoport='no' listen='127.0.0.1'/>");
    let guest = host.guest("vnc")?.device_xml(&graphics);
    host.libvirtd.define(&guest)?;
    refused_times(&host, &guest, 3);
    let told = past(&host, &guest, 3)?;
    told.iter().for_each(|ending| tells(ending, "Address already in use"));
    in_order(&told);
    // One more, and at once one that works.
    start_refused(&host, &guest);
    drop(port);
    host.libvirtd.start_domain("vnc")?;
    host.wait_status(&guest, "up");
    let told = past(&host, &guest, 4)?;
    tells(&told[0], "Address already in use");
    in_order(&told);
    host.wait_status(&guest, "up");
    Ok(())
}

#[test]
fn a_restore_whose_qemu_does_not_come_up_is_told_as_that_with_qemus_words() -> Result<()> {
    let host = Host::start("restore")?;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let number = free.local_addr().expect("an address").port().max(5900);
    drop(free);
    let graphics = format!("<graphics type='vnc' port='{number}' autoport='no' listen='127.0.0.1'/>");
    for (name, file) in [("managed", None), ("tofile", Some(host.folder.path().join("tofile.save")))] {
        let guest = host.guest(name)?.device_xml(&graphics);
        host.up_persistent(&guest)?;
        let (saved, start) = match &file {
            None => {
                (vec!["managedsave".to_owned(), name.to_owned()], vec!["start".to_owned(), name.to_owned()])
            }
            Some(file) => {
                let file = file.display().to_string();
                (vec!["save".to_owned(), name.to_owned(), file.clone()], vec!["restore".to_owned(), file])
            }
        };
        let virsh = |words: &[String]| {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            host.libvirtd.virsh(&words)
        };
        virsh(&saved)?;
        host.wait_status(&guest, "down");
        let taken = std::net::TcpListener::bind(("127.0.0.1", number)).expect("it is free again");
        for count in [2, 3] {
            assert!(virsh(&start).is_err(), "{name} started");
            let told = past(&host, &guest, count)?;
            assert_eq!(
                (&told[0]["cause"], &told[0]["certainty"], &told[0]["exit_code"], &told[0]["exit_reason"]),
                (&"restore-failed".into(), &"probable".into(), &1.into(), &1.into()),
                "{told:#?}"
            );
            let words = told[0]["message"].as_str().expect("a text");
            assert!(words.contains("Address already in use"), "{told:#?}");
        }
        drop(taken);
        virsh(&start)?;
        host.wait_status(&guest, "up");
        host.libvirtd.destroy(name)?;
        host.wait_status(&guest, "down");
    }
    Ok(())
}

/// Its emulator is a script, of which a child sends SIGTERM before it becomes QEMU. libvirt also asks it what it can.
#[test]
fn a_start_that_sigterm_ends_is_told_with_what_ended_it_and_did_not_end_before_it_began() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let host = Host::start("sigterm")?;
    let guest = host.guest("ended")?;
    let script = guest.image_path().with_extension("sh");
    let text = "#!/bin/sh\ncase \" $* \" in *' -uuid '*) sh -c 'kill -TERM $PPID'; sleep 60 ;; esac\n\
                exec /usr/bin/qemu-system-x86_64 \"$@\"\n";
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("set");
    let guest = guest.device_xml(&format!("<emulator>{}</emulator>", script.display()));
    host.libvirtd.define(&guest)?;
    start_refused(&host, &guest);
    let told = past(&host, &guest, 1)?;
    tells(&told[0], "QEMU was ended while it started: ");
    in_order(&told);
    Ok(())
}

/// How many starts an ending says that it stands for besides its own.
fn stands_for(ending: &Value) -> usize {
    let pieces = ending["because"].as_array().expect("a list");
    let counts = pieces.iter().filter_map(|piece| {
        let (_, rest) = piece["what"].as_str()?.split_once("and so did ")?;
        rest.split_once(' ')?.0.parse::<usize>().ok()
    });
    counts.sum()
}

/// As a unit does it that starts its VM again whenever that fails.
#[test]
fn of_a_vm_that_is_started_in_vain_again_and_again_the_last_starts_are_told_and_the_others_counted()
-> Result<()> {
    const STARTS: usize = 300;
    let host = Host::start("again")?;
    let guest = host.guest("again")?;
    host.libvirtd.define(&guest)?;
    std::fs::remove_file(guest.image_path()).expect("removed");
    let starts = vec!["start again"; STARTS].join("; ");
    assert!(host.libvirtd.virsh(&[&starts]).is_err());
    let all = || host.past(&guest).map(|past| past.len() + past.iter().map(stands_for).sum::<usize>());
    wait_until("each is told or counted", PATIENCE, || all().is_ok_and(|all| all >= STARTS));
    assert_eq!(all()?, STARTS);
    let told = host.past(&guest)?;
    in_order(&told);
    tells(&told[0], "Cannot access storage file");
    assert!(told.len() < STARTS, "{}", told.len());
    // The next one is told as ever.
    start_refused(&host, &guest);
    wait_until("one more", PATIENCE, || all().is_ok_and(|all| all > STARTS));
    assert_eq!(host.status(&guest).as_deref(), Some("down"));
    Ok(())
}
