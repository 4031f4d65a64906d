//! What a real host says of itself, against what libvirt says of the same host to somebody else.

use std::collections::BTreeSet;

use tempfile::TempDir;
use whydown_lab::{EmbedRoot, Launch, Result, Whydownd, lab_dir, wait_until};

use crate::call::call_local;
use crate::live::PATIENCE;
use crate::xmlrpc::{self, Value};

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
