//! A real host with real guests, read by every engine in every profile and range that is meant for it.

use std::collections::BTreeMap;

use tempfile::TempDir;
use whydown_lab::{
    BootDisk, EmbedRoot, Guest, Launch, OnEnd, Result, Serial, Signal, Whydownd, lab_dir, wait_until,
    xmlrpc_client,
};

use crate::managers::reader::Reader;
use crate::managers::table::TABLE;
use crate::managers::xmlrpc::{self, Value};
use whydown_lab::engine::{Param, call};

/// Longer than anything here takes, on a machine that is busy with other tests.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Whydownd over libvirt's embedded driver. Dropped in this order.
pub struct Host {
    pub daemon: Whydownd,
    pub root: EmbedRoot,
    pub folder: TempDir,
}

impl Host {
    pub fn start(config: &str) -> Result<Self> {
        Self::start_at(config, "127.0.0.1:0")
    }

    /// At a port that it will have again after a restart: one that was free a moment ago.
    pub fn start_at_a_fixed_port(config: &str) -> Result<Self> {
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        Self::start_at(config, &free.expect("a free port").to_string())
    }

    fn start_at(config: &str, listen: &str) -> Result<Self> {
        let folder = lab_dir()?;
        let root = EmbedRoot::new(folder.path().join("r"))?;
        let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
        Ok(Self { daemon: Whydownd::start(launch.listen(listen).config(config))?, root, folder })
    }

    /// Starts it again with another configuration; guests live on.
    pub fn start_again_with(&mut self, config: &str) -> Result<()> {
        self.daemon.terminate()?;
        std::fs::write(self.folder.path().join("d/whydown.toml"), config).expect("the folder can be written");
        self.daemon.start_again()
    }

    pub fn guest(&self, name: &str) -> Result<Guest> {
        Guest::new(self.folder.path(), name)
    }

    pub fn python(&self, code: &str) -> Result<String> {
        Ok(xmlrpc_client(self.daemon.port()?, code)?.trim().to_owned())
    }

    /// `create` by XML-RPC; the status code.
    pub fn create(&self, guest: &Guest) -> Result<String> {
        let path = guest.write_xml()?;
        self.python(&format!(
            "print(server.create({{'xml': open('{}').read()}})['status']['code'])",
            path.display()
        ))
    }

    pub fn up(&self, guest: &Guest) -> Result<Serial> {
        assert_eq!(self.create(guest)?, "0");
        let serial = guest.serial(PATIENCE)?;
        self.wait(guest, "Up");
        Ok(serial)
    }

    pub fn status(&self, guest: &Guest) -> Option<String> {
        match self.member(guest.uuid_text(), "status")? {
            Value::Text(status) => Some(status),
            _ => None,
        }
    }

    /// A member of `getVmStats`. Waiting by this costs no process a look.
    pub fn member(&self, id: &str, name: &str) -> Option<Value> {
        let body = call(self.daemon.port().ok()?, None, "getVmStats", &[Param::Text(id)]);
        let Value::Struct(mut reply) = xmlrpc::read(&body).ok()? else { return None };
        let Value::Array(mut vms) = reply.remove("statsList")? else { return None };
        let Value::Struct(mut vm) = vms.pop()? else { return None };
        vm.remove(name)
    }

    pub fn wait(&self, guest: &Guest, status: &str) {
        let what = format!("{} is {status}", guest.name());
        wait_until(&what, PATIENCE, || self.status(guest).as_deref() == Some(status));
    }
}

