//! `GET /v1/watch`: all domains as they are, then every change, a line each.

use bytes::Bytes;
use tokio::sync::{broadcast, mpsc, watch};
use whydown_core::snapshot::{DomainPublic, Snapshot};
use whydown_core::time::Wall;

use crate::daemon::clock;
use crate::daemon::engine::Change;
use crate::http::Answer;
use crate::http::rights::Sight;
use crate::http::visibility::{seen, told_ending};
use crate::told;

/// Changes that wait for a reader of the live stream, beside those in the channel that all share.
const AHEAD: usize = 8;

/// The stream, as much as its reader may be told. A reader that is too slow hears how much it missed.
pub fn answer(
    snapshot: std::sync::Arc<Snapshot>,
    mut changes: broadcast::Receiver<Change>,
    mut stopping: watch::Receiver<bool>,
    sight: Sight,
) -> Answer {
    let (lines, body) = mpsc::channel(AHEAD);
    tokio::spawn(async move {
        let line = |change: &told::Change| {
            let mut line = serde_json::to_vec(change).expect("told types have only texts, numbers and lists");
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
                Ok(Change::Now(domain)) => shown(&seen(domain, sight)),
                Ok(Change::Left(id, ending)) => told::Change {
                    left: Some(id.to_string()),
                    ending: ending.as_deref().map(|ending| told_ending(ending, sight)),
                    ..change()
                },
                Ok(Change::Corrected(ending)) => {
                    told::Change { ending: Some(told_ending(&ending, sight)), corrected: true, ..change() }
                }
                Err(broadcast::error::RecvError::Lagged(missed)) => told::Change { missed, ..change() },
                Err(broadcast::error::RecvError::Closed) => return,
            };
            if lines.send(line(&next)).await.is_err() {
                return;
            }
        }
    });
    Answer::json_lines(body)
}
