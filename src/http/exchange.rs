//! One request and its answer: call or route, the body within its limits, who answers, the packing.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body as RouterBody;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use tracing::{Instrument as _, debug, debug_span, error};
use whydown_wire::Body;

use super::begun::while_the_client_stays;
use super::cross_origin::{self, CrossOrigin};
use super::guarded::{Exchange, Exchanges};
use super::held::{Hold, Holder, NoRoom};
use super::inflate::InflateError;
use super::unpacking::unpack;
use super::{AllowedHosts, Begun, Call, Limits, Peer, Service};

/// Bodies up to this size go out as they are, as VDSM did: they fit one packet.
const PLAIN_BYTES: usize = 1400;

/// Packing more than this is left to a thread that may block.
const INLINE_PACK_BYTES: usize = 64 << 10;

/// When to come again where there was no room for a request: those before it are read in a moment.
const RETRY_S: u32 = 1;

/// What we call ourselves.
const SERVER: &str = "whydown";

/// Threads that pack at once. Whoever waits for one waits with its client, and holds no thread.
static PACKERS: Semaphore = Semaphore::const_new(4);

/// What all exchanges of a connection share.
pub(super) struct Shared {
    pub service: Service,
    pub limits: Limits,
    pub peer: Peer,
    pub hosts: AllowedHosts,
    pub exchanges: Exchanges,
    /// Who holds what comes in and goes out.
    pub holder: Holder,
}

/// Answers one request. It cannot fail: what goes wrong is an HTTP status.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Outgoing>, Infallible> {
    let exchange = shared.exchanges.begin();
    let packs = accepts_gzip(request.headers());
    let response = if is_calls(&request) {
        match call(&shared, request).await {
            Ok(reply) => send_reply(reply, packs, &shared.holder, exchange).await,
            Err(refusal) => refusal.response().map(|text| Outgoing::whole(text, exchange)),
        }
    } else {
        let is_head = request.method() == Method::HEAD;
        let mut request = request.map(RouterBody::new);
        request.extensions_mut().insert(Arc::clone(&shared));
        let response = shared.service.route(request).await;
        send(response, is_head, packs, &shared.holder, exchange).await
    };
    Ok(response)
}

/// VDSM knew exactly these two, without a query.
fn is_calls<B>(request: &Request<B>) -> bool {
    matches!(request.uri().path(), "/" | "/RPC2") && request.uri().query().is_none()
}

async fn call(shared: &Shared, request: Request<Incoming>) -> Result<Arc<Body>, Refusal> {
    if request.method() != Method::POST {
        let text = format!("{} takes POST only\n", request.uri().path());
        return Err(Refusal { allow: Some("POST"), ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text) });
    }
    let checked = cross_origin::check_call(shared.hosts, request.uri(), request.headers());
    shared.admit(checked)?;
    let (head, body) = request.into_parts();
    let body = shared.read(&head.headers, body).await?;
    let flow = flow(&head.headers);
    let begun = Begun::default();
    let call = Call { headers: head.headers, body, begun: begun.clone() };
    let reply = Arc::clone(&shared.service.calls).call(shared.peer.clone(), call);
    shared.run(head.uri.path(), flow, begun, reply).await
}

/// The manager's own name of a request, for the log.
pub(super) fn flow(headers: &HeaderMap) -> String {
    headers.get("flowid").and_then(|id| id.to_str().ok()).unwrap_or("").to_owned()
}

impl Shared {
    /// A request for the router: no web page's, and its body whole.
    pub(super) async fn read_for_router(
        &self,
        request: Request<RouterBody>,
    ) -> Result<Request<RouterBody>, Refusal> {
        self.admit(cross_origin::check_read(self.hosts, request.uri(), request.headers()))?;
        let (mut head, body) = request.into_parts();
        let body = self.read(&head.headers, body).await?;
        head.extensions.insert(self.peer.clone());
        Ok(Request::from_parts(head, body.into()))
    }

