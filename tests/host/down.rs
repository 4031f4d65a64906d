//! The host goes down and comes up again: each VM that ran has one ending, told truly.
//!
//! libvirt-guests and systemd do all of it; whydown only listens, is stopped with the others, and looks when it is back.

use whydown_lab::{GoDown, Guest, Result, wait_until};

use super::world::{PATIENCE, World};

/// Its configuration, and how long it waits for a guest.
pub fn libvirt_guests(world: &World, on_shutdown: &str) -> Result<()> {
    let text = format!("ON_BOOT=ignore\nON_SHUTDOWN={on_shutdown}\nSHUTDOWN_TIMEOUT=3\n");
    world.host.write_inside("/etc/default/libvirt-guests", &text)
}

/// Who says that the host goes down where logind is asked to have it go down, and where it is not.
const LOGIND: &str = "the host was going down: logind has announced a shutdown";
const SYSTEMD: &str = "the host was going down: systemd is stopping the system";

/// What whydown's log says when it hears of it.
const HEARD: &str = "the host is going down: ";
const CALLED_OFF: &str = "the host is not going down any more";

/// Down, up again, and all that these guests left is closed. That it goes down must have been heard on the bus before
/// anything ended.
fn down_and_up(world: &mut World, how: GoDown, guests: &[&Guest]) -> Result<()> {
    let before = said(world)?.len();
    world.host.go_down(how)?;
    world.host.boot()?;
    world.wait_settled(guests);
    let lines = &said(world)?[before..];
    let heard = lines.iter().position(|line| line.contains(HEARD));
    let ended = lines.iter().position(|line| line.contains("ended: "));
    assert!(heard.is_some() && heard < ended, "{heard:?} {ended:?}: {lines:#?}");
    Ok(())
}

