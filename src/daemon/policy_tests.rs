//! What a document must not get by, and what ordinary ones may have.

use super::*;
use crate::config::{Settings, default_file};

fn delivered() -> Policy {
    let table: toml::Table = default_file().parse().expect("TOML");
    Policy::new(&table.try_into::<Settings>().expect("the default file is right"))
}

fn domain(inside: &str) -> String {
    format!("<domain type='kvm'><name>n</name>{inside}</domain>")
}

fn devices(inside: &str) -> String {
    domain(&format!("<devices>{inside}</devices>"))
}

/// Taken, with no image to look at.
fn taken(policy: &Policy, xml: &str) {
    assert_eq!(policy.check(xml), Ok(Vec::new()), "{xml}");
}

fn refused(xml: &str) -> String {
    match delivered().check(xml) {
        Ok(_) => panic!("taken: {xml}"),
        Err(forbidden) => forbidden.to_string(),
    }
}

#[test]
fn what_runs_programs_or_reads_files_of_the_host_is_refused_by_the_elements_name() {
    let qemu = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'";
    let arguments = "<qemu:commandline><qemu:arg value='-S'/></qemu:commandline>";
    for (xml, element, key) in [
        (devices("<emulator>/tmp/x.sh</emulator>"), "<emulator>", "create.emulators"),
        (devices("<emulator>/usr/bin/<!-- -->python3</emulator>"), "<emulator>", "create.emulators"),
        (devices("<emulator><a>/tmp</a>/x.sh</emulator>"), "<emulator>", "create.emulators"),
        (devices("<emulator>&#47;tmp/x.sh</emulator>"), "<emulator>", "create.emulators"),
        (devices("<emulator><![CDATA[/tmp/x.sh]]></emulator>"), "<emulator>", "create.emulators"),
        (devices("<emulator>/usr/bin/../../tmp/x.sh</emulator>"), "<emulator>", "create.emulators"),
        (devices("<emulator>x.sh</emulator>"), "<emulator>", "create.emulators"),
        (
            devices("<emulator>/usr/bin/kvm</emulator><emulator>/x</emulator>"),
            "<emulator>",
            "create.emulators",
        ),
        (
            format!("<domain type='kvm' {qemu}><name>n</name>{arguments}</domain>"),
            "<qemu:commandline>",
            "commandline",
        ),
        (
            domain("<x:commandline xmlns:x='http://libvirt.org/schemas/domain/qemu/1.0'/>"),
            "<x:commandline>",
            "commandline",
        ),
        (
            domain("<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'/>"),
            "<commandline>",
            "commandline",
        ),
        (domain("<bootloader>/usr/bin/pygrub</bootloader>"), "<bootloader>", "commandline"),
        (domain("<os><init>/bin/sh</init></os>"), "<os><init>", "commandline"),
        (
            devices("<interface type='bridge'><script path='/tmp/up'/></interface>"),
            "<interface><script>",
            "commandline",
        ),
        (devices("<hostdev mode='subsystem' type='pci'/>"), "<hostdev>", "hostdev"),
        (devices("<interface type='hostdev'/>"), "<interface>", "hostdev"),
        (devices("<disk type='nvme' device='disk'/>"), "<disk>", "hostdev"),
        (devices("<disk type='block' rawio='yes'/>"), "<disk>", "hostdev"),
        (devices("<input type='evdev'><source dev='/dev/input/event0'/></input>"), "<input>", "hostdev"),
        (devices("<serial type='dev'><source path='/dev/ttyS0'/></serial>"), "<serial>", "hostdev"),
        (devices("<tpm><backend type='passthrough'/></tpm>"), "<tpm><backend>", "hostdev"),
        (devices("<smartcard mode='host'/>"), "<smartcard>", "hostdev"),
        (domain("<os><smbios mode='host'/></os>"), "<os><smbios>", "hostdev"),
        (devices("<filesystem type='mount'><source dir='/'/></filesystem>"), "<filesystem>", "share"),
        (devices("<shmem name='x'/>"), "<shmem>", "share"),
        (devices("<disk type='dir'><source dir='/etc'/></disk>"), "<disk>", "share"),
        (
            devices("<memory model='nvdimm'><source><path>/etc/x</path></source></memory>"),
            "<memory>",
            "share",
        ),
        (
            devices("<serial type='tcp'><source mode='connect' host='127.0.0.1'/></serial>"),
            "<serial>",
            "host",
        ),
        (devices("<channel type='udp'/>"), "<channel>", "host"),
        (devices("<interface type='user'/>"), "<interface>", "host"),
        (devices("<interface/>"), "<interface>", "host"),
        (devices("<interface type='internal'><source name='x'/></interface>"), "<interface>", "host"),
        (devices("<interface type='null'/>"), "<interface>", "unknown"),
        (devices("<smartcard mode='passthrough' type='tcp'/>"), "<smartcard>", "host"),
        (devices("<rng><backend model='egd' type='udp'/></rng>"), "<rng><backend>", "host"),
        (devices("<audio id='1' type='pulseaudio' serverName='/run/x'/>"), "<audio>", "host"),
        (devices("<graphics type='sdl' xauth='/root/.Xauthority'/>"), "<graphics>", "host"),
        (
            devices("<disk type='network'><source protocol='https' name='x'/></disk>"),
            "<disk><source>",
            "host",
        ),
        (domain("<seclabel type='none'/>"), "<seclabel>", "seclabel"),
        (
            domain("<seclabel type='static' model='dac'><label>+0:+0</label></seclabel>"),
            "<seclabel>",
            "seclabel",
        ),
        (domain("<seclabel model='dac'><baselabel>+0:+0</baselabel></seclabel>"), "<seclabel>", "seclabel"),
        (
            devices(
                "<disk type='file'><source file='/var/lib/libvirt/images/a'><seclabel model='dac'><label>x</label>\
                 </seclabel></source></disk>",
            ),
            "<seclabel>",
            "seclabel",
        ),
        (devices("<teleporter/>"), "<teleporter>", "unknown"),
        (devices("<disk type='quantum'/>"), "<disk>", "unknown"),
        (domain("<wormhole/>"), "<wormhole>", "unknown"),
        (domain("<os><wormhole/></os>"), "<os><wormhole>", "unknown"),
    ] {
        let said = refused(&xml);
        assert!(said.contains(element) && said.contains(key), "{xml}: {said}");
    }
}

