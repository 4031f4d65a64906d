//! What a guest tells of itself reaches managers, as long as its agent is there; and what managers have its agent do.

use std::fs::File;

use serde_json::{Value, json};
use whydown_lab::{LinuxGuest, Result, wait_until};

use crate::guests::{PATIENCE, ask, start, stats, up, wait_stats};
use whydown_lab::host::{says, told};

fn named(vm: &Value, name: &str) -> bool {
    vm["guestFQDN"] == name && vm["guestName"] == name
}

/// As it was before an agent spoke.
fn silent(vm: &Value) -> bool {
    vm["guestFQDN"] == ""
        && vm["guestIPs"] == ""
        && vm["username"] == "Unknown"
        && vm["session"] == "Unknown"
        && ["guestName", "guestOs", "netIfaces", "disksUsage", "guestOsInfo", "guestTimezone"]
            .iter()
            .all(|name| vm.get(name).is_none())
}

#[test]
fn a_guest_is_told_of_frozen_rebooted_and_shut_down_through_its_agent() -> Result<()> {
    let host = start("told")?;
    let disk = host.folder.path().join("data.img");
    File::create(&disk).and_then(|file| file.set_len(4 << 20)).expect("a file can be made");
    let guest = LinuxGuest::new(host.folder.path(), "t")?.machine(|guest| guest.data_disk(&disk));
    let id = guest.uuid_text().to_owned();
    host.libvirtd.create(&guest)?;
    let mut console = up(&host, &guest)?;

    // All that it tells.
    let vm = wait_stats(&host, "it tells its file systems", &guest, |vm| vm["disksUsage"].is_array());
    assert!(named(&vm, "t.guests.example"), "{vm:#}");
    assert_eq!((&vm["username"], &vm["session"]), (&json!("alice"), &json!("UserLoggedOn")), "{vm:#}");
    assert_eq!(vm["guestTimezone"], json!({"zone": "CET", "offset": 60}), "{vm:#}");
    let kernel = vm["guestOs"].as_str().expect("a kernel").to_owned();
    let system = json!({
        "type": "linux", "arch": "x86_64", "distribution": "Debian GNU/Linux", "version": "12",
        "codename": "bookworm", "kernel": kernel,
    });
    assert!(kernel.ends_with("-amd64") && vm["guestOsInfo"] == system, "{vm:#}");
    let ips: Vec<&str> = vm["guestIPs"].as_str().expect("text").split(' ').collect();
    assert!(
        ips[0] == "10.0.2.15" && !ips.iter().any(|ip| ip.starts_with("fe80") || *ip == "127.0.0.1"),
        "{vm:#}"
    );
    let card = vm["netIfaces"].as_array().expect("a list").iter().find(|card| card["name"] == "eth0");
    let card = card.expect("a network card");
    assert_eq!((&card["hw"], &card["inet"]), (&json!("52:54:00:00:00:01"), &json!(["10.0.2.15"])), "{vm:#}");
    let usage = &vm["disksUsage"][0];
    assert_eq!((&usage["path"], &usage["fs"]), (&json!("/data"), &json!("ext2")), "{vm:#}");
    let bytes = |name: &str| usage[name].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(bytes("used") < bytes("total") && bytes("total") > Some(1 << 20), "{vm:#}");
    let used = |vm: &Value| vm["memUsage"].as_str().and_then(|text| text.parse::<u64>().ok());
    wait_stats(&host, "its balloon tells", &guest, |vm| {
        // MOM reads all of these where the first is more than nothing.
        let names = ["mem_total", "mem_free", "mem_unused", "swap_in", "swap_out", "pageflt", "majflt"];
        let known = |name: &str| vm["memoryStats"][name].as_str().and_then(|text| text.parse::<u64>().ok());
        used(vm).is_some_and(|used| (1..100).contains(&used)) && {
            assert!(names.into_iter().all(|name| known(name).is_some()), "{vm:#}");
            assert!(known("mem_total") >= known("mem_free") && known("mem_free") > Some(0), "{vm:#}");
            assert!(
                known("mem_unused") < known("mem_total") && known("pageflt") >= known("majflt"),
                "{vm:#}"
            );
            true
        }
    });

    // Its file systems.
    let frozen = || {
        let command = "{\"execute\":\"guest-fsfreeze-status\"}";
        let said = host.libvirtd.virsh(&["qemu-agent-command", "t", command]).expect("the agent answers");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    };
    assert_eq!(host.call(&format!("freeze('{id}')"))?, 0);
    assert_eq!(frozen(), "{\"return\":\"frozen\"}");
    assert_eq!(host.call(&format!("thaw('{id}')"))?, 0);
    assert_eq!(frozen(), "{\"return\":\"thawed\"}");
    let overlay = host.folder.path().join("overlay.qcow2");
    let drives = format!("[{{'name': 'vda', 'path': '{}'}}]", overlay.display());
    let taken = ask(&host, &format!("snapshot('{id}', {drives})"))?;
    assert_eq!((&taken["status"]["code"], &taken["quiesce"]), (&json!(0), &json!(true)), "{taken}");
    assert_eq!(frozen(), "{\"return\":\"thawed\"}");

    // An agent that hangs is not believed for ever, one that is gone not at all.
    console.order("stop-agent")?;
    let vm = wait_stats(&host, "what it told is dropped", &guest, silent);
    assert_eq!((&vm["monitorResponse"], &vm["status"]), (&json!("0"), &json!("Up")), "{vm:#}");
    assert!(
        vm["statsAge"].as_str().is_some_and(|age| age.parse::<f64>().is_ok_and(|age| age < 30.0)),
        "{vm:#}"
    );
    console.order("continue-agent")?;
    wait_stats(&host, "it tells again", &guest, |vm| named(vm, "t.guests.example"));
    console.order("end-agent")?;
    wait_stats(&host, "nothing is left of it", &guest, silent);
    console.order("start-agent")?;
    wait_stats(&host, "another agent tells", &guest, |vm| named(vm, "t.guests.example"));

    // A reboot ends nothing.
    let run = host.run(&guest);
    let reboot = format!("shutdown('{id}', '30', '', True, '60', True)");
    assert_eq!(ask(&host, &reboot)?["status"]["message"], "Machine rebooting");
    console.wait_ready(2, PATIENCE)?;
    host.wait_status(&guest, "up");
    wait_until("it is of the same run", PATIENCE, || host.run(&guest) == run);
    assert_eq!(host.history(&guest)?, []);
    wait_stats(&host, "it tells again", &guest, |vm| named(vm, "t.guests.example"));

    // A shutdown through us is one through us, also when the agent does it.
    assert_eq!(host.call(&format!("shutdown('{id}', '30', 'bye', False, '60', True)"))?, 0);
    let ending = host.check(&guest, &told("admin-shutdown", 0, 6), "probable")?;
    assert!(says(&ending["because"], "asked whydown to have its agent shut it down"), "{ending:#}");
    assert!(!says(&ending["evidence"], "the power button was pressed"), "{ending:#}");
    assert!(!says(&ending["evidence"], "to force it off"), "{ending:#}");
    assert!(stats(&host, &guest).get("guestFQDN").is_none(), "a VM that is down tells nothing");
    Ok(())
}
