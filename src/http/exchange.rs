//! One request and its answer: the route, the body within its limits, the service, the packing.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method, Response, StatusCode};
use tokio::sync::{Semaphore, mpsc};
use tracing::{Instrument as _, debug, debug_span, error};
use whydown_wire::Body;

use super::begun::while_the_client_stays;
use super::guarded::{Exchange, Exchanges};
use super::held::{Hold, Holder, NoRoom};
use super::inflate::InflateError;
use super::unpacking::unpack;
use super::{Answer, Begun, Content, Door, Hosts, Limits, Peer, Request, Service, manners};

/// Bodies up to this size go out as they are, as VDSM did: they fit one packet.
const PLAIN_BYTES: usize = 1400;

/// Packing more than this is left to a thread that may block.
const INLINE_PACK_BYTES: usize = 64 << 10;

/// When to come again where there was no room for a request: those before it are read in a moment.
const RETRY_S: u32 = 1;

/// Threads that pack at once. Whoever waits for one waits with its client, and holds no thread.
static PACKERS: Semaphore = Semaphore::const_new(4);

/// What all exchanges of a connection share.
pub(super) struct Shared {
    pub service: Arc<dyn Service>,
    pub limits: Limits,
    pub peer: Peer,
    pub hosts: Hosts,
    pub exchanges: Exchanges,
    /// Who holds what comes in and goes out.
    pub holder: Holder,
}

/// Answers one request. It cannot fail: what goes wrong is an HTTP status.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: hyper::Request<Incoming>,
) -> Result<Response<Outgoing>, Infallible> {
    let exchange = shared.exchanges.begin();
    let packs = accepts_gzip(request.headers());
    let response = match read(&shared, request).await {
        Ok(request) => respond(serve(&shared, request).await, packs, &shared.holder, exchange).await,
        Err(refusal) => refusal.response(exchange),
    };
    Ok(response)
}

/// Runs the service on a task of its own, whose panic costs one answer. What has begun outlives a client that hangs up: a
/// destroy is not cut in half. What only waits, or is only told something, does not: nobody is left to be told.
async fn serve(shared: &Shared, request: Request) -> Answer {
    let flow = request.headers.get("flowid").and_then(|id| id.to_str().ok()).unwrap_or("").to_owned();
    let span = debug_span!("request", peer = %shared.peer, path = %request.path, flow);
    let begun = request.begun.clone();
    let call = Arc::clone(&shared.service).call(shared.peer.clone(), request).instrument(span);
    match while_the_client_stays(begun, call).await {
        Ok(answer) => answer,
        Err(failed) => {
            error!(peer = %shared.peer, error = %failed, "a request could not be answered");
            Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be answered\n")
        }
    }
}

/// A request that never reaches the service.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    text: String,
    allow: Option<&'static str>,
    retry_after_s: Option<u32>,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), allow: None, retry_after_s: None }
    }

    fn response(self, exchange: Exchange) -> Response<Outgoing> {
        let body = Outgoing { rest: Rest::Whole(Some(self.text.into())), _exchange: exchange };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        keep_from_pages(headers);
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// No page of another origin may make anything of it, not even as an image or a script.
fn keep_from_pages(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
}

/// Which door, by method and path. VDSM knew exactly `/` and `/RPC2`, without a query.
fn route(request: &hyper::Request<Incoming>) -> Result<Door, Refusal> {
    let (path, query) = (request.uri().path(), request.uri().query());
    let (door, method, allow) = match path {
        "/" | "/RPC2" if query.is_none() => (Door::Call, Method::POST, "POST"),
        _ if path.starts_with("/v1/") => (Door::Look, Method::GET, "GET"),
        _ => return Err(Refusal::new(StatusCode::NOT_FOUND, "No such page")),
    };
    if request.method() == method {
        return Ok(door);
    }
    let text = format!("{path} takes {allow} only\n");
    Err(Refusal { allow: Some(allow), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text) })
}

async fn read(shared: &Shared, request: hyper::Request<Incoming>) -> Result<Request, Refusal> {
    let limits = &shared.limits;
    let door = route(&request)?;
    manners::check(door, shared.hosts, request.uri(), request.headers()).map_err(|unmannered| {
        debug!(peer = %shared.peer, "refused: {}", unmannered.why);
        Refusal::new(unmannered.status, unmannered.why + "\n")
    })?;
    let (head, body) = request.into_parts();
    let packed = is_packed(&head.headers)?;
    let hold = shared.holder.request();
    let came = collect(body, limits.max_body_bytes, &hold);
    let mut body = tokio::time::timeout(limits.body_timeout, came)
        .await
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"))??;
    if packed {
        let unpacked = unpack(body, limits.max_body_bytes, shared.holder.share).await;
        body = unpacked.map_err(|error| match error {
            InflateError::TooLarge => too_large(limits.max_body_bytes),
            InflateError::Broken => Refusal::new(
                StatusCode::BAD_REQUEST,
                "error decoding gzip content: it must be one whole member and nothing else\n",
            ),
        })?;
        // From now on it takes what it was unpacked to.
        hold.has(body.len())?;
    }
    let body = hold.keep_with(body);
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().map(str::to_owned));
    Ok(Request { door, path, query, headers: head.headers, body, begun: Begun::default() })
}

