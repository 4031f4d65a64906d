//! Who asked for a shutdown, where there is an agent: a manager, or somebody in the guest.

use whydown_lab::{LinuxGuest, Result};

use crate::guests::{start, up, wait_stats};
use whydown_lab::host::{says, told};

#[test]
fn a_hung_agent_leaves_it_to_the_button_and_a_poweroff_in_the_guest_is_the_guests_own() -> Result<()> {
    let host = start("asked")?;
    let guest = LinuxGuest::new(host.folder.path(), "s")?;
    let id = guest.uuid_text().to_owned();
    host.libvirtd.define(&guest)?;
    host.libvirtd.start_domain("s")?;
    let mut console = up(&host, &guest)?;
    wait_stats(&host, "its agent is there", &guest, |vm| vm["guestName"] == "s.guests.example");
    console.order("stop-agent")?;
    assert_eq!(host.call(&format!("shutdown('{id}', '1', '', False, '60', False)"))?, 0);
    let ending = host.check(&guest, &told("admin-shutdown", 0, 6), "probable")?;
    for step in ["asked whydown to have its agent shut it down", "QEMU: the power button was pressed"] {
        assert!(says(&ending["evidence"], step), "{step}: {ending:#}");
    }

    assert_eq!(host.call(&format!("destroy('{id}')"))?, 0);
    host.libvirtd.start_domain("s")?;
    let mut console = up(&host, &guest)?;
    wait_stats(&host, "its agent is there", &guest, |vm| vm["guestName"] == "s.guests.example");
    console.order("poweroff")?;
    // Another client might have asked through the agent, which leaves no trace.
    let ending = host.check(&guest, &told("guest-poweroff", 0, 7), "probable")?;
    assert!(!says(&ending["evidence"], "asked whydown"), "{ending:#}");
    Ok(())
}
