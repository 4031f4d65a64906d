//! `GET /v1/domains`: all domains as they are.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use whydown_core::id::DomainId;

use super::Reader;
use crate::http::answer::{json, json_list, to_json};
use crate::http::state::AppState;
use crate::told;

/// Domains that are told in one piece; more are told as they are taken in.
const AT_ONCE: usize = 16;

/// Whoever takes them in slowly holds the snapshot, which others hold too, and a piece of the answer.
pub async fn get(State(state): State<Arc<AppState>>, Extension(reader): Extension<Reader>) -> Response {
    let snapshot = state.published_for(reader.visibility).snapshot;
    if snapshot.domains.len() <= AT_ONCE {
        return json(&told::Domains::of(&snapshot));
    }
    let mut head = to_json(&told::Domains::frame(&snapshot));
    let tail = b"]}";
    head.truncate(head.len() - tail.len());
    let ids: Vec<DomainId> = snapshot.domains.keys().copied().collect();
    let items = ids
        .into_iter()
        .filter_map(move |id| snapshot.domains.get(&id).map(|domain| to_json(&told::Domain::of(domain))));
    json_list(head, items, tail)
}
