//! Whether an engine takes a host, by the questions of `accepts.toml`: put to what a host says in every profile, to a host
//! that lacks one thing at a time, and to a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::process::Command;
use std::sync::LazyLock;

use serde::Deserialize;
use whydown_lab::Result;
use whydown_wire::{Generation, HostFacts, LinkKind, capabilities};

use crate::managers::host_facts::{self, Alone, Members, libvirts_models, words};
use crate::managers::samples::host;
use crate::managers::table::TABLE as ENGINES;
use crate::managers::xmlrpc::{self, Value};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    engine: BTreeMap<String, Engine>,
    cluster: BTreeMap<String, Cluster>,
    question: Vec<Question>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Engine {
    read: String,
    vdsm: String,
    xmlrpc: Option<String>,
    clusters: String,
    rng: Rng,
    switch: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Rng {
    None,
    Random,
    Either,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    machines: String,
    cpus: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    name: String,
    reason: String,
    source: String,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    toml::from_str(include_str!("accepts.toml")).expect("accepts.toml is a table of questions")
});

/// The network that a cluster's hosts must have.
const MANAGEMENT: &str = "ovirtmgmt";

/// Each engine with each of its clusters.
fn clusters() -> impl Iterator<Item = (&'static str, &'static Engine, &'static str, &'static Cluster)> {
    TABLE.engine.iter().flat_map(|(version, engine)| {
        let levels = engine.clusters.split(' ');
        levels.map(move |level| (version.as_str(), engine, level, &TABLE.cluster[level]))
    })
}

fn network<'a>(info: &'a Members, name: &str) -> Option<&'a Members> {
    match &info["networks"] {
        Value::Struct(networks) => match networks.get(name)? {
            Value::Struct(network) => Some(network),
            _ => None,
        },
        other => panic!("networks: {other:?}"),
    }
}

/// Whether the answer to a question is yes. Versions compare as text: all are of the form `N.N`.
fn is_content(
    question: &str,
    (version, engine): (&str, &Engine),
    (level, cluster): (&str, &Cluster),
    info: &Members,
) -> bool {
    let levels = words(info, "clusterLevels");
    let has_all = |wanted: &str, all: &BTreeSet<String>| wanted.split(' ').all(|word| all.contains(word));
    match question {
        "protocol" => engine.xmlrpc.as_deref().is_some_and(|highest| level <= highest),
        "switch" => {
            let asked = engine.switch.as_ref().is_some_and(|since| levels.iter().max() >= Some(since));
            let Value::Struct(networks) = &info["networks"] else { panic!("{info:?}") };
            let says =
                |network: &Value| matches!(network, Value::Struct(members) if members.contains_key("switch"));
            !asked || networks.values().all(says)
        }
        "network" => network(info, MANAGEMENT).is_some(),
        "bridge" => {
            network(info, MANAGEMENT).is_none_or(|network| network["bridged"] == Value::Boolean(true))
        }
        "kvm" => info["kvmEnabled"].as_text() != Some("false"),
        "machine" => {
            cluster.machines.split(' ').any(|machine| words(info, "emulatedMachines").contains(machine))
        }
        "rng" => {
            let sources = words(info, "rngSources");
            match engine.rng {
                Rng::Random if level >= "3.6" => sources.contains("random"),
                Rng::Random | Rng::None => true,
                Rng::Either => sources.contains("random") || sources.contains("urandom"),
            }
        }
        "version" => {
            let Value::Struct(packages) = &info["packages2"] else { panic!("{info:?}") };
            let Value::Struct(vdsm) = &packages["vdsm"] else { panic!("{info:?}") };
            let told: Vec<&str> = vdsm["version"].as_text().expect("text").splitn(3, '.').collect();
            words(info, "supportedENGINEs").contains(version)
                || engine.vdsm.split(' ').any(|taken| taken == told[..2].join("."))
        }
        "level" => levels.contains(level),
        "cpu" => {
            let flags = words(info, "cpuFlags");
            let of_maker = |line: &&String| {
                let maker = if flags.contains("vmx") { "vmx" } else { "svm" };
                line.split(' ').any(|word| word == maker)
            };
            cluster.cpus.iter().filter(of_maker).any(|line| has_all(line, &flags))
        }
        other => panic!("accepts.toml asks {other}"),
    }
}

/// The questions to which the answer is no.
fn refusals(engine: (&str, &Engine), cluster: (&str, &Cluster), info: &Members) -> Vec<&'static str> {
    let questions = TABLE.question.iter().map(|question| question.name.as_str());
    questions.filter(|question| !is_content(question, engine, cluster, info)).collect()
}

fn told(facts: &HostFacts, generation: Generation) -> Members {
    let body = capabilities(facts, generation, None);
    let body = std::str::from_utf8(&body).expect("replies are UTF-8");
    let Value::Struct(mut reply) = xmlrpc::read(body).expect("a reply") else { panic!("{body}") };
    let Some(Value::Struct(info)) = reply.remove("info") else { panic!("{body}") };
    info
}