/// What the engines should see of a guest: status, and exit code and exact reason.
type Wanted = (&'static str, Option<(i64, i64)>);

/// Guests that run, and guests that ended in several ways; two of them by a number that not all engines know.
fn guests(host: &Host) -> Result<(BTreeMap<String, Wanted>, Vec<Serial>)> {
    let mut wanted = BTreeMap::new();
    let mut held = Vec::new();
    let mut note = |guest: &Guest, status, exit| wanted.insert(guest.uuid_text().to_owned(), (status, exit));

    // A disk that is written, and a network card with an interface of its own on the host.
    let card = format!(
        "<interface type='ethernet'><mac address='52:54:00:12:34:56'/><target dev='wd{}'/><model type='e1000'/>\
         <script path='/bin/true'/></interface>",
        std::process::id()
    );
    let writer = host.guest("writer")?.boot_disk(BootDisk::Writable("stop")).device_xml(&card);
    let mut serial = host.up(&writer)?;
    serial.write_sector()?;
    note(&writer, "Up", None);
    held.push(serial);
    let paused = host.guest("paused")?;
    held.push(host.up(&paused)?);
    assert_eq!(
        host.python(&format!("print(server.pause('{}')['status']['code'])", paused.uuid_text()))?,
        "0"
    );
    note(&paused, "Paused", None);

    let off = host.guest("off")?;
    host.up(&off)?.power_off()?;
    note(&off, "Down", Some((0, 7)));
    let panic = host.guest("panic")?;
    host.up(&panic)?.panic()?;
    note(&panic, "Down", Some((1, 2)));
    let reset = host.guest("reset")?.on_reboot(OnEnd::Destroy);
    host.up(&reset)?.reset()?;
    note(&reset, "Down", Some((0, 13)));
    let ended = host.guest("ended")?;
    let _line = host.up(&ended)?;
    host.root.qemu("ended")?.signal(Signal::TERM)?;
    note(&ended, "Down", Some((1, 11)));
    let saved = host.guest("saved")?;
    let _line = host.up(&saved)?;
    host.python(&format!("server.hibernate('{}', '')", saved.uuid_text()))?;
    note(&saved, "Down", Some((0, 5)));
    let broken = host.guest("broken")?.image(host.folder.path().join("nothing-is-here"));
    host.create(&broken)?;
    note(&broken, "Down", Some((1, 1)));
    for guest in [&off, &panic, &reset, &ended, &saved, &broken] {
        host.wait(guest, "Down");
    }
    host.wait(&paused, "Paused");
    Ok((wanted, held))
}

/// A full cycle of an engine: host verbs first, then all VMs, the list, devices, and one VM at a time.
fn cycle(host: &Host, reader: &mut Reader, range: Option<&str>, at: &str) -> Result<BTreeMap<String, Plain>> {
    let port = host.daemon.port()?;
    let ask = |method, params: &[Param<'_>]| call(port, range, method, params);
    let none = Vec::<String>::new();
    let capabilities = reader.host("capabilities", &ask("getVdsCapabilities", &[]));
    assert_eq!(capabilities, Ok(none.clone()), "{at}");
    assert_eq!(reader.host("host", &ask("getVdsStats", &[])), Ok(none.clone()), "{at}");
    let taken = reader.stats(&ask("getAllVmStats", &[])).unwrap_or_else(|why| panic!("{at}: {why}"));
    assert_eq!(taken.lost, none, "{at}");
    let (listed, lost) = reader.list(&ask("list", &[])).unwrap_or_else(|why| panic!("{at}: {why}"));
    assert_eq!(lost, none, "{at}");
    let ids: Vec<String> = listed.keys().cloned().collect();
    let body = ask("list", &[Param::Text("true"), Param::Texts(&ids)]);
    let (described, lost) = reader.described(&body).unwrap_or_else(|why| panic!("{at}: {why}"));
    assert_eq!((lost, described.len()), (none.clone(), ids.len()), "{at}");
    for id in &ids {
        let one =
            reader.stats(&ask("getVmStats", &[Param::Text(id)])).unwrap_or_else(|why| panic!("{at}: {why}"));
        assert_eq!(one.lost, none, "{at}");
        assert_eq!(one.vms[id], taken.vms[id], "{at}");
        assert_eq!(listed[id], taken.vms[id].status, "{at}");
    }
    let plain =
        |seen: crate::managers::reader::Seen| (seen.status, seen.exit.map(|exit| (exit.code, exit.reason)));
    Ok(taken.vms.into_iter().map(|(id, seen)| (id, plain(seen))).collect())
}

/// The same, as it was read.
type Plain = (String, Option<(i64, i64)>);

#[test]
fn every_engine_reads_a_real_host_in_every_profile_and_range_that_is_meant_for_it() -> Result<()> {
    let sampling = "[sampling]\ninterval_s = 1\n";
    let mut host = Host::start(sampling)?;
    let (wanted, _held) = guests(&host)?;
    let writer = wanted.iter().find(|(_, wanted)| wanted.0 == "Up").expect("one runs").0;
    let mut readers: BTreeMap<&str, Reader> = Reader::all().map(|reader| (reader.version, reader)).collect();
    let mut cycles = 0;
    for profile in ["common", "3.4", "3.5", "3.6", "4.0"] {
        // By configuration here, by header below: both ways are tried in each range.
        let range = ["classic", "4.1", "full"][cycles % 3];
        host.start_again_with(&format!(
            "{sampling}[xmlrpc]\nprofile = '{profile}'\nexit_reasons = '{range}'\n"
        ))?;
        let all_have = |name: &str, member: &str| match host.member(writer, name) {
            Some(Value::Struct(parts)) if !parts.is_empty() => {
                parts.values().all(|part| matches!(part, Value::Struct(part) if part.contains_key(member)))
            }
            _ => false,
        };
        wait_until("its disk and its card are sampled", PATIENCE, || {
            all_have("disks", "readRate") && all_have("network", "rxRate")
        });
        for (version, engine) in &TABLE.engine {
            if !engine.profiles.iter().any(|meant| meant == profile) {
                continue;
            }
            for wide in &engine.ranges {
                let at = format!("engine {version}, profile {profile}, range {wide}");
                let asked = (wide != range).then_some(wide.as_str());
                let reader = readers.get_mut(version.as_str()).expect("one for each engine");
                let seen = cycle(&host, reader, asked, &at)?;
                cycles += 1;
                let highest = match wide.as_str() {
                    "classic" => 8,
                    "4.1" => 12,
                    _ => 14,
                };
                for (id, (status, exit)) in &wanted {
                    let exit = exit.map(|(code, exact)| match engine.highest {
                        None => (code, -1),
                        Some(_) if exact <= highest => (code, exact),
                        // The nearest of the same code: asked for, or an error.
                        Some(_) => (code, if code == 0 { 6 } else { 1 }),
                    });
                    assert_eq!(seen[id], ((*status).to_owned(), exit), "{at}");
                }
                assert_eq!(seen.len(), wanted.len(), "{at}");
            }
        }
    }
    assert!(cycles >= 18, "{cycles}");

    // And what is not meant for it, it loses: else nothing of this would be shown.
    let full = call(host.daemon.port()?, Some("full"), "getAllVmStats", &[]);
    for version in ["3.6", "4.0"] {
        assert!(
            Reader::new(version).stats(&full).is_err_and(|why| why.contains("ends the batch")),
            "{version}"
        );
    }
    assert_eq!(Reader::new("4.1").stats(&full).expect("it is read").vms.len(), wanted.len() - 1);
    Ok(())
}
