//! What is asked of whydown over HTTP: a file each, and here the table of their paths.
//!
//! A handler takes what it needs of the request, and the [`AppState`]. Nobody comes to one who may not read.

pub(crate) mod history;
pub mod xmlrpc;

mod doctor;
mod domains;
mod health;
mod watch;
mod why;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodRouter, get};

use self::xmlrpc::XmlRpc;
use super::answer::Trouble;
use super::query::Query;
use super::rights::Want;
use super::state::AppState;
use super::visibility::Visibility;
use super::{Peer, Service, Share};
use crate::config::Settings;

/// A path, the parameters that it takes behind the question mark, and what answers there.
type Route = (&'static str, &'static [&'static str], MethodRouter<Arc<AppState>>);

/// Every path but those of calls.
fn routes() -> [Route; 6] {
    [
        ("/v1/domains", &[], get(domains::get)),
        ("/v1/doctor", &["vm"], get(doctor::get)),
        ("/v1/health", &[], get(health::get)),
        ("/v1/history", &["vm", "since", "limit", "after"], get(history::get)),
        ("/v1/watch", &[], get(watch::get)),
        ("/v1/why", &["vm"], get(why::get)),
    ]
}

/// All that is served.
pub fn service(settings: &Settings, state: AppState) -> Service {
    let state = Arc::new(state);
    let calls = Arc::new(XmlRpc::new(settings, Arc::clone(&state)));
    let routes = routes().map(|(path, parameters, handler)| {
        let admit = from_fn_with_state((Arc::clone(&state), parameters), admit);
        (path, handler.route_layer(admit).with_state(Arc::clone(&state)))
    });
    Service::new(calls, routes)
}

/// Who reads, among the extensions of every request that comes to a handler.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    /// Whose share of what is scarce is taken.
    pub share: Share,
    /// How much they may be told.
    pub visibility: Visibility,
}

/// Before every handler: who asks may read, and the query has only what is known there.
async fn admit(
    State((state, parameters)): State<(Arc<AppState>, &'static [&'static str])>,
    mut request: Request,
    next: Next,
) -> Result<Response, Trouble> {
    let peer = request.extensions().get::<Peer>().expect("every exchange says whose it is");
    let visibility = state.check(peer, Want::Read).map_err(Trouble::forbidden)?;
    let reader = Reader { share: peer.share(), visibility };
    let query = Query::read(request.uri(), parameters).map_err(Trouble::bad_request)?;
    let extensions = request.extensions_mut();
    extensions.insert(reader);
    extensions.insert(query);
    Ok(next.run(request).await)
}
