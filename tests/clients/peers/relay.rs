//! A wire with an ear: passes bytes between a client and the daemon, and keeps what went through.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

/// What went over one connection.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    pub asked: Vec<u8>,
    pub answered: Vec<u8>,
}

/// One request as it was sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// The first line and the headers, in small letters.
    pub head: String,
    pub body: Vec<u8>,
}

/// Listens on a port of its own until the process ends; a connection that it cannot make is closed.
#[derive(Debug)]
pub struct Relay {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Relay {
    pub fn to(daemon: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let ours = Arc::clone(&heard);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if let Ok(daemon) = TcpStream::connect(daemon) {
                    join(client, daemon, &ours);
                }
            }
        });
        Ok(Self { address, heard })
    }

    /// What has gone through so far, by connection.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn join(client: TcpStream, daemon: TcpStream, heard: &Arc<Mutex<Vec<Heard>>>) {
    let number = {
        let mut all = heard.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Heard::default());
        all.len() - 1
    };
    let both = client.try_clone().and_then(|client| Ok((client, daemon.try_clone()?)));
    let Ok((client_too, daemon_too)) = both else { return };
    let (asked, answered) = (Arc::clone(heard), Arc::clone(heard));
    pass(client, daemon, move |bytes| keep(&asked, number, |heard| &mut heard.asked, bytes));
    pass(daemon_too, client_too, move |bytes| keep(&answered, number, |heard| &mut heard.answered, bytes));
}

fn keep(all: &Mutex<Vec<Heard>>, number: usize, side: fn(&mut Heard) -> &mut Vec<u8>, bytes: &[u8]) {
    side(&mut all.lock().unwrap_or_else(PoisonError::into_inner)[number]).extend_from_slice(bytes);
}

/// Passes what comes until the end of one side, and then ends the other.
fn pass(mut from: TcpStream, mut to: TcpStream, keep: impl Fn(&[u8]) + Send + 'static) {
    std::thread::spawn(move || {
        let mut bytes = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            keep(&bytes[..count]);
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}

impl Request {
    /// Whether its `User-Agent` begins like that, or there is none if there is to be none.
    pub fn is_from(&self, user_agent: &str) -> bool {
        let said = self.head.split_once("\nuser-agent: ").map(|(_, rest)| rest);
        match user_agent {
            "" => said.is_none(),
            begin => said.is_some_and(|said| said.starts_with(begin)),
        }
    }

    /// All of it, without the port that it was sent to.
    pub fn shape(&self) -> String {
        let host = |line: &str| if line.starts_with("host: ") { "host:".into() } else { line.to_owned() };
        let head: Vec<String> = self.head.lines().map(host).collect();
        format!("{}\n\n{}", head.join("\n"), String::from_utf8_lossy(&self.body))
    }

    /// Whether an answer may come packed.
    pub fn accepts_gzip(&self) -> bool {
        let mut accepted = self.head.lines().filter_map(|line| line.strip_prefix("accept-encoding:"));
        accepted.any(|words| words.contains("gzip"))
    }
}

impl Heard {
    /// The requests of this connection, as far as they are whole and have a length.
    pub fn requests(&self) -> Vec<Request> {
        let mut rest = &self.asked[..];
        let mut found = Vec::new();
        while let Some(end) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&rest[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
            let body = &rest[end + 4..];
            if body.len() < length {
                break;
            }
            found.push(Request { head, body: body[..length].to_vec() });
            rest = &body[length..];
        }
        found
    }

    /// Whether an answer came packed.
    pub fn has_gzip(&self) -> bool {
        let header = b"content-encoding: gzip";
        self.answered.windows(header.len()).any(|part| part.eq_ignore_ascii_case(header))
    }
}
