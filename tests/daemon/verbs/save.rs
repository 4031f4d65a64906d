//! Saved, and let go on: also a VM that libvirt itself would not save, for it is not defined.

use whydown_lab::Result;

use crate::verbs::{ask, create};
use whydown_lab::host::{Host, PATIENCE, says, told};

#[test]
fn a_vm_saved_through_us_is_told_with_who_asked_and_create_lets_it_go_on() -> Result<()> {
    let host = Host::start("saved")?;
    let guest = host.guest("s")?;
    assert_eq!(create(&host, &guest)?, 0);
    drop(guest.serial(PATIENCE)?);
    host.wait_status(&guest, "up");
    let (id, first) = (guest.uuid_text(), host.run(&guest));
    let begun = ask(&host, &format!("server.hibernate('{id}', '')['status']['message']"))?;
    assert_eq!(begun, "Hibernation process starting");
    let ending = host.check(&guest, &told("managed-saved", 0, 5), "certain")?;
    assert!(says(&ending["because"], "asked whydown to save it to disk"), "{ending:#}");
    let told = ask(
        &host,
        &format!(
            "(lambda r: (r['status']['message'], r['progress'], r['migrationStats']['progress']))(server.migrateStatus('{id}'))"
        ),
    )?;
    assert_eq!(told, "('SaveState done', 100, 100)");

    assert_eq!(create(&host, &guest)?, 4, "its Down record stands");
    assert_eq!(host.call(&format!("destroy('{id}')"))?, 0);
    assert_eq!(create(&host, &guest)?, 0);
    host.wait_status(&guest, "up");
    assert!(host.run(&guest) > first);
    host.libvirtd.wait_state("s", Some("running (restored)"), PATIENCE)?;
    // The guest goes on where it was, and is what it was: not defined.
    guest.serial(PATIENCE)?.power_off()?;
    host.libvirtd.wait_state("s", None, PATIENCE)?;
    host.check(&guest, &told_poweroff(), "certain")?;
    Ok(())
}

fn told_poweroff() -> whydown_lab::host::Told {
    told("guest-poweroff", 0, 7)
}

#[test]
fn a_defined_vm_stays_defined_when_it_is_saved_and_let_go_on() -> Result<()> {
    let host = Host::start("kept")?;
    let guest = host.guest("k")?;
    drop(host.up_persistent(&guest)?);
    let id = guest.uuid_text();
    assert_eq!(host.call(&format!("migrate({{'vmId': '{id}', 'mode': 'file', 'method': 'online'}})"))?, 0);
    host.check(&guest, &told("managed-saved", 0, 5), "certain")?;
    assert_eq!(host.call(&format!("destroy('{id}')"))?, 0);
    assert_eq!(create(&host, &guest)?, 0);
    host.wait_status(&guest, "up");
    guest.serial(PATIENCE)?.power_off()?;
    host.libvirtd.wait_state("k", Some("shut off (shutdown)"), PATIENCE)?;
    Ok(())
}
