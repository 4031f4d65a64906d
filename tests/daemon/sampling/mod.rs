//! What managers get of VMs that run: measured figures of real guests, and nothing made up where nothing is measured.

use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use whydown_lab::{
    BootDisk, EmbedRoot, Guest, Launch, Result, Serial, Signal, Whydownd, lab_dir, wait_until, xmlrpc_client,
};

/// Longer than anything here takes, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// The quickest sampling that may be configured, and silence that is noticed soon.
const QUICK: &str = "[sampling]\ninterval_s = 1\nunresponsive_after_s = 5\n";

/// What the daemon answers to a call, as JSON.
fn ask(daemon: &Whydownd, call: &str) -> Result<Value> {
    let printed = xmlrpc_client(daemon.port()?, &format!("import json\nprint(json.dumps(server.{call}))"))?;
    Ok(serde_json::from_str(&printed).expect("JSON"))
}

/// Whydownd over libvirt's embedded driver. Dropped in this order.
struct Host {
    daemon: Whydownd,
    root: EmbedRoot,
    folder: TempDir,
}

impl Host {
    fn start(config: &str) -> Result<Self> {
        let folder = lab_dir()?;
        let root = EmbedRoot::new(folder.path().join("r"))?;
        let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
        Ok(Self { daemon: Whydownd::start(launch.config(config))?, root, folder })
    }

    fn up(&self, name: &str) -> Result<(Guest, Serial)> {
        let guest = Guest::new(self.folder.path(), name)?.boot_disk(BootDisk::Writable("stop"));
        let path = guest.write_xml()?;
        let call =
            format!("create({{'vmId': '{}', 'xml': open('{}').read()}})", guest.uuid_text(), path.display());
        let created = ask(&self.daemon, &call)?;
        assert_eq!(created["status"]["code"], 0, "{created}");
        let serial = guest.serial(PATIENCE)?;
        Ok((guest, serial))
    }

    fn stats(&self, guest: &Guest) -> Value {
        let answer = ask(&self.daemon, &format!("getVmStats('{}')", guest.uuid_text())).expect("an answer");
        answer["statsList"][0].clone()
    }

    /// Percent of one processor.
    fn cpu(&self, guest: &Guest) -> Option<f64> {
        let stats = self.stats(guest);
        Some(number(&stats["cpuUser"])? + number(&stats["cpuSys"])?)
    }

    fn wait(&self, what: &str, guest: &Guest, condition: impl Fn(&Value) -> bool) {
        wait_until(&format!("{}: {what}", guest.name()), PATIENCE, || condition(&self.stats(guest)));
    }
}

/// Numbers are text.
fn number(text: &Value) -> Option<f64> {
    text.as_str()?.parse().ok()
}

#[test]
fn a_busy_guest_and_an_idle_one_are_told_apart_and_disks_count() -> Result<()> {
    let host = Host::start(QUICK)?;
    let (busy, mut serial) = host.up("busy")?;
    let (idle, mut other) = host.up("idle")?;
    serial.spin()?;
    other.hang()?;
    // A guest that spins gets what a busy host leaves to it: the whole of a processor where nothing else runs.
    wait_until("the busy guest is told from the idle one", PATIENCE, || {
        let (spins, sleeps) = (host.cpu(&busy), host.cpu(&idle));
        spins.zip(sleeps).is_some_and(|(spins, sleeps)| spins > 20.0 && sleeps < 5.0 && spins > 10.0 * sleeps)
    });

    let (writer, mut line) = host.up("writer")?;
    let written = |stats: &Value| number(&stats["disks"]["vda"]["writtenBytes"]);
    host.wait("its disk is seen", &writer, |stats| written(stats).is_some());
    let before = written(&host.stats(&writer));
    line.write_sector()?;
    host.wait("its write is counted", &writer, |stats| written(stats) >= before.map(|before| before + 512.0));
    host.wait("its disk has rates", &writer, |stats| {
        let disk = &stats["disks"]["vda"];
        number(&disk["writeRate"]).is_some() && number(&disk["writeLatency"]).is_some()
    });

    let stats = host.stats(&writer);
    assert_eq!((&stats["kvmEnable"], &stats["acpiEnable"]), (&"false".into(), &"true".into()), "{stats:#}");
    assert_eq!((&stats["vcpuCount"], &stats["monitorResponse"]), (&"1".into(), &"0".into()), "{stats:#}");
    assert!(number(&stats["cpuUsage"]).is_some_and(|ns| ns > 0.0), "{stats:#}");
    assert!(number(&stats["disks"]["vda"]["apparentsize"]).is_some_and(|bytes| bytes > 0.0), "{stats:#}");
    let full = ask(&host.daemon, &format!("list('true', ['{}'])", writer.uuid_text()))?;
    let vm = &full["vmList"][0];
    assert_eq!((&vm["smp"], vm["memSize"].as_i64()), (&"1".into(), Some(2)), "{vm:#}");
    let devices = vm["devices"].as_array().expect("devices");
    let disk = devices.iter().find(|device| device["type"] == "disk").expect("a disk");
    assert!(disk["address"]["type"].is_string() && disk["name"] == "vda", "{disk:#}");
    Ok(())
}