/// All lines that whydown has logged since it was installed.
fn said(world: &World) -> Result<Vec<String>> {
    let said = world.host.run(&["journalctl", "--no-pager", "--quiet", "--output=cat", "--unit=whydown"])?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// A shutdown that logind announces and cannot begin: it is held up, and its target is taken away meanwhile.
fn shut_down_in_vain(world: &World) -> Result<()> {
    let host = &world.host;
    host.write_inside("/etc/systemd/logind.conf.d/zz-slow.conf", "[Login]\nInhibitDelayMaxSec=5s\n")?;
    host.run(&["systemctl", "restart", "systemd-logind"])?;
    host.run(&[
        "systemd-run",
        "--unit=holds-up",
        "systemd-inhibit",
        "--what=shutdown",
        "--mode=delay",
        "sleep",
        "600",
    ])?;
    wait_until("somebody holds up shutdowns", PATIENCE, || {
        host.run(&["systemd-inhibit", "--list"]).is_ok_and(|list| list.contains("systemd-inhibit"))
    });
    let manager = ["org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager"];
    host.run(&[&["busctl", "call"], &manager[..], &["PowerOff", "b", "false"]].concat())?;
    host.run(&["systemctl", "mask", "--runtime", "poweroff.target"])?;
    wait_until("logind gives up", PATIENCE, || {
        said(world).is_ok_and(|lines| lines.iter().any(|line| line.contains(CALLED_OFF)))
    });
    host.run(&["systemctl", "stop", "holds-up"])?;
    host.run(&["systemctl", "unmask", "--runtime", "poweroff.target"])?;
    std::fs::remove_file(host.path("/etc/systemd/logind.conf.d/zz-slow.conf")).expect("it was written");
    host.run(&["systemctl", "restart", "systemd-logind"])?;
    Ok(())
}

#[test]
fn vms_that_end_with_their_host_are_told_so_once_each() -> Result<()> {
    let mut world = World::start()?;

    // libvirt-guests presses the power button of one after the other; who ignores it is ended with its scope.
    libvirt_guests(&world, "shutdown")?;
    let (obeys, _line) = world.up("obeys", true)?;
    let (fleeting, _line) = world.up("fleeting", false)?;
    let (stubborn, mut line) = world.up("stubborn", true)?;
    line.ignore_button()?;
    line.answer(PATIENCE)?;
    down_and_up(&mut world, GoDown::PowerOff, &[&obeys, &fleeting, &stubborn])?;
    for guest in [&obeys, &fleeting] {
        let ending = world.expect(guest, 1, ["host-shutdown", "probable", "G6"]);
        // The host's shutdown presses it: it speaks for no other cause.
        says(&ending, "evidence", "QEMU: the power button was pressed");
        assert_eq!(ending["despite"], serde_json::json!([]), "{ending:#}");
        says(&ending, "because", LOGIND);
    }
    let ending = world.expect(&stubborn, 1, ["host-shutdown", "probable", "H2"]);
    says(&ending, "evidence", "ended by signal 15 from process 1, \"/lib/systemd/systemd\": the host's init");
    assert_eq!(ending["ended_not_before"], serde_json::Value::Null, "its end was heard: {ending:#}");

    // It saves what is persistent; the rest is ended with its scope.
    libvirt_guests(&world, "suspend")?;
    let _line = world.up_again(&obeys)?;
    let (passing, _line) = world.up("passing", false)?;
    down_and_up(&mut world, GoDown::Signal, &[&obeys, &passing])?;
    world.expect(&obeys, 2, ["managed-saved", "certain", "V1"]);
    let ending = world.expect(&passing, 1, ["host-shutdown", "probable", "H2"]);
    says(&ending, "because", SYSTEMD);

    // By hand, while the host stays up: a client of libvirt like any other, even after shutdowns that came to nothing.
    libvirt_guests(&world, "shutdown")?;
    let _line = world.up_again(&obeys)?;
    let before = said(&world)?.iter().filter(|line| line.contains(HEARD)).count();
    // As `shutdown`, which is a package of its own and another name of systemctl.
    for argument in ["+1", "-c"] {
        world.host.run(&["bash", "-c", "exec -a shutdown systemctl \"$1\"", "bash", argument])?;
    }
    assert_eq!(said(&world)?.iter().filter(|line| line.contains(HEARD)).count(), before);
    shut_down_in_vain(&world)?;
    assert_eq!(said(&world)?.iter().filter(|line| line.contains(HEARD)).count(), before + 1);
    world.host.run(&["/usr/lib/libvirt/libvirt-guests.sh", "stop"])?;
    world.wait_settled(&[&obeys]);
    let ending = world.expect(&obeys, 3, ["other-shutdown", "probable", "G7"]);
    says(&ending, "evidence", LOGIND);
    says(&ending, "evidence", "its shutdown was called off");

    // Its list of guests is left, so that it takes its work for done when the host does go down.
    assert!(world.host.path("/var/lib/libvirt/libvirt-guests").exists());
    let _line = world.up_again(&obeys)?;
    down_and_up(&mut world, GoDown::Halt, &[&obeys])?;
    world.expect(&obeys, 4, ["host-shutdown", "probable", "H2"]);

    // Nobody shuts the guests down.
    world.host.run(&["systemctl", "disable", "--now", "libvirt-guests"])?;
    let _line = world.up_again(&obeys)?;
    let _line = world.up_again(&stubborn)?;
    down_and_up(&mut world, GoDown::Reboot, &[&obeys, &stubborn])?;
    let ending = world.expect(&obeys, 5, ["host-shutdown", "probable", "H2"]);
    says(&ending, "because", LOGIND);
    world.expect(&stubborn, 2, ["host-shutdown", "probable", "H2"]);

    // Nobody shuts anything down.
    let _line = world.up_again(&obeys)?;
    let (last, _line) = world.up("last", false)?;
    let made = [made_of(&world, &obeys)?, made_of(&world, &last)?];
    world.host.cut_power()?;
    world.host.boot()?;
    world.wait_settled(&[&obeys, &last]);
    // Managers that never saw them end are told of them, with what they were made of.
    assert_eq!([made_of(&world, &obeys)?, made_of(&world, &last)?], made);
    for (guest, count) in [(&obeys, 6), (&last, 1)] {
        let ending = world.expect(guest, count, ["host-lost", "probable", "N6"]);
        says(&ending, "because", "the host has booted anew since");
    }
    // What was told before the power cut is still there, and nothing was told twice.
    for (guest, count) in [(&fleeting, 1), (&stubborn, 2), (&passing, 1)] {
        assert_eq!(world.past(guest).len(), count, "{}", guest.name());
    }
    Ok(())
}

/// What managers are told that a VM is made of, by the full form of `list` on the unix socket: its memory, its processors and its
/// devices, once it is told. How large images are is measured while it runs, and is nothing that it is made of.
fn made_of(world: &World, guest: &Guest) -> Result<Vec<String>> {
    const ASK: &str = r#"use IO::Socket::UNIX;
        my $socket = IO::Socket::UNIX->new(Peer => "/run/whydown/whydown.sock") or die "no socket: $!";
        my $call = "<?xml version='1.0'?><methodCall><methodName>list</methodName><params>"
            . "<param><value><string>true</string></value></param>"
            . "<param><value><array><data><value><string>$ARGV[0]</string></value></data></array></value></param>"
            . "</params></methodCall>";
        print $socket "POST /RPC2 HTTP/1.0\r\nHost: localhost\r\nContent-Type: text/xml\r\n"
            . "Content-Length: " . length($call) . "\r\n\r\n$call";
        print while <$socket>;"#;
    let mut told = Vec::new();
    wait_until("managers are told of it", PATIENCE, || {
        let reply = world.host.run(&["perl", "-e", ASK, guest.uuid_text()]).unwrap_or_default();
        let of = |name: &str, end: &str| {
            let (_, value) = reply.split_once(&format!("<name>{name}</name>"))?;
            value.split_once(end).map(|(value, _)| value.to_owned())
        };
        let all = [of("memSize", "</member>"), of("smp", "</member>"), of("devices", "</array>")];
        let measured = |line: &&str| line.contains("apparentsize") || line.contains("truesize");
        let kept = |part: String| part.lines().filter(|line| !measured(line)).collect();
        told = all.into_iter().flatten().map(kept).collect();
        told.len() == 3
    });
    Ok(told)
}

/// Fails unless a piece of this list has these words in it.
#[track_caller]
pub fn says(ending: &serde_json::Value, list: &str, words: &str) {
    let pieces = ending[list].as_array().expect("a list");
    let said = pieces.iter().any(|piece| piece["what"].as_str().is_some_and(|what| what.contains(words)));
    assert!(said, "no {words:?} in {list}: {ending:#}");
}

/// What systemd ends while its host stays up: a machine's scope by hand, and a machine by its manager.
#[test]
fn a_machine_that_systemd_ends_is_no_shutdown_of_the_host() -> Result<()> {
    let world = World::start()?;
    let (guest, _line) = world.up("scoped", true)?;
    let scope = || -> Result<String> {
        let units =
            world.host.run(&["systemctl", "list-units", "--plain", "--no-legend", "machine-qemu*.scope"])?;
        Ok(units.split_whitespace().next().expect("the scope of the machine").to_owned())
    };
    let stopped = scope()?;
    world.host.run(&["systemctl", "stop", &stopped])?;
    world.wait_settled(&[&guest]);
    let ending = world.expect(&guest, 1, ["process-terminated", "certain", "E11"]);
    says(&ending, "because", "ended by signal 15 from process 1, ");
    says(&ending, "because", "the host was not going down");
    says(&ending, "because", &format!("systemd was told to stop \"{stopped}\""));

    let _line = world.up_again(&guest)?;
    let stopped = scope()?;
    // As `machinectl terminate`, which is a package of its own.
    let manager =
        ["org.freedesktop.machine1", "/org/freedesktop/machine1", "org.freedesktop.machine1.Manager"];
    let call = |what: &[&str]| world.host.run(&[&["busctl", "call"], &manager[..], what].concat());
    let machines = call(&["ListMachines"])?;
    call(&[
        "TerminateMachine",
        "s",
        machines.split('"').find(|name| name.starts_with("qemu-")).expect("a machine"),
    ])?;
    world.wait_settled(&[&guest]);
    let ending = world.expect(&guest, 2, ["process-terminated", "certain", "E11"]);
    says(&ending, "because", &format!("systemd was told to stop \"{stopped}\""));
    Ok(())
}
