//! `GET /v1/watch`: all domains as they are, then every change, a line each.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use tokio::sync::{broadcast, mpsc};
use whydown_core::snapshot::DomainPublic;
use whydown_core::time::Wall;

use super::Reader;
use crate::daemon::clock;
use crate::daemon::engine::Change;
use crate::http::answer::{json_lines, to_json};
use crate::http::state::AppState;
use crate::http::visibility::{seen, told_ending};
use crate::told;

/// Changes that wait for a reader of the live stream, beside those in the channel that all share.
const AHEAD: usize = 8;

/// The stream, as much as its reader may be told. A reader that is too slow hears how much it missed.
pub async fn get(State(state): State<Arc<AppState>>, Extension(reader): Extension<Reader>) -> Response {
    // First the changes: none falls between the snapshot and them.
    let mut changes = state.changes.subscribe();
    let visibility = reader.visibility;
    let snapshot = state.published_for(visibility).snapshot;
    let mut stopping = state.stopping.clone();
    let (lines, body) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let line = |change: &told::Change| {
            let mut line = to_json(change);
            line.push(b'\n');
            Bytes::from(line)
        };
        let change = || told::Change {
            at: told::timestamp(clock::wall()),
            domain: None,
            left: None,
            ending: None,
            corrected: false,
            stopping: false,
            missed: 0,
        };
        // Also of what was so before this reader came.
        let shown = |domain: &DomainPublic| told::Change {
            at: told::timestamp(Wall::from_millis(domain.status_time)),
            domain: Some(told::Domain::of(domain)),
            corrected: domain.ending.as_ref().is_some_and(|ending| ending.revision() > 0),
            ..change()
        };
        for domain in snapshot.domains.values() {
            if lines.send(line(&shown(domain))).await.is_err() {
                return;
            }
        }
        loop {
            let next = tokio::select! {
                biased;
                next = changes.recv() => next,
                () = lines.closed() => return,
                _ = stopping.wait_for(|stopping| *stopping) => {
                    // To a reader that takes nothing in, the end itself must do.
                    let _ = lines.try_send(line(&told::Change { stopping: true, ..change() }));
                    return;
                }
            };
            let next = match next {
                Ok(Change::Now(domain)) => shown(&seen(domain, visibility)),
                Ok(Change::Left(id, ending)) => told::Change {
                    left: Some(id.to_string()),
                    ending: ending.as_deref().map(|ending| told_ending(ending, visibility)),
                    ..change()
                },
                Ok(Change::Corrected(ending)) => told::Change {
                    ending: Some(told_ending(&ending, visibility)),
                    corrected: true,
                    ..change()
                },
                Err(broadcast::error::RecvError::Lagged(missed)) => told::Change { missed, ..change() },
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if lines.send(line(&next)).await.is_err() {
                return;
            }
        }
    });
    json_lines(body)
}
