//! libvirt's embedded driver, opened by a virsh process.

use std::time::Duration;

use whydown_lab::{EmbedRoot, Guest, Result, lab_dir, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_guest_lives_a_whole_life_in_an_embedded_root() -> Result<()> {
    let directory = lab_dir()?;
    let root = EmbedRoot::new(directory.path().join("e"))?;
    let mut virsh = root.shell()?;
    let guest = Guest::new(directory.path(), "life")?;
    virsh.ask(&format!("define {}", guest.write_xml()?.display()))?;
    assert_eq!(virsh.ask("start life")?, "");
    let mut serial = guest.serial(LIMIT)?;
    assert_eq!(virsh.ask("domstate life --reason")?, "running (booted)");
    assert!(root.qemu("life")?.is_alive());
    serial.power_off()?;
    wait_until("shut off", LIMIT, || virsh.ask("domstate life --reason").unwrap() == "shut off (shutdown)");
    let log = std::fs::read_to_string(root.log_path("life")).unwrap();
    assert!(log.contains("shutting down, reason=shutdown"), "{log}");
    assert!(root.qemu("life").is_err());
    Ok(())
}

#[test]
fn a_guest_outlives_the_process_that_opened_the_root_but_not_the_root() -> Result<()> {
    let directory = lab_dir()?;
    let path = directory.path().join("e");
    let root = EmbedRoot::new(&path)?;
    let guest = Guest::new(directory.path(), "stays")?;
    let mut virsh = root.shell()?;
    virsh.ask(&format!("create {}", guest.write_xml()?.display()))?;
    let mut serial = guest.serial(LIMIT)?;
    drop(virsh);
    let qemu = root.qemu("stays")?;
    serial.answer(LIMIT)?;
    assert_eq!(root.shell()?.ask("domstate stays")?, "running");
    drop(root);
    assert!(!qemu.is_alive());
    assert!(!path.exists());
    Ok(())
}

#[test]
fn what_virsh_refuses_is_said_in_its_answer() -> Result<()> {
    let directory = lab_dir()?;
    let root = EmbedRoot::new(directory.path().join("e"))?;
    assert!(root.shell()?.ask("start nobody")?.contains("error: failed to get domain 'nobody'"));
    Ok(())
}
