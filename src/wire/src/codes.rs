//! Status codes: what a verb answers where other protocols would fault.
//!
//! A manager reads an XML-RPC fault as a broken host and may fence it, so a refusal is always a struct with a code.

use crate::write;
use bytes::Bytes;

macro_rules! codes {
    ($($(#[$meta:meta])* $name:ident = $code:literal, $message:literal;)*) => {
        /// VDSM's status codes, as far as virtual machines and hosts are concerned.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Code {
            $(#[doc = $message] $(#[$meta])* $name = $code,)*
        }

        impl Code {
            /// All codes, in rising order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// VDSM's message for it.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }
        }
    };
}

codes! {
    Done = 0, "Done";
    NoSuchVm = 1, "Virtual machine does not exist";
    Exists = 4, "Virtual machine already exists";
    UnsupportedVmType = 5, "Unsupported VM type";
    IsDown = 6, "Virtual machine is down";
    CreateError = 9, "Error creating the requested VM";
    NoConnectionToPeer = 10, "Could not connect to peer VDS";
    MissingParameter = 11, "Missing required parameter";
    MigrationError = 12, "Fatal error during migration";
    ImageMissing = 13, "Drive image file could not be found";
    NoMemory = 14, "Not enough free memory to create VM";
    Unexpected = 16, "Unexpected exception";
    TicketError = 18, "Error while setting spice ticket";
    AgentSilent = 19, "Guest agent non-responsive";
    Unavailable = 40, "Resource unavailable";
    MediumError = 41, "Failed to change disk image";
    DestroyError = 42, "Virtual machine destroy error";
    NotImplemented = 44, "Not implemented";
    PlugDiskError = 45, "Failed to hotplug disk";
    UnplugDiskError = 46, "Failed to hotunplug disk";
    NoMigration = 47, "Migration not in progress";
    SnapshotError = 48, "Snapshot failed";
    PlugCardError = 49, "Failed to hotplug NIC";
    UnplugCardError = 50, "Failed to hotunplug NIC";
    Moving = 51, "Command not supported during migration";
    BalloonError = 53, "Balloon operation is not available";
    DeviceError = 56, "Failed to update device";
    HardwareUnread = 57, "Failed to read hardware information";
    VcpusError = 60, "Failed to set the number of cpus";
    NotSupported = 75, "Operation not supported";
    FreezeError = 76, "Unable to freeze guest filesystems";
    ThawError = 77, "Unable to thaw guest filesystems";
    HookError = 78, "Hook error";
    Recovering = 99, "Recovering from crash or Initializing";
}

impl Code {
    /// The number on the wire.
    pub const fn number(self) -> i32 {
        self as i32
    }
}

/// A reply of nothing but a status. An empty message becomes the code's own: managers want one always.
pub fn status_reply(code: Code, message: &str) -> Bytes {
    write::reply(160 + message.len(), |slot| slot.structure(|s| put_status(s, code, message))).into()
}

/// Code 0, "Done".
pub fn done() -> Bytes {
    status_reply(Code::Done, "")
}

/// Adds the `status` member that every struct reply carries.
pub(crate) fn put_status(members: &mut write::Members<'_>, code: Code, message: &str) {
    members.structure("status", |s| {
        s.int("code", code.number());
        s.text("message", if message.is_empty() { code.message() } else { message });
    });
}

/// An XML-RPC fault. Only for calls that are no call of ours at all: to a manager it means that the host is broken.
pub fn fault(code: i32, text: &str) -> Bytes {
    write::fault_reply(code, text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_rise_and_have_a_message() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        assert!(Code::ALL.iter().all(|code| !code.message().is_empty()));
    }

    #[test]
    fn a_fault_is_read_by_dxr() {
        let body = fault(1, "<type 'exceptions.Exception'>:method \"x\" is not supported");
        let read = dxr::FaultResponse::from_xml(std::str::from_utf8(&body).unwrap()).unwrap();
        assert_eq!(read.fault.code(), 1);
        assert_eq!(read.fault.string(), "<type 'exceptions.Exception'>:method \"x\" is not supported");
    }
}
