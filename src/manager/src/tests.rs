//! Old managers and new ones, old hosts and new ones.

use super::*;

fn reply(vms: &str) -> String {
    format!(
        "<?xml version='1.0'?><methodResponse><params><param><value><struct>\
         <member><name>status</name><value><struct><member><name>code</name><value><int>0</int></value></member>\
         <member><name>message</name><value><string>Done</string></value></member></struct></value></member>\
         <member><name>statsList</name><value><array><data>{vms}</data></array></value></member>\
         </struct></value></param></params></methodResponse>"
    )
}

fn vm(members: &[(&str, &str)]) -> String {
    let members: String =
        members.iter().map(|(n, v)| format!("<member><name>{n}</name><value>{v}</value></member>")).collect();
    format!("<value><struct>{members}</struct></value>")
}

const DOWN: [(&str, &str); 4] = [
    ("vmId", "<string>a</string>"),
    ("status", "<string>Down</string>"),
    ("exitCode", "<int>1</int>"),
    ("exitMessage", "<string>Lost connection with qemu process</string>"),
];

fn exit_of(reason: Option<&str>) -> Exit {
    let mut members = DOWN.to_vec();
    members.extend(reason.map(|reason| ("exitReason", reason)));
    read_all_vm_stats(&reply(&vm(&members))).unwrap().vms.remove(0).exit.unwrap()
}

#[test]
fn an_old_host_without_the_field_gives_the_placeholder_and_the_old_behaviour() {
    let exit = exit_of(None);
    assert_eq!((exit.reason, exit.reason.or_placeholder()), (ExitReason::NotSent, -1));
    assert_eq!(then(&exit, &Policy::new(true)), Then::Restart);
    let normal = Exit { code: 0, ..exit };
    assert_eq!(then(&normal, &Policy::new(true)), Then::Leave);
}

#[test]
fn a_newer_host_with_a_number_of_its_own_gives_the_placeholder_and_keeps_the_number() {
    let exit = exit_of(Some("<int>99</int>"));
    assert_eq!((exit.reason, exit.reason.or_placeholder()), (ExitReason::Foreign(99), -1));
    assert_eq!(exit_of(Some("<int>-1</int>")).reason, ExitReason::Foreign(-1));
}

#[test]
fn every_known_number_is_read_as_it_is() {
    for number in 0..=14u8 {
        assert_eq!(exit_of(Some(&format!("<int>{number}</int>"))).reason, ExitReason::Known(number));
        assert_eq!(exit_of(Some(&format!("<string>{number}</string>"))).reason, ExitReason::Known(number));
    }
}

#[test]
fn a_migrated_vm_is_handed_over_only_where_the_reason_says_so() {
    let exit = Exit { code: 0, ..exit_of(Some("<int>4</int>")) };
    assert_eq!(then(&exit, &Policy::new(true)), Then::HandOver);
    let fallen = exit_of(Some("<int>4</int>"));
    assert_eq!(then(&fallen, &Policy::new(true)), Then::Restart, "the code decides");
    assert_eq!(then(&fallen, &Policy::new(false)), Then::Alert);
}

#[test]
fn a_broken_vm_is_named_and_the_others_are_read() {
    let without_code = vm(&[("vmId", "<string>b</string>"), ("status", "<string>Down</string>")]);
    let odd = "<value><int>3</int></value>";
    let reading = read_all_vm_stats(&reply(&format!("{without_code}{odd}{}", vm(&DOWN)))).unwrap();
    assert_eq!(reading.vms.len(), 1);
    let told: Vec<String> = reading.broken.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["VM b: it is Down without an exitCode", "VM without an id: its entry is not a struct"]);
}

#[test]
fn a_fault_a_bad_status_and_nonsense_say_nothing_about_vms() {
    let fault = "<methodResponse><fault><value><struct><member><name>faultCode</name><value><int>1</int></value>\
                 </member><member><name>faultString</name><value><string>x</string></value></member></struct>\
                 </value></fault></methodResponse>";
    assert_eq!(read_all_vm_stats(fault), Err(BadReply::Fault { code: 1, text: "x".into() }));
    let recovering = reply("").replace("<int>0</int>", "<int>99</int>");
    assert!(matches!(read_all_vm_stats(&recovering), Err(BadReply::Status { code: 99, .. })));
    assert!(matches!(read_all_vm_stats("<html/>"), Err(BadReply::NotXmlRpc(_))));
    assert!(matches!(read_all_vm_stats(""), Err(BadReply::NotXmlRpc(_))));
}

