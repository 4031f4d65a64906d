//! A stream with a watch beside it: it fails when the other end keeps us waiting.
//!
//! ```text
//!         first byte            header complete            answer handed over
//! Idle ───────────────▶ Header ───────────────▶ Exchange ────────────────────▶ Idle
//! idle_timeout          header_timeout          (the exchange has its own)
//! ```
//! In every state, an answer of which nothing is taken for `write_timeout` ends the connection.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::Limits;

/// Begun and ended exchanges of a connection, counted together: an odd count means that one is under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Exchanges(Arc<AtomicU64>);

/// An exchange under way; dropping it ends it.
#[derive(Debug)]
pub(super) struct Exchange(Arc<AtomicU64>);

impl Exchanges {
    pub(super) fn begin(&self) -> Exchange {
        self.0.fetch_add(1, Ordering::Relaxed);
        Exchange(Arc::clone(&self.0))
    }

    /// Whether one is under way.
    pub(super) fn is_under_way(&self) -> bool {
        self.count() % 2 == 1
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The stream. `first` was read from it already.
pub(super) struct Guarded<S> {
    stream: S,
    first: Bytes,
    limits: Limits,
    exchanges: Exchanges,
    /// The count of exchanges that the watch was set for.
    seen: u64,
    in_header: bool,
    read_watch: Pin<Box<Sleep>>,
    write_watch: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    /// `opened` is when the connection came: its first header is due `header_timeout` later.
    pub(super) fn new(
        stream: S,
        first: Bytes,
        limits: Limits,
        exchanges: Exchanges,
        opened: Instant,
    ) -> Self {
        let read_watch = Box::pin(tokio::time::sleep_until(opened + limits.header_timeout));
        let seen = exchanges.count();
        Self { stream, first, limits, exchanges, seen, in_header: true, read_watch, write_watch: None }
    }

    fn set_read_watch(&mut self, wait: Duration) {
        self.read_watch.as_mut().reset(Instant::now() + wait);
    }

    /// Follows the exchanges; true while one is under way.
    fn in_exchange(&mut self) -> bool {
        let count = self.exchanges.count();
        if count != self.seen {
            self.seen = count;
            self.in_header = false;
            self.set_read_watch(self.limits.idle_timeout);
        }
        count % 2 == 1
    }

    /// A write that made progress, failed, or still waits.
    fn watch_write<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_watch = None;
            return polled;
        }
        let wait = self.limits.write_timeout;
        let watch = self.write_watch.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        ready!(watch.as_mut().poll(cx));
        Poll::Ready(Err(late("the client does not read its answer")))
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.first.is_empty() {
            let count = this.first.len().min(into.remaining());
            into.put_slice(&this.first[..count]);
            this.first.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = into.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, into);
        if this.in_exchange() {
            return polled;
        }
        if polled.is_ready() {
            if into.filled().len() > before && !this.in_header {
                this.in_header = true;
                this.set_read_watch(this.limits.header_timeout);
            }
            return polled;
        }
        ready!(this.read_watch.as_mut().poll(cx));
        Poll::Ready(Err(late("no request came in time")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch_write(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watch_write(cx, polled)
    }

    /// hyper copies bodies into one buffer unless the stream says that it need not.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // With TLS, what was written may still lie in the stream's own buffer.
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch_write(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch_write(cx, polled)
    }
}
