//! The kernel's process events (netlink, `CONFIG_PROC_EVENTS`): the exit status of every process of the host, and which
//! processes begin a program.
//!
//! It is not for when a process ended, which a pidfd tells without rights and without losses.
//! Layout of a message, in the host's byte order, from `linux/netlink.h`, `linux/connector.h` and `linux/cn_proc.h`:
//!
//! ```text
//! 0        16        36     40    44        52    56     60      64
//! nlmsghdr │ cn_msg   │ what │ cpu │ time ns │ pid │ tgid │ status │ …      (of a beginning without the last)
//! ```

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, send, socket_with, sockopt,
};
use whydown_core::time::Mono;

use crate::process::hosts_own_pids;

/// `CN_IDX_PROC`: the sender, and the number of its multicast group.
const INDEX: u32 = 1;
/// `CN_VAL_PROC`
const VALUE: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`
const LISTEN: u32 = 1;
/// `PROC_CN_MCAST_IGNORE`
const IGNORE: u32 = 2;
/// `PROC_EVENT_EXEC`
const EXEC: u32 = 2;
/// `PROC_EVENT_EXIT`
const EXIT: u32 = 0x8000_0000;
/// `NLMSG_DONE`
const DONE: u16 = 3;

/// Bytes of a `nlmsghdr` and a `cn_msg`.
const HEADERS: usize = 36;

/// Bytes of one message. Those that we know are 76 long.
const MESSAGE_BYTES: usize = 1024;

/// Messages taken at a time, so that a host that starts processes without end cannot hold us here.
const MESSAGES: usize = 4096;

/// Bytes that the kernel may keep for us. A message costs some 800 there: room for a thousand exits at once.
const WAITING_BYTES: usize = 1 << 20;

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// A process has begun a program.
    Began(u32),
    /// One has ended.
    Ended(Ended),
}

/// A process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) pid: u32,
    /// As `wait` gives it.
    pub(super) status: i32,
    /// On the kernel's monotonic clock.
    pub(super) at: Mono,
}

/// What reading gave.
#[derive(Debug, Default)]
pub(super) struct Drained {
    pub(super) events: Vec<Event>,
    /// The kernel had to drop some.
    pub(super) missed: bool,
    /// Why nothing can be read any more.
    pub(super) lost: Option<Errno>,
}

/// An open ear.
#[derive(Debug)]
pub(super) struct Connector(OwnedFd);

impl Connector {
    /// Fails without `CAP_NET_ADMIN`, where the kernel lacks it, and in any other than the host's first network and pid
    /// namespaces: in the last the kernel would take the question and never answer.
    pub(super) fn open() -> io::Result<Self> {
        if !hosts_own_pids() {
            let why = "this is not the host's own pid namespace, and the kernel tells of the host's pids";
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::CONNECTOR);
        let connector = Self(socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?);
        // The right that the events need allows for more than the host's usual bound.
        sockopt::set_socket_recv_buffer_size_force(&connector.0, WAITING_BYTES)?;
        // Group 1 is bit 0.
        bind(&connector.0, &SocketAddrNetlink::new(0, 1 << (INDEX - 1)))?;
        connector.ask(&[LISTEN])?;
        // Linux 6.6 narrows the events to these; older ones do not know a question of this length, and send all.
        connector.ask(&[LISTEN, EXEC | EXIT])?;
        Ok(connector)
    }

    /// Over this descriptor, whatever it is.
    #[cfg(test)]
    pub(super) fn over(socket: OwnedFd) -> Self {
        Self(socket)
    }

    fn ask(&self, words: &[u32]) -> io::Result<()> {
        let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let length = HEADERS + body.len();
        let mut message = Vec::with_capacity(length);
        message.extend((length as u32).to_ne_bytes());
        message.extend(DONE.to_ne_bytes());
        message.extend([0; 10]); // flags, sequence, port
        message.extend([INDEX, VALUE, 0, 0].iter().flat_map(|word| word.to_ne_bytes()));
        message.extend((body.len() as u16).to_ne_bytes());
        message.extend([0; 2]); // flags
        message.extend(body);
        send(&self.0, &message, SendFlags::empty())?;
        Ok(())
    }

    /// All that waits, up to a bound. What the kernel had to drop is missing, and its processes end without a status.
    pub(super) fn drain(&self) -> Drained {
        let mut heard = Drained::default();
        let mut message = [0; MESSAGE_BYTES];
        for _ in 0..MESSAGES {
            match recvfrom(&self.0, &mut message, RecvFlags::DONTWAIT) {
                Ok((length, _, from)) => {
                    // Anyone may send to a netlink socket; the kernel's port is zero.
                    let kernel =
                        from.and_then(|a| SocketAddrNetlink::try_from(a).ok()).is_some_and(|a| a.pid() == 0);
                    heard.events.extend(parse(&message[..length]).filter(|_| kernel));
                }
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => heard.missed = true,
                Err(Errno::AGAIN) => break,
                Err(errno) => {
                    heard.lost = Some(errno);
                    break;
                }
            }
        }
        heard
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Old kernels would go on making events for nobody.
        let _ = self.ask(&[IGNORE]);
    }
}

/// The end of a whole process, or the beginning of a program; ends of mere threads are left out.
fn parse(message: &[u8]) -> Option<Event> {
    let word = |offset: usize| Some(u32::from_ne_bytes(message.get(offset..offset + 4)?.try_into().ok()?));
    if (word(16)?, word(20)?) != (INDEX, VALUE) {
        return None;
    }
    let at = u64::from_ne_bytes(message.get(44..52)?.try_into().ok()?);
    let (thread, pid) = (word(52)?, word(56)?);
    match word(HEADERS)? {
        EXEC => Some(Event::Began(pid)),
        EXIT if thread == pid => Some(Event::Ended(Ended { pid, status: word(60)? as i32, at: Mono(at) })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn where_we_have_the_right_the_kernel_tells_how_a_reaped_process_ended() {
        let connector = match Connector::open() {
            Ok(connector) => connector,
            Err(error) if !hosts_own_pids() => return assert_eq!(error.kind(), io::ErrorKind::Unsupported),
            Err(error) => return assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}"),
        };
        let mut child = Command::new("sh").args(["-c", "exit 42"]).spawn().unwrap();
        child.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut began = false;
        loop {
            assert!(Instant::now() < deadline, "the kernel said nothing");
            let mut awaited = [PollFd::new(&connector, PollFlags::IN)];
            poll(&mut awaited, Some(&Timespec { tv_sec: 1, tv_nsec: 0 })).unwrap();
            for event in connector.drain().events {
                match event {
                    Event::Began(pid) => began |= pid == child.id(),
                    Event::Ended(ended) if ended.pid == child.id() => {
                        assert_eq!(ended.status, 42 << 8);
                        return assert!(began, "that it began to run was not told before its end");
                    }
                    Event::Ended(_) => {}
                }
            }
        }
    }

    fn message(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn only_the_end_of_a_whole_process_is_heard() {
        let header = [76, 3, 0, 0];
        let exit = |index, what, thread| {
            let mut bytes = message(&header);
            bytes.extend(message(&[index, 1, 0, 0, 40, what, 0]));
            bytes.extend(5u64.to_ne_bytes());
            bytes.extend(message(&[thread, 77, 9, 17, 1, 1]));
            bytes
        };
        let ended = Ended { pid: 77, status: 9, at: Mono(5) };
        assert_eq!(parse(&exit(1, EXIT, 77)), Some(Event::Ended(ended)));
        assert_eq!(parse(&exit(1, EXEC, 77)), Some(Event::Began(77)));
        assert_eq!(parse(&exit(1, EXEC, 77)[..60]), Some(Event::Began(77)), "it has no status");
        assert_eq!(parse(&exit(1, EXEC, 77)[..58]), None, "cut off");
        assert_eq!(parse(&exit(1, EXIT, 78)), None, "a thread");
        assert_eq!(parse(&exit(1, 1, 77)), None, "a fork");
        assert_eq!(parse(&exit(2, EXIT, 77)), None, "another connector");
        assert_eq!(parse(&exit(1, EXIT, 77)[..62]), None, "cut off");
    }

    proptest! {
        #[test]
        fn any_message_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
