//! `GET /v1/doctor`: what this host and its VMs lack.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;

use crate::daemon::doctor::Unwell;
use crate::http::Peer;
use crate::http::answer::{Trouble, json};
use crate::http::query::Query;
use crate::http::rights::Want;
use crate::http::state::AppState;

/// It asks libvirt, on threads that go on when the client has gone: so few are at work at once, to their end.
pub async fn get(
    State(state): State<Arc<AppState>>,
    Extension(peer): Extension<Peer>,
    Extension(query): Extension<Query>,
) -> Result<Response, Trouble> {
    let want = Want::Secret("ask what this host and its VMs lack");
    state.check(&peer, want).map_err(Trouble::forbidden)?;
    let turn = Arc::clone(&state.doctors).acquire_owned().await;
    let turn = turn.map_err(|_| Trouble::unavailable("whydown is stopping"))?;
    let (doctor, vm) = (Arc::clone(&state.doctor), query.get("vm").map(str::to_owned));
    let examined = tokio::spawn(async move {
        let _turn = turn;
        doctor.examine(vm.as_deref()).await
    });
    match examined.await {
        Ok(Ok(told)) => Ok(json(&told)),
        Ok(Err(Unwell(status, why))) => {
            Err(Trouble::new(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), why))
        }
        Err(broken) => Err(Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, broken)),
    }
}
