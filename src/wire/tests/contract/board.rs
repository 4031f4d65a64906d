//! The board's promises: one writing per change, shared bytes, and honesty while nothing is known.

use std::sync::Arc;
use std::time::Duration;

use crate::samples::{NOW, bodies, down, entries, everything, id, items, members, read, snapshot, text, vm};
use proptest::prelude::*;
use whydown_core::cause::Cause;
use whydown_core::snapshot::{DomainPublic, Link, Status};
use whydown_core::time::Wall;
use whydown_wire::{Board, Code, Generation, Range};

fn code(body: &[u8]) -> dxr::Value {
    members(&members(&read(body))["status"])["code"].clone()
}

#[test]
fn before_the_first_listing_every_verb_about_vms_says_recovering() {
    let bodies = bodies(whydown_core::snapshot::Snapshot { settled: false, ..everything() });
    let recovering = dxr::Value::Integer(Code::Recovering.number());
    assert_eq!(code(&bodies.all_vm_stats(Range::Full, NOW).plain), recovering);
    assert_eq!(code(&bodies.vm_stats(id(1), Range::Full, NOW)), recovering);
    assert_eq!(code(&bodies.list(false, None, Range::Full).plain), recovering);
    assert_eq!(code(&bodies.list(true, Some(&[id(1)]), Range::Full).plain), recovering);
    assert_eq!(code(&bodies.recovering().unwrap().plain), recovering);
}

#[test]
fn polls_share_one_body_until_its_elapsed_time_is_old() {
    let bodies = bodies(everything());
    let first = bodies.all_vm_stats(Range::Full, NOW);
    assert!(Arc::ptr_eq(&first, &bodies.all_vm_stats(Range::Full, NOW.after(Duration::from_secs(4)))));
    assert!(Arc::ptr_eq(&bodies.list(false, None, Range::Full), &bodies.list(false, None, Range::Classic)));
    assert_eq!(first.gzip().as_ptr(), first.gzip().as_ptr());
    let later = bodies.all_vm_stats(Range::Full, NOW.after(Duration::from_secs(100)));
    let reply = read(&later.plain);
    assert_eq!(text(&entries(&reply, "statsList")[id(1).to_string().as_str()]["elapsedTime"]), "3700");
    // A clock that was set back far does not freeze the body.
    assert!(!Arc::ptr_eq(&later, &bodies.all_vm_stats(Range::Full, Wall(0))));
}

#[test]
fn packed_bodies_unpack_to_the_plain_ones() {
    let body = bodies(everything()).all_vm_stats(Range::Full, NOW);
    assert!(body.gzip_if_made().is_none());
    let mut plain = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body.gzip()[..]), &mut plain).unwrap();
    assert_eq!(plain, body.plain);
    assert!(body.gzip_if_made().unwrap().len() * 5 < plain.len());
}

#[test]
fn a_lost_link_is_told_by_monitor_response_once_it_lasts() {
    let since = NOW;
    let bodies = bodies(whydown_core::snapshot::Snapshot {
        link: Link::Down { since },
        ..snapshot([vm(1, Status::Up), down(2, Cause::OomKilled)])
    });
    let at = |seconds| {
        let reply = read(&bodies.all_vm_stats(Range::Full, NOW.after(Duration::from_secs(seconds))).plain);
        let vms = entries(&reply, "statsList");
        assert!(!vms[id(2).to_string().as_str()].contains_key("monitorResponse"));
        text(&vms[id(1).to_string().as_str()]["monitorResponse"]).to_owned()
    };
    assert_eq!(at(0), "0");
    assert_eq!(at(58), "0");
    // Within the life of the body made at 58 seconds, and still told.
    assert_eq!(at(60), "-1");
    assert_eq!(at(6000), "-1");
}

