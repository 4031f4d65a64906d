//! The casts that engines 3.4 to 4.0 make, as they were measured: one value of a wrong type in one VM loses the reply
//! of the whole host.

use std::collections::BTreeMap;

use dxr::Value;

use crate::samples::{NOW, bodies, bodies_for, entries, everything, items, members, read, replies, text};
use whydown_core::cause::Cause;
use whydown_wire::{Generation, Range};

/// Members that must be text.
const TEXTS: &str = "vmId status exitMessage session kvmEnable acpiEnable win2kHackEnable displayIp hash pauseCode \
                     cdrom guestFQDN cpuUser cpuSys elapsedTime statusTime vmName displayType guestIPs username";
/// Members that must be a 32-bit integer or its text.
const INTEGERS: &str = "exitCode exitReason monitorResponse memUsage migrationProgress guestCPUCount displayPort \
                        displaySecurePort timeOffset";
/// The states that engines know, spaces dropped and case ignored.
const STATES: &str = "up down migrationsource migrationdestination paused poweringdown poweringup rebootinprogress \
                      restoringstate savingstate waitforlaunch";
const PAUSE_CODES: &str = "NONE EOTHER EIO ENOSPC EPERM NOERR";

fn among(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|known| known == word)
}

fn integer(value: &Value) -> i32 {
    match value {
        Value::Integer(number) => *number,
        other => text(other).parse().unwrap_or_else(|_| panic!("not an integer: {other:?}")),
    }
}

fn check_status(reply: &Value) {
    let status = members(&members(reply)["status"]);
    assert!(matches!(status["code"], Value::Integer(_)), "{status:?}");
    assert!(!text(&status["message"]).is_empty());
}

fn check_vm(vm: &BTreeMap<String, Value>, highest_reason: i32) {
    for (name, value) in vm {
        if among(TEXTS, name) {
            text(value);
        } else if among(INTEGERS, name) {
            integer(value);
        }
    }
    let state = text(&vm["status"]).replace(' ', "").to_lowercase();
    assert!(among(STATES, &state), "{state}");
    assert_eq!(text(&vm["vmId"]).len(), 36);
    if let Some(code) = vm.get("pauseCode") {
        assert!(among(PAUSE_CODES, text(code)), "{code:?}");
    }
    if state == "down" {
        assert!(matches!(integer(&vm["exitCode"]), 0 | 1));
        assert!((0..=highest_reason).contains(&integer(&vm["exitReason"])), "{vm:?}");
        assert!(!text(&vm["exitMessage"]).is_empty());
        assert!(matches!(vm["exitCode"], Value::Integer(_)) && matches!(vm["exitReason"], Value::Integer(_)));
    } else {
        assert!(!vm.keys().any(|name| name.starts_with("exit")), "{vm:?}");
        text(&vm["elapsedTime"]).parse::<f64>().unwrap();
        check_figures(vm);
    }
}

/// The engine's readers of disks, network interfaces, balloons and screens.
fn check_figures(vm: &BTreeMap<String, Value>) {
    for name in ["cpuUser", "cpuSys"] {
        if let Some(percent) = vm.get(name) {
            text(percent).parse::<f64>().unwrap();
        }
    }
    let inner = |name: &str| vm.get(name).into_iter().flat_map(|value| members(value).values().map(members));
    for disk in inner("disks") {
        for (name, value) in disk {
            let value = text(value);
            match name.as_str() {
                "imageID" => assert_eq!(value.len(), 36),
                "readRate" | "writeRate" => drop(value.parse::<f64>().unwrap()),
                _ => drop(value.parse::<i64>().unwrap()),
            }
        }
    }
    for nic in inner("network") {
        text(&nic["name"]);
        text(&nic["macAddr"]);
        integer(&nic["speed"]);
        for rate in ["rxRate", "txRate", "rxErrors", "rxDropped", "txErrors", "txDropped"] {
            if let Some(rate) = nic.get(rate) {
                text(rate).parse::<f64>().unwrap();
            }
        }
    }
    if let Some(balloon) = vm.get("balloonInfo").map(members) {
        assert!(matches!(balloon.len(), 0 | 4), "{balloon:?}");
        for value in balloon.values() {
            integer(value);
        }
    }
    for screen in vm.get("displayInfo").into_iter().flat_map(items).map(members) {
        assert_eq!(screen.len(), 4);
        for value in screen.values() {
            text(value);
        }
    }
    check_guest(vm);
    for app in vm.get("appsList").into_iter().flat_map(items) {
        text(app);
    }
}

