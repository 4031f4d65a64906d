//! Live migration between two libvirtds, each with a whydownd of its own.

use anyhow::{Context, Result, ensure};
use whydown_lab::{Guest, Serial, Signal, wait_for};

use super::{certain, none, nothing, probable};
use crate::case::{Asked, Case, PERSISTENT, TRANSIENT, Venue};
use crate::host::PATIENCE;
use crate::scene::Scene;

/// Memory that takes long to send at one megabyte a second: the ROM of a network card.
fn large(guest: Guest) -> Guest {
    let rom = guest.image_path().with_extension("rom");
    guest.device_xml(&format!(
        "<interface type='user'><mac address='52:54:00:12:34:56'/><model type='e1000'/><rom file='{}'/></interface>",
        rom.display()
    ))
}

fn migrated(scene: &mut Scene<'_>) -> Result<()> {
    let line = scene.migration()?;
    scene.virsh(&line)?;
    let there = scene.there.context("a stage of two")?;
    there.wait_status(&scene.guest, "up")
}

/// Begins a slow migration and waits until it is in the middle; gives the command that waits for its end.
fn in_flight(scene: &mut Scene<'_>, more: &str) -> Result<std::process::Child> {
    let line = format!("{} --bandwidth 1 {more}", scene.migration()?);
    let begun = scene.virsh_begin(&line)?;
    scene.wait_in_flight()?;
    Ok(begun)
}

fn gone_wrong(begun: std::process::Child) -> Result<()> {
    ensure!(!outcome(begun)?.success(), "the migration was to fail");
    Ok(())
}

/// libvirt 7 never ends a migration whose QEMU was killed: whoever waits for it gives up.
fn outcome(mut begun: std::process::Child) -> Result<std::process::ExitStatus> {
    let ended = wait_for("the end of virsh migrate", PATIENCE, || begun.try_wait().transpose());
    if ended.is_err() {
        begun.kill()?;
        begun.wait()?;
    }
    Ok(ended??)
}

fn still_answers(scene: &mut Scene<'_>) -> Result<()> {
    Ok(scene.serial()?.answer(PATIENCE)?)
}

