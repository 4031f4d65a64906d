//! Recorded replies: what a host says byte by byte. They are reviewed like code; `WHYDOWN_BLESS=1` records them anew.

use crate::samples::{NOW, bodies, down, snapshot, vm};
use whydown_core::cause::Cause;
use whydown_core::snapshot::Status;
use whydown_wire::{Code, Range, Refused, status_reply};

fn check(name: &str, reply: &[u8]) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/golden").join(name);
    let reply = std::str::from_utf8(reply).unwrap();
    if std::env::var_os("WHYDOWN_BLESS").is_some() {
        std::fs::write(&path, reply).unwrap();
    }
    let recorded =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(reply, recorded, "{name}: record it anew with WHYDOWN_BLESS=1 if the change is meant");
}

#[test]
fn an_empty_host() {
    let bodies = bodies(snapshot([]));
    check("empty-stats.xml", &bodies.all_vm_stats(Range::Classic, NOW).plain);
    check("empty-list.xml", &bodies.list(false, None, Range::Classic).plain);
}

#[test]
fn a_running_vm() {
    let bodies = bodies(snapshot([vm(1, Status::Up), vm(2, Status::PausedIoError)]));
    check("up-stats.xml", &bodies.all_vm_stats(Range::Classic, NOW).plain);
    check("up-list.xml", &bodies.list(false, None, Range::Classic).plain);
    check("up-list-full.xml", &bodies.list(true, None, Range::Classic).plain);
}

#[test]
fn a_vm_that_is_down() {
    let mut failed = down(1, Cause::StartFailed);
    if let Some(ending) = failed.ending.as_mut().map(std::sync::Arc::make_mut) {
        ending.message = "qemu: a < b && \"c\" ]]>\r\n\0é".into();
    }
    let bodies = bodies(snapshot([failed, down(2, Cause::HostShutdown)]));
    check("down-classic.xml", &bodies.all_vm_stats(Range::Classic, NOW).plain);
    check("down-full.xml", &bodies.all_vm_stats(Range::Full, NOW).plain);
    check("down-list-full.xml", &bodies.list(true, None, Range::Full).plain);
}

#[test]
fn refusals() {
    check("no-such-vm.xml", &status_reply(Code::NoSuchVm, ""));
    check("recovering.xml", &status_reply(Code::Recovering, ""));
    check("unknown-method.xml", &Refused::UnknownMethod("fenceNode".into()).reply());
    check("missing-parameter.xml", &Refused::Missing { param: "vmId" }.reply());
}
