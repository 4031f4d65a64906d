//! The group to which the kernel sends every audit record: netlink, as any number of listeners may join it beside the
//! audit's own daemon. Nothing is asked of the kernel, and nothing set.
//!
//! A filter in the kernel lets through only records that matter, so that all others wake nobody.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recvfrom, socket_with, sockopt};
use socket2::{SockFilter, SockRef};

use super::filter::program;

/// `AUDIT_NLGRP_READLOG`, as a bit.
const READLOG: u32 = 1;

/// Bytes of a `nlmsghdr`: length, kind, flags, sequence and port.
const HEADER: usize = 16;

/// Bytes of one record. The kernel's own bound for what a person may read is 8970.
pub(super) const RECORD_BYTES: usize = 16 * 1024;

/// Bytes that the kernel may keep for us. A record costs some 2 KiB there: room for 500 between two looks.
const WAITING_BYTES: usize = 1 << 20;

/// Why the group was not joined.
#[derive(Debug)]
pub(super) enum NotJoined {
    /// The kernel has no audit, or had it switched off when it booted.
    Absent,
    /// No right.
    Refused(io::Error),
    /// Something else.
    Failed(io::Error),
}

/// What reading gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A record of this kind, with so many bytes of text behind [`text`]'s start.
    Record(u16, usize),
    /// Something that the kernel did not send, or that is no record.
    Other,
    /// The kernel had to drop some.
    Missed,
    /// Nothing more for now.
    Empty,
}

/// A place in the group.
#[derive(Debug)]
pub(super) struct Ear(OwnedFd);

impl Ear {
    pub(super) fn join() -> Result<Self, NotJoined> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let made = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::AUDIT));
        let socket = match made {
            Ok(socket) => socket,
            Err(Errno::PROTONOSUPPORT) => return Err(NotJoined::Absent),
            Err(errno) => return Err(NotJoined::Failed(errno.into())),
        };
        let filter = program().into_iter().map(|(code, yes, no, k)| SockFilter::new(code, yes, no, k));
        let filter: Vec<SockFilter> = filter.collect();
        SockRef::from(&socket).attach_filter(&filter).map_err(NotJoined::Failed)?;
        // Without the right to more than the host's usual bound there is room for fewer.
        if sockopt::set_socket_recv_buffer_size_force(&socket, WAITING_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, WAITING_BYTES)
                .map_err(|errno| NotJoined::Failed(errno.into()))?;
        }
        match bind(&socket, &SocketAddrNetlink::new(0, READLOG)) {
            Ok(()) => Ok(Self(socket)),
            Err(errno @ (Errno::PERM | Errno::ACCESS | Errno::CONNREFUSED)) => {
                Err(NotJoined::Refused(errno.into()))
            }
            Err(errno) => Err(NotJoined::Failed(errno.into())),
        }
    }

    /// The next record. Does not wait.
    pub(super) fn read(&self, buffer: &mut [u8]) -> Result<Read, Errno> {
        loop {
            match recvfrom(&self.0, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _, from)) => {
                    // Anyone may send to a netlink socket; the kernel's port is zero.
                    let from = from.and_then(|address| SocketAddrNetlink::try_from(address).ok());
                    let kernel = from.is_some_and(|address| address.pid() == 0);
                    let kind = buffer.get(4..6).filter(|_| kernel && length >= HEADER);
                    return Ok(match kind {
                        Some(kind) => Read::Record(u16::from_ne_bytes([kind[0], kind[1]]), length - HEADER),
                        None => Read::Other,
                    });
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Read::Empty),
                Err(Errno::NOBUFS) => return Ok(Read::Missed),
                Err(errno) => return Err(errno),
            }
        }
    }
}

/// The text of a record that was read.
pub(super) fn text(buffer: &[u8], length: usize) -> &[u8] {
    let text = buffer.get(HEADER..HEADER + length).unwrap_or_default();
    // Some kernels end it as C does, or with a line break.
    let end = text.iter().rposition(|byte| !matches!(byte, 0 | b'\n')).map_or(0, |last| last + 1);
    &text[..end]
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
