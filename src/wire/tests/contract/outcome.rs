//! What managers are told of verbs that act.

use dxr::Value;
use whydown_core::evidence::OperationKind;
use whydown_core::lifecycle::Reply;
use whydown_wire::{
    Work, WorkKind, act_reply, cancel_reply, create_reply, destroy_reply, shutdown_reply, work_begun_reply,
    work_reply,
};

use crate::samples::{id, members, read, text};

fn status(body: &[u8]) -> (i32, String) {
    let reply = read(body);
    let status = members(&members(&reply)["status"]);
    let Value::Integer(code) = status["code"] else { panic!("{status:?}") };
    (code, text(&status["message"]).to_owned())
}

const NO_MEANS: &str =
    "VM without ACPI or active oVirt guest agent. Try Forced Shutdown. (internal error: x)";

#[test]
fn what_is_done_with_a_running_vm_has_a_code_of_its_own_when_it_is_refused() {
    let refused = Reply::Refused("no such thing".into());
    for (what, code) in [
        (OperationKind::Pause, 16),
        (OperationKind::Resume, 16),
        (OperationKind::SetTicket, 18),
        (OperationKind::Snapshot, 48),
        (OperationKind::SetMemory, 53),
        (OperationKind::SetVcpus, 60),
        (OperationKind::Freeze, 76),
        (OperationKind::Thaw, 77),
    ] {
        assert_eq!(status(&act_reply(what, &refused)), (code, "no such thing".into()), "{what:?}");
        let down = if matches!(what, OperationKind::Pause | OperationKind::Resume) { 16 } else { 1 };
        assert_eq!(status(&act_reply(what, &Reply::IsDown)).0, down, "{what:?}");
        assert_eq!(status(&act_reply(what, &Reply::NoSuchVm)).0, 1, "{what:?}");
        assert_eq!(status(&act_reply(what, &Reply::Unavailable("x".into()))).0, 40, "{what:?}");
    }
    assert_eq!(status(&cancel_reply(&refused)).0, 47);
    for kind in [WorkKind::Migration, WorkKind::Save] {
        assert_eq!(status(&work_begun_reply(kind, &Reply::Exists)).0, 4);
        assert_eq!(status(&work_begun_reply(kind, &Reply::IsDown)).0, 1);
        assert_eq!(status(&work_begun_reply(kind, &refused)).0, 1);
    }
}

#[test]
fn the_way_of_a_migration_is_told_at_the_top_and_in_a_struct_of_its_own() {
    for (work, code, words, percent) in [
        (Work::None, 0, "The VM has not been migrated", 0),
        (Work::Begun(42), 0, "Migration in progress", 42),
        (Work::Done(WorkKind::Migration), 0, "Migration done", 100),
        (Work::Done(WorkKind::Save), 0, "SaveState done", 100),
        (Work::Cancelled, 47, "Migration canceled", 0),
        (Work::Failed("no route".into()), 12, "Fatal error during migration: no route", 0),
    ] {
        let body = work_reply(&work);
        assert_eq!(status(&body), (code, words.into()));
        let reply = read(&body);
        let inner = members(&members(&reply)["migrationStats"]);
        assert_eq!(members(&reply)["progress"], Value::Integer(percent));
        assert_eq!(inner["progress"], Value::Integer(percent));
        assert_eq!(inner["status"], members(&reply)["status"]);
    }
}

#[test]
fn outcomes_have_vdsms_codes_and_words() {
    let refused = || Reply::Refused("internal error: x".into());
    let cut_off = || Reply::Unavailable("no link".into());
    for (outcome, create, shutdown, destroy) in [
        (Reply::Done, (0, "Done"), (0, "Machine shutting down"), (0, "Machine destroyed")),
        (Reply::NoSuchVm, (1, ""), (1, ""), (1, "")),
        (Reply::IsDown, (1, ""), (1, ""), (1, "")),
        (Reply::Exists, (4, ""), (4, ""), (4, "")),
        (refused(), (9, "internal error: x"), (4, NO_MEANS), (42, "internal error: x")),
        (cut_off(), (40, "no link"), (40, "no link"), (40, "no link")),
    ] {
        let check = |body: &[u8], (code, words): (i32, &str)| {
            let told = status(body);
            assert_eq!(told.0, code, "{outcome:?}");
            assert!(words.is_empty() || told.1 == words, "{told:?}");
        };
        check(&create_reply(id(1), &outcome), create);
        check(&shutdown_reply(false, &outcome), shutdown);
        check(&destroy_reply(&outcome), destroy);
    }
    assert_eq!(status(&shutdown_reply(true, &Reply::Done)).1, "Machine rebooting");
    let created = read(&create_reply(id(7), &Reply::Done));
    assert_eq!(text(&members(&members(&created)["vmList"])["vmId"]), id(7).to_string());
}
