//! Whose process is at the other end of a TCP connection within this host.
//!
//! The kernel is asked for the caller's socket by its addresses (`sock_diag(7)`), which takes no privilege and one system
//! call, however many sockets there are. It serves the log and the evidence; no right hangs on it.

use std::io;
use std::net::SocketAddr;

use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use whydown_witness::sock_diag;

/// The user whose socket has `from` as its own address and is connected to `to`, if it is one of this host and still
/// there.
pub(super) fn uid(from: SocketAddr, to: SocketAddr) -> Option<u32> {
    match ask(from, to) {
        Ok(uid) => uid,
        Err(error) => {
            tracing::debug!(%error, "the kernel does not say whose connection this is");
            None
        }
    }
}

fn ask(from: SocketAddr, to: SocketAddr) -> io::Result<Option<u32>> {
    let request = InetRequest {
        family: if from.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: from.port(),
            destination_port: to.port(),
            source_address: from.ip(),
            destination_address: to.ip(),
            interface_id: 0,
            cookie: sock_diag::ANY,
        },
    };
    let Some(SockDiagMessage::InetResponse(found)) = sock_diag::ask(SockDiagMessage::InetRequest(request))?
    else {
        return Ok(None);
    };
    let id = &found.header.socket_id;
    // A listening socket is what the kernel finds where nobody is connected.
    let is_it = (id.source_port, id.destination_port) == (from.port(), to.port());
    // One that was closed already lives on in the kernel, and is nobody's: its user is told as 0.
    let is_open = found.header.inode != 0;
    Ok((is_it && is_open).then_some(found.header.uid))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_connection_within_this_host_has_its_users_number_and_one_that_is_gone_or_closed_has_none() {
        let me = rustix::process::getuid().as_raw();
        for (listen, connect) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1")] {
            let listener = TcpListener::bind(listen).unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect((connect, port)).unwrap();
            let (server, from) = listener.accept().unwrap();
            let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
            let (from, to) = (plain(from), plain(server.local_addr().unwrap()));
            assert_eq!(uid(from, to), Some(me), "{listen}");
            let nobody = SocketAddr::new(from.ip(), 1);
            assert_eq!(uid(nobody, to), None, "{listen}");
            // What it sent is still to be read; whose it was, nobody knows any more.
            drop(client);
            assert_eq!(uid(from, to), None, "{listen}");
        }
    }
}
