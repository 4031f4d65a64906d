//! What a document must not get by, and what ordinary ones may have.

use super::*;
use crate::config::{DEFAULT_FILE, Settings};

fn delivered() -> Policy {
    let table: toml::Table = DEFAULT_FILE.parse().expect("TOML");
    Policy::new(&table.try_into::<Settings>().expect("the default file is right").create)
}

fn domain(inside: &str) -> String {
    format!("<domain type='kvm'><name>n</name>{inside}</domain>")
}

fn devices(inside: &str) -> String {
    domain(&format!("<devices>{inside}</devices>"))
}

fn refused(xml: &str) -> String {
    match delivered().check(xml) {
        Ok(()) => panic!("taken: {xml}"),
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
            devices("<interface type='ethernet'><script path='/tmp/up'/></interface>"),
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
        domain("<resource><partition>/system.slice</partition></resource>"),
        domain("<resource><partition>/machine/../system.slice</partition></resource>"),
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

#[test]
fn a_document_of_another_encoding_is_not_given_on() {
    let with = |encoding: &str| {
        delivered().checked(format!("<?xml version='1.0' encoding='{encoding}'?>{}", domain("")))
    };
    assert_eq!(with("utf-8"), Ok(domain("")));
    assert!(with("UTF-7").expect_err("no").to_string().contains("UTF-8"));
}

#[test]
fn a_bottomless_document_is_refused_and_costs_no_stack() {
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    assert!(refused(&domain(&format!("<features>{deep}</features>"))).contains("deep"));
}

#[test]
fn ordinary_documents_are_taken_as_they_are() {
    let mut whole = String::from(
        "<title>/a</title><description>/etc/shadow</description><metadata><x:y xmlns:x='urn:x' file='/etc/x'/></metadata>\
         <memoryBacking><hugepages/><source type='file'/></memoryBacking>\
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
         <disk type='volume'><source pool='default' volume='a'/></disk>\
         <interface type='bridge'><source bridge='br0'/></interface><interface type='network'/>\
         <interface type='direct'><source dev='eth0' mode='bridge'/></interface>\
         <serial type='pty'/><console type='pty'/><channel type='spicevmc'/><redirdev bus='usb' type='spicevmc'/>\
         <channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channels/a'/></channel>\
         <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
         <graphics type='vnc' listen='0.0.0.0'/><graphics type='spice'><listen type='address'/></graphics>\
         <audio id='1' type='spice'/><sound model='ich9'/><video><model type='qxl'/></video>\
         <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
         <rng model='virtio'><backend model='builtin'/></rng>\
         <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>\
         <smartcard mode='passthrough' type='spicevmc'/><input type='tablet' bus='usb'/>\
         <memory model='dimm'><source/></memory><memballoon model='virtio'/><watchdog model='i6300esb'/>\
         <panic model='isa'/><vsock/><iommu model='intel'/><controller type='scsi'/></devices>",
    );
    assert_eq!(delivered().check(&domain(&whole)), Ok(()));
    assert_eq!(delivered().check("<domain><name>n</name></domain>"), Ok(()));
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
        assert_eq!(policy.check(&xml), Ok(()), "{xml}");
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
        "",
    ] {
        let said = policy.check_destination(uri).expect_err(uri).to_string();
        assert!(said.contains("create.allow"), "{said}");
    }
    assert_eq!(policy.check_memory("tcp://10.0.0.2:49152"), Ok(()));
    assert!(policy.check_memory("unix:///run/x").is_err() && policy.check_memory("exec:sh").is_err());
    assert_eq!(policy.check_image("/var/lib/libvirt/images/n.qcow2"), Ok(()));
    assert!(policy.check_image("/etc/cron.d/x").is_err() && policy.check_image("x").is_err());
}
