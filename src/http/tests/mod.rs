//! The HTTP room with real sockets and raw bytes.

mod hostile;
mod http;
mod sockets;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::{Extension, routing};
use bytes::Bytes;
use hyper::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use whydown_wire::Body;

use super::*;

/// Longer than any answer should take, shorter than a person would wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// Says back what it was called with, or does what it says; and so by its paths.
#[derive(Default)]
struct Echo {
    /// A body that many get, by the call `shared`.
    shared: Option<Arc<Body>>,
    /// Lets what waits go on.
    go_on: Arc<Notify>,
    /// How often something that waits has begun and ended.
    begun: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    /// How often it was dropped before its end.
    given_up: Arc<AtomicUsize>,
    /// Where `/v1/stream` leaves its sender.
    stream: Option<mpsc::Sender<mpsc::Sender<Bytes>>>,
}

impl Echo {
    async fn wait(&self) -> Bytes {
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
        "waited".into()
    }

    async fn stream(&self) -> axum::response::Response {
        let (sender, pieces) = mpsc::channel(4);
        self.stream.as_ref().unwrap().send(sender).await.unwrap();
        answer::json_lines(pieces)
    }

    /// It, and its paths.
    fn service(self) -> Service {
        let echo = Arc::new(self);
        let (waits, streams) = (Arc::clone(&echo), Arc::clone(&echo));
        let routes = [
            ("/v1/wait", routing::get(async move || waits.wait().await)),
            ("/v1/stream", routing::get(async move || streams.stream().await)),
            ("/v1/panic", routing::get(async || -> String { panic!("a bug in a handler") })),
            ("/v1/peer", routing::get(async |Extension(peer): Extension<Peer>| peer.to_string())),
            (
                "/v1/vms",
                routing::get(async |uri: Uri| {
                    let said = format!("{} {}", uri.path(), uri.query().unwrap_or("-"));
                    answer::json_bytes(said.into())
                }),
            ),
            ("/v1/long", routing::get(async || answer::json_bytes(vec![b'x'; LONG]))),
            ("/v1/body", routing::get(async |body: Bytes| body)),
        ];
        Service::new(echo, routes)
    }
}

/// Bytes of what is at `/v1/long`.
const LONG: usize = 1401;

impl Calls for Echo {
    fn call(self: Arc<Self>, _peer: Peer, call: Call) -> ReplyFuture {
        Box::pin(async move {
            if call.body.as_ref() == b"begin" {
                call.begun.now();
            }
            let reply = match call.body.trim_ascii_end() {
                b"shared" => return Arc::clone(self.shared.as_ref().unwrap()),
                b"panic" => panic!("a bug in a verb"),
                b"begin" | b"wait" => self.wait().await,
                _ => call.body,
            };
            Arc::new(Body::new(reply))
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
        let task = tokio::spawn(serve(
            Listener::Tcp(listener, AllowedHosts::Any),
            service.service(),
            limits,
            shutdown,
        ));
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
