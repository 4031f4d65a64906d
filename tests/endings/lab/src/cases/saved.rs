//! Saves and restores.

use anyhow::Result;

use super::{certain, none};
use crate::case::{Case, Kind, PERSISTENT};
use crate::host::PATIENCE;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "managed-save",
            "another client saves it, and libvirt keeps the image",
            |scene| scene.virsh("managedsave VM"),
            |_| certain("managed-saved"),
        )
        .only(PERSISTENT)
        .quick(),
        Case::new(
            "managed-save-restored",
            "another client saves it, and its next start resumes it",
            |scene| {
                scene.virsh("managedsave VM")?;
                scene.start()?;
                scene.wait_up()
            },
            |_| certain("managed-saved"),
        )
        .only(PERSISTENT),
        Case::new(
            "saved-to-file",
            "another client saves it to a file",
            |scene| {
                let file = scene.file("save");
                scene.virsh(&format!("save VM {file}"))
            },
            |_| certain("saved-to-file"),
        )
        .quick(),
        Case::new(
            "saved-to-file-restored",
            "another client saves it to a file and restores it from there",
            |scene| {
                let file = scene.file("save");
                scene.virsh(&format!("save VM {file}"))?;
                scene.virsh(&format!("restore {file}"))?;
                scene.wait_up()
            },
            |_| certain("saved-to-file"),
        ),
        Case::new(
            "save-refused",
            "another client saves it to where nothing can be written",
            |scene| {
                scene.virsh_refused("save VM /proc/no-such-place/file")?;
                Ok(scene.serial()?.answer(PATIENCE)?)
            },
            none,
        ),
        Case::new(
            "restore-failed",
            "its saved image is damaged, and whydown is asked to start it",
            restore_damaged,
            |_| super::probable("restore-failed"),
        )
        .only(PERSISTENT)
        .last_run()
        .asked(crate::case::Asked::Create),
    ]
}

/// Saves it, damages the image behind its header, and asks for the start.
fn restore_damaged(scene: &mut crate::scene::Scene<'_>) -> Result<()> {
    debug_assert_eq!(scene.kind, Kind::Persistent);
    scene.virsh("managedsave VM")?;
    scene.host.wait_status(&scene.guest, "down")?;
    scene.verb("destroy", "")?;
    let image = scene.host.libvirtd.directory().join(format!("lib/qemu/save/{}.save", scene.name()));
    let length = std::fs::metadata(&image)?.len();
    // The header and the document in it stay whole; QEMU's part is cut in the middle.
    std::fs::File::options().write(true).open(&image)?.set_len(length / 2)?;
    scene.create()
}
