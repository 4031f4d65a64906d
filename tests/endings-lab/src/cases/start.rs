//! Starts that fail: before QEMU, in QEMU, and just after; asked of whydown, and by others.

use anyhow::Result;
use whydown_lab::{Guest, Signal};

use super::{certain, nothing, probable};
use crate::case::{Asked, Case, Expect, Kind, PERSISTENT, TRANSIENT};
use crate::scene::Scene;

/// No program has this path.
const NO_EMULATOR: &str = "<emulator>/no/such/emulator</emulator>";

fn disk(guest: Guest, format: &str, ending: &str) -> Guest {
    let path = guest.image_path().with_extension(ending);
    let xml = format!(
        "<disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='{}'/>\
         <target dev='vdz' bus='virtio'/></disk>",
        path.display()
    );
    guest.device_xml(&xml)
}

fn missing_disk(guest: Guest) -> Guest {
    disk(guest, "raw", "not-there")
}

/// Its own boot image once more, writable: QEMU's lock on one of the two refuses the other.
fn locked_disk(guest: Guest) -> Guest {
    let data = guest.image_path().to_owned();
    guest.data_disk(data)
}

/// Not a disk of this format.
fn wrong_format(guest: Guest) -> Guest {
    disk(guest, "qcow2", "img")
}

/// libvirt keeps a domain that is defined, with the reason why it is off.
fn kept(kind: Kind) -> Expect {
    match kind {
        Kind::Persistent => probable("start-failed"),
        Kind::Transient => nothing(kind),
    }
}

fn refused(scene: &mut Scene<'_>) -> Result<()> {
    match scene.start() {
        Ok(()) => anyhow::bail!("the start was not refused"),
        Err(_) => Ok(()),
    }
}

/// The serial line on a TCP port that somebody else has.
fn taken_port(scene: &mut Scene<'_>) -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let xml = format!(
        "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='{port}'/><protocol type='raw'/></serial>"
    );
    scene.guest = scene.guest.clone().device_xml(&xml);
    scene.create()?;
    scene.host.wait_status(&scene.guest, "down")
}

pub(super) fn cases() -> Vec<Case> {
    let asked = |name: &str, what: &str| {
        Case::new(name, what, |scene| scene.create(), |_| certain("start-failed"))
            .from_off()
            .only(TRANSIENT)
            .asked(Asked::Create)
    };
    let by_others = |name: &str, what: &str, expect| Case::new(name, what, refused, expect).from_off();
    vec![
        asked("start-disk-missing", "whydown is asked to start it, and its disk is missing")
            .guest(missing_disk)
            .message_has("not-there")
            .quick(),
        asked("start-disk-locked", "whydown is asked to start it, and its disk is locked")
            .guest(locked_disk)
            .message_has("lock"),
        asked("start-wrong-format", "whydown is asked to start it, and its disk has another format")
            .guest(wrong_format)
            .message_has("qcow2"),
        asked("start-emulator-missing", "whydown is asked to start it, and there is no such emulator")
            .guest(|guest| guest.device_xml(NO_EMULATOR))
            .message_has("/no/such/emulator"),
        asked("start-bad-device", "whydown is asked to start it, and libvirt knows no such device")
            .guest(|guest| guest.device_xml("<controller type='nonsense'/>"))
            .message_has("nonsense"),
        Case::new(
            "start-port-taken",
            "whydown is asked to start it, and its port is taken",
            taken_port,
            |_| certain("start-failed"),
        )
        .from_off()
        .only(TRANSIENT)
        .asked(Asked::Create)
        .message_has("in use"),
        by_others(
            "start-by-others-disk-missing",
            "another client starts it, and its disk is missing: libvirt keeps only that it failed, and of a transient one nothing",
            kept,
        )
        .guest(missing_disk)
        .because("a start that whydown was not asked for failed"),
        by_others(
            "start-by-others-network-missing",
            "another client starts it, and its network does not exist: not even libvirt's log says so",
            kept,
        )
        .guest(|guest| guest.device_xml("<interface type='network'><source network='nowhere'/></interface>"))
        .only(PERSISTENT)
        .message_has("nowhere"),
        by_others("start-by-others-unknown-cpu", "another client starts it, and libvirt knows no such processor", kept)
            .guest(|guest| {
                guest.domain_xml(
                    "<cpu mode='custom' match='exact'><model fallback='forbid'>Nonesuch</model></cpu>",
                )
            })
            .only(PERSISTENT)
            .message_has("Nonesuch"),
        by_others(
            "start-by-others-wrong-format",
            "another client starts it, and QEMU refuses its disk",
            |_| probable("start-failed"),
        )
        .guest(wrong_format)
        .message_has("qcow2"),
        by_others(
            "start-by-others-emulator-missing",
            "another client defines and starts it without an emulator",
            nothing,
        )
        .guest(|guest| guest.device_xml(NO_EMULATOR))
        .only(TRANSIENT),
        by_others("start-by-others-bad-xml", "another client starts what libvirt cannot read", nothing)
            .guest(|guest| guest.device_xml("<controller type='nonsense'/>"))
            .only(TRANSIENT),
        Case::new(
            "killed-just-started",
            "QEMU is killed as soon as libvirt reports its start",
            |scene| {
                scene.start()?;
                Ok(scene.host.libvirtd.qemu(scene.name())?.signal(Signal::KILL)?)
            },
            |_| probable("process-killed"),
        )
        .from_off()
        .honest("process-lost", "the process was gone before anybody could begin to watch it"),
        Case::new("crashed-while-starting", "QEMU crashes while libvirt starts it", crash_in_start, |_| {
            probable("start-failed")
        })
        .from_off()
        .only(PERSISTENT)
        .honest("start-failed-silent", "QEMU left no word, and the client alone was told"),
    ]
}

/// Starts it while a thread waits for its process and crashes it before libvirt is done.
fn crash_in_start(scene: &mut Scene<'_>) -> Result<()> {
    let mut starting = scene.virsh_begin("start VM")?;
    let found = whydown_lab::wait_for("its process", crate::host::PATIENCE, || {
        scene.host.libvirtd.qemu(scene.name()).ok()
    });
    let crashed = found.and_then(|qemu| qemu.signal(Signal::SEGV));
    let ended = starting.wait()?;
    crashed?;
    anyhow::ensure!(!ended.success(), "it was up before it was crashed");
    Ok(())
}
