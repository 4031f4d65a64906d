//! A guest whose agent lies in everything harms nobody but itself.

use serde_json::Value;
use whydown_lab::{Agent, LinuxGuest, Result};

use crate::guests::{ask, start, up, wait_stats};
use whydown_lab::host::{says, told};

#[test]
fn an_agent_that_lies_is_cut_and_tamed_and_cannot_hold_a_shutdown_off() -> Result<()> {
    let host = start("liar")?;
    let guest = LinuxGuest::new(host.folder.path(), "x")?.agent(Agent::Liar);
    let id = guest.uuid_text().to_owned();
    host.libvirtd.create(&guest)?;
    let mut console = up(&host, &guest)?;
    let vm = wait_stats(&host, "what it tells of interfaces", &guest, |vm| vm["netIfaces"].is_array());
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let tame = |value: &Value| {
        let text = text(value);
        text.len() <= 255 && !text.chars().any(char::is_control)
    };
    for name in ["guestFQDN", "guestName", "guestOs", "guestIPs", "username"] {
        assert!(tame(&vm[name]), "{name}: {vm:#}");
    }
    assert_eq!(vm["guestIPs"], "192.0.2.1", "addresses must be addresses, and each is told once: {vm:#}");
    let interfaces = vm["netIfaces"].as_array().expect("a list");
    assert!(interfaces.len() <= 64, "{}", interfaces.len());
    assert!(interfaces.iter().all(|one| tame(&one["name"]) && one["hw"] == ""), "{vm:#}");
    assert!(vm.get("disksUsage").is_none_or(|usage| usage.as_array().is_some_and(|all| all.len() <= 64)));
    assert!(vm.get("guestTimezone").is_none(), "no clock is 68 years ahead: {vm:#}");
    assert!(vm.to_string().len() < 100_000);
    // The whole host's reply is as good as ever.
    assert_eq!(ask(&host, "getAllVmStats()")?["statsList"][0]["vmId"], *id);

    // It takes every order and obeys none.
    console.order("ignore-button")?;
    assert_eq!(host.call(&format!("shutdown('{id}', '1', '', False, '1', True)"))?, 0);
    let ending = host.check(&guest, &told("admin-forced-off", 0, 6), "certain")?;
    for step in [
        "asked whydown to have its agent shut it down",
        "QEMU: the power button was pressed",
        "asked whydown to force it off",
    ] {
        assert!(says(&ending["evidence"], step), "{step}: {ending:#}");
    }
    Ok(())
}
