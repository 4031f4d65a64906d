//! What managers are told of verbs that act.

use dxr::Value;
use whydown_core::lifecycle::Reply;
use whydown_wire::{create_reply, destroy_reply, shutdown_reply};

use crate::samples::{id, members, read, text};

fn status(body: &[u8]) -> (i32, String) {
    let reply = read(body);
    let status = members(&members(&reply)["status"]);
    let Value::Integer(code) = status["code"] else { panic!("{status:?}") };
    (code, text(&status["message"]).to_owned())
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
        (refused(), (9, "internal error: x"), (16, "internal error: x"), (42, "internal error: x")),
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
