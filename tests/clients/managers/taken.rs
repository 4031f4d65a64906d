//! What engines send is read, every version's; what has no effect is named.

use std::collections::BTreeSet;
use std::net::IpAddr;

use whydown_core::time::Wall;
use whydown_wire::{Call, CallLimits, Code, OnHost, Refused, Verb};

use whydown_lab::{EmbedRoot, Launch, Result, Whydownd, lab_dir, wait_until};

use crate::managers::live::PATIENCE;
use crate::managers::table::TABLE;
use whydown_lab::engine::{Param, call};
use whydown_lab::requests::{REQUESTS, Request};

/// Words for what the table leaves open.
const WORDS: &[(&str, &str)] = &[
    ("vm", "6695eb01-f6a4-4304-89aa-97f2502e193f"),
    ("src", "192.0.2.1"),
    ("dst", "192.0.2.2:54321"),
    ("dstqemu", "198.51.100.2"),
    ("kvm", "true"),
    ("network", "display"),
];

fn read(request: &Request) -> (Verb, Vec<String>) {
    try_read(request).unwrap_or_else(|refused| panic!("{request:?}: {refused}"))
}

fn try_read(request: &Request) -> std::result::Result<(Verb, Vec<String>), Refused> {
    let params: String =
        request.params(WORDS, &[]).iter().map(|param| format!("<param>{param}</param>")).collect();
    let body = format!(
        "<methodCall><methodName>{}</methodName><params>{params}</params></methodCall>",
        request.method
    );
    let call =
        Call::read(body.as_bytes(), &CallLimits::default()).unwrap_or_else(|bad| panic!("{bad}: {body}"));
    Verb::read(&call)
}

#[test]
fn what_every_engine_sends_is_read() {
    let senders = |methods: &[&str]| {
        let requests = methods.iter().flat_map(|method| whydown_lab::requests::of(method));
        requests.flat_map(|request| &request.engines).map(String::as_str).collect::<BTreeSet<_>>()
    };
    for methods in [
        &["migrate"][..],
        &["create"],
        &["setVmTicket", "vmUpdateDevice"],
        &["changeCD"],
        &["hotplugNic"],
        &["hotunplugNic"],
        &["hotplugDisk"],
        &["hotunplugDisk"],
    ] {
        assert_eq!(senders(methods), BTreeSet::from(["3.4", "3.5", "3.6", "4.0"]), "{methods:?}");
    }
    for request in REQUESTS.iter() {
        assert!(request.engines.iter().all(|engine| TABLE.engine.contains_key(engine)), "{request:?}");
        match (&request.refused, try_read(request)) {
            (None, read) => drop(read.unwrap_or_else(|refused| panic!("{request:?}: {refused}"))),
            (Some(name), Err(refused)) => {
                assert_eq!(refused.code(), Some(Code::NotSupported), "{request:?}: {refused}");
                assert!(refused.to_string().split(' ').any(|word| word == name), "{request:?}: {refused}");
            }
            (Some(_), Ok(read)) => panic!("{request:?}: {read:?}"),
        }
    }
}

#[test]
fn what_has_no_effect_in_a_migration_is_named() {
    for request in whydown_lab::requests::of("migrate") {
        let (_, ignored) = read(request);
        let wanted: &[&str] = if request.what.contains("limits") {
            &["enableGuestEvents", "incomingLimit", "src"]
        } else {
            &["src"]
        };
        assert_eq!(ignored, wanted, "{request:?}");
    }
}