#[test]
fn every_path_of_the_host_lies_in_a_named_folder_wherever_it_stands() {
    let image = |path: &str| devices(&format!("<disk type='file'><source file='{path}'/></disk>"));
    for xml in [
        image("/etc/shadow"),
        image("etc/shadow"),
        image(" /etc/shadow"),
        image("/var/lib/libvirt/images/../../../../etc/shadow"),
        image("/var/lib/libvirt/images-of-others/x"),
        image("&#x2f;etc/shadow"),
        devices("<disk type='block'><source dev='/dev/sda'/></disk>"),
        devices("<disk type='block'><source dev='dev/sda'/></disk>"),
        devices(
            "<disk type='file'><source file='/var/lib/libvirt/images/a'/><backingStore type='file'>\
             <source file='/etc/shadow'/></backingStore></disk>",
        ),
        devices(
            "<disk type='network'><source protocol='nbd'><host transport='unix' socket='/run/x'/></source></disk>",
        ),
        domain("<os><kernel>/boot/vmlinuz</kernel></os>"),
        domain("<os><kernel>boot/vmlinuz</kernel></os>"),
        domain("<os><initrd>/etc/<!-- -->shadow</initrd></os>"),
        domain("<os><loader readonly='yes'>/tmp/x</loader></os>"),
        domain("<os><nvram template='/etc/shadow'>/var/lib/libvirt/qemu/nvram/n</nvram></os>"),
        domain("<os><nvram>/etc/passwd</nvram></os>"),
        domain("<os><acpi><table type='slic'>/etc/shadow</table></acpi></os>"),
        domain("<sysinfo type='fwcfg'><entry name='opt/a' file='/etc/shadow'/></sysinfo>"),
        domain("<blkiotune><device><path>/dev/sda</path></device></blkiotune>"),
        devices("<serial type='file'><source path='/etc/cron.d/x'/></serial>"),
        devices("<serial type='unix'><source mode='connect' path='/run/docker.sock'/></serial>"),
        devices("<serial type='pty'><log file='/etc/cron.d/x' append='on'/></serial>"),
        devices("<console type='pipe'><source path='/etc/x'/></console>"),
        devices("<rng><backend model='random'>/etc/shadow</backend></rng>"),
        devices("<graphics type='vnc' socket='/run/x'/>"),
        devices("<graphics type='spice'><listen type='socket' socket='/run/x'/></graphics>"),
        devices("<graphics type='egl-headless'><gl rendernode='/dev/dri/renderD128'/></graphics>"),
        devices("<tpm><backend type='emulator'><source type='dir' path='/etc'/></backend></tpm>"),
        devices("<pstore backend='acpi-erst'><path>/etc/x</path></pstore>"),
        devices("<lease><target path='/etc/x'/></lease>"),
        devices(
            "<video><driver name='vhostuser'/><model><acceleration rendernode='/dev/dri/x'/></model></video>",
        ),
    ] {
        let said = refused(&xml);
        assert!(said.contains("create.folders"), "{xml}: {said}");
    }
}