#[test]
fn a_vm_that_is_gone_is_not_there_and_a_new_picture_of_it_is_shown() {
    let board = Board::new(Generation::Common);
    let first = board.update(&Arc::new(snapshot([vm(1, Status::Up), vm(2, Status::Up)])), &Arc::default());
    assert_eq!(items(&members(&read(&first.all_vm_stats(Range::Full, NOW).plain))["statsList"]).len(), 2);
    let second = board.update(&Arc::new(snapshot([down(1, Cause::GuestPanic)])), &Arc::default());
    let reply = read(&second.all_vm_stats(Range::Full, NOW).plain);
    let vms = entries(&reply, "statsList");
    assert_eq!(vms.len(), 1);
    assert_eq!(text(&vms[id(1).to_string().as_str()]["exitCause"]), "guest-panic");
    assert_eq!(code(&second.vm_stats(id(2), Range::Full, NOW)), dxr::Value::Integer(1));
    // The older picture is still whole for those who hold it.
    assert_eq!(
        text(
            &members(&items(&members(&read(&first.vm_stats(id(1), Range::Full, NOW)))["statsList"])[0])["status"]
        ),
        "Up"
    );
}

#[test]
fn down_is_never_shown_without_its_exit_fields() {
    let untold = DomainPublic { ending: None, ..down(1, Cause::GuestPanic) };
    let told_late = DomainPublic { status: Status::Up, ..down(2, Cause::GuestPanic) };
    let reply = read(&bodies(snapshot([untold, told_late])).all_vm_stats(Range::Full, NOW).plain);
    let vms = entries(&reply, "statsList");
    assert_eq!(text(&vms[id(1).to_string().as_str()]["status"]), "Powering down");
    assert_eq!(text(&vms[id(2).to_string().as_str()]["status"]), "Down");
    assert!(vms[id(2).to_string().as_str()].contains_key("exitReason"));
}

#[test]
fn counts_are_vdsms() {
    let everything = everything();
    let all = everything.domains.len();
    let counts = bodies(everything).counts();
    assert_eq!((counts.all, counts.active, counts.migrating), (all, 1, 2));
}

