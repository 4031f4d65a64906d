//! What is served: calls, and by a router everything else.
//!
//! The path of a call is known before the router is asked, so that a poll costs nothing of it. Whatever the router
//! knows by its path and method goes through the same guard: no route can be added without it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use bytes::Bytes;
use hyper::{HeaderMap, Method, StatusCode, Uri};
use whydown_wire::Body as Reply;

use super::answer::Trouble;
use super::exchange::{Refusal, Shared, flow};
use super::{Begun, Peer};

/// Where JSON is, and troubles are JSON too.
const API: &str = "/v1/";

/// A POST to `/` or `/RPC2`, whole.
#[derive(Debug, Clone)]
pub struct Call {
    /// The headers. `flowid` is the engine's correlation id.
    pub headers: HeaderMap,
    /// The body, unpacked, within the limit.
    pub body: Bytes,
    /// Said when it goes beyond the point where it can be given up.
    pub begun: Begun,
}

/// A reply to come. A body that others are given too is packed at most once.
pub type ReplyFuture = Pin<Box<dyn Future<Output = Arc<Reply>> + Send>>;

/// Who answers calls.
pub trait Calls: Send + Sync + 'static {
    /// Answers a call; its own refusals are replies too. When the client has gone it is dropped, unless it was said that
    /// it has [begun](Begun::now): then it runs to its end.
    fn call(self: Arc<Self>, peer: Peer, call: Call) -> ReplyFuture;
}

/// See the module page. Cheap to clone.
#[derive(Clone)]
pub struct Service {
    pub(super) calls: Arc<dyn Calls>,
    router: Router,
}

impl Service {
    /// These calls, and these routes: a path each, as [`Router::route`] has it, with what answers there. A handler finds
    /// the [`Peer`] among the request's extensions, and in its body all of it, within the limit.
    pub fn new(
        calls: Arc<dyn Calls>,
        routes: impl IntoIterator<Item = (&'static str, MethodRouter)>,
    ) -> Self {
        let guarded = |router: Router, (path, methods): (&str, MethodRouter)| {
            router.route(path, methods.route_layer(from_fn(guard)))
        };
        let router = routes.into_iter().fold(Router::new(), guarded);
        Self { calls, router: router.method_not_allowed_fallback(wrong_method).fallback(no_page) }
    }

    /// What the router answers.
    pub(super) async fn route(&self, request: Request) -> Response {
        use tower_service::Service as _;
        // A router is always ready.
        self.router.clone().call(request).await.unwrap_or_else(|never| match never {})
    }
}

/// Before every handler: whether a web page asks, and the body within its limits. The handler runs on a task of its own.
async fn guard(mut request: Request, next: Next) -> Response {
    let shared = request.extensions_mut().remove::<Arc<Shared>>().expect("each exchange brings it along");
    let path = request.uri().path().to_owned();
    let answered = async {
        let request = shared.read_for_router(request).await?;
        let flow = flow(request.headers());
        shared.run(&path, flow, Begun::default(), next.run(request)).await
    };
    answered.await.unwrap_or_else(|refusal| refusal.response().map(Body::from))
}

/// Which methods there are stands in `Allow`.
async fn wrong_method(method: Method, uri: Uri) -> Response {
    let text = format!("{} does not take {method}\n", uri.path());
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text).response().map(Body::from)
}

async fn no_page(uri: Uri) -> Response {
    if uri.path().starts_with(API) {
        return Trouble::not_found("there is nothing at this path").into_response();
    }
    Refusal::new(StatusCode::NOT_FOUND, "No such page").response().map(Body::from)
}