/// libvirt makes paths of names: a channel's name is a socket that root makes, and removes what lies there before.
#[test]
fn no_name_leads_out_of_its_folder() {
    for (xml, told) in [
        (
            devices(
                "<channel type='unix'><source mode='bind'/><target type='virtio' name='../../../../tmp/x/precious'/></channel>",
            ),
            "<channel><target>: name=",
        ),
        (devices("<channel type='spicevmc'><target type='virtio' name='/tmp/x'/></channel>"), "name="),
        (devices("<channel type='unix'><target type='virtio' name='..'/></channel>"), "name="),
        (devices("<channel type='spiceport'><source channel='x,logfile=x'/></channel>"), "channel="),
        (devices("<graphics type='spice' passwd='x' listen='127.0.0.1,disable-ticketing'/>"), "listen="),
        (domain("<vcpu cpuset='0,x=y'>1</vcpu>"), "cpuset="),
        (devices("<channel type='unix'><target type='virtio' name='a&#10;b'/></channel>"), "name="),
        ("<domain><name>../n</name></domain>".into(), "<name>: "),
        (devices("<graphics type='vnc' keymap='tmp/secret'/>"), "keymap="),
        (devices("<graphics type='vnc' keymap='../../etc/shadow'/>"), "keymap="),
        (devices("<interface type='network'><source network='../x'/></interface>"), "network="),
        (devices("<interface type='bridge'><source bridge='a/b'/></interface>"), "bridge="),
        (devices("<interface type='network'><filterref filter='../x'/></interface>"), "filter="),
        (devices("<interface type='network'><target dev='vnet/../x'/></interface>"), "dev="),
        (devices("<disk type='file'><alias name='ua-../x'/></disk>"), "name="),
        (devices("<lease><key>k</key><lockspace>../x</lockspace></lease>"), "<lease><lockspace>"),
        (devices("<lease><key>../k</key></lease>"), "<lease><key>"),
        (domain("<resource><partition>/system.slice</partition></resource>"), "<resource><partition>"),
        (
            domain("<resource><partition>/machine/../system.slice</partition></resource>"),
            "<resource><partition>",
        ),
        (domain("<cpu><model>../x</model></cpu>"), "<cpu><model>"),
        (domain("<cpu><feature name='../x'/></cpu>"), "name="),
        (domain("<cputune><cachetune id='../x' vcpus='0'/></cputune>"), "id="),
        (domain("<os><type machine='../x'>hvm</type></os>"), "machine="),
        (domain("<clock offset='timezone' timezone='../../etc/shadow'/>"), "timezone="),
        (domain("<clock offset='timezone' timezone=':/etc/shadow'/>"), "timezone="),
        (devices("<tpm><backend type='emulator'><profile source='../x'/></backend></tpm>"), "source="),
    ] {
        let said = refused(&xml);
        assert!(said.contains(told), "{xml}: {said}");
    }
}