    fn admit(&self, checked: Result<(), CrossOrigin>) -> Result<(), Refusal> {
        checked.map_err(|refused| {
            debug!(peer = %self.peer, "refused: {}", refused.why);
            Refusal::new(refused.status, refused.why + "\n")
        })
    }

    /// Runs what answers on a task of its own, whose panic costs one answer. What has begun outlives a client that hangs
    /// up: a destroy is not cut in half. What only waits, or is only told something, does not: nobody is left to be told.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        path: &str,
        flow: String,
        begun: Begun,
        answer: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let span = debug_span!("request", peer = %self.peer, path, flow);
        while_the_client_stays(begun, answer.instrument(span)).await.map_err(|failed| {
            error!(peer = %self.peer, error = %failed, "a request could not be answered");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be answered\n")
        })
    }

    /// The body, unpacked, within its limits of time and size.
    async fn read<B>(&self, headers: &HeaderMap, body: B) -> Result<Bytes, Refusal>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        let limits = &self.limits;
        let packed = is_packed(headers)?;
        let hold = self.holder.request();
        let came = collect(body, limits.max_body_bytes, &hold);
        let mut body = tokio::time::timeout(limits.body_timeout, came)
            .await
            .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time\n"))??;
        if packed {
            let unpacked = unpack(body, limits.max_body_bytes, self.holder.share).await;
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
        Ok(hold.keep_with(body))
    }
}

/// A request that nobody answers who stands behind HTTP.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    text: String,
    allow: Option<&'static str>,
    retry_after_s: Option<u32>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), allow: None, retry_after_s: None }
    }

    pub(super) fn response(self) -> Response<Bytes> {
        let mut response = Response::new(self.text.into());
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

async fn collect<B>(mut body: B, limit: usize, hold: &Hold) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
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

async fn send_reply(
    reply: Arc<Body>,
    packs: bool,
    holder: &Holder,
    exchange: Exchange,
) -> Response<Outgoing> {
    let (bytes, packed) = whole(reply, packs, holder).await;
    let mut response = Response::new(Outgoing::whole(bytes, exchange));
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/xml"));
    if packed {
        say_packed(headers);
    }
    response
}

/// What the router gave, on its way: what is whole is packed as replies are.
async fn send(
    response: Response<RouterBody>,
    is_head: bool,
    packs: bool,
    holder: &Holder,
    exchange: Exchange,
) -> Response<Outgoing> {
    let (mut head, body) = response.into_parts();
    let headers = &mut head.headers;
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    keep_from_pages(headers);
    if !is_head {
        // It follows from what is sent.
        headers.remove(header::CONTENT_LENGTH);
    }
    let body = if body.size_hint().exact().is_none() {
        Outgoing { rest: Rest::Stream(body), _exchange: exchange }
    } else {
        let plain = body.collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
        let (bytes, packed) = whole(Arc::new(Body::new(plain)), packs, holder).await;
        if packed {
            say_packed(headers);
        }
        Outgoing::whole(bytes, exchange)
    };
    Response::from_parts(head, body)
}

/// A body as it goes out, and whether that is packed.
async fn whole(body: Arc<Body>, packs: bool, holder: &Holder) -> (Bytes, bool) {
    let packed = packs && body.plain.len() > PLAIN_BYTES;
    let bytes = if packed { pack(body).await } else { body.plain.clone() };
    (holder.keep(bytes), packed)
}

fn say_packed(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
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
    Stream(RouterBody),
}

impl Outgoing {
    fn whole(bytes: Bytes, exchange: Exchange) -> Self {
        Self { rest: Rest::Whole(Some(bytes)), _exchange: exchange }
    }
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
            Rest::Stream(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                // None of ours fails. One that did would end here, and the connection with it.
                Poll::Ready(frame.and_then(Result::ok).map(Ok))
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
