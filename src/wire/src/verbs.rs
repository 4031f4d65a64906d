//! The table of verbs: one row each, from which calls are read and questions about methods are answered.

use bytes::Bytes;

use crate::refused::Refused;
use crate::verb::{self, Given, Verb};
use crate::write;

/// One method that a manager may call.
#[derive(Debug)]
pub struct Method {
    /// The name on the wire.
    pub name: &'static str,
    /// The parameters, required ones first.
    pub params: &'static [Param],
    /// The XML-RPC type of the reply.
    pub returns: &'static str,
    /// What it is for.
    pub help: &'static str,
    pub(crate) read: fn(&Given<'_>) -> Result<Verb, Refused>,
}

/// One parameter of a method.
#[derive(Debug, PartialEq, Eq)]
pub struct Param {
    /// VDSM's name for it.
    pub name: &'static str,
    /// Its XML-RPC type. Text is taken for numbers and booleans too.
    pub kind: &'static str,
    /// Whether it may be left out.
    pub optional: bool,
}

const fn required(name: &'static str, kind: &'static str) -> Param {
    Param { name, kind, optional: false }
}

const fn optional(name: &'static str, kind: &'static str) -> Param {
    Param { name, kind, optional: true }
}

/// All methods, by name.
#[rustfmt::skip]
pub static METHODS: [Method; 33] = [
    Method {
        name: "changeCD",
        params: &[required("vmId", "string"), required("driveSpec", "string")],
        returns: "struct",
        help: "Puts a compact disc into the VM's drive: a path, empty to take it out; or a struct of path, iface and index, which \
               say in which drive.",
        read: verb::read_change_disc,
    },
    Method {
        name: "changeFloppy",
        params: &[required("vmId", "string"), required("driveSpec", "string")],
        returns: "struct",
        help: "Puts a floppy into the VM's drive, as changeCD does a disc.",
        read: verb::read_change_floppy,
    },
    Method {
        name: "cont",
        params: &[required("vmId", "string")],
        returns: "struct",
        help: "Lets a paused VM go on.",
        read: verb::read_cont,
    },
    Method {
        name: "create",
        params: &[required("params", "struct")],
        returns: "struct",
        help: "Starts a transient VM, or lets a saved one go on. params: xml (libvirt's domain document) and vmId (its \
               UUID, optional); or VDSM's own: vmId, memSize, smp, devices and so on. The start goes on after the reply; a failure shows as Down.",
        read: verb::read_create,
    },
    Method {
        name: "destroy",
        params: &[required("vmId", "string"), optional("gracefulAttempts", "int")],
        returns: "struct",
        help: "Ends a VM at once and forgets it. Of a VM that is Down: acknowledges its ending.",
        read: verb::read_destroy,
    },
    Method {
        name: "freeze",
        params: &[required("vmId", "string")],
        returns: "struct",
        help: "Has the guest's agent freeze its file systems.",
        read: verb::read_freeze,
    },
    Method {
        name: "getAllVmStats",
        params: &[],
        returns: "struct",
        help: "The state of all VMs in statsList. VMs that are Down carry exitCode, exitReason and exitMessage, \
               and stay until destroy acknowledges them.",
        read: |_| Ok(Verb::GetAllVmStats),
    },
    Method {
        name: "getVdsCapabilities",
        params: &[],
        returns: "struct",
        help: "What this host can do.",
        read: |_| Ok(Verb::GetVdsCapabilities),
    },
    Method {
        name: "getVdsHardwareInfo",
        params: &[],
        returns: "struct",
        help: "What this host is made of.",
        read: |_| Ok(Verb::GetVdsHardwareInfo),
    },
    Method {
        name: "getVdsStats",
        params: &[],
        returns: "struct",
        help: "What this host is doing.",
        read: |_| Ok(Verb::GetVdsStats),
    },
    Method {
        name: "getVmStats",
        params: &[required("vmId", "string")],
        returns: "struct",
        help: "The state of one VM: the only entry of statsList.",
        read: verb::read_vm_stats,
    },
    Method {
        name: "hibernate",
        params: &[required("vmId", "string"), optional("hiberVolHandle", "string")],
        returns: "struct",
        help: "Saves a VM and ends it; create lets it go on. The save goes on after the reply: see migrateStatus. \
               hiberVolHandle must be empty: libvirt keeps the image.",
        read: verb::read_hibernate,
    },
    Method {
        name: "hotplugDisk",
        params: &[required("params", "struct")],
        returns: "struct",
        help: "Plugs a disk in. params: vmId, and drive: as one of create, with its path.",
        read: verb::read_plug_disk,
    },
    Method {
        name: "hotplugNic",
        params: &[required("params", "struct")],
        returns: "struct",
        help: "Plugs a network card in. params: vmId, and nic: as one of create.",
        read: verb::read_plug_card,
    },
    Method {
        name: "hotunplugDisk",
        params: &[required("params", "struct")],
        returns: "struct",
        help: "Plugs a disk out, when the guest gives it up. params: vmId, and drive: path, alias or deviceId.",
        read: verb::read_unplug_disk,
    },
    Method {
        name: "hotunplugNic",
        params: &[required("params", "struct")],
        returns: "struct",
        help: "Plugs a network card out, when the guest gives it up. params: vmId, and nic: macAddr, alias or deviceId.",
        read: verb::read_unplug_card,
    },
    Method {
        name: "list",
        params: &[optional("fullStatus", "boolean"), optional("vmList", "array")],
        returns: "struct",
        help: "The VMs with their status in vmList; with fullStatus, all that is known of each. \
               vmList limits it to these ids; unknown ids are left out.",
        read: verb::read_list,
    },
    Method {
        name: "migrate",
        params: &[required("params", "struct")],
        returns: "struct",
        help: "Moves a VM to another host, live. params: vmId, dst (a host, or libvirt's address of one), dstqemu, \
               tunneled, compressed, autoConverge, abortOnError, downtime (ms), maxBandwidth (MiB/s), xml (the \
               document there). It goes on after the reply: see migrateStatus.",
        read: verb::read_migrate,
    },
    Method {
        name: "migrateCancel",
        params: &[required("vmId", "string")],
        returns: "struct",
        help: "Gives up the migration or the save of a VM, which then goes on.",
        read: verb::read_migrate_cancel,
    },
    Method {
        name: "migrateStatus",
        params: &[required("vmId", "string")],
        returns: "struct",
        help: "How far the migration or the save of a VM is, or how it went.",
        read: verb::read_migrate_status,
    },
    Method {
        name: "migrationCreate",
        params: &[required("params", "struct"), optional("incomingLimit", "int")],
        returns: "struct",
        help: "Asks whether a VM may come here by migration. libvirt does the rest.",
        read: verb::read_migration_create,
    },
    Method {
        name: "pause",
        params: &[required("vmId", "string")],
        returns: "struct",
        help: "Stops the CPUs of a VM.",
        read: verb::read_pause,
    },
    Method {
        name: "ping",
        params: &[],
        returns: "struct",
        help: "Does nothing, successfully.",
        read: |_| Ok(Verb::Ping),
    },
    Method {
        name: "setBalloonTarget",
        params: &[required("vmId", "string"), required("target", "int")],
        returns: "struct",
        help: "Changes the memory of a guest to target KiB.",
        read: verb::read_balloon,
    },
    Method {
        name: "setNumberOfCpus",
        params: &[required("vmId", "string"), required("numberOfCpus", "int")],
        returns: "struct",
        help: "Changes the number of processors of a guest.",
        read: verb::read_vcpus,
    },
    Method {
        name: "setVmTicket",
        params: &[required("vmId", "string"), required("password", "string"), required("ttl", "int"),
            optional("existingConnAction", "string"), optional("params", "struct")],
        returns: "struct",
        help: "Sets the password of a VM's console for ttl seconds. existingConnAction: disconnect, keep, fail.",
        read: verb::read_ticket,
    },
    Method {
        name: "shutdown",
        params: &[
            required("vmId", "string"),
            optional("delay", "int"),
            optional("message", "string"),
            optional("reboot", "boolean"),
            optional("timeout", "int"),
            optional("force", "boolean"),
        ],
        returns: "struct",
        help: "Asks the guest to shut down; with force, ends it if it has not obeyed in time. \
               delay and timeout are seconds.",
        read: verb::read_shutdown,
    },
    Method {
        name: "snapshot",
        params: &[required("vmId", "string"), required("snapDrives", "array"), optional("snapMemVolHandle", "string"),
            optional("frozen", "boolean")],
        returns: "struct",
        help: "Lets disks go on in new images: snapDrives has structs of name (such as vda) and path (of the new image).",
        read: verb::read_snapshot,
    },
    Method {
        name: "system.listMethods",
        params: &[],
        returns: "array",
        help: "The names of all methods.",
        read: |_| Ok(Verb::ListMethods),
    },
    Method {
        name: "system.methodHelp",
        params: &[required("methodName", "string")],
        returns: "string",
        help: "What a method is for; empty for an unknown one.",
        read: verb::read_help,
    },
    Method {
        name: "system.methodSignature",
        params: &[required("methodName", "string")],
        returns: "array",
        help: "The signatures of a method: for each, the type of its reply and those of its parameters.",
        read: verb::read_signature,
    },
    Method {
        name: "thaw",
        params: &[required("vmId", "string")],
        returns: "struct",
        help: "Has the guest's agent thaw its file systems.",
        read: verb::read_thaw,
    },
    Method {
        name: "vmUpdateDevice",
        params: &[required("vmId", "string"), required("params", "struct")],
        returns: "struct",
        help: "Changes a device. params of a screen's password: deviceType (graphics), graphicsType (vnc, spice), \
               password, ttl (seconds), existingConnAction (disconnect, keep, fail); of a network card: deviceType \
               (interface), alias, linkActive, network.",
        read: verb::read_update_device,
    },
];

fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.name == name)
}

