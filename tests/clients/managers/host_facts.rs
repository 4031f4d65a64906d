//! What a real host says of itself, against what libvirt says of the same host to somebody else.

use std::collections::BTreeSet;

use tempfile::TempDir;
use whydown_lab::{EmbedRoot, Launch, Result, Whydownd, lab_dir, wait_until};

use crate::managers::live::PATIENCE;
use crate::managers::xmlrpc::{self, Value};
use whydown_lab::engine::{Param, call_local, call_local_with};

pub type Members = std::collections::BTreeMap<String, Value>;

/// Over libvirt's embedded driver. Dropped in this order.
pub struct Alone {
    pub daemon: Whydownd,
    pub root: EmbedRoot,
    _folder: TempDir,
}

impl Alone {
    pub fn start(with: impl Fn(Launch) -> Launch) -> Result<Self> {
        let folder = lab_dir()?;
        let root = EmbedRoot::new(folder.path().join("r"))?;
        let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
        Ok(Self { daemon: Whydownd::start(with(launch))?, root, _folder: folder })
    }
}

/// `info` of `getVdsCapabilities`, which waits until libvirt was asked what it can do.
pub fn capabilities(daemon: &Whydownd) -> Members {
    let ask = || {
        let body = call_local(&daemon.socket_path(), "getVdsCapabilities");
        let Value::Struct(mut reply) = xmlrpc::read(&body).expect("a reply") else { panic!("no struct") };
        match reply.remove("info") {
            Some(Value::Struct(info)) => Some(info),
            _ => None,
        }
    };
    wait_until("libvirt has said what it can do", PATIENCE, || ask().is_some());
    ask().expect("what was learned stays")
}

/// The words of a text with commas, or of an array.
pub fn words(info: &Members, name: &str) -> BTreeSet<String> {
    match &info[name] {
        Value::Text(text) => text.split(',').map(str::to_owned).collect(),
        Value::Array(items) => items.iter().map(|item| item.as_text().expect("texts").to_owned()).collect(),
        other => panic!("{name}: {other:?}"),
    }
}

/// The models of the host's maker that VMs can have, as virsh says of the same root; no daemon may hold it.
pub fn libvirts_models(root: &EmbedRoot, info: &Members) -> Result<BTreeSet<String>> {
    let mut virsh = root.shell()?;
    let maker = virsh.ask("capabilities")?;
    let maker = maker.split_once("<vendor>").and_then(|(_, rest)| rest.split_once("</vendor>"));
    let of_maker = format!("vendor='{}'", maker.map_or("?", |(maker, _)| maker));
    let kind = if info["kvmEnabled"].as_text() == Some("true") { "kvm" } else { "qemu" };
    let document = virsh.ask(&format!("domcapabilities --virttype {kind}"))?;
    Ok(document
        .lines()
        .filter(|line| line.contains("<model usable='yes'") && line.contains(&of_maker))
        .filter_map(|line| Some(line.split_once('>')?.1.split_once('<')?.0.to_owned()))
        .collect())
}

#[test]
fn processor_models_are_those_that_libvirt_lets_vms_of_this_maker_have() -> Result<()> {
    // Without KVM there are models everywhere; with it, a nested host may have none.
    for kvm in [true, false] {
        let mut host = Alone::start(|launch| if kvm { launch } else { launch.without_kvm() })?;
        let info = capabilities(&host.daemon);
        host.daemon.terminate()?;
        let told: BTreeSet<String> = words(&info, "cpuFlags")
            .iter()
            .filter_map(|w| w.strip_prefix("model_"))
            .map(str::to_owned)
            .collect();

        assert!(kvm || info["kvmEnabled"].as_text() == Some("false"), "KVM is hidden: {info:?}");
        let expected = libvirts_models(&host.root, &info)?;
        assert_eq!(told, expected);
        assert!(kvm || !told.is_empty());
    }
    Ok(())
}

#[test]
fn sources_of_random_numbers_are_those_that_the_host_has() -> Result<()> {
    let host = Alone::start(|launch| launch)?;
    let expected = [("random", "/dev/random"), ("hwrng", "/dev/hwrng")]
        .into_iter()
        .filter(|(_, file)| std::fs::exists(file).expect("/dev can be read"))
        .map(|(name, _)| name.to_owned())
        .collect();
    assert_eq!(words(&capabilities(&host.daemon), "rngSources"), expected);
    Ok(())
}

#[test]
fn a_card_that_leads_nowhere_is_plugged_in_later_where_the_host_has_the_bridge_for_that() -> Result<()> {
    const BRIDGE: &str = "ip link set lo up && ip link add lab0 type bridge && ip link set lab0 up";
    const NOWHERE: &str = " && ip link add ';vdsmdummy;' type bridge && ip link set ';vdsmdummy;' up";
    const VM: &str = "6695eb01-f6a4-4304-89aa-97f2502e193f";
    let member =
        |name: &str, value: &str| format!("<member><name>{name}</name><value>{value}</value></member>");
    let structure = |members: &[(&str, &str)]| {
        let members: String = members.iter().map(|(name, value)| member(name, value)).collect();
        format!("<value><struct>{members}</struct></value>")
    };
    for (network, code) in [(BRIDGE.to_owned() + NOWHERE, 0), (BRIDGE.to_owned(), 56)] {
        let host = Alone::start(|launch| launch.network(&network))?;
        let told = words_of_networks(&capabilities(&host.daemon));
        assert!(told.contains("lab0") && !told.contains("vdsmdummy"), "{told}");
        let ask =
            |method: &str, params: &[Param<'_>]| call_local_with(&host.daemon.socket_path(), method, params);
        let card = |mac: &str| {
            structure(&[("type", "interface"), ("device", "bridge"), ("macAddr", mac), ("network", "")])
        };
        let devices = format!("<array><data>{}</data></array>", card("52:54:00:00:00:01"));
        let vm = structure(&[("vmId", VM), ("memSize", "16"), ("kvmEnable", "false"), ("devices", &devices)]);
        let reply = ask("create", &[Param::Written(&vm)]);
        assert!(reply.contains("WaitForLaunch"), "{reply}");
        wait_until("it is up", PATIENCE, || ask("getVmStats", &[Param::Text(VM)]).contains(">Up<"));
        let nic = card("52:54:00:00:00:02").replacen("<value>", "", 1);
        let nic = nic.strip_suffix("</value>").unwrap_or_default();
        let reply = ask("hotplugNic", &[Param::Written(&structure(&[("vmId", VM), ("nic", nic)]))]);
        assert!(reply.contains("<name>code</name><value><int>0</int>"), "{reply}");
        for alias in ["net0", "net1"] {
            let link = structure(&[
                ("deviceType", "interface"),
                ("alias", alias),
                ("linkActive", "true"),
                ("network", "lab0"),
            ]);
            let reply = ask("vmUpdateDevice", &[Param::Text(VM), Param::Written(&link)]);
            assert!(
                reply.contains(&format!("<name>code</name><value><int>{code}</int>")),
                "{alias}: {reply}"
            );
        }
        assert!(ask("destroy", &[Param::Text(VM)]).contains("<int>0</int>"));
    }
    Ok(())
}

/// What a host says of its networks and bridges.
fn words_of_networks(info: &Members) -> String {
    format!("{:?} {:?}", info["networks"], info["bridges"])
}