pub(super) fn cases() -> Vec<Case> {
    let pair = |name: &str, what: &str, act, expect| Case::new(name, what, act, expect).at(Venue::Pair);
    vec![
        pair("migrated", "another client migrates it", migrated, |_| certain("migrated-away"))
            .there(none)
            .quick(),
        pair(
            "migrated-then-poweroff-there",
            "another client migrates it, and the guest powers itself off on the destination",
            |scene| {
                migrated(scene)?;
                let there = scene.there.context("a stage of two")?;
                let line = there.folder.path().join(format!("{}.ser", scene.name()));
                Ok(Serial::connect(&line, PATIENCE)?.power_off()?)
            },
            |_| certain("migrated-away"),
        )
        .there(|_| certain("guest-poweroff")),
        pair(
            "migrated-through-whydown",
            "a manager migrates it through whydown",
            |scene| {
                let there = scene.there.context("a stage of two")?;
                let memory = there.folder.path().join(format!("{}.mig", scene.name()));
                let call = format!(
                    "migrate({{'vmId': '{}', 'mode': 'remote', 'method': 'online', 'dst': '{}', \
                     'dstqemu': 'unix://{}', 'xml': open('{}').read()}})",
                    scene.guest.uuid_text(),
                    there.libvirtd.uri(),
                    memory.display(),
                    scene.document_there()?,
                );
                ensure!(scene.host.call(&call)? == 0, "{call} was refused");
                there.wait_status(&scene.guest, "up")
            },
            |_| certain("migrated-away"),
        )
        .asked(Asked::Migrate)
        .only(TRANSIENT)
        .there(none),
        pair(
            "migration-without-a-way",
            "another client migrates it to where no way leads",
            |scene| {
                let line = scene.migration()?;
                let (from, _) = line.split_once(" --migrateuri ").context("it has one")?;
                let (_, xml) = line.split_once(" --xml ").context("it has one")?;
                scene.virsh_refused(&format!(
                    "{from} --migrateuri tcp://no-such-host.invalid:49300 --xml {xml}"
                ))?;
                still_answers(scene)
            },
            none,
        )
        .there(|_| certain("incoming-migration-failed")),
        pair(
            "migration-refused",
            "the destination cannot start its QEMU",
            |scene| {
                let document = scene.document_there()?;
                let text = std::fs::read_to_string(&document)?;
                let serial = format!("{}.ser", scene.name());
                std::fs::write(&document, text.replace(&serial, "no/such/folder.ser"))?;
                let line = scene.migration()?;
                // The document is written again by every use; this one must stay broken.
                std::fs::write(&document, text.replace(&serial, "no/such/folder.ser"))?;
                scene.virsh_refused(&line)?;
                still_answers(scene)
            },
            none,
        )
        .there(nothing),
        pair(
            "migration-cancelled",
            "another client cancels it in flight",
            |scene| {
                let begun = in_flight(scene, "")?;
                scene.virsh("domjobabort VM")?;
                gone_wrong(begun)?;
                still_answers(scene)
            },
            none,
        )
        .guest(large)
        .there(|_| certain("incoming-migration-failed"))
        .only(PERSISTENT),
        pair(
            "migration-destination-killed",
            "QEMU of the destination is killed in flight",
            |scene| {
                let begun = in_flight(scene, "")?;
                scene.process_there()?.signal(Signal::KILL)?;
                gone_wrong(begun)?;
                still_answers(scene)
            },
            none,
        )
        .guest(large)
        .there(|_| certain("incoming-migration-failed"))
        .only(TRANSIENT),
        pair(
            "migration-source-killed",
            "QEMU of the source is killed in flight",
            |scene| {
                let begun = in_flight(scene, "")?;
                scene.kill(Signal::KILL)?;
                gone_wrong(begun)
            },
            |_| probable("process-killed"),
        )
        .guest(large)
        .there(|_| certain("incoming-migration-failed"))
        .only(PERSISTENT),
        pair(
            "migration-poweroff-in-flight",
            "the guest powers itself off in flight",
            |scene| {
                let begun = in_flight(scene, "")?;
                scene.serial()?.power_off()?;
                gone_wrong(begun)
            },
            |_| certain("guest-poweroff"),
        )
        .guest(large)
        .there(|_| certain("incoming-migration-failed"))
        .only(TRANSIENT),
        pair(
            "migration-destroyed-in-flight",
            "another client destroys it in flight",
            |scene| {
                let begun = in_flight(scene, "")?;
                scene.virsh("destroy VM")?;
                gone_wrong(begun)
            },
            |_| certain("outside-destroyed"),
        )
        .guest(large)
        .there(|_| certain("incoming-migration-failed"))
        .only(PERSISTENT),
        pair(
            "migration-destroyed-there",
            "another client destroys what has come of it on the destination, in flight",
            |scene| {
                let begun = in_flight(scene, "")?;
                let there = scene.there.context("a stage of two")?;
                there.libvirtd.destroy(scene.name())?;
                gone_wrong(begun)?;
                still_answers(scene)
            },
            none,
        )
        .guest(large)
        .there(|_| certain("incoming-migration-failed"))
        .only(TRANSIENT),
        pair(
            "migrated-by-post-copy",
            "another client migrates it and lets it run on the destination before its memory is there",
            |scene| {
                let mut begun = in_flight(scene, "--postcopy")?;
                let switched = scene.virsh("migrate-postcopy VM");
                if switched.is_err() {
                    begun.kill()?;
                    begun.wait()?;
                    return switched;
                }
                let _ = scene.virsh("migrate-setspeed VM 1000 --postcopy");
                ensure!(outcome(begun)?.success(), "the migration failed");
                scene.there.context("a stage of two")?.wait_status(&scene.guest, "up")
            },
            |_| certain("migrated-away"),
        )
        .guest(large)
        .there(none)
        .only(TRANSIENT),
        pair(
            "post-copy-source-killed",
            "QEMU of the source is killed when the VM runs on the destination already, by post-copy",
            |scene| {
                let mut begun = in_flight(scene, "--postcopy --postcopy-bandwidth 1")?;
                if let Err(refused) = scene.virsh("migrate-postcopy VM") {
                    begun.kill()?;
                    begun.wait()?;
                    return Err(refused);
                }
                let there = scene.there.context("a stage of two")?;
                there
                    .recorder
                    .wait(scene.name(), 0, PATIENCE, |e| e.phrase().starts_with("Resumed Post-copy"))?;
                scene.kill(Signal::KILL)?;
                gone_wrong(begun)?;
                // Half of its memory will never come: whoever finds it so can only destroy it.
                let name = scene.name();
                wait_for("the destination gives it up", PATIENCE, || {
                    let state = there.libvirtd.state(name).ok()??;
                    state.contains("post-copy failed").then_some(())
                })?;
                Ok(there.libvirtd.destroy(name)?)
            },
            |_| probable("process-killed"),
        )
        .guest(large)
        .also("postcopy-failed")
        .there(|_| probable("postcopy-failed"))
        .only(PERSISTENT),
    ]
}
