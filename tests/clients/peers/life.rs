//! What every client does with a machine of its own, from its creation to its end: all verbs that change something.

use std::path::Path;

use whydown_lab::{Result, wait_until};

use crate::peers::line::{Reply, Value, array, members};
use crate::peers::peer::Peer;
use crate::peers::world::{NAME, equipped, named};
use whydown_lab::host::{Host, PATIENCE};

/// One step: what was asked, and what the client read, with what belongs to this machine alone made equal.
pub struct Step {
    pub asked: String,
    pub read: Reply,
}

/// A client and its machine.
struct Life<'a> {
    peer: &'a mut Peer,
    id: String,
    folder: &'a Path,
    steps: Vec<Step>,
}

impl Life<'_> {
    /// Asks without keeping what was read.
    fn look(&mut self, method: &str, arguments: &[Value]) -> Reply {
        self.peer.ask(0, "/", method, arguments)
    }

    /// Asks, and keeps what was read, which must have this status code by every client alike.
    fn ask(&mut self, method: &str, arguments: Vec<Value>, code: i64) {
        let read = self.look(method, &arguments);
        let told = match &read {
            Reply::Value(value) => value.at("status.code").cloned(),
            _ => None,
        };
        assert_eq!(told, Some(Value::Int(code)), "{}: {method}: {read:?}", self.peer.kind.name);
        let (id, name) = (self.id.clone(), plain_name(self.peer));
        let folder = self.folder.display().to_string();
        let alike = |text: String| text.replace(&id, "ID").replace(&folder, "FOLDER").replace(&name, "NAME");
        let read = match read {
            Reply::Value(value) => Reply::Value(value.map_texts(&alike)),
            other => other,
        };
        self.steps.push(Step { asked: method.into(), read });
    }

    /// Asks something of its own machine.
    fn own<const N: usize>(&mut self, method: &str, more: [Value; N], code: i64) {
        let arguments = std::iter::once(self.id()).chain(more).collect();
        self.ask(method, arguments, code);
    }

    fn id(&self) -> Value {
        Value::from(self.id.as_str())
    }

    /// Waits until the client itself reads this of the machine.
    fn wait(&mut self, what: &str, holds: impl Fn(&Value) -> bool) {
        let name = self.peer.kind.name;
        wait_until(&format!("{name} reads: {what}"), PATIENCE, || {
            let id = self.id();
            match self.look("getVmStats", &[id]) {
                Reply::Value(value) => value.at("statsList.0").is_some_and(&holds),
                _ => false,
            }
        });
    }

    fn wait_status(&mut self, status: &str) {
        self.wait(status, |vm| vm.text("status") == Some(status));
    }

    /// Waits until some device of the machine has this member.
    fn wait_device(&mut self, member: &str, wanted: &str) {
        let name = self.peer.kind.name;
        wait_until(&format!("{name} reads {wanted}"), PATIENCE, || {
            let arguments = [true.into(), array([self.id()])];
            let Reply::Value(value) = self.look("list", &arguments) else { return false };
            let Some(Value::Array(devices)) = value.at("vmList.0.devices") else { return false };
            devices.iter().any(|device| device.text(member) == Some(wanted))
        });
    }

    /// Waits until the work that was begun has this code.
    fn wait_work(&mut self, code: i64) {
        let name = self.peer.kind.name;
        wait_until(&format!("{name} reads code {code} of the work"), PATIENCE, || {
            let id = self.id();
            matches!(self.look("migrateStatus", &[id]),
                Reply::Value(value) if value.at("status.code") == Some(&Value::Int(code)))
        });
    }
}

/// What its machine and that one's files are called.
fn plain_name(peer: &Peer) -> String {
    format!("vm-of-{}", peer.kind.name)
}

/// Lives it, and tells all that was read on the way.
pub fn live(peer: &mut Peer, host: &Host) -> Result<Vec<Step>> {
    let name = plain_name(peer);
    let guest = equipped(host, &name)?;
    let document = named(&guest, &format!("{NAME} {name}"));
    let overlay = host.folder.path().join(format!("{name}.overlay"));
    let mut life = Life { peer, id: guest.uuid_text().into(), folder: host.folder.path(), steps: Vec::new() };
    let id = life.id();
    let text = |text: &str| Value::from(text);
    let create = members([("vmId", id.clone()), ("xml", document.into())]);

    life.ask("create", vec![create.clone()], 0);
    life.wait_status("Up");
    life.wait("its devices and figures", |vm| {
        vm.at("hash").is_some() && vm.at("disks.vdb.readRate").is_some()
    });
    life.ask("create", vec![create.clone()], 4);
    life.ask("list", vec![text("true"), array([id.clone()])], 0);
    life.own("getVmStats", [], 0);

    life.own("setVmTicket", [text("secret"), 120.into(), text("disconnect"), members([])], 0);
    life.own("setVmTicket", [text("secret"), text("120")], 0);
    life.own("setBalloonTarget", [1536.into()], 0);
    life.own("setBalloonTarget", [text("2048")], 0);
    life.own("setNumberOfCpus", [1.into()], 0);
    life.own("setNumberOfCpus", [text("4")], 60);
    life.own("freeze", [], 76);
    life.own("thaw", [], 77);
    let drive = members([("name", text("vdb")), ("path", overlay.display().to_string().into())]);
    life.own("snapshot", [array([drive]), text(""), false.into()], 0);
    life.wait_device("path", &overlay.display().to_string());
    life.own("migrateCancel", [], 47);

    life.own("pause", [], 0);
    life.wait_status("Paused");
    life.own("getVmStats", [], 0);
    life.own("cont", [], 0);
    life.wait_status("Up");

    life.ask("migrationCreate", vec![members([("vmId", id.clone()), ("memSize", 2.into())]), 2.into()], 4);
    let nowhere = format!("qemu+unix:///system?socket={}", host.folder.path().join("nobody").display());
    life.ask(
        "migrate",
        vec![members([("vmId", id.clone()), ("dst", nowhere.into()), ("mode", text("remote"))])],
        0,
    );
    life.wait_work(12);
    life.own("migrateStatus", [], 12);
    life.wait_status("Up");

    life.own("hibernate", [text("")], 0);
    life.wait_status("Down");
    life.own("getVmStats", [], 0);
    life.ask("list", vec![true.into(), array([id.clone()])], 0);
    life.own("migrateStatus", [], 0);
    life.own("destroy", [text("3")], 0);
    life.own("destroy", [], 1);

    life.ask("create", vec![create], 0);
    life.wait_status("Up");
    let shutdown = [1.into(), text("gr\u{fc}\u{df} & <g>"), text("false"), text("1"), true.into()];
    life.own("shutdown", shutdown, 0);
    life.wait_status("Down");
    life.own("getVmStats", [], 0);
    life.own("destroy", [], 0);
    Ok(life.steps)
}
