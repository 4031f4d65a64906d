//! Snapshots and the ways back to them: quick and slow ones, ones that fail, and those that libvirt cannot do.

use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use whydown_lab::{Guest, Signal, run, wait_for};

use super::{certain, none, probable};
use crate::case::{Case, PERSISTENT, TRANSIENT};
use crate::host::PATIENCE;
use crate::scene::Scene;

/// A second disk in a format that keeps snapshots inside.
fn with_snapshots(guest: Guest) -> Guest {
    let disk = guest.image_path().with_extension("qcow2");
    let xml = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{}'/>\
         <target dev='vdb' bus='virtio'/></disk>",
        disk.display()
    );
    guest.device_xml(&xml)
}

fn snapshot(scene: &mut Scene<'_>) -> Result<()> {
    scene.virsh("snapshot-create-as VM before")
}

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "snapshot-reverted",
            "another client takes a snapshot and goes back to it",
            |scene| {
                snapshot(scene)?;
                scene.virsh("snapshot-revert VM before")
            },
            |_| certain("snapshot-reverted"),
        )
        .guest(with_snapshots),
        Case::new(
            "snapshot-taken",
            "another client takes a snapshot",
            |scene| {
                snapshot(scene)?;
                Ok(scene.serial()?.answer(PATIENCE)?)
            },
            none,
        )
        .guest(with_snapshots)
        .only(PERSISTENT),
        Case::new(
            "snapshot-halted",
            "another client takes a snapshot that leaves it off",
            |scene| scene.virsh("snapshot-create-as VM off --halt"),
            |_| probable("snapshot-stopped"),
        )
        .guest(with_snapshots)
        .only(PERSISTENT),
        Case::new(
            "snapshot-reverted-to-off",
            "another client goes back to a snapshot of the VM when it was off",
            |scene| {
                scene.virsh("snapshot-create-as VM off")?;
                scene.start()?;
                scene.wait_up()?;
                scene.process = Some(scene.host.libvirtd.qemu(scene.name())?);
                scene.virsh("snapshot-revert VM off")
            },
            |_| probable("snapshot-stopped"),
        )
        .guest(with_snapshots)
        .from_off()
        .only(PERSISTENT),
        Case::new(
            "snapshot-reverted-slowly",
            "another client goes back to a snapshot, and QEMU needs more than 12 s to load it",
            revert_slowly,
            |_| certain("snapshot-reverted"),
        )
        .guest(with_snapshots),
        Case::new(
            "snapshot-spoiled",
            "another client goes back to a snapshot whose memory is spoiled: the run that was stopped for it",
            revert_in_vain,
            |_| probable("snapshot-stopped"),
        )
        .guest(with_snapshots),
        Case::new(
            "snapshot-spoiled-start",
            "another client goes back to a snapshot whose memory is spoiled: the start from it",
            revert_in_vain,
            |_| probable("start-failed"),
        )
        .guest(with_snapshots)
        .last_run()
        .message_has("while loading VM state"),
        Case::new(
            "snapshot-killed-at-loading",
            "another client goes back to a snapshot, and QEMU is killed while it loads it: the start from it",
            |scene| revert_held(scene, |qemu| Ok(qemu.signal(Signal::KILL)?)).map(drop),
            |_| probable("start-failed"),
        )
        .guest(with_snapshots)
        .last_run()
        .message_has("signal 9"),
        Case::new(
            "snapshot-external-reverted",
            "another client goes back to an external snapshot with memory, which libvirt before 9.9 refuses",
            |scene| {
                external(scene)?;
                match goes_back_to_external() {
                    true => scene.virsh("snapshot-revert VM apart"),
                    false => scene.virsh_refused("snapshot-revert VM apart"),
                }
            },
            |kind| if goes_back_to_external() { certain("snapshot-reverted") } else { none(kind) },
        )
        .guest(with_snapshots)
        .only(PERSISTENT),
        Case::new(
            "snapshot-external-restored",
            "another client destroys it and goes back to the memory of an external snapshot by hand",
            |scene| {
                external(scene)?;
                let file = scene.file("memory");
                scene.virsh("destroy VM")?;
                scene.virsh(&format!("restore {file}"))?;
                scene.wait_up()
            },
            |_| certain("outside-destroyed"),
        )
        .guest(with_snapshots),
        Case::new(
            "snapshot-external-then-poweroff",
            "another client takes an external snapshot with memory, then the guest powers itself off",
            |scene| {
                external(scene)?;
                scene.serial()?.answer(PATIENCE)?;
                Ok(scene.serial()?.power_off()?)
            },
            |_| certain("guest-poweroff"),
        )
        .guest(with_snapshots)
        .only(TRANSIENT),
    ]
}

/// Takes one with its memory in a file of its own.
fn external(scene: &Scene<'_>) -> Result<()> {
    let (memory, disk) = (scene.file("memory"), scene.file("apart"));
    scene.virsh(&format!(
        "snapshot-create-as VM apart --memspec file={memory},snapshot=external \
         --diskspec vda,snapshot=no --diskspec vdb,snapshot=external,file={disk}"
    ))
}

/// Whether this libvirt can go back to a snapshot that is not in the disk's own file.
fn goes_back_to_external() -> bool {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let said = run(std::process::Command::new("virsh").arg("--version"), PATIENCE);
        let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
        let mut numbers = said.trim().split('.').filter_map(|number| number.parse().ok());
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }) >= (9, 9)
}

/// Goes back, while the QEMU that loads the snapshot is held for longer than anything is waited for.
fn revert_slowly(scene: &mut Scene<'_>) -> Result<()> {
    let status = revert_held(scene, |qemu| Ok(qemu.signal(Signal::CONT)?))?;
    anyhow::ensure!(status.success(), "libvirt gave it up");
    scene.wait_up()
}

/// Goes back, holds the QEMU that loads the snapshot for 12 s, and then does something to it. Gives what became of the
/// client.
fn revert_held(
    scene: &mut Scene<'_>,
    then: fn(&whydown_lab::Qemu) -> Result<()>,
) -> Result<std::process::ExitStatus> {
    snapshot(scene)?;
    let before = scene.process.as_ref().context("it was never up")?.pid();
    let mut client = scene.virsh_begin("snapshot-revert VM before")?;
    let held = wait_for("the QEMU that loads the snapshot", PATIENCE, || {
        let next = scene.host.libvirtd.qemu(scene.name()).ok().filter(|qemu| qemu.pid() != before)?;
        next.signal(Signal::STOP).is_ok().then_some(next)
    })
    .map_err(anyhow::Error::from)
    .and_then(|next| {
        scene.let_pass(HELD)?;
        then(&next)
    });
    let ended = client.wait()?;
    held.map(|()| ended)
}

/// Longer than whydown waits for anything that comes at once.
const HELD: std::time::Duration = std::time::Duration::from_secs(12);

/// Spoils the snapshot's memory in its disk, and goes back to it.
fn revert_in_vain(scene: &mut Scene<'_>) -> Result<()> {
    snapshot(scene)?;
    let disk = scene.guest.image_path().with_extension("qcow2");
    let bytes = std::fs::read(&disk)?;
    let memory =
        bytes.windows(4).position(|four| four == b"QEVM").context("a snapshot's memory begins with it")?;
    std::fs::File::options().write(true).open(&disk)?.write_all_at(b"JUNK", memory as u64)?;
    scene.virsh_refused("snapshot-revert VM before")
}