#[test]
fn what_is_only_read_may_lie_where_nothing_is_written() {
    let mut policy = delivered();
    policy.read_only.push("/srv/iso".into());
    let (bios, iso) = ("/usr/share/seabios/bios-256k.bin", "/srv/iso/a.iso");
    for xml in [
        domain(&format!("<os><loader readonly='yes' type='pflash'>{bios}</loader></os>")),
        domain(&format!("<os><loader type='rom'>{bios}</loader></os>")),
        domain(&format!("<os><kernel>{iso}</kernel><initrd>{iso}</initrd><dtb>{iso}</dtb></os>")),
        devices(&format!("<disk type='file' device='cdrom'><source file='{iso}'/></disk>")),
        devices(&format!("<disk type='file'><source file='{iso}'/><readonly/></disk>")),
        devices(&format!(
            "<disk type='file'><source file='/var/lib/libvirt/images/a'/><backingStore type='file'>\
             <format type='raw'/><source file='{iso}'/></backingStore></disk>"
        )),
    ] {
        taken(&policy, &xml);
    }
    for xml in [
        devices(&format!("<serial type='file'><source path='{bios}'/></serial>")),
        devices(&format!("<serial type='pty'><log file='{bios}'/></serial>")),
        devices("<serial type='file'><source path='/usr/share/qemu/firmware/x.json'/></serial>"),
        devices(&format!("<disk type='file'><source file='{bios}'/></disk>")),
        // Given to QEMU's user, which is more than being read.
        devices(&format!("<disk type='file' device='cdrom'><source file='{bios}'/></disk>")),
        domain(&format!("<os><kernel>{bios}</kernel></os>")),
        domain(&format!("<os><loader readonly='no' type='pflash'>{bios}</loader></os>")),
        domain(&format!("<os><loader type='pflash'>{bios}</loader></os>")),
        domain(&format!("<os><nvram>{bios}</nvram></os>")),
        devices(&format!("<disk type='file'><source file='{iso}'/></disk>")),
        devices(&format!("<channel type='unix'><source mode='bind' path='{iso}'/></channel>")),
        domain(&format!("<os><nvram>{iso}</nvram></os>")),
    ] {
        let said = policy.check(&xml).expect_err(&xml).to_string();
        assert!(said.contains("create.folders"), "{xml}: {said}");
    }
    assert!(policy.check_image(bios).is_err() && policy.check_image(iso).is_err());
}

#[test]
fn a_folder_around_libvirts_own_or_ours_opens_none_of_these() {
    let mut policy = delivered();
    policy.folders =
        ["/", "/var/lib/libvirt", "/run/libvirt/", "/var/run/libvirt", "/var/lib/libvirt/images"]
            .map(PathBuf::from)
            .into();
    for path in [
        "/var/lib/libvirt/qemu/domain-1-x/monitor.sock",
        "/run/libvirt/libvirt-sock",
        "/var/lib/whydown/ledger.db",
        "/run/whydown/whydown.sock",
        "/var/run/whydown/whydown.sock",
        "/etc/libvirt/qemu.conf",
        "/var/lib/libvirt/qemu/save/x",
        "/run/libvirt/libvirt-sock",
        "/var/run/libvirt/libvirt-sock",
        "/var/log/libvirt/qemu/n.log",
        "/var/lib//libvirt/./qemu/x",
    ] {
        assert!(policy.check_image(path).is_err(), "{path}");
    }
    policy.own.push("/srv/state".into());
    policy.folders.push("/srv/state".into());
    let said = policy.check_image("/srv/state/ledger.db").expect_err("ours").to_string();
    assert!(said.contains("whydown's own"), "{said}");
    for path in ["/var/lib/libvirt/images/a", "/srv/a"] {
        assert_eq!(policy.check_image(path), Ok(()), "{path}");
    }
}