fn known(vms: &[(&str, &str, Option<i64>)]) -> Reading {
    let vms = vms.iter().map(|(id, status, code)| Vm {
        id: (*id).into(),
        status: (*status).into(),
        status_time: None,
        exit: code.map(|code| Exit { code, ..exit_of(Some("<int>2</int>")) }),
    });
    Reading { vms: vms.collect(), broken: Vec::new() }
}

#[test]
fn every_ending_is_told_once_and_a_new_one_again() {
    let mut host = crate::known::Known::default();
    let up = News::Status { vm: "a".into(), status: "Up".into() };
    assert_eq!(host.take(known(&[("a", "Up", None)])), [News::Answers { vms: 1, broken: 0 }, up.clone()]);
    assert_eq!(host.take(known(&[("a", "Up", None)])), []);
    let down = known(&[("a", "Down", Some(1))]);
    assert!(matches!(host.take(down.clone()).as_slice(), [News::Ended { exit: Exit { code: 1, .. }, .. }]));
    assert_eq!(host.take(down), []);
    assert_eq!(host.take(known(&[("a", "Up", None)])), [up]);
    assert!(matches!(host.take(known(&[("a", "Down", Some(0))])).as_slice(), [News::Ended { .. }]));
    assert_eq!(host.take(known(&[])), [News::Gone { vm: "a".into() }]);
}

#[test]
fn a_host_that_does_not_answer_says_nothing_about_its_vms() {
    let mut host = crate::known::Known::default();
    host.take(known(&[("a", "Up", None)]));
    assert_eq!(host.fail("refused".into()), [News::Silent { why: "refused".into() }]);
    assert_eq!(host.fail("refused".into()), [], "told once");
    assert_eq!(
        host.take(known(&[("a", "Up", None)])),
        [News::Answers { vms: 1, broken: 0 }],
        "and the VM was never gone"
    );
}

#[test]
fn a_vm_that_cannot_be_read_is_not_gone() {
    let mut host = crate::known::Known::default();
    host.take(known(&[("a", "Up", None)]));
    let broken = Reading { vms: vec![], broken: vec![BadVm { id: Some("a".into()), what: "odd".into() }] };
    assert_eq!(host.take(broken.clone()), [News::Broken { what: "VM a: odd".into(), count: 1 }]);
    assert_eq!(host.take(broken), []);
    assert_eq!(host.take(known(&[("a", "Up", None)])), []);
}

/// A Down VM as whydown tells it, or as a host does that has no runs.
fn ended(run: Option<&str>, status_time: Option<i64>) -> Reading {
    let exit = Exit { run: run.map(str::to_owned), status_time, ..exit_of(Some("<int>2</int>")) };
    Reading {
        vms: vec![Vm { id: "a".into(), status: "Down".into(), status_time, exit: Some(exit) }],
        broken: vec![],
    }
}

#[test]
fn of_two_equal_endings_between_which_nothing_was_seen_both_are_told() {
    for (first, second) in
        [(ended(Some("7"), Some(1)), ended(Some("8"), Some(1))), (ended(None, Some(1)), ended(None, Some(2)))]
    {
        let mut host = crate::known::Known::default();
        assert_eq!(host.take(first.clone()).len(), 2, "it answers, and the ending");
        assert_eq!(host.take(first), []);
        assert!(matches!(host.take(second.clone()).as_slice(), [News::Ended { .. }]));
        assert_eq!(host.take(second), []);
    }
    let mut host = crate::known::Known::default();
    host.take(ended(Some("7"), Some(1)));
    assert_eq!(host.take(ended(Some("7"), Some(2))), [], "the same run, written down meanwhile");
}

#[test]
fn a_status_time_that_goes_back_is_stale_until_it_catches_up() {
    let up = |status_time| Reading {
        vms: vec![Vm { id: "a".into(), status: "Up".into(), status_time: Some(status_time), exit: None }],
        broken: vec![],
    };
    let mut host = crate::known::Known::default();
    host.take(up(10));
    assert_eq!(
        host.take(ended(Some("7"), Some(9))),
        [News::Stale { vm: "a".into() }],
        "the ending is not told"
    );
    assert_eq!(host.take(ended(Some("7"), Some(9))), [], "and that it is stale is told once");
    assert!(matches!(host.take(ended(Some("7"), Some(11))).as_slice(), [News::Ended { .. }]));
    // A clock that was years ahead was corrected.
    host.take(up(400_000_000_000));
    assert_eq!(host.take(ended(Some("8"), Some(399_999_999_999))), [News::Stale { vm: "a".into() }]);
    assert!(matches!(host.take(ended(Some("8"), Some(90_000))).as_slice(), [News::Ended { .. }]));
    // A host that was away may have been booted anew: its times begin again.
    host.fail("refused".into());
    let again = host.take(up(1));
    assert!(again.contains(&News::Status { vm: "a".into(), status: "Up".into() }), "{again:?}");
}

