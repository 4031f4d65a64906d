//! What came of a verb that acts, in VDSM's codes and words.

use bytes::Bytes;
use whydown_core::id::DomainId;
use whydown_core::lifecycle::Reply;

use crate::codes::{Code, put_status, status_reply};
use crate::write;

/// The reply to `create`: the start goes on after it, and a failure shows as Down.
pub fn create_reply(vm: DomainId, outcome: &Reply) -> Bytes {
    match outcome {
        Reply::Done => write::reply(512, |slot| {
            slot.structure(|s| {
                put_status(s, Code::Done, "");
                s.structure("vmList", |s| {
                    s.number_text("vmId", vm);
                    s.text("status", "WaitForLaunch");
                });
            });
        })
        .into(),
        Reply::Refused(text) => status_reply(Code::CreateError, text),
        other => not_done(other),
    }
}

/// The reply to `shutdown`.
pub fn shutdown_reply(reboot: bool, outcome: &Reply) -> Bytes {
    match outcome {
        Reply::Done => {
            status_reply(Code::Done, if reboot { "Machine rebooting" } else { "Machine shutting down" })
        }
        other => not_done(other),
    }
}

/// The reply to `destroy`. To destroy what is not there is harmless, and says so with [`Code::NoSuchVm`].
pub fn destroy_reply(outcome: &Reply) -> Bytes {
    match outcome {
        Reply::Done => status_reply(Code::Done, "Machine destroyed"),
        Reply::Refused(text) => status_reply(Code::DestroyError, text),
        other => not_done(other),
    }
}

fn not_done(outcome: &Reply) -> Bytes {
    match outcome {
        // A VM that is Down does not exist for verbs that act; only `destroy` acknowledges it.
        Reply::NoSuchVm | Reply::IsDown => status_reply(Code::NoSuchVm, ""),
        Reply::Exists => status_reply(Code::Exists, ""),
        Reply::Refused(text) => status_reply(Code::Unexpected, text),
        Reply::Unavailable(why) => status_reply(Code::Unavailable, why),
        Reply::Done => status_reply(Code::Done, ""),
    }
}