#[test]
fn each_thing_beyond_the_vm_needs_its_word() {
    let network = |inside: &str| devices(&format!("<disk type='network'><source {inside}</disk>"));
    let image = |inside: &str| {
        devices(&format!("<disk type='file'>{inside}<source file='/var/lib/libvirt/images/a'/></disk>"))
    };
    for (xml, word) in [
        (devices("<interface type='ethernet'><source><ip address='10.0.0.1'/></source></interface>"), "host"),
        (
            devices(
                "<interface type='network'><source network='n'><route gateway='10.0.0.1'/></source></interface>",
            ),
            "host",
        ),
        (devices("<interface type='direct'><source dev='eth0' mode='passthrough'/></interface>"), "host"),
        (devices("<interface type='bridge'><target dev='eth7'/></interface>"), "host"),
        (devices("<vsock><cid auto='yes'/></vsock>"), "host"),
        (devices("<graphics type='vnc' listen='0.0.0.0'/>"), "host"),
        (devices("<graphics type='spice'><listen type='address' address='10.0.0.1'/></graphics>"), "host"),
        (devices("<graphics type='spice'><listen type='network' network='n'/></graphics>"), "host"),
        (network("protocol='nbd' name='x'><host name='localhost' port='54321'/></source>"), "host"),
        (network("protocol='nbd' name='x'><host name='127.1'/></source>"), "host"),
        (network("protocol='iscsi' name='x'><host name='[::1]'/></source>"), "host"),
        (network("protocol='gluster' name='v/x'><host name='::ffff:127.0.0.1'/></source>"), "host"),
        (network("protocol='nbd' name='x'/>"), "host"),
        (network("protocol='ssh' name='x'><host name='h'/></source>"), "host"),
        (network("protocol='quantum' name='x'/>"), "unknown"),
        (devices("<disk type='volume'><source pool='default' volume='a'/></disk>"), "pool"),
        (devices("<disk type='file'><backingStore type='volume'/></disk>"), "pool"),
        (image("<driver name='qemu' type='vmdk'/>"), "formats"),
        (image("<driver name='qemu' type='qed'/>"), "formats"),
        (image("<driver name='qemu' type='raw'/><driver type='vmdk'/>"), "formats"),
        (image("<backingStore type='file'><format type='vmdk'/></backingStore>"), "formats"),
        (image("<mirror type='file' format='vmdk'/>"), "formats"),
        (domain("<os><nvram format='vmdk'>/var/lib/libvirt/qemu/nvram/n</nvram></os>"), "formats"),
        (domain("<memoryBacking><source type='file'/></memoryBacking>"), "share"),
        (domain("<memoryBacking><access mode='shared'/></memoryBacking>"), "share"),
        (domain("<cpu><numa><cell id='0' memAccess='shared'/></numa></cpu>"), "share"),
        (devices("<memory model='dimm' access='shared'/>"), "share"),
        (devices("<tpm><backend type='external'><source type='unix' path='/x'/></backend></tpm>"), "hostdev"),
    ] {
        let said = refused(&xml);
        let key = format!("{word:?} in create.allow");
        assert!(said.contains(&key), "{xml}: {said}");
        let mut policy = delivered();
        policy.allow.push(Power::ALL.into_iter().find(|power| power.word() == word).expect("a word"));
        let then = policy.check(&xml).map_or_else(|forbidden| forbidden.to_string(), |_| String::new());
        assert!(!then.contains(&key), "{xml}: {then}");
    }
    for xml in [
        network("protocol='rbd' name='pool/image'/>"),
        network("protocol='nbd' name='x'><host name='storage-1' port='10809'/></source>"),
        network("protocol='nbd' name='x'><host transport='unix' socket='/run/vdsm/nbd.sock'/></source>"),
        devices("<graphics type='vnc' listen='127.0.0.1'/>"),
        devices("<graphics type='spice' passwd='*****'><listen type='network' network='n'/></graphics>"),
        devices("<interface type='bridge'><target dev='vnet7'/></interface>"),
        devices("<console type='pty' tty='/dev/pts/4'><source path='/dev/pts/4'/></console>"),
    ] {
        taken(&delivered(), &xml);
    }
}

