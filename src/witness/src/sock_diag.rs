//! One question to the kernel about one socket (`sock_diag(7)`). It takes no privilege and one system call.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

/// Stands for any cookie.
pub const ANY: [u8; 8] = [0xff; 8];

/// An answer is one message of less than this.
const ANSWER_BYTES: usize = 4096;

/// What the kernel knows of the socket that is asked for; `None` if it knows none.
///
/// # Errors
/// The kernel's, other than that it knows none.
pub fn ask(request: SockDiagMessage) -> io::Result<Option<SockDiagMessage>> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let kernel = Socket::new(NETLINK_SOCK_DIAG)?;
    // The kernel answers while it takes the request: there is nothing to wait for, and nobody who could keep us waiting.
    kernel.set_non_blocking(true)?;
    kernel.send(&bytes, 0)?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    kernel.recv(&mut answer, 0)?;
    let answer: NetlinkMessage<SockDiagMessage> =
        NetlinkMessage::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(found) => Ok(Some(found)),
        NetlinkPayload::Error(error) => match error.to_io() {
            gone if gone.kind() == io::ErrorKind::NotFound => Ok(None),
            other => Err(other),
        },
        _ => Ok(None),
    }
}
