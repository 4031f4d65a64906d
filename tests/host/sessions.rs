//! VMs in the session of somebody who logs out: libvirtd was started from it, and its QEMUs are in it.

use whydown_lab::{Guest, Result, wait_until};

use super::down::says;
use super::world::{PATIENCE, World};

/// Everybody is let in, and logind knows of it; the class of the session stands behind it. Background ones it lets be.
const LOGIN: &str = "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_permit.so\n\
                     session required pam_systemd.so class=";

/// Has libvirtd be none of the host's own services.
fn by_hand(world: &World) -> Result<()> {
    let host = &world.host;
    for (service, class) in [("lab-login", "user"), ("systemd-user", "manager")] {
        host.write_inside(&format!("/etc/pam.d/{service}"), &format!("{LOGIN}{class}\n"))?;
    }
    host.write_inside(
        "/etc/systemd/logind.conf.d/zz-kill.conf",
        "[Login]\nKillUserProcesses=yes\nKillExcludeUsers=nobody\n",
    )?;
    host.run(&["systemctl", "restart", "systemd-logind"])?;
    for unit in
        ["libvirt-guests", "libvirtd.socket", "libvirtd-ro.socket", "libvirtd-admin.socket", "libvirtd"]
    {
        host.run(&["systemctl", "stop", unit])?;
    }
    Ok(())
}

/// Starts libvirtd by this command of systemd, and waits until it answers and whydown has found it.
fn start_libvirtd(world: &World, command: &[&str]) -> Result<()> {
    let host = &world.host;
    wait_until("libvirtd has ended", PATIENCE, || host.run(&["pgrep", "-x", "libvirtd"]).is_err());
    // One that sees no control groups leaves QEMU where it was started, as an unprivileged one does.
    let blind = "umount -l /sys/fs/cgroup && exec /usr/sbin/libvirtd";
    let program = ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", blind];
    if let Err(error) = host.run(&[command, &program].concat()) {
        panic!("{error}: {}", host.said());
    }
    wait_until("libvirtd answers", PATIENCE, || host.run(&["virsh", "-q", "list"]).is_ok());
    wait_until("whydown has found it", PATIENCE, || {
        world.whydown(&["health"]).is_ok_and(|health| health["link_lost_since"].is_null())
    });
    Ok(())
}

/// From a login.
fn login(world: &World, unit: &str) -> Result<String> {
    let name = format!("--unit={unit}");
    let command = [
        "systemd-run",
        "--quiet",
        &name,
        "--property=User=root",
        "--property=PAMName=lab-login",
        "--no-block",
    ];
    start_libvirtd(world, &command)?;
    let sessions = world.host.run(&["loginctl", "list-sessions", "--no-legend"])?;
    Ok(sessions.split_whitespace().next().expect("a session").to_owned())
}

/// The unit in which its QEMU runs.
fn group_of(world: &World, guest: &Guest) -> Result<String> {
    let file = format!("/run/libvirt/qemu/{}.pid", guest.name());
    world.host.run(&["sh", "-c", &format!("cat /proc/$(cat {file})/cgroup")])
}

#[test]
fn a_vm_that_ends_with_the_session_of_its_user_is_no_shutdown_of_the_host() -> Result<()> {
    let world = World::start()?;
    by_hand(&world)?;

    // An administrator ends the session.
    let session = login(&world, "first")?;
    let (guest, _line) = world.up("logged-in", true)?;
    let scope = format!("session-{session}.scope");
    assert!(group_of(&world, &guest)?.contains(&scope), "{}", group_of(&world, &guest)?);
    world.host.run(&["loginctl", "terminate-session", &session])?;
    let session = login(&world, "second")?;
    world.wait_settled(&[&guest]);
    let ending = world.expect(&guest, 1, ["process-terminated", "probable", "E11"]);
    // The scope of a session sends SIGHUP beside SIGTERM.
    says(&ending, "because", "from process 1, \"/lib/systemd/systemd\": the host's init");
    says(&ending, "because", "the host was not going down");
    says(&ending, "because", &format!("systemd was told to stop \"{scope}\""));

    // Who had logged in logs out: the first process of the session ends, and logind ends the rest (KillUserProcesses).
    let _line = world.up_again(&guest)?;
    let scope = format!("session-{session}.scope");
    assert!(group_of(&world, &guest)?.contains(&scope), "{}", group_of(&world, &guest)?);
    let leader = world.host.run(&["loginctl", "show-session", "--property=Leader", "--value", &session])?;
    world.host.run(&["kill", &leader])?;
    wait_until("QEMU has ended", PATIENCE, || world.host.run(&["pgrep", "-f", "guest=logged-in"]).is_err());
    login(&world, "third")?;
    world.wait_settled(&[&guest]);
    let ending = world.expect(&guest, 2, ["process-terminated", "probable", "E11"]);
    says(&ending, "because", "the host was not going down");

    // The manager of that user's own services ends them, as the user is thrown out.
    world.host.run(&["loginctl", "terminate-user", "root"])?;
    world.host.run(&["systemctl", "start", "user@0.service"])?;
    let of_user = ["env", "XDG_RUNTIME_DIR=/run/user/0", "systemd-run", "--user", "--quiet", "--unit=mine"];
    start_libvirtd(&world, &of_user)?;
    let _line = world.up_again(&guest)?;
    assert!(group_of(&world, &guest)?.contains("/user@0.service/"), "{}", group_of(&world, &guest)?);
    world.host.run(&["systemctl", "stop", "user@0.service"])?;
    wait_until("QEMU has ended", PATIENCE, || world.host.run(&["pgrep", "-f", "guest=logged-in"]).is_err());
    login(&world, "fourth")?;
    world.wait_settled(&[&guest]);
    let ending = world.expect(&guest, 3, ["process-terminated", "probable", "E11"]);
    says(&ending, "because", "the service manager of a user");
    Ok(())
}