#[test]
fn what_has_no_effect_in_a_new_vm_is_named_and_the_rest_is_in_its_document() {
    for request in whydown_lab::requests::of("create") {
        let (Verb::CreateClassic(plan), ignored) = read(request) else { panic!("{request:?}") };
        for name in ["custom.device_*", "transparentHugePages"] {
            assert!(ignored.iter().any(|known| known == name), "{name}: {ignored:?}");
        }
        let vnc = request.what.contains("VNC") || request.what.contains("the same");
        let spice = ignored.iter().any(|name| name.ends_with("spiceSecureChannels"));
        assert_eq!(spice, vnc, "{ignored:?}");
        let on = |address_on: &dyn Fn(&str) -> Option<IpAddr>| {
            let now = Wall::from_millis(1_456_747_200_000);
            plan.document(&OnHost { kvm: false, processors: "0-1\n", now, address_on })
        };
        let unknown = on(&|_| None);
        let document = on(&|network| (network == "display").then(|| [192, 0, 2, 5].into()));
        let document = document.expect("its network is there").xml;
        let has: &[&str] = if vnc {
            &["<graphics type=\"vnc\"", "<interface type=\"ethernet\">", "<link state=\"down\"/>"]
        } else {
            &[
                "<smartcard mode=\"passthrough\" type=\"spicevmc\">",
                "<redirdev bus=\"usb\" type=\"spicevmc\">",
                "copypaste=\"no\"",
            ]
        };
        assert!(has.iter().all(|part| document.contains(part)), "{document}");
        if request.what.contains("Windows") {
            assert!(unknown.is_err_and(|refused| refused.to_string().contains("displayNetwork")));
            for part in [
                "listen=\"192.0.2.5\"",
                "<channel name=\"usbredir\" mode=\"secure\"/>",
                "<inbound average=\"1024\" peak=\"2048\" burst=\"4096\"/>",
                "<relaxed state=\"on\"/>",
                "<timer name=\"hypervclock\" present=\"yes\"/>",
                "<filterref filter=\"vdsm-no-mac-spoofing\"/>",
            ] {
                assert!(document.contains(part), "{part}: {document}");
            }
        }
    }
}

/// With the rules for documents as they are delivered: nothing of this needs more.
#[test]
fn a_real_host_takes_what_every_engine_sends() -> Result<()> {
    let folder = lab_dir()?;
    let root = EmbedRoot::new(folder.path().join("r"))?;
    let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
    let daemon = Whydownd::start(launch.as_delivered().config("xmlrpc.plain_may_act = true\n"))?;
    let port = daemon.port()?;
    let send = |request: &Request| {
        let words: Vec<_> =
            WORDS.iter().map(|(name, word)| (*name, if *name == "kvm" { "false" } else { word })).collect();
        let params = request.params(&words, &[]);
        let params: Vec<_> = params.iter().map(|param| Param::Written(param)).collect();
        call(port, None, &request.method, &params)
    };
    let vm = WORDS[0].1;
    let asked = |method: &str| call(port, None, method, &[Param::Text(vm)]);
    for request in whydown_lab::requests::of("create").filter(|request| request.live) {
        let reply = send(request);
        assert!(reply.contains("WaitForLaunch"), "{request:?}: {reply}");
        wait_until(&request.what, PATIENCE, || {
            let told = asked("getVmStats");
            assert!(!told.contains("<string>Down</string>"), "{request:?}: {told}");
            told.contains("<string>Up</string>")
        });
        for ticket in
            REQUESTS.iter().filter(|r| r.live && matches!(&*r.method, "setVmTicket" | "vmUpdateDevice"))
        {
            let reply = send(ticket);
            let has_vnc = !request.what.contains("SPICE");
            let wanted = if has_vnc || ticket.method == "setVmTicket" { 0 } else { 56 };
            assert!(
                reply.contains(&format!("<name>code</name><value><int>{wanted}</int>")),
                "{ticket:?}: {reply}"
            );
        }
        let devices = ["changeCD", "hotplugNic"];
        for change in REQUESTS.iter().filter(|r| r.live && devices.contains(&&*r.method)) {
            let reply = send(change);
            assert!(
                reply.contains("<name>code</name><value><int>0</int>") && reply.contains(vm),
                "{change:?}: {reply}"
            );
        }
        let told = call(port, None, "list", &[Param::Text("true"), Param::Texts(&[vm.to_owned()])]);
        assert!(told.contains("6f1cbf1e-0d1c-4d5e-9f5b-0a3a3c6b5e21"), "the card is told: {told}");
        assert!(asked("destroy").contains("Machine destroyed"));
    }
    let said = std::fs::read_to_string(daemon.output_path()).expect("it can be read");
    assert_eq!(said.matches("custom.device_*").count(), 1, "{said}");
    assert!(!said.contains("Wo8qu4Ea"), "a password is never logged");
    Ok(())
}