/// Whether the body is gzip. One encoding is undone, once: what is packed in other ways, or twice, is refused.
fn is_packed(headers: &HeaderMap) -> Result<bool, Refusal> {
    let mut names = headers.get_all(header::CONTENT_ENCODING).iter();
    let name = names.next().map_or_else(|| b"identity".to_vec(), |name| name.as_bytes().to_ascii_lowercase());
    match name.as_slice() {
        b"identity" if names.next().is_none() => Ok(false),
        b"gzip" | b"x-gzip" if names.next().is_none() => Ok(true),
        name => {
            let text = format!("encoding '{}' not supported\n", String::from_utf8_lossy(name));
            Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text))
        }
    }
}

fn too_large(limit: usize) -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a body may have {limit} bytes\n"))
}

impl From<NoRoom> for Refusal {
    fn from(_: NoRoom) -> Self {
        let text = "this peer's requests fill the room that there is for what waits\n";
        Self { retry_after_s: Some(RETRY_S), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, text) }
    }
}

async fn collect(mut body: Incoming, limit: usize, hold: &Hold) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large(limit));
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the body is broken\n"))?;
        let Ok(piece) = frame.into_data() else { continue };
        if whole.len() + piece.len() > limit {
            return Err(too_large(limit));
        }
        if body.is_end_stream() && whole.is_empty() {
            hold.has(piece.len())?;
            return Ok(piece);
        }
        let had = whole.capacity();
        if had < whole.len() + piece.len() {
            // First the room, then the bytes.
            hold.has(had.max(whole.len() + piece.len()))?;
        }
        whole.extend_from_slice(&piece);
        if whole.capacity() > had {
            hold.has(whole.capacity())?;
        }
    }
    Ok(whole.freeze())
}

/// Whether the client can unpack gzip: it names it, and not with a quality of zero.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|coding| {
            let mut parts = coding.split(';').map(str::trim);
            let named = parts
                .next()
                .is_some_and(|n| n.eq_ignore_ascii_case("gzip") || n.eq_ignore_ascii_case("x-gzip"));
            let quality = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            named && quality.is_none_or(|quality| quality.parse().is_ok_and(|quality: f32| quality > 0.0))
        })
    })
}

async fn respond(answer: Answer, packs: bool, holder: &Holder, exchange: Exchange) -> Response<Outgoing> {
    let mut packed = false;
    let rest = match answer.content {
        Content::Stream(pieces) => Rest::Stream(pieces),
        Content::Whole(body) if packs && body.plain.len() > PLAIN_BYTES => {
            packed = true;
            Rest::Whole(Some(holder.keep(pack(body).await)))
        }
        Content::Whole(body) => Rest::Whole(Some(holder.keep(body.plain.clone()))),
    };
    let mut response = Response::new(Outgoing { rest, _exchange: exchange });
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static("whydown"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    if let Some(seconds) = answer.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if answer.content_type != "text/xml" {
        keep_from_pages(headers);
    }
    if packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    response
}

async fn pack(body: Arc<Body>) -> Bytes {
    if body.plain.len() <= INLINE_PACK_BYTES {
        return body.gzip();
    }
    if let Some(packed) = body.gzip_if_made() {
        return packed;
    }
    let _turn = PACKERS.acquire().await.expect("nobody closes it");
    let shared = Arc::clone(&body);
    tokio::task::spawn_blocking(move || shared.gzip()).await.unwrap_or_else(|_| body.gzip())
}

/// An answer's body on its way out. The exchange ends when it is dropped.
pub(super) struct Outgoing {
    rest: Rest,
    _exchange: Exchange,
}

enum Rest {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.rest {
            Rest::Whole(whole) => Poll::Ready(whole.take().map(|bytes| Ok(Frame::data(bytes)))),
            Rest::Stream(pieces) => {
                pieces.poll_recv(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.rest, Rest::Whole(whole) if whole.as_ref().is_none_or(Bytes::is_empty))
    }

    /// An exact size makes hyper send Content-Length, without which the engine's client would have to wait for the end.
    fn size_hint(&self) -> SizeHint {
        match &self.rest {
            Rest::Whole(whole) => SizeHint::with_exact(whole.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Rest::Stream(_) => SizeHint::default(),
        }
    }
}