#[test]
fn a_choice_of_vms_is_given_once_each_and_unknown_ones_in_silence() {
    let bodies = bodies(snapshot((0..5).map(|number| vm(number, Status::Up))));
    for full in [false, true] {
        let reply = read(&bodies.list(full, Some(&[id(3), id(9), id(3), id(1)]), Range::Full).plain);
        let ids: Vec<_> = items(&members(&reply)["vmList"])
            .iter()
            .map(|vm| text(&members(vm)["vmId"]).to_owned())
            .collect();
        assert_eq!(ids, [id(1).to_string(), id(3).to_string()]);
        assert!(
            items(&members(&read(&bodies.list(full, Some(&[]), Range::Full).plain))["vmList"]).is_empty()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_in_names_and_messages_come_out_readable(
        name in proptest::collection::vec(any::<u8>(), 0..60),
        message in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut running = vm(1, Status::Up);
        running.name = lossy(&name);
        let mut ended = down(2, Cause::StartFailed);
        Arc::make_mut(ended.ending.as_mut().unwrap()).message = lossy(&message);
        let body = bodies(snapshot([running, ended])).all_vm_stats(Range::Full, NOW);

        let mut reader = quick_xml::Reader::from_reader(&body.plain[..]);
        reader.config_mut().enable_all_checks(true);
        let mut buffer = Vec::new();
        while reader.read_event_into(&mut buffer).unwrap() != quick_xml::events::Event::Eof {
            buffer.clear();
        }
        let reply = read(&body.plain);
        let vms = entries(&reply, "statsList");
        let carried = |text: String| -> String {
            let lost = |c: char| (c < ' ' && !"\t\n\r".contains(c)) || "\u{fffe}\u{ffff}".contains(c);
            text.chars().map(|c| if lost(c) { '\u{fffd}' } else { c }).collect()
        };
        prop_assert_eq!(text(&vms[id(1).to_string().as_str()]["vmName"]), carried(lossy(&name)));
        let shown = text(&vms[id(2).to_string().as_str()]["exitMessage"]);
        let expected = if message.is_empty() { "VM terminated".into() } else { carried(lossy(&message)) };
        prop_assert_eq!(shown, expected);
    }
}

#[test]
fn a_vm_is_written_anew_when_its_sample_changes_and_only_with_a_sample_of_its_own_run() {
    use crate::samples::usage;
    use whydown_core::id::RunId;
    use whydown_core::sample::Samples;

    let board = Board::new(Generation::Common);
    let picture = Arc::new(snapshot([vm(1, Status::Up)]));
    let stats = |run: u64, cpu: f64| {
        let mut usage = usage(RunId(run));
        usage.rates.as_mut().unwrap().cpu_guest = cpu;
        let samples = Arc::new(Samples { domains: [(id(1), Arc::new(usage))].into(), ..Samples::default() });
        let reply = read(&board.update(&picture, &samples).vm_stats(id(1), Range::Full, NOW));
        members(&items(&members(&reply)["statsList"])[0]).clone()
    };
    assert_eq!(text(&stats(41, 10.0)["cpuUser"]), "10.00");
    assert_eq!(text(&stats(41, 20.0)["cpuUser"]), "20.00");
    let other = stats(40, 30.0);
    assert!(!other.contains_key("cpuUser") && !other.contains_key("hash"), "{other:?}");
}

#[test]
fn a_vm_that_does_not_respond_says_so_unless_it_moves() {
    use crate::samples::usage;
    use whydown_core::sample::Samples;

    for (status, response) in [(Status::Up, "-1"), (Status::Saving, "0"), (Status::MigrationSource, "0")] {
        let domain = vm(1, status);
        let mut silent = usage(domain.run);
        silent.responds = false;
        let samples = Arc::new(Samples { domains: [(id(1), Arc::new(silent))].into(), ..Samples::default() });
        let bodies = Board::new(Generation::Common).update(&Arc::new(snapshot([domain])), &samples);
        let reply = read(&bodies.all_vm_stats(Range::Full, NOW).plain);
        let vms = entries(&reply, "statsList");
        assert_eq!(text(&vms[id(1).to_string().as_str()]["monitorResponse"]), response, "{status:?}");
    }
}

#[test]
fn a_vm_is_told_when_it_is_known_what_it_is_made_of_or_that_it_will_not_be() {
    use crate::samples::usage;
    use whydown_core::sample::{Samples, Usage};

    let told = |usage: Option<Usage>, reads_documents: bool| {
        let domains = usage.map(|usage| (id(1), Arc::new(usage))).into_iter().collect();
        let samples = Arc::new(Samples { domains, reads_documents, ..Samples::default() });
        let picture = Arc::new(snapshot([vm(1, Status::Up), down(2, Cause::GuestPoweroff)]));
        let bodies = Board::new(Generation::Common).update(&picture, &samples);
        let polled = entries(&read(&bodies.all_vm_stats(Range::Full, NOW).plain), "statsList").len();
        let listed = entries(&read(&bodies.list(true, None, Range::Full).plain), "vmList").len();
        let asked = bodies.list(false, Some(&[id(1)]), Range::Full);
        let asked = entries(&read(&asked.plain), "vmList").len();
        assert_eq!((polled, listed, bodies.counts().all), (asked + 1, asked + 1, asked + 1));
        assert_eq!(bodies.snapshot().domains.len(), 2, "it can be acted on");
        asked == 1
    };
    let run = vm(1, Status::Up).run;
    let unread = Usage { devices: None, fingerprint: None, ..usage(run) };
    assert!(!told(None, true) && !told(Some(unread.clone()), true));
    assert!(!told(Some(usage(whydown_core::id::RunId(run.0 + 1))), true), "of another run");
    assert!(told(Some(usage(run)), true));
    assert!(told(Some(Usage { unreadable: true, ..unread }), true));
    assert!(told(None, false), "nothing is read here");
}