#[test]
fn paths_stand_in_every_corner() {
    for xml in [
        devices("<interface type='bridge'><backend tap='/dev/net/tun' vhost='/dev/vhost-net'/></interface>"),
        devices("<interface type='bridge'><backend type='passt' logFile='/etc/x'/></interface>"),
        devices("<interface type='bridge'><rom file='/etc/shadow'/></interface>"),
        devices("<disk type='file'><mirror type='file' file='/etc/x'/></disk>"),
        devices(
            "<disk type='network'><source protocol='rbd' name='a/b'><config file='/etc/x'/></source></disk>",
        ),
        devices(
            "<disk type='network'><source protocol='rbd' name='a/b'><identity keyfile='/root/x'/></source></disk>",
        ),
        devices(
            "<disk type='network'><source protocol='rbd' name='a/b'><knownHosts path='/root/x'/></source></disk>",
        ),
        devices(
            "<disk type='file'><source><dataStore type='file'><source file='/etc/x'/></dataStore></source></disk>",
        ),
        devices("<tpm><backend type='emulator'><source type='file' path='/etc/x'/></backend></tpm>"),
        devices("<rng><backend model='builtin'><log file='/etc/x'/></backend></rng>"),
        domain("<launchSecurity type='tdx'><quoteGenerationService path='/run/x'/></launchSecurity>"),
        domain("<os><nvram type='file'><source file='/etc/x'/></nvram></os>"),
        domain("<os><varstore path='/etc/x'/></os>"),
        domain("<os><shim>/etc/x</shim></os>"),
    ] {
        let said = refused(&xml);
        assert!(said.contains("create.folders"), "{xml}: {said}");
    }
}

/// Wherever it stands: what nobody here knows is not let by, however harmless it looks.
#[test]
fn an_unknown_attribute_or_text_is_refused_by_its_name_everywhere() {
    let policy = delivered();
    let mut places = 0;
    for line in include_str!("policy/schema.txt").lines().filter(|line| !line.starts_with('#')) {
        let (parent, name) =
            line.split(' ').next().and_then(|place| place.split_once('>')).unwrap_or(("", ""));
        if parent != "domain"
            && parent != "os"
            && parent != "devices"
            && parent != "cpu"
            && parent != "features"
        {
            continue;
        }
        let around = |inside: String| match parent {
            "domain" => domain(&inside),
            _ => domain(&format!("<{parent}>{inside}</{parent}>")),
        };
        let kind = if (parent, name) == ("devices", "interface") { " type='network'" } else { "" };
        for (inside, told) in [
            (format!("<{name}{kind} whither='x'/>"), "attribute whither: this needs \"unknown\""),
            (format!("<{name}{kind}><whither/></{name}>"), "<whither>: this needs \"unknown\""),
        ] {
            if name == "metadata" && inside.contains("<whither/>") {
                continue;
            }
            let said = policy.check(&around(inside.clone())).expect_err(&inside).to_string();
            let earlier = said.contains(&format!("<{name}>: this needs")) || said.contains("builtin");
            assert!(said.contains(told) || earlier || name == "rng" || name == "tpm", "{inside}: {said}");
            places += 1;
        }
    }
    assert!(places > 150, "{places}");
    assert!(refused(&domain("<os>x</os>")).contains("<os>: its text: this needs \"unknown\""));
    assert!(refused("<domain whither='x'><name>n</name></domain>").contains("attribute whither"));
    // A secret that is misspelt is not told.
    assert!(!refused(&devices("<graphics type='vnc' password='s3cret'/>")).contains("s3cret"));
}