#[test]
fn a_guest_that_hangs_is_said_not_to_respond_while_the_others_stay_fresh() -> Result<()> {
    let host = Host::start(QUICK)?;
    let (alive, mut serial) = host.up("alive")?;
    let (hung, _line) = host.up("hung")?;
    serial.spin()?;
    host.wait("it is sampled", &alive, |stats| stats["cpuSys"].is_string());
    host.wait("it is sampled", &hung, |stats| stats["cpuSys"].is_string());
    let last = host.stats(&hung);
    assert_eq!(last["monitorResponse"], "0", "{last:#}");

    host.root.qemu("hung")?.signal(Signal::STOP)?;
    host.wait("it does not respond", &hung, |stats| stats["monitorResponse"] == "-1");
    let silent = host.stats(&hung);
    assert_eq!(silent["status"], "Up");
    assert_eq!(
        (&silent["hash"], &silent["balloonInfo"]),
        (&last["hash"], &last["balloonInfo"]),
        "{silent:#}"
    );
    assert!(number(&silent["statsAge"]).is_some_and(|age| age >= 4.0), "{silent:#}");
    let used = || number(&host.stats(&alive)["cpuUsage"]);
    let before = used();
    wait_until("the other guest is sampled on", PATIENCE, || used() > before);
    let fresh = host.stats(&alive);
    assert_eq!(fresh["monitorResponse"], "0", "{fresh:#}");
    let begun = std::time::Instant::now();
    for _ in 0..10 {
        ask(&host.daemon, "getAllVmStats()")?;
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "polls wait for the guest that hangs");

    host.root.qemu("hung")?.signal(Signal::CONT)?;
    host.wait("it responds again", &hung, |stats| stats["monitorResponse"] == "0");
    Ok(())
}

#[test]
fn a_driver_that_measures_nothing_leaves_figures_out_instead_of_making_them_up() -> Result<()> {
    let folder = lab_dir()?;
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), "test:///default");
    let daemon = Whydownd::start(launch.config(QUICK))?;
    let stats = || ask(&daemon, "getAllVmStats()").expect("an answer")["statsList"][0].clone();
    wait_until("the devices are known", PATIENCE, || stats()["hash"].is_string());
    let vm = stats();
    for absent in ["cpuUser", "cpuSys", "cpuUsage", "statsAge", "memoryStats"] {
        assert!(vm.get(absent).is_none(), "{absent}: {vm:#}");
    }
    assert_eq!((&vm["disks"], &vm["network"]), (&serde_json::json!({}), &serde_json::json!({})), "{vm:#}");
    assert_eq!(vm["balloonInfo"], serde_json::json!({}), "a manager breaks off without it: {vm:#}");
    assert_eq!((&vm["monitorResponse"], &vm["kvmEnable"]), (&"0".into(), &"false".into()), "{vm:#}");
    assert_eq!((&vm["vcpuCount"], &vm["memUsage"]), (&"2".into(), &"0".into()), "{vm:#}");
    let full = ask(&daemon, "list(True)")?;
    assert_eq!(full["vmList"][0]["memSize"], 8192, "{full:#}");
    Ok(())
}

#[test]
fn without_sampling_managers_still_get_what_they_break_off_without() -> Result<()> {
    let folder = lab_dir()?;
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), "test:///default");
    let daemon = Whydownd::start(launch.config("[sampling]\nenabled = false\n[xmlrpc]\nprofile = '3.5'\n"))?;
    let vm = ask(&daemon, "getAllVmStats()")?["statsList"][0].clone();
    assert_eq!((&vm["disks"], &vm["network"]), (&serde_json::json!({}), &serde_json::json!({})), "{vm:#}");
    assert!(vm.get("hash").is_none() && vm.get("vmName").is_none(), "{vm:#}");
    assert_eq!(vm["clientIp"], "", "as that generation had it");
    Ok(())
}
