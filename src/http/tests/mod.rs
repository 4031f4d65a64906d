//! The HTTP room with real sockets and raw bytes.

mod hostile;
mod http;
mod sockets;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use whydown_wire::Body;

use super::*;

/// Longer than any answer should take, shorter than a person would wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says back what it was asked, or does what the path says.
#[derive(Default)]
struct Echo {
    /// A body that many get, at `/v1/shared`.
    shared: Option<Arc<Body>>,
    /// Lets `/v1/wait` go on.
    go_on: Arc<Notify>,
    /// How often `/v1/wait` has begun and ended.
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    /// How often it was dropped before its end.
    given_up: Arc<AtomicUsize>,
    /// Where `/v1/stream` leaves its sender.
    stream: Option<mpsc::Sender<mpsc::Sender<Bytes>>>,
}

impl Echo {
    async fn wait(&self) -> Answer {
        struct Dropped<'a>(&'a AtomicUsize);
        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        self.begun.fetch_add(1, Ordering::SeqCst);
        let dropped = Dropped(&self.given_up);
        self.go_on.notified().await;
        std::mem::forget(dropped);
        self.ended.fetch_add(1, Ordering::SeqCst);
        Answer::json(StatusCode::OK, "waited")
    }
}

impl Service for Echo {
    fn call(self: Arc<Self>, peer: Peer, request: Request) -> AnswerFuture {
        Box::pin(async move {
            match (request.door, request.path.as_str()) {
                (Door::Look, "/v1/shared") => Answer::shared_xml(Arc::clone(self.shared.as_ref().unwrap())),
                (Door::Look, "/v1/wait") => self.wait().await,
                (Door::Call, _) if request.body.trim_ascii_end() == b"wait" => self.wait().await,
                (Door::Call, _) if request.body.as_ref() == b"begin" => {
                    request.begun.now();
                    self.wait().await
                }
                (Door::Look, "/v1/stream") => {
                    let (sender, pieces) = mpsc::channel(4);
                    self.stream.as_ref().unwrap().send(sender).await.unwrap();
                    Answer::json_lines(pieces)
                }
                (Door::Look, "/v1/panic") => panic!("a bug in a verb"),
                (Door::Look, "/v1/peer") => Answer::text(StatusCode::OK, peer.to_string()),
                (Door::Look, path) => {
                    let query = request.query.as_deref().unwrap_or("-");
                    Answer::json(StatusCode::OK, format!("{path} {query}"))
                }
                (Door::Call, _) => Answer::xml(request.body),
            }
        })
    }
}

/// A server on a port of its own.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(service: Echo, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let task =
            tokio::spawn(serve(Listener::Tcp(listener, Hosts::Any), Arc::new(service), limits, shutdown));
        Self { address, stop: Some(stop), task }
    }

    async fn plain() -> Self {
        Self::start(Echo::default(), Limits::default()).await
    }

    async fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.address).await.unwrap())
    }

    /// One connection: sends `bytes`, reads one answer.
    async fn ask(&self, bytes: impl AsRef<[u8]>) -> Response {
        let mut client = self.connect().await;
        client.send(bytes).await;
        client.response().await
    }

    fn begin_stop(&mut self) {
        drop(self.stop.take());
    }

    async fn stop(mut self) {
        self.begin_stop();
        patiently(self.task).await.unwrap();
    }
}

async fn patiently<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it came to no end")
}

/// Waits until `condition` holds.
async fn until(condition: impl Fn() -> bool) {
    patiently(async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

struct Client<S = TcpStream> {
    stream: S,
    read: Vec<u8>,
}

#[derive(Debug)]
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Response {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Client<S> {
    fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        patiently(self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Reads some more; false at the end, however the other side made it.
    async fn more(&mut self) -> bool {
        patiently(self.stream.read_buf(&mut self.read)).await.is_ok_and(|count| count > 0)
    }

    /// Whether the server closes without another byte.
    async fn is_closed(&mut self) -> bool {
        let before = self.read.len();
        !self.more().await && self.read.len() == before
    }

    async fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let rest = self.read.split_off(end + 4);
                let head = std::mem::replace(&mut self.read, rest);
                return String::from_utf8(head).unwrap();
            }
            assert!(self.more().await, "closed within the head: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await, "closed within the body");
        }
        let rest = self.read.split_off(count);
        std::mem::replace(&mut self.read, rest)
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                return String::from_utf8(self.take(end + 2).await).unwrap().trim_end().to_owned();
            }
            assert!(self.more().await, "closed within a line");
        }
    }

    /// One piece of a chunked body; empty at its end.
    async fn chunk(&mut self) -> Vec<u8> {
        let size = usize::from_str_radix(&self.line().await, 16).unwrap();
        let mut piece = self.take(size + 2).await;
        piece.truncate(size);
        piece
    }

    async fn response(&mut self) -> Response {
        let head = self.head().await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response { status, head, body: Vec::new() };
        let length = response.header("content-length").map(|length| length.parse().unwrap());
        response.body = match length {
            Some(length) => self.take(length).await,
            None => {
                while self.more().await {}
                std::mem::take(&mut self.read)
            }
        };
        response
    }
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}