/// The reply to `system.listMethods`.
pub fn list_methods() -> Bytes {
    write::reply(1024, |slot| slot.texts(METHODS.iter().map(|method| method.name))).into()
}

/// The reply to `system.methodHelp`: empty text for an unknown method, as Python's server gives.
pub fn method_help(name: &str) -> Bytes {
    write::reply(512, |slot| slot.text(method(name).map_or("", |method| method.help))).into()
}

/// The reply to `system.methodSignature`: one signature for each number of parameters that the method takes.
/// An unknown method gets the text that Python's server gives for every method.
pub fn method_signature(name: &str) -> Bytes {
    let Some(method) = method(name) else {
        return write::reply(128, |slot| slot.text("signatures not supported")).into();
    };
    let fewest = method.params.iter().filter(|param| !param.optional).count();
    write::reply(2048, |slot| {
        slot.array(|signatures| {
            for count in fewest..=method.params.len() {
                let params = method.params[..count].iter().map(|param| param.kind);
                signatures.item().texts(std::iter::once(method.returns).chain(params));
            }
        });
    })
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_required_parameters_come_first() {
        assert!(METHODS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for method in &METHODS {
            assert!(method.params.is_sorted_by_key(|param| param.optional), "{}", method.name);
            assert!(!method.help.is_empty());
        }
    }

    #[test]
    fn a_signature_is_given_for_every_number_of_parameters() {
        let body = method_signature("list");
        let read = dxr::MethodResponse::from_xml(std::str::from_utf8(&body).unwrap()).unwrap().value;
        let texts =
            |names: &[&str]| dxr::Value::Array(names.iter().map(|&n| dxr::Value::String(n.into())).collect());
        let expected =
            [texts(&["struct"]), texts(&["struct", "boolean"]), texts(&["struct", "boolean", "array"])];
        assert_eq!(read, dxr::Value::Array(expected.into()));
    }
}
