//! `GET /v1/health`: how the daemon itself is doing.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use whydown_ledger::Condition;

use crate::http::answer::json;
use crate::http::state::AppState;
use crate::told;

/// The answer.
pub async fn get(State(state): State<Arc<AppState>>) -> Response {
    let ledger = state.ledger.health();
    let snapshot = state.published().snapshot;
    json(&told::Health {
        version: env!("CARGO_PKG_VERSION").into(),
        started: told::timestamp(state.started),
        settled: snapshot.settled,
        link_lost_since: told::lost_since(&snapshot).filter(|_| snapshot.settled),
        ledger_trouble: match ledger.condition {
            Condition::Working => None,
            Condition::Failing { error, .. } => Some(error),
        },
        ledger_waiting: ledger.waiting,
        ledger_damaged: ledger.damaged.map(|path| path.display().to_string()),
        ledger_mended: ledger.mended,
        ledger_lost: ledger.lost + ledger.unreadable,
        unavailable_sources: state.doctor.unavailable_sources(),
        tls_trouble: state.tls.as_ref().and_then(|tls| tls.trouble()),
    })
}
