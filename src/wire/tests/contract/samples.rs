//! Pictures of a host to make replies from, and a reader that is not ours.

use std::collections::BTreeMap;
use std::sync::Arc;

use dxr::Value;
use whydown_core::cause::Cause;
use whydown_core::evidence::OperationKind;
use whydown_core::guest::{GuestAccount, GuestFileSystem, GuestInterface, GuestSystem, GuestUser, TimeZone};
use whydown_core::hypervisor::WatchdogAction;
use whydown_core::id::{DomainId, RunId};
use whydown_core::lifecycle::Reply;
use whydown_core::record::{Certainty, Earlier, Ending, Verdict, When};
use whydown_core::sample::{
    CpuTime, Devices, Disk, DiskCounters, DiskRates, Graphics, Image, Memory, Nic, NicCounters, NicRates,
    Operations, Paging, PagingRates, Part, Rates, Sample, Samples, Traffic, Usage,
};
use whydown_core::snapshot::{DomainPublic, Link, Snapshot, Status};
use whydown_core::time::Wall;
use whydown_wire::{
    Board, Bodies, Generation, HostFacts, HostStats, Ksm, LinkKind, LinkTraffic, NetLink, Package, Range,
    VmCounts, Work, WorkKind, act_reply, cancel_reply, capabilities, create_reply, destroy_reply, hardware,
    host_stats, migration_create_reply, shutdown_reply, snapshot_reply, work_begun_reply, work_reply,
};

/// When all samples are looked at: 2016-02-29 12:00 UTC.
pub const NOW: Wall = Wall(1_456_747_200_000_000_000);

pub fn id(number: u32) -> DomainId {
    let mut bytes = *b"\x66\x95\xeb\x01\xf6\xa4\x43\x04\x89\xaa\x97\xf2\0\0\0\0";
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    DomainId::from_bytes(bytes)
}

pub fn vm(number: u32, status: Status) -> DomainPublic {
    DomainPublic {
        domain: id(number),
        name: format!("vm{number}"),
        run: RunId(40 + u64::from(number)),
        status,
        started: Wall(NOW.0 - 3_600_000_000_000),
        pid: Some(4000 + number),
        io_error: None,
        paused_by: None,
        watchdog: None,
        ending: None,
        durable: true,
        status_time: 1_456_747_100_000 + i64::from(number),
        made: None,
    }
}

pub fn down(number: u32, cause: Cause) -> DomainPublic {
    let row = cause.row();
    let ending = Ending {
        run: RunId(40 + u64::from(number)),
        domain: id(number),
        name: format!("vm{number}"),
        started: Wall(NOW.0 - 3_600_000_000_000),
        ended: When::At(Wall(NOW.0 - 60_000_000_000)),
        verdict: Verdict {
            cause,
            certainty: Certainty::Certain,
            row: "S4".into(),
            because: vec![0],
            despite: vec![],
        },
        exit_code: row.exit_code,
        exit_reason: row.exit_reason,
        message: cause.message(Some("internal error: x")),
        evidence: vec![],
        acknowledged: None,
        earlier: Vec::new(),
    };
    DomainPublic { pid: None, ending: Some(Arc::new(ending)), ..vm(number, Status::Down) }
}

/// One that was told as the first and is known as the other since.
pub fn corrected(number: u32, first: Cause, truth: Cause) -> DomainPublic {
    let (told, row) = (down(number, first), truth.row());
    let ending = told.ending.as_deref().expect("it is down");
    let same_code = row.exit_code == ending.exit_code;
    let corrected = Ending {
        verdict: Verdict { cause: truth, ..ending.verdict.clone() },
        exit_reason: if same_code { row.exit_reason } else { ending.exit_reason },
        message: truth.message(None),
        earlier: vec![Earlier {
            until: NOW,
            verdict: ending.verdict.clone(),
            exit_reason: ending.exit_reason,
            message: ending.message.clone(),
            facts: 0,
            changed: vec![],
        }],
        ..ending.clone()
    };
    DomainPublic { ending: Some(Arc::new(corrected)), ..told }
}

