//! A client that sends whatever it likes, byte by byte if it likes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use crate::host::{Host, Listener};

/// Longer than all limits of the tests together: who is neither answered nor closed by then never will be.
pub const PATIENCE: Duration = Duration::from_secs(60);

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

/// One connection.
pub struct Attacker {
    stream: Stream,
    read: Vec<u8>,
}

/// One HTTP answer.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its first line and headers, in lower case.
    pub head: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("an answer is UTF-8")
    }

    /// The status code of an XML-RPC reply; of a fault its code, negative.
    pub fn code(&self) -> i32 {
        let text = self.text();
        let number = |name: &str| {
            let rest = text.split(&format!("<name>{name}</name><value><int>")).nth(1)?;
            rest.split('<').next()?.parse::<i32>().ok()
        };
        number("faultCode").map(|code| -code).or(number("code")).unwrap_or_else(|| panic!("no reply: {text}"))
    }
}

impl Attacker {
    /// Connects, and shakes hands where there is TLS.
    pub fn connect(host: &Host, listener: Listener) -> io::Result<Self> {
        let stream = match listener {
            Listener::Plain => Stream::Plain(TcpStream::connect(host.plain)?),
            Listener::Unix => Stream::Unix(UnixStream::connect(&host.socket)?),
            Listener::Tls => {
                let name = ServerName::from(host.secured.ip());
                let connection =
                    ClientConnection::new(Arc::clone(&host.client), name).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(connection, TcpStream::connect(host.secured)?);
                limit(&stream.sock)?;
                while stream.conn.is_handshaking() {
                    stream.conn.complete_io(&mut stream.sock)?;
                }
                Stream::Tls(Box::new(stream))
            }
        };
        let attacker = Self { stream, read: Vec::new() };
        limit(&attacker)?;
        Ok(attacker)
    }

    /// Connects without a word, as the transport has it: where there is TLS, no handshake is begun.
    pub fn raw(host: &Host, listener: Listener) -> io::Result<Self> {
        let stream = match listener {
            Listener::Plain => Stream::Plain(TcpStream::connect(host.plain)?),
            Listener::Tls => Stream::Plain(TcpStream::connect(host.secured)?),
            Listener::Unix => Stream::Unix(UnixStream::connect(&host.socket)?),
        };
        let attacker = Self { stream, read: Vec::new() };
        limit(&attacker)?;
        Ok(attacker)
    }

    fn io(&mut self) -> &mut dyn ReadWrite {
        match &mut self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.as_mut(),
            Stream::Unix(stream) => stream,
        }
    }

    /// False when the other side has closed.
    ///
    /// # Panics
    /// When it neither takes the bytes nor closes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = self.io().write_all(bytes.as_ref()).and_then(|()| self.io().flush());
        if let Err(error) = &sent {
            assert!(!is_late(error), "the daemon neither reads nor closes");
        }
        sent.is_ok()
    }

    /// Reads some more; false when the other side has closed, in whatever way.
    ///
    /// # Panics
    /// When it neither says anything nor closes.
    pub fn more(&mut self) -> bool {
        let mut piece = [0; 16 << 10];
        match self.io().read(&mut piece) {
            Ok(count) => {
                self.read.extend_from_slice(&piece[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => {
                assert!(!is_late(&error), "the daemon neither answers nor closes");
                false
            }
        }
    }

    /// Reads until the other side ends the connection; whether that was by a reset.
    pub fn is_reset(&mut self) -> bool {
        let mut piece = [0; 1024];
        loop {
            match self.io().read(&mut piece) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // What TLS makes of an end without its own farewell, which is no reset.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return false,
                Err(error) => {
                    assert!(!is_late(&error), "the daemon neither answers nor closes");
                    return error.kind() == ErrorKind::ConnectionReset;
                }
            }
        }
    }

    /// Everything until the other side closes.
    pub fn rest(&mut self) -> String {
        while self.more() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    /// The next answer, passing over `100 Continue`; none when the other side has closed instead.
    pub fn response(&mut self) -> Option<Response> {
        loop {
            let head = loop {
                if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                    let rest = self.read.split_off(end + 4);
                    let head = std::mem::replace(&mut self.read, rest);
                    break String::from_utf8(head).expect("a head is ASCII").to_ascii_lowercase();
                }
                if !self.more() {
                    return None;
                }
            };
            let status: u16 = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
            if status == 100 {
                continue;
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let length: usize = length.unwrap_or(0);
            while self.read.len() < length {
                if !self.more() {
                    return None;
                }
            }
            let rest = self.read.split_off(length);
            let body = std::mem::replace(&mut self.read, rest);
            return Some(Response { status, head, body });
        }
    }

    /// The status of the next answer, of which no more is read than its first line.
    ///
    /// # Panics
    /// When it is closed instead.
    pub fn peek_status(&mut self) -> u16 {
        let mut byte = [0];
        while self.read.len() < "HTTP/1.1 200".len() {
            self.io().read_exact(&mut byte).expect("an answer");
            self.read.push(byte[0]);
        }
        std::str::from_utf8(&self.read[9..12]).ok().and_then(|s| s.parse().ok()).expect("a status")
    }

    /// The answer to a request of any bytes.
    ///
    /// # Panics
    /// When it is closed instead.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        // What is sent in vain was refused before its end; the answer says why.
        let _ = self.send(request);
        self.response().expect("an answer")
    }

    /// The text of the reply to a call without parameters.
    pub fn asks(&mut self, method: &str) -> String {
        self.ask(post(xml(method, ""))).text().to_owned()
    }

    /// Says that nothing more comes, and goes on reading.
    pub fn send_end(&mut self) {
        let _ = SockRef::from(&*self).shutdown(std::net::Shutdown::Write);
    }

    /// Has the kernel keep little of what comes and is not read.
    pub fn take_little(&mut self) {
        SockRef::from(&*self).set_recv_buffer_size(4096).expect("a buffer may be small");
    }

    /// Cuts the connection without a farewell: the other side gets a reset.
    pub fn reset(self) {
        let _ = SockRef::from(&self).set_linger(Some(Duration::ZERO));
    }
}

impl AsFd for Attacker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Plain(stream) => stream.as_fd(),
            Stream::Tls(stream) => stream.sock.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

fn limit(stream: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A call.
pub fn xml(method: &str, params: &str) -> String {
    format!(
        "<?xml version='1.0'?><methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>"
    )
}

/// One parameter.
pub fn param(value: &str) -> String {
    format!("<param><value>{value}</value></param>")
}

/// A POST of this body.
pub fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    post_with("", body)
}

/// A POST of this body with more headers, each with its line end.
pub fn post_with(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let head =
        format!("POST / HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// A GET.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}
