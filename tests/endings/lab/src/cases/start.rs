//! Starts that fail: before QEMU, in QEMU, and just after; asked of whydown, and by others.

use std::net::TcpListener;
use std::sync::OnceLock;

use anyhow::Result;
use whydown_lab::{Guest, Signal};

use super::{certain, nothing, probable};
use crate::case::{Asked, Away, Case, Expect, Kind, PERSISTENT, TRANSIENT, Venue};
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
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    let xml = format!(
        "<serial type='tcp'><source mode='bind' host='127.0.0.1' service='{port}'/><protocol type='raw'/></serial>"
    );
    scene.guest = scene.guest.clone().device_xml(&xml);
    scene.create()?;
    scene.host.wait_status(&scene.guest, "down")
}

/// Why libvirt, or QEMU, refuses a start, and words of theirs that must be told.
struct Lack {
    name: &'static str,
    what: &'static str,
    make: fn(Guest) -> Guest,
    words: &'static str,
}

/// What a start by another client, and one by libvirt itself when it starts, may lack.
const LACKS: [Lack; 5] = [
    Lack { name: "disk-gone", what: "its disk is not there", make: missing_disk, words: "not-there" },
    Lack {
        name: "network-missing",
        what: "its network does not exist: not even libvirt's log says so",
        make: |guest| guest.device_xml("<interface type='network'><source network='nowhere'/></interface>"),
        words: "nowhere",
    },
    Lack {
        name: "network-off",
        what: "its network is not active",
        make: |guest| guest.device_xml("<interface type='network'><source network='lab-off'/></interface>"),
        words: "network 'lab-off' is not active",
    },
    Lack {
        name: "unknown-cpu",
        what: "libvirt knows no such processor",
        make: |guest| {
            guest.domain_xml(
                "<cpu mode='custom' match='exact'><model fallback='forbid'>Nonesuch</model></cpu>",
            )
        },
        words: "Nonesuch",
    },
    Lack {
        name: "vnc-port-taken",
        what: "the port of its screen is taken",
        make: |guest| {
            let port = taken_by_the_lab();
            let screen = format!("<graphics type='vnc' port='{port}' autoport='no' listen='127.0.0.1'/>");
            guest.device_xml(&screen)
        },
        words: "Address already in use",
    },
];

/// A port that this process holds as long as it runs. Ports that the system chooses are above those of screens.
fn taken_by_the_lab() -> u16 {
    static TAKEN: OnceLock<TcpListener> = OnceLock::new();
    let taken = TAKEN.get_or_init(|| TcpListener::bind("127.0.0.1:0").expect("loopback has a port"));
    taken.local_addr().expect("it is bound").port()
}

const NETWORK: &str = "<network><name>lab-off</name><bridge name='lab-off0'/></network>";

/// Defines the network that is not active, where the guest needs it.
fn refused_for_want(scene: &mut Scene<'_>) -> Result<()> {
    if scene.guest.xml().contains("'lab-off'") {
        let document = scene.file("network.xml");
        std::fs::write(&document, NETWORK)?;
        scene.virsh(&format!("net-define {document}"))?;
    }
    refused(scene)
}

/// The same while libvirtd is not there: it reads what is defined when it starts.
fn defined_beside(scene: &mut Scene<'_>) -> Result<()> {
    if scene.guest.xml().contains("'lab-off'") {
        let networks = scene.host.libvirtd.directory().join("etc/qemu/networks");
        std::fs::create_dir_all(&networks)?;
        std::fs::write(networks.join("lab-off.xml"), NETWORK)?;
    }
    Ok(())
}

/// Starts that libvirt refuses to others: to a client, and when it starts what should run when it does.
fn by_virsh_and_by_itself() -> Vec<Case> {
    let mut all = Vec::new();
    for Lack { name, what, make, words } in LACKS {
        let by_virsh = format!("start-by-others-{name}");
        let case =
            Case::new(&by_virsh, &format!("another client starts it, and {what}"), refused_for_want, |_| {
                probable("start-failed")
            });
        all.push(case.from_off().guest(make).only(PERSISTENT).message_has(words));
        let by_itself = format!("autostart-{name}");
        let what = format!("libvirtd starts it when it starts itself, and {what}");
        let case = Case::new(&by_itself, &what, defined_beside, |_| probable("start-failed"));
        let case = case.from_off().guest(make).only(PERSISTENT).message_has(words);
        all.push(case.at(Venue::Away(Away::Autostarts)));
    }
    all
}

pub(super) fn cases() -> Vec<Case> {
    let asked = |name: &str, what: &str| {
        Case::new(name, what, |scene| scene.create(), |_| certain("start-failed"))
            .from_off()
            .only(TRANSIENT)
            .asked(Asked::Create)
    };
    let by_others = |name: &str, what: &str, expect| Case::new(name, what, refused, expect).from_off();
    let mut all = vec![
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
    ];
    all.extend(by_virsh_and_by_itself());
    all
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