#[test]
fn a_status_time_is_read_as_text_and_as_a_double() {
    for sent in ["<string>17181381850</string>", "17181381850", "<double>17181381850.0</double>"] {
        let mut members = DOWN.to_vec();
        members.push(("statusTime", sent));
        let reading = read_all_vm_stats(&reply(&vm(&members))).unwrap();
        assert_eq!(reading.vms[0].status_time, Some(17_181_381_850), "{sent}");
        assert_eq!(reading.vms[0].exit.as_ref().unwrap().status_time, Some(17_181_381_850));
    }
}

#[test]
fn the_memory_keeps_what_was_told_over_a_restart_and_forgets_what_is_gone() {
    let mut memory = Memory::default();
    let mut host = crate::known::Known::default();
    host.take(ended(Some("7"), None)).iter().for_each(|news| memory.note("h", news));
    let text = serde_json::to_string(&memory).expect("it can be written");
    let mut memory: Memory = serde_json::from_str(&text).expect("and read");
    let mut host = crate::known::Known::of(memory.hosts["h"].clone());
    assert_eq!(host.take(ended(Some("7"), None)), [News::Answers { vms: 1, broken: 0 }], "not again");
    assert!(matches!(host.take(ended(Some("8"), None)).as_slice(), [News::Ended { .. }]));
    let gone = host.take(known(&[]));
    assert_eq!(gone, [News::Gone { vm: "a".into() }]);
    gone.iter().for_each(|news| memory.note("h", news));
    assert!(memory.hosts["h"].is_empty());
}

#[test]
fn by_default_the_exit_code_decides_for_every_cause_that_the_host_may_name() {
    let text = include_str!("../../../proto-schemas/causes.toml");
    let table: toml::Table = text.parse().unwrap();
    let mut seen = 0;
    for row in table["cause"].as_array().unwrap() {
        let word = row["word"].as_str().unwrap();
        let code = row["exit_code"].as_integer().unwrap();
        let reason = ExitReason::read(row["exit_reason"].as_integer());
        for certainty in ["certain", "probable", "unknown"] {
            let exit = Exit {
                code,
                reason,
                cause: Some(word.into()),
                certainty: Some(certainty.into()),
                ..exit_of(None)
            };
            let wanted = match word {
                "migrated-away" => Then::HandOver,
                // The VM never came here: it runs where it was.
                "incoming-migration-failed" => Then::Alert,
                _ if code == 0 => Then::Leave,
                _ => Then::Restart,
            };
            assert_eq!(then(&exit, &Policy::new(true)), wanted, "{word}, {certainty}");
            let without = then(&exit, &Policy::new(false));
            assert_ne!(without, Then::Restart, "{word}");
            seen += 1;
        }
    }
    assert!(seen > 100);
}

#[test]
fn a_site_may_choose_by_cause_and_by_certainty() {
    let exit = |cause: &str, code, certainty: &str| Exit {
        code,
        cause: Some(cause.into()),
        certainty: Some(certainty.into()),
        ..exit_of(Some("<int>2</int>"))
    };
    let mut policy = Policy::new(true);
    policy.when_unknown = Choice::Alert;
    policy.when_asked = Choice::Restart;
    policy.by_cause.insert("guest-panic".into(), Choice::Alert);
    assert_eq!(then(&exit("unknown-vanished", 1, "unknown"), &policy), Then::Alert);
    assert_eq!(then(&exit("oom-killed", 1, "certain"), &policy), Then::Restart);
    assert_eq!(then(&exit("oom-killed", 1, "probable"), &policy), Then::Restart);
    assert_eq!(then(&exit("destroyed-on-reboot", 0, "certain"), &policy), Then::Restart);
    assert_eq!(then(&exit("guest-panic", 1, "certain"), &policy), Then::Alert);
    assert_eq!(then(&exit("a-cause-of-tomorrow", 1, "certain"), &policy), Then::Restart, "by the code");
    assert_eq!(then(&exit("guest-poweroff", 0, "unknown"), &policy), Then::Leave, "nothing is added");
}
