//! What every client reads of the machines that all share. Nothing here changes anything.

use crate::peers::line::{Value, array, members};
use crate::peers::world::{ASTRAL, NAME, NOBODY, World};

/// One call, and the status code that it must have; `None` where the answer is no struct with a status.
pub struct Call {
    /// 0 the shared daemon, 1 the one that speaks as VDSM of oVirt 4.0.
    pub daemon: usize,
    pub path: &'static str,
    pub method: &'static str,
    pub arguments: Vec<Value>,
    pub code: Option<i64>,
}

/// A call by the shortest path.
pub fn call<const N: usize>(method: &'static str, arguments: [Value; N], code: i64) -> Call {
    Call { daemon: 0, path: "/", method, arguments: arguments.into(), code: Some(code) }
}

fn id(text: &str) -> Value {
    text.into()
}

/// Every verb, answered well where that changes nothing, and refused in its ways.
pub fn calls(world: &World) -> Vec<Call> {
    let [shown, paused, failed, ended] =
        [&world.shown, &world.paused, &world.failed, &world.ended].map(|guest| guest.uuid_text());
    let nobody = || id(NOBODY);
    let vm = |more: Vec<(&str, Value)>| {
        let all = [("vmId", nobody()), ("memSize", "2".into())].into_iter().chain(more);
        Value::Struct(all.map(|(name, value)| (name.to_owned(), value)).collect())
    };
    let drive = |name: &str| array([members([("name", name.into()), ("path", "/nowhere".into())])]);
    let mut calls = vec![
        call("ping", [], 0),
        call("list", [], 0),
        call("list", [false.into()], 0),
        call("list", [true.into()], 0),
        call("list", ["true".into()], 0),
        call("list", ["true".into(), array([id(shown), id(failed), nobody()])], 0),
        call("list", ["".into(), array([id(paused)])], 0),
        // A blank is a text that is not empty.
        call("list", [" ".into(), array([id(paused)])], 0),
        call("list", ["true".into(), array([])], 0),
        call("getVmStats", [id(shown)], 0),
        call("getVmStats", [id(&paused.to_uppercase())], 0),
        call("getVmStats", [id(failed)], 0),
        call("getVmStats", [id(ended)], 0),
        call("getVmStats", [nobody()], 1),
        call("getVmStats", [NAME.into()], 1),
        call("getVmStats", [], 11),
        call("getVmStats", [nobody(), 7.into()], 16),
        call("getVmStats", [7.into()], 16),
        call("getAllVmStats", [], 0),
        call("getVdsCapabilities", [], 0),
        call("getVdsStats", [], 0),
        call("getVdsHardwareInfo", [], 0),
        call("migrateStatus", [id(shown)], 0),
        // Texts that come back in the answer, as each client sends them.
        call("create", [vm(vec![("display", NAME.into())])], 9),
        call("create", [vm(vec![("display", " x ".into())])], 9),
        call("create", [vm(vec![("display", "\n\ttwo\nlines ".into())])], 9),
        call("create", [vm(vec![("devices", array([])), ("custom", members([("a", "b".into())]))])], 9),
        // Refused, verb by verb.
        call("create", [members([("memSize", 7.into())])], 11),
        call("create", [], 11),
        call("destroy", [nobody()], 1),
        call("destroy", [nobody(), "often".into()], 16),
        call("shutdown", [nobody(), 30.into(), "bye".into()], 1),
        call("shutdown", [nobody(), "soon".into()], 16),
        call("pause", [nobody()], 1),
        call("pause", [id(ended)], 16),
        call("cont", [nobody()], 1),
        call("freeze", [nobody()], 1),
        call("thaw", [nobody()], 1),
        call("hibernate", [nobody(), "".into()], 1),
        call("migrate", [members([("vmId", nobody()), ("dst", "b".into())])], 1),
        call("migrate", [members([("vmId", nobody())])], 11),
        call("migrateStatus", [nobody()], 1),
        call("migrateCancel", [nobody()], 1),
        call("migrationCreate", [members([])], 11),
        call("migrationCreate", [members([("vmId", id(shown))])], 4),
        call("setVmTicket", [nobody(), "p".into(), 120.into(), "disconnect".into(), members([])], 1),
        call("setVmTicket", [nobody(), "p".into(), "long".into()], 16),
        call("setBalloonTarget", [nobody(), 1024.into()], 1),
        call("setBalloonTarget", [nobody(), (-1).into()], 16),
        call("setNumberOfCpus", [nobody(), 2.into()], 1),
        call("setNumberOfCpus", [nobody(), 0.into()], 16),
        call("vmUpdateDevice", [nobody(), card()], 1),
        call("vmUpdateDevice", [nobody(), members([])], 11),
        call("changeCD", [nobody(), "".into()], 1),
        call("changeCD", [nobody(), members([])], 11),
        call("changeFloppy", [nobody(), "".into()], 1),
        call("hotplugNic", [members([])], 11),
        call("hotplugNic", [members([("vmId", nobody()), ("nic", members([("network", "b".into())]))])], 1),
        call("hotunplugNic", [members([("vmId", nobody()), ("nic", members([("alias", "a".into())]))])], 1),
        call("hotplugDisk", [members([("vmId", nobody()), ("drive", members([("path", "/a".into())]))])], 1),
        call(
            "hotunplugDisk",
            [members([("vmId", nobody()), ("drive", members([("path", "/a".into())]))])],
            1,
        ),
        call("snapshot", [nobody(), drive("vda")], 1),
        call("snapshot", [nobody(), array([])], 11),
        // Verbs of VDSM that are not here.
        call("reset", [nobody()], 44),
        call("fenceNode", [], 44),
        call("hotplugMemory", [members([])], 44),
        call("desktopLock", [nobody()], 19),
    ];
    calls.extend(
        [
            ("system.listMethods", vec![]),
            ("system.methodHelp", vec!["ping".into()]),
            ("system.methodSignature", vec!["list".into()]),
            ("system.methodHelp", vec![NAME.into()]),
            ("makeCoffee", vec![]),
            ("system.methodHelp", vec![]),
        ]
        .map(|(method, arguments)| Call { daemon: 0, path: "/", method, arguments, code: None }),
    );
    // By the other path, and from a daemon that sends doubles and more numbers.
    for (daemon, path) in [(0, "/RPC2"), (1, "/"), (1, "/RPC2")] {
        calls.extend([
            Call { daemon, path, ..call("ping", [], 0) },
            Call { daemon, path, ..call("getAllVmStats", [], 0) },
            Call { daemon, path, ..call("list", [true.into()], 0) },
            Call { daemon, path, ..call("getVmStats", [id(shown)], 0) },
        ]);
    }
    calls
}

fn card() -> Value {
    members([("deviceType", "interface".into()), ("alias", "net0".into()), ("linkActive", true.into())])
}

/// What makes the letters beyond U+FFFF come by, where a message has them.
pub fn astral_calls(vm: &str) -> Vec<Call> {
    vec![
        call("getVmStats", [id(vm)], 0),
        call("getAllVmStats", [], 0),
        call("list", [true.into(), array([id(vm)])], 0),
    ]
}

/// What sends such letters, and has them sent back.
pub fn astral_echo() -> Call {
    let asked = members([("vmId", id(NOBODY)), ("memSize", "2".into()), ("display", ASTRAL.into())]);
    call("create", [asked], 9)
}