/// The engine's readers of what a guest tells.
fn check_guest(vm: &BTreeMap<String, Value>) {
    if let Some(session) = vm.get("session") {
        assert!(among("Unknown UserLoggedOn Locked Active LoggedOff", text(session)), "{session:?}");
    }
    // Longer ones do not fit into the columns of some managers.
    for name in ["username", "guestIPs", "guestFQDN", "guestName", "guestOs"] {
        assert!(vm.get(name).is_none_or(|value| text(value).len() <= 255), "{name}");
    }
    for interface in vm.get("netIfaces").into_iter().flat_map(items).map(members) {
        assert!(text(&interface["name"]).len() <= 50 && text(&interface["hw"]).len() <= 59);
        for address in ["inet", "inet6"].into_iter().flat_map(|name| items(&interface[name])) {
            text(address).parse::<std::net::IpAddr>().unwrap();
        }
    }
    for usage in vm.get("disksUsage").into_iter().flat_map(items).map(members) {
        assert!(!text(&usage["path"]).is_empty() && usage.contains_key("fs"));
        for size in ["total", "used"] {
            text(&usage[size]).parse::<i64>().unwrap();
        }
    }
    if let Some(zone) = vm.get("guestTimezone").map(members) {
        text(&zone["zone"]);
        assert!(matches!(zone["offset"], Value::Integer(-1440..=1440)));
    }
    if let Some(system) = vm.get("guestOsInfo").map(members) {
        assert!(matches!(text(&system["type"]), "linux" | "windows"));
        assert!(system.len() == 6 && system.values().all(|value| !text(value).contains('\n')));
    }
}

/// Types that the engine's XML-RPC client knows, in a reply as a whole.
fn check_types(value: &Value) {
    match value {
        Value::Integer(_) | Value::Boolean(_) | Value::String(_) => {}
        Value::Double(number) => assert!(number.is_finite(), "{number}"),
        Value::Struct(members) => members.values().for_each(check_types),
        Value::Array(items) => items.iter().for_each(check_types),
        other => panic!("a type that some manager cannot read: {other:?}"),
    }
}

#[test]
fn every_reply_is_of_types_that_all_managers_read_and_repeats_no_member() {
    for (verb, body) in replies() {
        check_types(&read(&body));
        let reply = std::str::from_utf8(&body).unwrap();
        assert!(reply.starts_with("<?xml version='1.0'?>"), "{verb}");
        let mut open: Vec<Vec<String>> = Vec::new();
        // Every tag of the writer stands alone, so splitting is reading; dxr would keep the last of two in silence.
        for part in reply.split('<') {
            match part.split_once('>') {
                Some(("struct", _)) => open.push(Vec::new()),
                Some(("/struct", _)) => drop(open.pop()),
                Some(("name", name)) => {
                    let names = open.last_mut().unwrap();
                    assert!(!names.iter().any(|known| known == name), "{verb}: {name} twice");
                    names.push(name.into());
                }
                _ => {}
            }
        }
    }
}

#[test]
fn an_engine_that_knows_eight_reasons_reads_every_vm() {
    let bodies = bodies(everything());
    for (range, highest) in [(Range::Classic, 8), (Range::V4_1, 12), (Range::Full, 14)] {
        let reply = read(&bodies.all_vm_stats(range, NOW).plain);
        check_status(&reply);
        let vms = entries(&reply, "statsList");
        assert_eq!(vms.len(), bodies.snapshot().domains.len());
        vms.values().for_each(|vm| check_vm(vm, highest));
        for id in bodies.snapshot().domains.keys() {
            let one = read(&bodies.vm_stats(*id, range, NOW));
            check_status(&one);
            assert_eq!(members(&items(&members(&one)["statsList"])[0]), vms[id.to_string().as_str()]);
        }
    }
}

#[test]
fn every_generation_reads_what_is_written_for_it() {
    for generation in Generation::ALL {
        let bodies = bodies_for(generation, everything());
        let reply = read(&bodies.all_vm_stats(Range::Classic, NOW).plain);
        let vms = entries(&reply, "statsList");
        assert_eq!(vms.len(), bodies.snapshot().domains.len());
        for vm in vms.values() {
            check_vm(vm, 8);
            let breaks_without =
                matches!(generation, Generation::Common | Generation::V3_4 | Generation::V3_5);
            if breaks_without && text(&vm["status"]) != "Down" {
                members(&vm["disks"]);
                members(&vm["network"]);
            }
        }
    }
}

#[test]
fn the_full_list_has_devices_on_every_vm() {
    let bodies = bodies(everything());
    let reply = read(&bodies.list(true, None, Range::Classic).plain);
    check_status(&reply);
    let vms = entries(&reply, "vmList");
    assert_eq!(vms.len(), bodies.snapshot().domains.len());
    for vm in vms.values() {
        items(&vm["devices"]);
        assert_eq!(vm.contains_key("exitCode"), text(&vm["status"]) == "Down");
    }
}