fn generation(word: &str) -> Generation {
    Generation::ALL.into_iter().find(|generation| generation.word() == word).expect("a profile of this name")
}

/// A host with all that any cluster asks for, of an old QEMU's machine types as well.
fn fit() -> HostFacts {
    let mut facts = host();
    facts.machines.extend(["pc-1.0", "pc-i440fx-2.1", "pc-i440fx-2.6"].map(str::to_owned));
    let own = whydown_wire::Package { version: env!("CARGO_PKG_VERSION").into(), release: "whydown".into() };
    facts.packages.insert("vdsm".into(), own);
    facts
}

#[test]
fn the_questions_are_whole_and_every_engine_that_is_imitated_asks_them() {
    for (name, reason, source) in TABLE.question.iter().map(|q| (&q.name, &q.reason, &q.source)) {
        assert!(!name.is_empty() && !reason.is_empty() && source.len() > 5, "{name}");
    }
    let imitated: Vec<&String> = ENGINES.engine.keys().filter(|version| *version != "4.2").collect();
    assert_eq!(TABLE.engine.keys().collect::<Vec<_>>(), imitated);
    for (version, engine) in &TABLE.engine {
        assert!(engine.read.starts_with(version.as_str()), "{version}");
    }
    for (version, _, level, cluster) in clusters() {
        assert!(!cluster.machines.is_empty() && !cluster.cpus.is_empty(), "{version}, {level}");
    }
}

#[test]
fn a_fit_host_is_taken_in_every_profile_that_is_meant_for_the_engine() {
    for (version, engine, level, cluster) in clusters() {
        for profile in &ENGINES.engine[version].profiles {
            let info = told(&fit(), generation(profile));
            let refused = refusals((version, engine), (level, cluster), &info);
            // What is said is enough everywhere; over XML-RPC new engines take nobody, and level 4.1 is not offered.
            let mut expected = Vec::new();
            if level >= "3.6" {
                expected.push("protocol");
            }
            if level == "4.1" {
                expected.push("level");
            }
            assert_eq!(refused, expected, "engine {version}, cluster {level}, profile {profile}");
        }
    }
    // The profile decides: one for older engines does not offer the host to new ones.
    let info = told(&fit(), Generation::V3_6);
    let refused = refusals(("4.0", &TABLE.engine["4.0"]), ("4.0", &TABLE.cluster["4.0"]), &info);
    assert_eq!(refused, ["protocol", "version", "level"]);
}

#[test]
fn whatever_a_host_lacks_is_asked_for() {
    type Lack = fn(&mut HostFacts);
    let lacking: [(&str, Lack); 9] = [
        ("network", |facts| facts.links.retain(|link| link.name != MANAGEMENT)),
        ("network", |facts| {
            let bridge = facts.links.iter_mut().find(|link| link.name == MANAGEMENT).expect("it has one");
            bridge.kind = LinkKind::Bridge { ports: vec![], stp: false };
        }),
        ("kvm", |facts| facts.kvm = false),
        ("machine", |facts| facts.machines.retain(|machine| machine == "pc-q35-7.2")),
        ("rng", |facts| facts.rng_sources.clear()),
        ("rng", |facts| facts.rng_sources = vec!["hwrng"]),
        ("cpu", |facts| facts.cpu_models.clear()),
        ("cpu", |facts| facts.cpu_models = vec!["EPYC".into()]),
        ("cpu", |facts| facts.cpu_flags.retain(|flag| flag != "nx")),
    ];
    for (version, engine, level, cluster) in clusters() {
        let asked = |facts: &HostFacts| -> BTreeSet<&str> {
            let info = told(facts, Generation::Common);
            refusals((version, engine), (level, cluster), &info).into_iter().collect()
        };
        let before = asked(&fit());
        for (question, lack) in lacking {
            let mut facts = fit();
            lack(&mut facts);
            let new: Vec<&str> = asked(&facts).difference(&before).copied().collect();
            let cares = question != "rng" || (engine.rng != Rng::None && level >= "3.6");
            let expected = if cares { vec![question] } else { vec![] };
            assert_eq!(new, expected, "engine {version}, cluster {level}");
        }
    }
}