pub fn snapshot(domains: impl IntoIterator<Item = DomainPublic>) -> Snapshot {
    let domains = domains.into_iter().map(|domain| (domain.domain, Arc::new(domain))).collect();
    Snapshot { generation: 1, link: Link::Up, settled: true, domains }
}

pub fn bodies(snapshot: Snapshot) -> Arc<Bodies> {
    bodies_for(Generation::Common, snapshot)
}

/// With what is known of each VM: all of every third, little of the next, nothing of the last.
pub fn bodies_for(generation: Generation, snapshot: Snapshot) -> Arc<Bodies> {
    let known = |(place, domain): (usize, &Arc<DomainPublic>)| {
        let usage = match place % 3 {
            0 => usage(domain.run),
            1 => little(domain.run),
            _ => return None,
        };
        Some((domain.domain, Arc::new(usage)))
    };
    let domains = snapshot.domains.values().enumerate().filter_map(known).collect();
    let samples = Samples { domains, ..Samples::default() };
    Board::new(generation).update(&Arc::new(snapshot), &Arc::new(samples))
}

/// All that can be known.
pub fn usage(run: RunId) -> Usage {
    let devices = devices();
    Usage {
        run,
        fingerprint: Some(devices.fingerprint()),
        devices: Some(Arc::new(devices)),
        sample: Some(sample()),
        taken: Wall(NOW.0 - 2_500_000_000),
        rates: Some(Rates {
            cpu_guest: 61.256,
            cpu_user_and_system: 7.0,
            paging: Some(PagingRates {
                swapped_in_kib: 1.5,
                swapped_out_kib: 0.0,
                major_faults: 0.9,
                faults: 1e300,
            }),
            nics: BTreeMap::from([("vnet0".into(), NicRates { received: 1_250_000.0, sent: 125.0 })]),
            disks: BTreeMap::from([(
                "vda".into(),
                DiskRates {
                    read: 5120.0,
                    written: 0.0,
                    read_latency_ns: 123_440,
                    write_latency_ns: 0,
                    flush_latency_ns: 9,
                },
            )]),
        }),
        responds: true,
        unreadable: false,
        progress: Some(42),
        guest: Some(Arc::new(account())),
    }
}