#[test]
fn the_exact_reason_and_the_cause_are_told_in_every_range() {
    let bodies = bodies(everything());
    for range in Range::ALL {
        let reply = read(&bodies.all_vm_stats(range, NOW).plain);
        let vms = entries(&reply, "statsList");
        for (cause, number) in Cause::ALL.into_iter().zip(100..) {
            let row = cause.row();
            let vm = vms[crate::samples::id(number).to_string().as_str()];
            let exact = row.exit_reason <= range.highest();
            let shown = if exact { row.exit_reason } else { row.classic_reason };
            assert_eq!(integer(&vm["exitReason"]), i32::from(shown), "{cause:?}");
            assert_eq!(integer(&vm["exitCode"]), i32::from(row.exit_code), "{cause:?}");
            assert_eq!(text(&vm["exitReasonExact"]), row.exit_reason.to_string());
            assert_eq!(text(&vm["exitCause"]), row.word);
        }
    }
}

/// The design's rule: reasons are a superset of codes, those of success coalesce to 0 and the rest to 1, and 0 and 1 mean the same
/// in both.
#[test]
fn in_every_range_the_exit_code_follows_from_the_reason() {
    let bodies = bodies(everything());
    for range in Range::ALL {
        let reply = read(&bodies.all_vm_stats(range, NOW).plain);
        let vms = entries(&reply, "statsList");
        let mut codes = std::collections::BTreeMap::from([(0, 0), (1, 1)]);
        for vm in vms.values().filter(|vm| text(&vm["status"]) == "Down") {
            let (reason, code) = (integer(&vm["exitReason"]), integer(&vm["exitCode"]));
            let known = *codes.entry(reason).or_insert(code);
            assert_eq!(
                known,
                code,
                "{range:?}: reason {reason} has two codes, as with {}",
                text(&vm["exitCause"])
            );
            assert!((0..=1).contains(&code) && reason <= i32::from(range.highest()));
        }
    }
}

/// Over all pairs of causes: the code that was told first stays, and the reason always fits it.
#[test]
fn a_correction_keeps_the_exit_code_and_a_reason_that_fits_it() {
    let all: Vec<Cause> = Cause::ALL.into_iter().collect();
    let pairs = all.iter().flat_map(|first| all.iter().map(move |truth| (*first, *truth)));
    let numbered: Vec<(u32, (Cause, Cause))> = (100..).zip(pairs).collect();
    let vms = numbered.iter().map(|(n, (first, truth))| crate::samples::corrected(*n, *first, *truth));
    let bodies = bodies(crate::samples::snapshot(vms));
    for range in Range::ALL {
        let reply = read(&bodies.all_vm_stats(range, NOW).plain);
        let vms = entries(&reply, "statsList");
        for (number, (first, truth)) in &numbered {
            let vm = vms[crate::samples::id(*number).to_string().as_str()];
            let (first, truth) = (first.row(), truth.row());
            assert_eq!(integer(&vm["exitCode"]), i32::from(first.exit_code));
            assert_eq!(text(&vm["exitCause"]), truth.word);
            assert_eq!(text(&vm["exitRevision"]), "1");
            let numbers = if first.exit_code == truth.exit_code { truth } else { first };
            let exact = numbers.exit_reason <= range.highest();
            let shown = if exact { numbers.exit_reason } else { numbers.classic_reason };
            assert_eq!(integer(&vm["exitReason"]), i32::from(shown), "{} {}", first.word, truth.word);
        }
    }
}

#[test]
fn a_host_gives_what_an_engine_gives_up_without() {
    let find = |wanted: &str| -> Vec<Value> {
        replies().iter().filter(|(verb, _)| *verb == wanted).map(|(_, body)| read(body)).collect()
    };
    for reply in find("getVdsStats") {
        check_status(&reply);
        let info = members(&members(&reply)["info"]);
        for name in ["cpuSys", "cpuUser", "cpuIdle", "cpuLoad"] {
            assert!(text(&info[name]).parse::<f64>().unwrap() >= 0.0, "{name}");
        }
        for name in ["memAvailable", "memFree", "swapTotal", "swapFree", "vmCount", "vmActive", "vmMigrating"]
        {
            assert!(matches!(info[name], Value::Integer(_)), "{name}");
        }
    }
    for reply in find("getVdsCapabilities") {
        check_status(&reply);
        let info = members(&members(&reply)["info"]);
        text(&info["cpuSpeed"]).parse::<f64>().unwrap();
        items(&members(&info["HBAInventory"])["iSCSI"]);
        items(&info["clusterLevels"]);
        items(&info["emulatedMachines"]);
        assert!(matches!(text(&info["kvmEnabled"]), "true" | "false"));
    }
    find("getVdsHardwareInfo").iter().for_each(check_status);
}