#[test]
fn images_that_name_files_are_looked_at() {
    let disk = |inside: &str, format: &str| {
        devices(&format!(
            "<disk type='file'><driver name='qemu' type='{format}'/><source file='/var/lib/libvirt/images/a'/>\
             {inside}</disk>"
        ))
    };
    let named = |xml: &str| delivered().check(xml).expect(xml).len();
    assert_eq!(named(&disk("", "raw")), 0);
    assert_eq!(named(&disk("", "qcow2")), 1);
    let below = "<source file='/var/lib/libvirt/images/b'/></backingStore>";
    assert_eq!(named(&disk(&format!("<backingStore type='file'><format type='raw'/>{below}"), "qcow2")), 1);
    assert_eq!(named(&disk(&format!("<backingStore type='file'><format type='qcow2'/>{below}"), "qcow2")), 2);
    assert_eq!(
        named(&disk(&format!("<backingStore type='file'>{below}"), "qcow2")),
        2,
        "libvirt looks itself"
    );
    let nvram = "<os><nvram format='qcow2' template='/usr/share/OVMF/x' templateFormat='qcow2'>\
                 /var/lib/libvirt/qemu/nvram/n</nvram><loader readonly='yes' format='qcow2'>/usr/share/OVMF/y</loader></os>";
    assert_eq!(named(&domain(nvram)), 3);
    let mut policy = delivered();
    let folder = tempfile::tempdir().expect("a folder");
    policy.folders.push(folder.path().into());
    let image = folder.path().join("image");
    let mut header = vec![0; 104];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
    header[15] = 80;
    header[19] = 11;
    header[80..91].copy_from_slice(b"/etc/shadow");
    std::fs::write(&image, header).expect("it is ours");
    let xml = devices(&format!(
        "<disk type='file'><driver name='qemu' type='qcow2'/><source file='{}'/></disk>",
        image.display()
    ));
    let images = policy.check(&xml).expect("its paths are right");
    let said = policy.look(&images).expect_err("it names another").to_string();
    assert!(said.contains("<disk><source>") && said.contains("/etc/shadow"), "{said}");
    assert!(said.contains("create.folders or create.read_only"), "{said}");
    policy.allow.push(Power::Formats);
    taken(&policy, &xml);
}

#[test]
fn a_document_of_another_encoding_is_not_given_on() {
    let with = |encoding: &str| {
        Policy::undeclared(format!("<?xml version='1.0' encoding='{encoding}'?>{}", domain("")))
    };
    assert_eq!(with("utf-8"), Ok(domain("")));
    assert!(with("UTF-7").expect_err("no").to_string().contains("UTF-8"));
}

#[test]
fn a_bottomless_document_is_refused_and_costs_no_stack() {
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    assert!(refused(&domain(&format!("<features>{deep}</features>"))).contains("<features><a>: "));
    let mut policy = delivered();
    policy.allow.push(Power::Unknown);
    let said = policy.check(&domain(&format!("<features>{deep}</features>"))).expect_err("deep").to_string();
    assert!(said.contains("deep"), "{said}");
}

#[test]
fn ordinary_documents_are_taken_as_they_are() {
    let mut whole = String::from(
        "<title>/a</title><description>/etc/shadow</description><metadata><x:y xmlns:x='urn:x' file='/etc/x'/></metadata>\
         <memoryBacking><hugepages/><source type='memfd'/></memoryBacking>\
         <resource><partition>/machine/production</partition></resource>\
         <sysinfo type='smbios'><system><entry name='serial'>/1</entry></system></sysinfo>\
         <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type>\
         <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE.fd</loader>\
         <nvram template='/usr/share/OVMF/OVMF_VARS.fd'>/var/lib/libvirt/qemu/nvram/n.fd</nvram>\
         <kernel>/var/lib/libvirt/images/vmlinuz</kernel><cmdline>/init x=/y</cmdline><boot dev='hd'/></os>\
         <seclabel type='dynamic' model='selinux' relabel='yes'/><seclabel/>",
    );
    whole.push_str(
        "<devices><emulator> /usr/bin/qemu-system-x86_64\n</emulator>\
         <disk type='file' device='cdrom'><target dev='sda'/></disk><disk device='floppy'><source file=''/></disk>\
         <disk type='file'><source file='/var/lib/libvirt/images/a.qcow2'><seclabel model='dac' relabel='no' type='none'/>\
         </source><backingStore/><target dev='vda' bus='virtio'/></disk>\
         <disk type='block'><source dev='/rhev/data-center/mnt/blockSD/a'/><target dev='vdb'/></disk>\
         <disk type='network'><source protocol='rbd' name='pool/image'><host name='c' port='6789'/></source></disk>\
         <interface type='bridge'><source bridge='br0'/></interface><interface type='network'/>\
         <interface type='direct'><source dev='eth0' mode='bridge'/></interface>\
         <serial type='pty'/><console type='pty'/><channel type='spicevmc'/><redirdev bus='usb' type='spicevmc'/>\
         <channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channels/a'/></channel>\
         <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
         <graphics type='vnc' listen='0.0.0.0' passwd='*****' passwdValidTo='1970-01-01T00:00:01'/><graphics type='spice'><listen type='address'/></graphics>\
         <audio id='1' type='spice'/><sound model='ich9'/><video><model type='qxl'/></video>\
         <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
         <rng model='virtio'><backend model='builtin'/></rng>\
         <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>\
         <smartcard mode='passthrough' type='spicevmc'/><input type='tablet' bus='usb'/>\
         <memory model='dimm'><source/></memory><memballoon model='virtio'/><watchdog model='i6300esb'/>\
         <panic model='isa'/><iommu model='intel'/><controller type='scsi'/></devices>",
    );
    taken(&delivered(), &domain(&whole));
    taken(&delivered(), "<domain><name>n</name></domain>");
}