/// The machine types that QEMU itself names.
fn qemus_machines() -> BTreeSet<String> {
    let asked = Command::new("qemu-system-x86_64").args(["-machine", "help"]).output().expect("QEMU runs");
    let text = String::from_utf8(asked.stdout).expect("text");
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// A bridge of the management network's name, with a card of the host as its port.
const NETWORK: &str = "ip link set lo up && ip link add ovirtmgmt type bridge && \
    { ip link add card type dummy 2>/dev/null || ip link add card type ifb; } && \
    ip link set card master ovirtmgmt && ip link set card up && ip link set ovirtmgmt up";

#[test]
fn a_real_host_is_asked_and_its_answers_are_those_of_its_parts() -> Result<()> {
    let mut seen = BTreeMap::new();
    let mut virsh_models = None;
    for (profile, bridged) in
        [("common", true), ("3.4", true), ("3.5", true), ("3.6", true), ("4.0", true), ("common", false)]
    {
        let config = format!("[xmlrpc]\nprofile = '{profile}'\n");
        let network = if bridged { NETWORK } else { "ip link set lo up" };
        let mut host = Alone::start(|launch| launch.config(&config).network(network))?;
        let info = host_facts::capabilities(&host.daemon);
        host.daemon.terminate()?;
        if virsh_models.is_none() {
            virsh_models = Some(libvirts_models(&host.root, &info)?);
        }
        seen.insert((profile, bridged), info);
    }
    let models = virsh_models.expect("asked once");
    let machines = qemus_machines();
    let flags = std::fs::read_to_string("/proc/cpuinfo").expect("it can be read");
    let flags = flags.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    let flag = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    for (version, engine, level, cluster) in clusters() {
        for ((profile, bridged), info) in &seen {
            if !ENGINES.engine[version].profiles.iter().any(|meant| meant == profile) {
                continue;
            }
            let refused = refusals((version, engine), (level, cluster), info);
            let has = |question: &str| !refused.contains(&question);
            let at = format!("engine {version}, cluster {level}, profile {profile}: {refused:?}");
            assert!(has("version") && has("switch") && has("bridge"), "{at}");
            assert_eq!(has("level"), level != "4.1", "{at}");
            assert_eq!(has("network"), *bridged, "{at}");
            assert_eq!(
                has("machine"),
                cluster.machines.split(' ').any(|name| machines.contains(name)),
                "{at}"
            );
            let fits = |line: &String| {
                line.split(' ').all(|word| match word.strip_prefix("model_") {
                    Some(model) => models.contains(model),
                    None => flag(word),
                })
            };
            assert_eq!(has("cpu"), cluster.cpus.iter().any(fits), "{at}");
            assert!(has("rng") || !std::fs::exists("/dev/random").expect("/dev can be read"), "{at}");
        }
    }
    Ok(())
}

/// The part of the page of compatibility that says which clusters take a host.
pub fn page() -> String {
    let mut page = String::from(
        "## Which clusters take the host\n\n\
         Before an engine lets a host run VMs it asks for more than replies that it can read.\n\n\
         | oVirt engine | cluster level | a host is added over XML-RPC | wants one of these machine types |\n|---|---|---|---|\n",
    );
    for (version, engine, level, cluster) in clusters() {
        let added = engine.xmlrpc.as_deref().is_some_and(|highest| level <= highest);
        let machines: Vec<String> = cluster.machines.split(' ').map(|name| format!("`{name}`")).collect();
        let added = if added { "yes" } else { "no" };
        let _ = writeln!(page, "| {version} | {level} | {added} | {} |", machines.join(", "));
    }
    page.push_str(
        "\nThe others are the same for all: KVM, a network `ovirtmgmt` (a bridge of that name with one of the host's links as a port), `nx` and `vmx` or `svm`, and one of the engine's [processor models](xmlrpc.md#verbs), which libvirt must let VMs have; in clusters from 3.6 on `/dev/random` as well.\n\
         A host offers itself to engines 3.4 to 4.1 and to clusters up to 4.0 in the profile `common`, to those from 3.6 on in `4.0`, and to those up to 3.6 in the others; its version, and that of `vdsm` in `packages2`, is whydown's own.\n\n\
         What refuses a host in spite of all that, and what to do:\n\n\
         - **Machine types of clusters up to 3.5.**\n  \
         QEMU has no `pc-1.0` since 6.0, and `rhel6.5.0` was Red Hat's own: an engine puts a host with a newer QEMU, as Debian 12 has it, out of operation (`EMULATED_MACHINES_INCOMPATIBLE_WITH_CLUSTER`).\n  \
         Either take a host with an older QEMU, or let the cluster have a machine type that there is, before its first host comes and settles the type: `engine-config -s ClusterEmulatedMachines=pc-i440fx-2.1 --cver=3.5` on the engine, and restart it.\n\
         - **Clusters from 3.6 on.**\n  \
         Engines 3.6 and 4.0 add no host to them over XML-RPC (`NOT_SUPPORTED_PROTOCOL_FOR_CLUSTER_VERSION`), and engine 4.1 speaks JSON-RPC alone.\n  \
         With engine 3.6, use a cluster of level 3.5 or lower; 4.0 and 4.1 have none.\n  \
         The lines for 4.0 and 4.1 hold for what they read, and for tools that speak to a host as they did.\n\
         - **The processor.**\n  \
         A host without one of the engine's models is `CPU_TYPE_INCOMPATIBLE_WITH_CLUSTER`: `virsh domcapabilities` says which it has (`usable='yes'`), `tests/clients/managers/accepts.toml` which each cluster wants.\n  \
         Nested hosts often have none; let them have their host's processor.\n\n\
         The questions, with the engine's function that asks each, are in `tests/clients/managers/accepts.toml`; a test puts them to what a host says in every profile, and to a real host.\n\n",
    );
    page
}
