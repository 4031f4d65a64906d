//! What is asked wrongly is refused by its name, for every verb; and what is not here says so.

use whydown_lab::{Result, xmlrpc_client};

use whydown_lab::host::Host;

const VM: &str = "6695eb01-f6a4-4304-89aa-97f2502e193f";

#[test]
fn bad_parameters_are_refused_by_name_with_the_code_of_their_verb() -> Result<()> {
    let host = Host::start("refused")?;
    let create = |rest: &str| format!("create({{'vmId': VM, 'memSize': '2'{rest}}})");
    let device = |rest: &str| create(&format!(", 'devices': [{{{rest}}}]"));
    let cases: Vec<(String, i64, &str)> = vec![
        ("create({})".into(), 11, "vmId"),
        ("create({'vmId': VM})".into(), 11, "Missing required parameter memSize"),
        ("create({'vmId': 'x', 'memSize': 1})".into(), 11, "vmId must be a valid UUID"),
        ("create({'vmId': VM, 'memSize': 0})".into(), 11, "Must specify nonzero memSize"),
        ("create({'vmId': VM, 'memSize': 'much'})".into(), 9, "memSize"),
        (create(", 'boot': 'c'"), 11, "missing boot disk"),
        (create(", 'boot': 'x'"), 9, "boot"),
        (create(", 'display': 'tv'"), 9, "Unknown display type tv"),
        (create(", 'vmType': 'xen'"), 5, "Unsupported VM type"),
        (create(", 'hiberVolHandle': 'a,b'"), 9, "hiberVolHandle"),
        (create(", 'custom': {'hook': '1', 'device_a': 'x'}"), 9, "custom.hook"),
        (create(", 'display': 'vnc', 'displayNetwork': 'nowhere'"), 9, "displayNetwork"),
        (create(", 'display': 'qxl', 'spiceSecureChannels': 'smain,ssecret'"), 9, "spiceSecureChannels"),
        (create(", 'nice': 'very'"), 9, "nice"),
        (create(", 'hda': '/a', 'devices': [{'type': 'disk', 'path': '/b', 'name': 'hda'}]"), 9, "hda"),
        (create(", 'launchPaused': 'perhaps'"), 9, "launchPaused"),
        (create(", 'smp': 2, 'maxVCpus': 1"), 9, "maxVCpus"),
        // libvirt would try to make so many, with all memory of the host.
        (create(", 'maxVCpus': 99999999"), 9, "maxVCpus"),
        (create(", 'smp': '4097'"), 9, "smp"),
        (create(", 'numOfIoThreads': '99999999'"), 9, "numOfIoThreads"),
        (create(", 'cpuPinning': {'0': '0-8000'}"), 9, "cpuPinning.0"),
        (create(", 'cpuPinning': {'0': 'all'}"), 9, "cpuPinning.0"),
        (create(", 'cpuPinning': {'first': '0'}"), 9, "cpuPinning.first"),
        (create(", 'timeOffset': '300000000000'"), 9, "timeOffset"),
        (create(", 'timeOffset': '9223372036854775807'"), 9, "timeOffset"),
        (create(", 'timeOffset': '9223372036854775808'"), 9, "timeOffset"),
        ("create({'vmId': VM, 'memSize': '2147483648'})".into(), 9, "memSize"),
        (device("'type': 'interface', 'network': '', 'specParams': 'x'"), 9, "devices[0].specParams"),
        (create(", 'numaTune': {'mode': 'loose', 'nodeset': '0'}"), 9, "numaTune.mode"),
        (create(", 'guestNumaNodes': [{'nodeIndex': 0, 'cpus': '0'}]"), 11, "guestNumaNodes[0].memory"),
        (create(", 'guestNumaNodes': [{'nodeIndex': 0, 'cpus': '0', 'memory': '1'}]"), 9, "guestNumaNodes"),
        (create(", 'devices': 'all'"), 9, "devices"),
        (device("'device': 'disk'"), 11, "devices[0].type"),
        (device("'type': 'teapot'"), 9, "devices[0].type"),
        (device("'type': 'disk'"), 11, "devices[0].path"),
        (device("'type': 'disk', 'imageID': 'i', 'volumeID': 'v'"), 9, "devices[0].imageID"),
        (device("'type': 'disk', 'path': '/a', 'format': 'vmdk'"), 9, "devices[0].format"),
        (
            device("'type': 'disk', 'path': '/a', 'specParams': {'ioTune': {'x': '1'}}"),
            9,
            "devices[0].specParams.ioTune.x",
        ),
        (
            device("'type': 'disk', 'device': 'cdrom', 'specParams': {'path': '', 'vmPayload': {'volId': 'x'}}"),
            9,
            "devices[0].specParams.vmPayload",
        ),
        (
            device("'type': 'interface', 'network': 'b', 'specParams': {'inbound': {'average': 'x'}}"),
            9,
            "devices[0].specParams.inbound.average",
        ),
        (device("'type': 'interface'"), 11, "devices[0].network"),
        (
            device("'type': 'interface', 'network': 'b', 'portMirroring': ['c']"),
            9,
            "devices[0].portMirroring",
        ),
        ("destroy('x')".into(), 1, "does not exist"),
        ("destroy(VM, 'often')".into(), 16, "gracefulAttempts"),
        ("shutdown(VM, 'soon')".into(), 16, "delay"),
        ("shutdown(VM, '', '', 'perhaps')".into(), 16, "reboot"),
        ("hibernate(VM, 'a,b,c,d,e,f')".into(), 75, "hiberVolHandle"),
        ("migrate({'vmId': VM})".into(), 11, "dst"),
        ("migrate({'vmId': VM, 'dst': 'a b'})".into(), 16, "dst"),
        ("migrate({'vmId': VM, 'dst': 'xen://b'})".into(), 16, "dst"),
        ("migrate({'vmId': VM, 'dst': 'b', 'method': 'offline'})".into(), 16, "method"),
        ("migrate({'vmId': VM, 'dst': 'b', 'mode': 'slow'})".into(), 16, "mode"),
        ("migrate({'vmId': VM, 'dst': 'b', 'dstparams': 'p'})".into(), 75, "dstparams"),
        ("migrate({'vmId': VM, 'dst': 'b', 'downtime': 'x'})".into(), 16, "downtime"),
        ("migrate({'vmId': VM, 'dst': 'b', 'consoleAddress': 'h?tls-port=1'})".into(), 16, "consoleAddress"),
        ("migrate({'vmId': VM, 'dst': 'b', 'outgoingLimit': 'few'})".into(), 16, "outgoingLimit"),
        ("migrate({'vmId': VM, 'dst': 'b', 'src': 'a', 'encrypted': True})".into(), 75, "encrypted"),
        (
            "migrate({'vmId': VM, 'dst': 'b', 'convergenceSchedule': {'init': [{'name': 'setDowntime'}]}})"
                .into(),
            75,
            "convergenceSchedule",
        ),
        ("migrate({'vmId': VM, 'mode': 'file', 'dst': 'a,b'})".into(), 75, "dst"),
        ("migrationCreate({})".into(), 11, "vmId"),
        ("migrateStatus('x')".into(), 1, "does not exist"),
        ("migrateCancel()".into(), 11, "vmId"),
        ("setVmTicket(VM)".into(), 11, "password"),
        ("setVmTicket(VM, 'p')".into(), 11, "ttl"),
        ("setVmTicket(VM, 'p', 'long')".into(), 16, "ttl"),
        ("setVmTicket(VM, 'p', 1, 'kill')".into(), 16, "existingConnAction"),
        ("setBalloonTarget(VM)".into(), 11, "target"),
        ("setBalloonTarget(VM, -1)".into(), 16, "target"),
        ("setNumberOfCpus(VM, 0)".into(), 16, "numberOfCpus"),
        ("vmUpdateDevice(VM)".into(), 11, "params"),
        ("vmUpdateDevice(VM, {})".into(), 11, "deviceType"),
        ("vmUpdateDevice(VM, {'deviceType': 'disk'})".into(), 75, "deviceType"),
        ("vmUpdateDevice(VM, {'deviceType': 'interface', 'linkActive': True})".into(), 11, "alias"),
        ("vmUpdateDevice(VM, {'deviceType': 'interface', 'alias': 'net0'})".into(), 11, "linkActive"),
        ("vmUpdateDevice(VM, {'deviceType': 'interface', 'alias': 'net0', 'network': ''})".into(), 1, "does not exist"),
        ("vmUpdateDevice(VM, {'deviceType': 'interface', 'alias': 'net0', 'network': '../x'})".into(), 16, "network"),
        (
            "vmUpdateDevice(VM, {'deviceType': 'interface', 'alias': 'net0', 'linkActive': 1, 'portMirroring': ['x']})".into(),
            75,
            "portMirroring",
        ),
        ("vmUpdateDevice(VM, {'deviceType': 'interface', 'alias': 'net0', 'linkActive': 1})".into(), 1, "does not exist"),
        ("vmUpdateDevice(VM, {'deviceType': 'graphics', 'password': 'p', 'ttl': 1})".into(), 11, "graphicsType"),
        ("vmUpdateDevice(VM, {'deviceType': 'graphics', 'graphicsType': 'rdp'})".into(), 16, "graphicsType"),
        ("vmUpdateDevice(VM, {'deviceType': 'graphics', 'graphicsType': 'vnc', 'ttl': 1})".into(), 11, "password"),
        (
            "vmUpdateDevice(VM, {'deviceType': 'graphics', 'graphicsType': 'vnc', 'password': 'p', 'ttl': 1})".into(),
            1,
            "does not exist",
        ),
        ("changeCD(VM)".into(), 11, "driveSpec"),
        ("changeCD('x', '')".into(), 1, "does not exist"),
        ("changeCD(VM, '')".into(), 1, "does not exist"),
        ("changeCD(VM, '/a' * 3000)".into(), 16, "driveSpec"),
        ("changeCD(VM, {'path': '/a', 'index': '2'})".into(), 11, "iface"),
        ("changeCD(VM, {'iface': 'ide', 'index': '2'})".into(), 11, "path"),
        ("changeCD(VM, {'path': '', 'iface': 'ide', 'index': '26'})".into(), 16, "index"),
        ("changeCD(VM, {'poolID': 'p', 'imageID': 'i', 'iface': 'ide', 'index': '2'})".into(), 75, "poolID"),
        ("changeFloppy(VM, ['/a'])".into(), 16, "driveSpec"),
        ("hotplugNic({})".into(), 11, "vmId"),
        ("hotplugNic({'vmId': VM})".into(), 11, "Missing required parameter nic"),
        ("hotplugNic({'vmId': VM, 'nic': {}})".into(), 11, "nic.network"),
        ("hotplugNic({'vmId': VM, 'nic': {'type': 'hostdev', 'network': 'b'}})".into(), 75, "nic.type"),
        ("hotplugNic({'vmId': VM, 'nic': {'network': 'b', 'hostdev': 'pci_0'}})".into(), 75, "nic.hostdev"),
        ("hotplugNic({'vmId': VM, 'nic': {'network': 'b', 'portMirroring': ['c']}})".into(), 75, "nic.portMirroring"),
        ("hotplugNic({'vmId': VM, 'nic': {'network': 'b'}})".into(), 1, "does not exist"),
        ("hotunplugNic({'vmId': VM, 'nic': {'network': 'b'}})".into(), 11, "nic.macAddr"),
        ("hotunplugNic({'vmId': VM, 'nic': {'macAddr': 'x', 'network': 'b'}})".into(), 1, "does not exist"),
        ("hotplugDisk({'vmId': VM})".into(), 11, "Missing required parameter drive"),
        ("hotplugDisk({'vmId': VM, 'drive': {'device': 'disk'}})".into(), 11, "drive.path"),
        ("hotplugDisk({'vmId': VM, 'drive': {'poolID': 'p', 'imageID': 'i'}})".into(), 75, "drive.poolID"),
        ("hotplugDisk({'vmId': VM, 'drive': {'GUID': 'g', 'device': 'lun'}})".into(), 75, "drive.GUID"),
        ("hotplugDisk({'vmId': VM, 'drive': {'path': '/a', 'format': 'vmdk'}})".into(), 16, "drive.format"),
        ("hotunplugDisk({'vmId': VM, 'drive': {'imageID': 'i'}})".into(), 75, "drive.imageID"),
        ("hotunplugDisk({'vmId': VM, 'drive': {'path': '/a'}})".into(), 1, "does not exist"),
        ("snapshot(VM)".into(), 11, "snapDrives"),
        ("snapshot(VM, [])".into(), 11, "snapDrives[0]"),
        ("snapshot(VM, [{'imageID': 'i'}])".into(), 75, "snapDrives[0].imageID"),
        ("snapshot(VM, [{'name': 'vda', 'path': '/a'}], 'm')".into(), 75, "snapMemVolHandle"),
        ("pause('x')".into(), 1, "does not exist"),
        ("cont(VM)".into(), 1, "does not exist"),
        ("freeze(VM)".into(), 1, "does not exist"),
        ("thaw(VM, 1)".into(), 16, "at most 1"),
        ("migrate({'vmId': VM, 'dst': 'b'})".into(), 1, "does not exist"),
        ("setVmTicket(VM, 'p', 1)".into(), 1, "does not exist"),
        // Verbs of VDSM that are not here are answered by a status; only what nobody knows is a fault.
        ("getStoragePoolInfo('x')".into(), 44, "Not implemented: getStoragePoolInfo"),
        ("setupNetworks({}, {}, {})".into(), 44, "Not implemented"),
        ("fenceNode()".into(), 44, "Not implemented"),
        ("hotplugMemory({})".into(), 44, "Not implemented"),
        ("reset(VM)".into(), 44, "Not implemented"),
        ("desktopLock(VM)".into(), 19, "Guest agent non-responsive"),
    ];
    let calls: String = cases.iter().map(|(call, ..)| format!("    lambda: server.{call},\n")).collect();
    let code = format!(
        "VM = '{VM}'\nfor call in [\n{calls}]:\n    s = call()['status']\n    print(s['code'], s['message'], sep='|')"
    );
    let read = xmlrpc_client(host.daemon.port()?, &code)?;
    let told: Vec<&str> = read.lines().collect();
    assert_eq!(told.len(), cases.len(), "{read}");
    let wrong: Vec<_> = cases
        .iter()
        .zip(told)
        .filter(|((_, code, words), told)| {
            let (number, message) = told.split_once('|').expect("two parts");
            number != code.to_string() || !message.contains(words)
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let fault = "\
try:
    server.makeCoffee()
except xmlrpc.client.Fault as fault:
    print(fault.faultCode, fault.faultString)";
    assert!(xmlrpc_client(host.daemon.port()?, fault)?.contains("method \"makeCoffee\" is not supported"));
    let listed = xmlrpc_client(host.daemon.port()?, "print(server.system.listMethods())")?;
    assert!(listed.contains("'migrate'") && !listed.contains("'getStoragePoolInfo'"), "{listed}");
    Ok(())
}
