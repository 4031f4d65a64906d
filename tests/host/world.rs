//! One host with whydown on it, and what a test wants to ask.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use whydown_lab::{BootedHost, Guest, Result, Serial, lab_dir, wait_until};

/// Longer than anything here takes, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The host, and its folder. Dropped in this order.
pub struct World {
    pub host: BootedHost,
    _folder: TempDir,
}

impl World {
    /// A host that is on, with whydown installed and started as its manual says.
    pub fn start() -> Result<Self> {
        let folder = lab_dir()?;
        let systemd = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        let (whydownd, whydown) = (env!("CARGO_BIN_EXE_whydownd"), env!("CARGO_BIN_EXE_whydown"));
        let host = BootedHost::install(folder.path(), whydownd.as_ref(), whydown.as_ref(), &systemd)?;
        let mut world = Self { host, _folder: folder };
        world.host.boot()?;
        for line in [
            "systemd-sysusers whydown.conf",
            "systemd-tmpfiles --create whydown.conf",
            "whydownd --check-config",
            "systemctl daemon-reload",
            "systemctl enable --now whydown",
        ] {
            world.host.run(&line.split(' ').collect::<Vec<_>>())?;
        }
        Ok(world)
    }

    /// What `whydown --json` prints.
    pub fn whydown(&self, arguments: &[&str]) -> Result<Value> {
        let said = self.host.run(&[&["whydown", "--json"], arguments].concat())?;
        Ok(serde_json::from_str(&said).expect("JSON"))
    }

    /// A value of the unit, as systemd shows it.
    pub fn unit(&self, unit: &str, property: &str) -> Result<String> {
        self.host.run(&["systemctl", "show", "--value", "--property", property, unit])
    }

    /// Makes and starts it; it answers and whydown shows it Up.
    pub fn up(&self, name: &str, persistent: bool) -> Result<(Guest, Serial)> {
        let guest = self.host.guest(name)?;
        let document = guest.write_xml()?;
        let document = document.to_string_lossy();
        if persistent {
            self.host.run(&["virsh", "-q", "define", &document])?;
            self.host.run(&["virsh", "-q", "start", name])?;
        } else {
            self.host.run(&["virsh", "-q", "create", &document])?;
        }
        let serial = self.wait_up(&guest)?;
        Ok((guest, serial))
    }

    /// Starts it again.
    pub fn up_again(&self, guest: &Guest) -> Result<Serial> {
        self.host.run(&["virsh", "-q", "start", guest.name()])?;
        self.wait_up(guest)
    }

    fn wait_up(&self, guest: &Guest) -> Result<Serial> {
        let mut serial = guest.serial(PATIENCE)?;
        serial.answer(PATIENCE)?;
        wait_until(&format!("{} is up", guest.name()), PATIENCE, || {
            self.whydown(&["why", guest.uuid_text()]).is_ok_and(|why| why["domain"]["status"] == "up")
        });
        Ok(serial)
    }

    /// The past endings of a guest, newest first.
    pub fn past(&self, guest: &Guest) -> Vec<Value> {
        let history = self.whydown(&["history", guest.uuid_text()]).expect("the daemon answers");
        history["endings"].as_array().expect("a list").clone()
    }

    /// Waits until the daemon has seen libvirt and closed what it had open of these guests.
    pub fn wait_settled(&self, guests: &[&Guest]) {
        wait_until("whydown has looked at all that was open", PATIENCE, || {
            let Ok(list) = self.whydown(&["list"]) else { return false };
            let open = |guest: &&Guest| {
                let shown = list["domains"].as_array().expect("a list");
                shown.iter().any(|d| d["domain"] == guest.uuid_text() && d["status"] != "down")
            };
            list["settled"] == true && !guests.iter().any(open)
        });
    }

    /// Fails unless the guest has exactly this many endings, the newest one with this cause, certainty and row.
    #[track_caller]
    pub fn expect(&self, guest: &Guest, count: usize, wanted: [&str; 3]) -> Value {
        let past = self.past(guest);
        let newest = past.first().cloned().unwrap_or_default();
        let got = ["cause", "certainty", "row"].map(|key| newest[key].as_str().unwrap_or("").to_owned());
        if got != wanted || past.len() != count {
            let why = self.host.run(&["whydown", "why", guest.uuid_text()]).unwrap_or_default();
            panic!(
                "{}: {count} endings, the newest {wanted:?}, were wanted; there are {}: {got:?}\n{why}\n{newest:#}\n{}",
                guest.name(),
                past.len(),
                self.host.journal(150)
            );
        }
        newest
    }
}
