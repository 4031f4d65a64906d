//! What all clients read at the same time: machines in every state, under names and with messages that are hard to carry.

use std::net::SocketAddr;

use whydown_lab::{BootDisk, Guest, Launch, Result, Whydownd, wait_until, xmlrpc_client};

use crate::peers::line::{Reply, Value};
use crate::peers::reads::Call;
use whydown_lab::host::{Host, PATIENCE};

/// Markup, quotes, letters of two and three bytes, and a line separator that some languages take for a line's end.
pub const NAME: &str = "gr\u{f6}\u{df}e & <b>\"Name\"<b> 'q' ]]> &amp; \u{2028}\u{6f22}\u{5b57}";

/// Letters that take two places in Java, JavaScript and C on Windows.
pub const ASTRAL: &str = "\u{1f600} & \u{1d11e}";

/// A VM that nobody knows.
pub const NOBODY: &str = "6695eb01-f6a4-4304-89aa-97f2502e193f";

/// The daemon that all share, and another one on the same libvirtd that speaks as VDSM of oVirt 4.0 did.
pub struct World {
    later: Whydownd,
    pub host: Host,
    pub shown: Guest,
    pub paused: Guest,
    pub failed: Guest,
    pub ended: Guest,
}

/// The guest's document with another name for the people.
pub fn named(guest: &Guest, name: &str) -> String {
    let escaped = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let plain = format!("<name>{}</name>", guest.name());
    // The balloon is libvirt's own where the document names none.
    guest
        .xml()
        .replace(&plain, &format!("<name>{escaped}</name>"))
        .replace("<memballoon model='none'/>\n", "")
}

/// A machine with all devices that are told of: screen, balloon, two disks, a network card.
pub fn equipped(host: &Host, name: &str) -> Result<Guest> {
    let data = host.folder.path().join(format!("{name}.data"));
    std::fs::File::create(&data).and_then(|file| file.set_len(1 << 20)).expect("a file can be made");
    Ok(host.guest(name)?.boot_disk(BootDisk::Writable("report")).data_disk(&data).device_xml(
        "<graphics type='vnc' autoport='yes' listen='127.0.0.1' passwd='x'/><video><model type='vga'/></video>\
         <interface type='user'><mac address='52:54:00:12:34:56'/><model type='e1000'/></interface>",
    ))
}

/// Lets Python's client create a machine from this document.
pub fn create(host: &Host, guest: &Guest, document: &str) -> Result<()> {
    let path = host.folder.path().join(format!("{}.odd.xml", guest.name()));
    std::fs::write(&path, document).expect("a file can be written");
    let code = host.call(&format!(
        "create({{'vmId': '{}', 'xml': open('{}', encoding='utf-8').read()}})",
        guest.uuid_text(),
        path.display()
    ))?;
    assert_eq!(code, 0, "{}", guest.name());
    Ok(())
}

/// A machine that cannot start: libvirt says the path of its disk, and that is its message.
pub fn fail(host: &Host, plain: &str, name: &str) -> Result<Guest> {
    let guest = host.guest(plain)?.image(format!("/no-such-disk/{plain}"));
    let escaped =
        name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;");
    let document =
        named(&guest, name).replace(&format!("/no-such-disk/{plain}"), &format!("/no-such-disk/{escaped}"));
    create(host, &guest, &document)?;
    host.wait_status(&guest, "down");
    Ok(guest)
}

impl World {
    pub fn start() -> Result<Self> {
        let host = Host::start_with("peers", "[sampling]\ninterval_s = 1\n")?;
        let shown = equipped(&host, "shown")?;
        create(&host, &shown, &named(&shown, NAME))?;
        let paused = host.guest("paused")?;
        drop(host.up(&paused)?);
        let ended = host.guest("ended")?;
        host.up(&ended)?.power_off()?;
        let failed = fail(&host, "failed", &format!("{NAME} again"))?;
        host.wait_status(&ended, "down");
        drop(shown.serial(PATIENCE)?);
        host.wait_status(&shown, "up");
        assert_eq!(host.call(&format!("pause('{}')", paused.uuid_text()))?, 0);
        host.wait_status(&paused, "paused");

        let launch = Launch::new(
            env!("CARGO_BIN_EXE_whydownd"),
            host.folder.path().join("later"),
            &host.libvirtd.uri(),
        );
        let later = Whydownd::start(
            launch.config("[sampling]\ninterval_s = 1\n[xmlrpc]\nprofile = '4.0'\nexit_reasons = 'full'\n"),
        )?;
        let world = Self { later, host, shown, paused, failed, ended };
        for port in [world.host.daemon.port()?, world.later.port()?] {
            wait_until("all that is measured is there", PATIENCE, || world.measured(port));
        }
        Ok(world)
    }

    /// Whether every member that waits for a second sample is told.
    fn measured(&self, port: u16) -> bool {
        let code = format!(
            "all = {{vm['vmId']: vm for vm in server.getAllVmStats()['statsList']}}\n\
             shown, paused = all['{}'], all['{}']\n\
             print('hash' in paused and 'cpuUser' in paused and 'cpuUser' in shown and 'balloonInfo' in shown\n\
             and 'readRate' in shown['disks']['vdb'])",
            self.shown.uuid_text(),
            self.paused.uuid_text()
        );
        xmlrpc_client(port, &code).is_ok_and(|told| told == "True")
    }

    /// What must be in Python's own reading, so that all do not agree on nothing.
    pub fn wrong_anchors(&self, calls: &[Call], read: &[Reply]) -> Vec<String> {
        let anchors = [
            (&self.shown, "status", "Up"),
            (&self.shown, "vmName", NAME),
            (&self.failed, "status", "Down"),
            (&self.failed, "exitMessage", NAME),
            (&self.failed, "exitCause", "start-failed"),
            (&self.ended, "exitCause", "guest-poweroff"),
        ];
        let told = |guest: &Guest, member: &str| {
            let wanted = [Value::from(guest.uuid_text())];
            let number =
                calls.iter().position(|call| call.method == "getVmStats" && call.arguments == wanted)?;
            match &read[number] {
                Reply::Value(value) => value.text(&format!("statsList.0.{member}")).map(str::to_owned),
                _ => None,
            }
        };
        let wrong = |(guest, member, words): &(&Guest, &str, &str)| {
            let told = told(guest, member);
            let holds = told.as_ref().is_some_and(|told| told.contains(words));
            (!holds).then(|| format!("{}: {member}: {told:?}", guest.name()))
        };
        let mut found: Vec<_> = anchors.iter().filter_map(wrong).collect();
        // The pid file of a name with markup is found: its number is told.
        if told(&self.shown, "pid").is_none_or(|pid| pid == "0") {
            found.push("shown: pid: the process behind it is not known".into());
        }
        found
    }

    /// Where the two daemons listen.
    pub fn addresses(&self) -> Result<[SocketAddr; 2]> {
        Ok([self.host.daemon.addresses()?[0], self.later.addresses()?[0]])
    }
}