/// All that a guest can tell, with what is hostile in it as far as it gets here.
pub fn account() -> GuestAccount {
    let user = |name: &str, domain: &str, second: i64| GuestUser {
        name: name.into(),
        domain: domain.into(),
        since: Some(Wall(NOW.0 - second * 1_000_000_000)),
    };
    let interface = |name: &str, mac: &str, addresses: &[&str]| GuestInterface {
        name: name.into(),
        mac: mac.into(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
    };
    GuestAccount {
        host_name: Some("vm <&]]> \u{7f}\u{202e}.example".into()),
        system: Some(GuestSystem {
            id: "debian".into(),
            name: "Debian GNU/Linux".into(),
            pretty_name: "Debian GNU/Linux 12 (bookworm)".into(),
            version: "12 (bookworm)".into(),
            version_id: "12".into(),
            variant: String::new(),
            machine: "x86_64".into(),
            kernel_release: "6.1.0-56-cloud-amd64".into(),
            kernel_version: "#1 SMP".into(),
        }),
        time_zone: Some(TimeZone { name: "EST".into(), offset_s: -18_000 }),
        users: Some(vec![user("alice", "", 60), user("bob", "EXAMPLE", 30)]),
        interfaces: Some(vec![
            interface("lo", "00:00:00:00:00:00", &["127.0.0.1", "::1"]),
            interface("eth0", "52:54:00:00:00:01", &["fe80::1", "2001:db8::2", "10.0.2.15"]),
            interface("dummy0", "", &[]),
        ]),
        file_systems: Some(vec![
            GuestFileSystem {
                mount: "/data".into(),
                kind: "ext2".into(),
                total: Some(i64::MAX as u64),
                used: Some(5),
            },
            GuestFileSystem { mount: "/iso".into(), ..GuestFileSystem::default() },
        ]),
    }
}

/// A machine of which one sample was taken, that has neither screen nor balloon, and that has fallen silent.
pub fn little(run: RunId) -> Usage {
    let devices = Devices {
        parts: vec![Part { kind: "memory".into(), ..Part::default() }],
        nics: vec![Nic { host_name: "vnet1".into(), mac: "52:54:00:00:00:02".into(), ..Nic::default() }],
        vcpus: 1,
        ..Devices::default()
    };
    let disks = vec![DiskCounters { target: "hdc".into(), ..DiskCounters::default() }];
    Usage {
        run,
        fingerprint: None,
        devices: run.0.is_multiple_of(2).then(|| Arc::new(devices)),
        sample: Some(Sample { disks, ..Sample::default() }),
        taken: NOW,
        rates: None,
        responds: false,
        unreadable: false,
        progress: None,
        // An agent of which nothing could be read but that nobody is there.
        guest: run
            .0
            .is_multiple_of(2)
            .then(|| Arc::new(GuestAccount { users: Some(Vec::new()), ..GuestAccount::default() })),
    }
}

/// A volume in VDSM's storage.
const VOLUME: &str = "/rhev/data-center/6695eb01-f6a4-4304-89aa-97f2000000e1/6695eb01-f6a4-4304-89aa-97f2000000e2/images/\
    6695eb01-f6a4-4304-89aa-97f2000000e3/6695eb01-f6a4-4304-89aa-97f2000000e4";

fn devices() -> Devices {
    let address = |slot: &str| {
        let parts =
            [("type", "pci"), ("domain", "0x0000"), ("bus", "0x00"), ("slot", slot), ("function", "0x0")];
        parts.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    };
    let part = |kind: &str, device: &str, alias: &str, slot: &str| Part {
        kind: kind.into(),
        device: device.into(),
        alias: alias.into(),
        address: if slot.is_empty() { BTreeMap::new() } else { address(slot) },
        read_only: device == "cdrom",
    };
    let ours = "ua-6695eb01-f6a4-4304-89aa-97f2000000d1";
    Devices {
        on_reboot: None,
        on_crash: None,
        kvm: true,
        acpi: true,
        machine: "pc-i440fx-7.2".into(),
        memory_kib: 1 << 20,
        memory_min_kib: 1 << 18,
        vcpus: 2,
        vcpu_period_us: Some(100_000),
        vcpu_quota_us: Some(-1),
        clock_offset_s: -3600,
        boot: vec!["hd".into(), "network".into()],
        graphics: vec![
            Graphics {
                kind: "spice".into(),
                port: Some(5900),
                tls_port: Some(5901),
                listen: Some("127.0.0.1".into()),
            },
            Graphics { kind: "vnc".into(), port: None, tls_port: None, listen: Some("0.0.0.0".into()) },
            Graphics { kind: "sdl".into(), ..Graphics::default() },
        ],
        nics: vec![Nic {
            mac: "52:54:00:00:00:01".into(),
            model: "virtio".into(),
            host_name: "vnet0".into(),
            alias: "net0".into(),
            unplugged: false,
        }],
        disks: vec![
            Disk {
                target: "vda".into(),
                kind: "disk".into(),
                path: "/images/a & b".into(),
                serial: "6695eb01-f6a4-4304-89aa-97f2000000d1".into(),
                alias: ours.into(),
                io_tune: BTreeMap::from([("total_iops_sec".into(), 100)]),
            },
            Disk {
                target: "vdb".into(),
                kind: "disk".into(),
                path: VOLUME.into(),
                alias: "virtio-disk1".into(),
                ..Disk::default()
            },
            Disk { target: "hdc".into(), kind: "cdrom".into(), path: "/iso".into(), ..Disk::default() },
        ],
        images: BTreeMap::from([
            ("vda".into(), Image { format: "raw".into(), bus: "virtio".into() }),
            ("vdb".into(), Image { format: "qcow2".into(), bus: "virtio".into() }),
            ("hdc".into(), Image { format: String::new(), bus: "ide".into() }),
        ]),
        parts: vec![
            part("disk", "disk", ours, "0x04"),
            part("disk", "disk", "virtio-disk1", "0x06"),
            part("disk", "cdrom", "ide0-1-0", ""),
            part("interface", "bridge", "net0", "0x03"),
            part("graphics", "spice", "", ""),
            part("memballoon", "virtio", "balloon0", "0x05"),
        ],
        agent: true,
    }
}

fn sample() -> Sample {
    let operations = |count| Some(Operations { count, bytes: count * 512, time_ns: count * 1000 });
    Sample {
        answered: true,
        cpu: Some(CpuTime { total_ns: 400_000_000_000, user_ns: 19, system_ns: 21 }),
        vcpus: Some(2),
        memory: Memory {
            balloon_kib: Some(1 << 19),
            maximum_kib: Some(1 << 20),
            available_kib: Some(1000),
            usable_kib: Some(400),
            unused_kib: Some(300),
            paging: Paging::default(),
        },
        nics: vec![NicCounters {
            name: "vnet0".into(),
            received: Traffic { bytes: i64::MAX as u64, errors: 1, dropped: 2 },
            sent: Traffic { bytes: 5, errors: 3, dropped: 4 },
        }],
        disks: vec![
            DiskCounters {
                target: "vda".into(),
                path: "/images/a & b".into(),
                reads: operations(10),
                writes: operations(0),
                flushes: operations(3),
                capacity: Some(1 << 40),
                allocation: Some(4096),
                physical: Some(65_536),
            },
            DiskCounters {
                target: "vdb".into(),
                path: VOLUME.into(),
                capacity: Some(1 << 40),
                allocation: Some(65_536),
                physical: Some(4096),
                ..DiskCounters::default()
            },
            DiskCounters { target: "hdc".into(), ..DiskCounters::default() },
        ],
    }
}

/// A host on which every status and every cause is to be seen, and an ending that is not on disk.
pub fn everything() -> Snapshot {
    let statuses = [
        Status::Launching,
        Status::Up,
        Status::Paused,
        Status::PausedIoError,
        Status::Saving,
        Status::Restoring,
        Status::MigrationSource,
        Status::MigrationDestination,
        Status::PoweringDown,
        Status::Ending,
    ];
    let running = statuses.into_iter().zip(0..).map(|(status, number)| DomainPublic {
        paused_by: None,
        io_error: (status == Status::PausedIoError).then(|| "enospc".into()),
        watchdog: (status == Status::Paused).then_some((NOW, WatchdogAction::Pause)),
        ..vm(number, status)
    });
    let ended = Cause::ALL.into_iter().zip(100..).map(|(cause, number)| down(number, cause));
    let fresh = DomainPublic { durable: false, ..down(200, Cause::ProcessKilled) };
    let late = corrected(201, Cause::UnknownVanished, Cause::GuestPoweroff);
    snapshot(running.chain(ended).chain([fresh, late]))
}

pub fn host() -> HostFacts {
    let some = |text: &str| Some(text.to_owned());
    HostFacts {
        uuid: some("4c4c4544-0033-3010-8057-b7c04f4a4d31"),
        kvm: true,
        machines: vec!["pc-i440fx-7.2".into(), "pc-q35-7.2".into()],
        cpu_model: some("Intel(R) Xeon(R) <x> & co"),
        cpu_mhz: 2399.998,
        cpu_cores: 4,
        cpu_threads: 8,
        cpu_sockets: 1,
        cpu_flags: vec!["vmx".into(), "nx".into()],
        cpu_models: vec!["Nehalem".into(), "Westmere".into()],
        rng_sources: vec!["random"],
        memory_mib: 15_934,
        packages: BTreeMap::from([(
            "vdsm".into(),
            Package { version: "4.16.38".into(), release: "1".into() },
        )]),
        iscsi_initiator: some("iqn.1994-05.com.example:host"),
        selinux_mode: some("1"),
        hardware: whydown_wire::Hardware {
            manufacturer: some("Maker"),
            product: some("Product"),
            version: some("1.0"),
            serial: some("S/N 1"),
            uuid: some("4C4C4544-0033-3010-8057-B7C04F4A4D31"),
            family: some("Family"),
        },
        links: links(),
        ..HostFacts::default()
    }
}

/// One link of each kind, and a bridge that leads nowhere.
fn links() -> Vec<NetLink> {
    let link = |name: &str, kind| NetLink {
        name: name.into(),
        kind,
        mac: "52:54:00:00:00:01".into(),
        mtu: 1500,
        up: name != "eth1",
        speed_mbit: 10_000,
        addresses: vec![([192, 0, 2, 7].into(), 24), ("2001:db8::7".parse().unwrap(), 64)],
        gateway: Some([192, 0, 2, 1].into()),
    };
    let bare = |link: NetLink| NetLink { addresses: vec![], gateway: None, speed_mbit: 0, ..link };
    let slaves = vec!["eth0".to_owned(), "eth1".to_owned()];
    let options = BTreeMap::from([("mode".to_owned(), "1".to_owned())]);
    vec![
        bare(link("bond0", LinkKind::Bond { slaves, active: Some("eth0".into()), options })),
        bare(link("bond0.7", LinkKind::Vlan { over: "bond0".into(), id: 7 })),
        bare(link("eth0", LinkKind::Nic)),
        bare(link("eth1", LinkKind::Nic)),
        link("ovirtmgmt", LinkKind::Bridge { ports: vec!["bond0.7".into()], stp: false }),
        bare(link("virbr0", LinkKind::Bridge { ports: vec![], stp: true })),
    ]
}

fn traffic(rates: Option<(f64, f64)>) -> LinkTraffic {
    LinkTraffic { taken: NOW, received: u64::MAX, rates, ..LinkTraffic::default() }
}

pub fn stats() -> HostStats {
    HostStats {
        now: NOW,
        booted: Some(Wall(NOW.0 - 86_400_000_000_000)),
        started: Wall(NOW.0 - 60_000_000_000),
        cpu_user: 12.345,
        cpu_system: f64::NAN,
        cpu_idle: 80.0,
        load: 0.5,
        memory_used_percent: 40,
        memory_available_mib: 9000,
        memory_free_mib: u64::MAX,
        memory_committed_mib: Some(1024),
        swap_total_mib: 2048,
        swap_free_mib: 2048,
        anon_huge_mib: Some(512),
        thp: Some("always".into()),
        ksm: Some(Ksm { running: true, pages: 100, cpu: 1, shared_mib: 3 }),
        disk_free_mib: BTreeMap::from([("/tmp".into(), 1000)]),
        traffic: BTreeMap::from([
            ("eth0".into(), traffic(Some((1_250_000.0, f64::MAX)))),
            ("eth1".into(), traffic(None)),
        ]),
        generation: Some("4c4c4544-0033-3010-8057-b7c04f4a4d31".into()),
    }
}

/// One reply of every verb, by name; verbs with several kinds of reply are there more than once.
pub fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let full = bodies(everything());
    let empty = bodies(snapshot([]));
    let all: Vec<DomainId> = full.snapshot().domains.keys().copied().collect();
    let mut replies = vec![
        ("ping", whydown_wire::done().to_vec()),
        ("create", create_reply(id(1), &Reply::Done).to_vec()),
        ("shutdown", shutdown_reply(false, &Reply::Done).to_vec()),
        ("destroy", destroy_reply(&Reply::Done).to_vec()),
        ("pause", act_reply(OperationKind::Pause, &Reply::Done).to_vec()),
        ("cont", act_reply(OperationKind::Resume, &Reply::Done).to_vec()),
        ("freeze", act_reply(OperationKind::Freeze, &Reply::Done).to_vec()),
        ("thaw", act_reply(OperationKind::Thaw, &Reply::Done).to_vec()),
        ("setBalloonTarget", act_reply(OperationKind::SetMemory, &Reply::Done).to_vec()),
        ("setVmTicket", act_reply(OperationKind::SetTicket, &Reply::Done).to_vec()),
        ("setNumberOfCpus", full.the_vm(all[0], Range::Classic).to_vec()),
        ("changeCD", full.the_vm(all[0], Range::Classic).to_vec()),
        ("changeFloppy", full.the_vm(all[0], Range::Classic).to_vec()),
        ("hotplugDisk", full.the_vm(all[0], Range::Classic).to_vec()),
        ("hotplugNic", full.the_vm(all[0], Range::Classic).to_vec()),
        ("hotunplugDisk", full.the_vm(all[0], Range::Classic).to_vec()),
        ("hotunplugNic", full.the_vm(all[0], Range::Classic).to_vec()),
        ("vmUpdateDevice", full.the_vm(all[0], Range::Classic).to_vec()),
        ("snapshot", snapshot_reply(true, &Reply::Done).to_vec()),
        ("hibernate", work_begun_reply(WorkKind::Save, &Reply::Done).to_vec()),
        ("migrate", work_begun_reply(WorkKind::Migration, &Reply::Done).to_vec()),
        ("migrateCancel", cancel_reply(&Reply::Done).to_vec()),
        ("migrateStatus", work_reply(&Work::Begun(42)).to_vec()),
        ("migrateStatus", work_reply(&Work::Failed("x".into())).to_vec()),
        ("migrationCreate", migration_create_reply(id(1)).to_vec()),
        ("getVdsStats", host_stats(&host(), &stats(), full.counts()).to_vec()),
        (
            "getVdsStats",
            host_stats(&HostFacts::default(), &HostStats::default(), VmCounts::default()).to_vec(),
        ),
        ("getVdsHardwareInfo", hardware(&host().hardware).to_vec()),
        ("getVdsHardwareInfo", hardware(&whydown_wire::Hardware::default()).to_vec()),
        ("system.listMethods", whydown_wire::list_methods().to_vec()),
        ("system.methodHelp", whydown_wire::method_help("list").to_vec()),
        ("system.methodSignature", whydown_wire::method_signature("list").to_vec()),
    ];
    for generation in Generation::ALL {
        let asked = capabilities(&host(), generation, Some([192, 0, 2, 9].into()));
        replies.push(("getVdsCapabilities", asked.to_vec()));
        replies.push(("getVdsCapabilities", capabilities(&HostFacts::default(), generation, None).to_vec()));
    }
    for range in Range::ALL {
        for bodies in [&full, &empty] {
            replies.push(("getAllVmStats", bodies.all_vm_stats(range, NOW).plain.to_vec()));
            replies.push(("list", bodies.list(false, None, range).plain.to_vec()));
            replies.push(("list", bodies.list(true, None, range).plain.to_vec()));
            replies.push(("list", bodies.list(false, Some(&all), range).plain.to_vec()));
        }
        replies.extend(all.iter().map(|&vm| ("getVmStats", full.vm_stats(vm, range, NOW).to_vec())));
    }
    replies
}

/// Reads a reply with dxr.
pub fn read(body: &[u8]) -> Value {
    let text = std::str::from_utf8(body).expect("replies are UTF-8");
    dxr::MethodResponse::from_xml(text).unwrap_or_else(|error| panic!("{error}\n{text}")).value
}

pub fn members(value: &Value) -> &BTreeMap<String, Value> {
    match value {
        Value::Struct(members) => members,
        other => panic!("not a struct: {other:?}"),
    }
}

pub fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        other => panic!("not an array: {other:?}"),
    }
}

pub fn text(value: &Value) -> &str {
    match value {
        Value::String(text) => text,
        other => panic!("not text: {other:?}"),
    }
}

/// The entries of a reply's `statsList` or `vmList`, by id.
pub fn entries<'a>(reply: &'a Value, list: &str) -> BTreeMap<&'a str, &'a BTreeMap<String, Value>> {
    items(&members(reply)[list]).iter().map(members).map(|vm| (text(&vm["vmId"]), vm)).collect()
}