#[test]
fn the_administrators_word_lets_in_what_it_names_and_nothing_else() {
    let mut policy = delivered();
    policy.emulators.push("/opt/qemu/".into());
    policy.folders.push("/srv/vms".into());
    policy.allow.push(Power::Hostdev);
    for xml in [
        devices("<emulator>/opt/qemu/bin/x</emulator>"),
        devices("<disk type='file'><source file='/srv/vms/a/b'/></disk>"),
        devices("<hostdev mode='subsystem' type='usb'/>"),
    ] {
        taken(&policy, &xml);
        refused(&xml);
    }
    for xml in [
        devices("<emulator>/opt/qemu-other/bin/x</emulator>"),
        devices("<disk type='file'><source file='/srv/vms2/a'/></disk>"),
        devices("<filesystem type='mount'/>"),
    ] {
        assert!(policy.check(&xml).is_err(), "{xml}");
    }
}

#[test]
fn a_migration_runs_no_program_and_a_snapshot_writes_nowhere_else() {
    let policy = delivered();
    for uri in [
        "qemu+tls://host-2/system",
        "qemu+tcp://[::1]/system",
        "qemu+ssh://root@host-2:22/system",
        "qemu://h/",
    ] {
        assert_eq!(policy.check_destination(uri), Ok(()), "{uri}");
    }
    for uri in [
        "qemu+ext:///system?command=/tmp/x",
        "qemu+ext://h/system",
        "qemu+ssh://h/system?command=/tmp/x",
        "qemu+ssh://-oProxyCommand=x/system",
        "qemu+ssh://-oProxyCommand=x@h/system",
        "qemu+unix:///system?socket=/run/x",
        "qemu:///system",
        "qemu+tls://h/system?pkipath=/root",
        "QEMU+EXT://h/system",
        "qemu+ssh://%2DoProxyCommand%3Dtouch%20%2Ftmp%2Fx/system",
        "qemu+ssh://h%2F/system",
        "qemu+ssh://[%2DoProxyCommand=x]/system",
        "qemu+tls://h/%3Fcommand=x",
        "qemu+tls://h/../x",
        "",
    ] {
        let said = policy.check_destination(uri).expect_err(uri).to_string();
        assert!(said.contains("create.allow"), "{said}");
    }
    assert_eq!(policy.check_memory("tcp://10.0.0.2:49152"), Ok(()));
    assert_eq!(policy.check_memory("tcp:[fe80::1%25eth0]:49152"), Ok(()));
    assert!(policy.check_memory("tcp:h%20x").is_err() && policy.check_memory("tcp:").is_err());
    assert!(policy.check_memory("unix:///run/x").is_err() && policy.check_memory("exec:sh").is_err());
    assert_eq!(policy.check_image("/var/lib/libvirt/images/n.qcow2"), Ok(()));
    assert!(policy.check_image("/etc/cron.d/x").is_err() && policy.check_image("x").is_err());
}
