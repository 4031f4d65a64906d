//! What came of a verb that acts, in VDSM's codes and words.

use std::borrow::Cow;

use bytes::Bytes;
use whydown_core::evidence::OperationKind;
use whydown_core::id::DomainId;
use whydown_core::lifecycle::Reply;

use crate::codes::{Code, put_status, status_reply};
use crate::write;

/// The reply to `create`: the start goes on after it, and a failure shows as Down.
pub fn create_reply(vm: DomainId, outcome: &Reply) -> Bytes {
    match outcome {
        Reply::Done | Reply::DoneUnwritten => write::reply(512, |slot| {
            slot.structure(|s| {
                put_status(s, Code::Done, &words("", outcome));
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
        Reply::Done | Reply::DoneUnwritten => {
            let done = if reboot { "Machine rebooting" } else { "Machine shutting down" };
            status_reply(Code::Done, &words(done, outcome))
        }
        Reply::Refused(text) => status_reply(
            Code::Exists,
            &format!("VM without ACPI or active oVirt guest agent. Try Forced Shutdown. ({text})"),
        ),
        other => not_done(other),
    }
}

/// The reply to `destroy`. To destroy what is not there is harmless, and says so with [`Code::NoSuchVm`].
pub fn destroy_reply(outcome: &Reply) -> Bytes {
    match outcome {
        Reply::Done | Reply::DoneUnwritten => status_reply(Code::Done, &words("Machine destroyed", outcome)),
        Reply::Refused(text) => status_reply(Code::DestroyError, text),
        other => not_done(other),
    }
}

/// The reply to a verb that does something with a VM that is up, by what was asked. What `setNumberOfCpus` says when it
/// is done shows the VM: see [`Bodies::the_vm`](crate::Bodies::the_vm).
pub fn act_reply(what: OperationKind, outcome: &Reply) -> Bytes {
    let code = match what {
        OperationKind::SetTicket => Code::TicketError,
        OperationKind::SetMemory => Code::BalloonError,
        OperationKind::SetVcpus => Code::VcpusError,
        OperationKind::Freeze => Code::FreezeError,
        OperationKind::Thaw => Code::ThawError,
        OperationKind::Snapshot => Code::SnapshotError,
        _ => Code::Unexpected,
    };
    match (outcome, what) {
        (Reply::Done | Reply::DoneUnwritten, OperationKind::Pause | OperationKind::Resume) => {
            write::reply(256, |slot| {
                slot.structure(|s| {
                    put_status(s, Code::Done, &words("", outcome));
                    s.texts("output", [""]);
                });
            })
            .into()
        }
        (Reply::IsDown, OperationKind::Pause | OperationKind::Resume) => {
            status_reply(Code::Unexpected, Code::IsDown.message())
        }
        (Reply::Refused(text), _) => status_reply(code, text),
        (Reply::Moving(why), _) => status_reply(code, why),
        (other, _) => not_done(other),
    }
}

/// The reply to a verb that changes what a VM is made of, where it did not do what was asked. What it says when it is done
/// shows the VM: see [`Bodies::the_vm`](crate::Bodies::the_vm).
pub fn device_reply(what: OperationKind, outcome: &Reply) -> Bytes {
    let code = match what {
        OperationKind::ChangeMedium => Code::MediumError,
        OperationKind::PlugDisk => Code::PlugDiskError,
        OperationKind::UnplugDisk => Code::UnplugDiskError,
        OperationKind::PlugCard => Code::PlugCardError,
        OperationKind::UnplugCard => Code::UnplugCardError,
        // `vmUpdateDevice`, and the rest has a reply of its own.
        _ => Code::DeviceError,
    };
    match outcome {
        Reply::Refused(text) => status_reply(code, text),
        Reply::Moving(why) if code != Code::DeviceError => status_reply(Code::Moving, why),
        Reply::Moving(why) => status_reply(code, why),
        other => not_done(other),
    }
}

/// The reply to a change of a medium of which there is none at its path.
pub fn no_image_reply(text: &str) -> Bytes {
    status_reply(Code::ImageMissing, text)
}

/// The reply to `snapshot`. `quiesced`: whether the guest's file systems were frozen for it.
pub fn snapshot_reply(quiesced: bool, outcome: &Reply) -> Bytes {
    match outcome {
        Reply::Done | Reply::DoneUnwritten => write::reply(256, |slot| {
            slot.structure(|s| {
                put_status(s, Code::Done, &words("", outcome));
                s.boolean("quiesce", quiesced);
            });
        })
        .into(),
        other => act_reply(OperationKind::Snapshot, other),
    }
}

/// What takes long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkKind {
    /// To another host.
    Migration,
    /// To disk.
    Save,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// There is none, and was none in this run.
    None,
    /// Under way, by so many percent.
    Begun(u8),
    /// Over, as it was meant.
    Done(WorkKind),
    /// Given up, because somebody asked for that.
    Cancelled,
    /// Failed, with libvirt's own text.
    Failed(String),
}

/// The reply to `hibernate` and `migrate`: they go on after it.
pub fn work_begun_reply(kind: WorkKind, outcome: &Reply) -> Bytes {
    match (outcome, kind) {
        (Reply::Done | Reply::DoneUnwritten, WorkKind::Migration) => {
            progress_reply(Code::Done, &words(IN_PROGRESS, outcome), 0, false)
        }
        (Reply::Done | Reply::DoneUnwritten, WorkKind::Save) => {
            progress_reply(Code::Done, &words("Hibernation process starting", outcome), 0, false)
        }
        // It does not run yet.
        (Reply::Refused(text), _) => status_reply(Code::NoSuchVm, text),
        (other, _) => not_done(other),
    }
}

/// The reply to `migrateStatus`: at the top as VDSM 4.16 had it and its command line reads it, and in `migrationStats`
/// as 4.17 had it.
pub fn work_reply(work: &Work) -> Bytes {
    match work {
        // The original says that it is in progress, and a manager that believes it waits for ever.
        Work::None => progress_reply(Code::Done, "The VM has not been migrated", 0, true),
        Work::Begun(percent) => progress_reply(Code::Done, IN_PROGRESS, *percent, true),
        Work::Done(WorkKind::Migration) => progress_reply(Code::Done, "Migration done", 100, true),
        Work::Done(WorkKind::Save) => progress_reply(Code::Done, "SaveState done", 100, true),
        Work::Cancelled => progress_reply(Code::NoMigration, "Migration canceled", 0, true),
        Work::Failed(text) => {
            let text = format!("{}: {text}", Code::MigrationError.message());
            progress_reply(Code::MigrationError, &text, 0, true)
        }
    }
}

/// The reply to `migrateCancel`.
pub fn cancel_reply(outcome: &Reply) -> Bytes {
    match outcome {
        Reply::Done | Reply::DoneUnwritten => {
            progress_reply(Code::Done, &words("Migration process cancelled", outcome), 0, false)
        }
        Reply::Refused(text) => status_reply(Code::NoMigration, text),
        Reply::Moving(why) => status_reply(Code::NoMigration, why),
        other => not_done(other),
    }
}

/// The reply to `migrationCreate` for a VM that may come.
pub fn migration_create_reply(vm: DomainId) -> Bytes {
    write::reply(512, |slot| {
        slot.structure(|s| {
            put_status(s, Code::Done, "");
            s.int("migrationPort", 0);
            s.structure("params", |s| {
                s.number_text("vmId", vm);
                s.text("status", "Migration Destination");
            });
        });
    })
    .into()
}

const IN_PROGRESS: &str = "Migration in progress";

fn progress_reply(code: Code, message: &str, percent: u8, both: bool) -> Bytes {
    let put = |s: &mut write::Members<'_>| {
        put_status(s, code, message);
        s.int("progress", i32::from(percent.min(100)));
    };
    write::reply(768, |slot| {
        slot.structure(|s| {
            put(s);
            if both {
                s.structure("migrationStats", put);
            }
        });
    })
    .into()
}

fn not_done(outcome: &Reply) -> Bytes {
    match outcome {
        // A VM that is Down does not exist for verbs that act; only `destroy` acknowledges it.
        Reply::NoSuchVm | Reply::IsDown => status_reply(Code::NoSuchVm, ""),
        Reply::Exists => status_reply(Code::Exists, ""),
        Reply::Refused(text) => status_reply(Code::Unexpected, text),
        Reply::Moving(why) => status_reply(Code::Unexpected, why),
        Reply::Unavailable(why) => status_reply(Code::Unavailable, why),
        Reply::Done | Reply::DoneUnwritten => status_reply(Code::Done, &words("", outcome)),
    }
}

/// What is said of something that is done; and that it is not on disk, where that is so. Managers go by the code, people by
/// the words.
fn words<'a>(done: &'a str, outcome: &Reply) -> Cow<'a, str> {
    match outcome {
        Reply::DoneUnwritten => {
            let done = if done.is_empty() { Code::Done.message() } else { done };
            format!("{done} (not on disk: whydown's ledger cannot be written)").into()
        }
        _ => done.into(),
    }
}
