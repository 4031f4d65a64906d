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
    assert_eq!(then(&exit, Policy { highly_available: true }), Then::Restart);
    let normal = Exit { code: 0, ..exit };
    assert_eq!(then(&normal, Policy { highly_available: true }), Then::Leave);
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
    assert_eq!(then(&exit, Policy { highly_available: true }), Then::HandOver);
    let fallen = exit_of(Some("<int>4</int>"));
    assert_eq!(then(&fallen, Policy { highly_available: true }), Then::Restart, "the code decides");
    assert_eq!(then(&fallen, Policy { highly_available: false }), Then::Alert);
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
        exit: code.map(|code| Exit { code, ..exit_of(Some("<int>2</int>")) }),
    });
    Reading { vms: vms.collect(), broken: Vec::new() }
}

#[test]
fn every_ending_is_told_once_and_a_new_one_again() {
    let mut host = crate::fleet::Known::default();
    let up = News::Status { vm: "a".into(), status: "Up".into() };
    assert_eq!(host.take(known(&[("a", "Up", None)])), [News::Answers { vms: 1 }, up.clone()]);
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
    let mut host = crate::fleet::Known::default();
    host.take(known(&[("a", "Up", None)]));
    assert_eq!(host.fail("refused".into()), [News::Silent { why: "refused".into() }]);
    assert_eq!(host.fail("refused".into()), [], "told once");
    assert_eq!(
        host.take(known(&[("a", "Up", None)])),
        [News::Answers { vms: 1 }],
        "and the VM was never gone"
    );
}

#[test]
fn a_vm_that_cannot_be_read_is_not_gone() {
    let mut host = crate::fleet::Known::default();
    host.take(known(&[("a", "Up", None)]));
    let broken = Reading { vms: vec![], broken: vec![BadVm { id: Some("a".into()), what: "odd".into() }] };
    assert_eq!(host.take(broken.clone()), [News::Broken { what: "VM a: odd".into() }]);
    assert_eq!(host.take(broken), []);
    assert_eq!(host.take(known(&[("a", "Up", None)])), []);
}
