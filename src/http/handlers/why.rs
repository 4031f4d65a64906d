//! `GET /v1/why`: a VM as it is shown, and its latest ending.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use whydown_core::snapshot::Snapshot;
use whydown_ledger::Query as Endings;

use super::Reader;
use crate::daemon::meant::{Meant, NEVER_RAN};
use crate::http::answer::{Trouble, json};
use crate::http::query::Query;
use crate::http::state::AppState;
use crate::told;

/// Endings of one name that are looked through for one that ran, as far as one page has them.
const LOOKED_THROUGH: usize = 50;

/// The answer.
pub async fn get(
    State(state): State<Arc<AppState>>,
    Extension(reader): Extension<Reader>,
    Extension(query): Extension<Query>,
) -> Result<Response, Trouble> {
    let vm = query.get("vm").ok_or_else(|| Trouble::bad_request("vm is missing: a name or a UUID"))?;
    let snapshot = state.published_for(reader.visibility).snapshot;
    let meant = Meant::by(vm);
    let known = known(&state, reader, &snapshot, &meant).await?;
    let shown = known.as_ref().is_some_and(|known| known.domain.is_some());
    let ending = known.as_ref().and_then(|known| known.ending.as_ref());
    let defined = if shown { None } else { state.doctor.find_off(&meant, ending).await };
    let known = match (known, &defined) {
        // It was renamed since it ran: what is known of it stands under its UUID.
        (None, Some(defined)) => self::known(&state, reader, &snapshot, &Meant::by(&defined.domain)).await?,
        (known, _) => known,
    };
    match (known, defined) {
        (None, None) if snapshot.settled => {
            Err(Trouble::not_found("no VM of this name or UUID is or was known"))
        }
        (None, None) => Err(Trouble::unavailable(
            "libvirt has not listed its VMs yet, and no ending of this one is known: try again",
        )),
        (known, defined) => Ok(json(&told::Why { defined, ..known.unwrap_or_default() })),
    }
}

/// What is known of the VM that is meant; none, where nothing is.
async fn known(
    state: &AppState,
    reader: Reader,
    snapshot: &Snapshot,
    meant: &Meant,
) -> Result<Option<told::Why>, Trouble> {
    let shown = meant.shown(snapshot);
    let domain = shown.first().map(|domain| told::Domain::of(domain));
    let mut ending = domain.as_ref().and_then(|domain| domain.ending.clone());
    let mut namesakes: Vec<String> = shown.iter().map(|domain| domain.domain.to_string()).collect();
    let its_own = shown.first().map(|domain| Endings { domain: Some(domain.domain), ..Endings::default() });
    for query in its_own.into_iter().chain(meant.queries()) {
        if ending.is_some() {
            break;
        }
        let limit = if query.domain.is_some() { 1 } else { LOOKED_THROUGH };
        let endings = state.history.newest(reader, Endings { limit, ..query }).await?;
        namesakes.extend(endings.iter().map(|ending| ending.domain.clone()));
        ending = likely(endings);
    }
    let told = domain.as_ref().map(|domain| &domain.domain);
    let told = told.or(ending.as_ref().map(|ending| &ending.domain));
    let mut seen = BTreeSet::from_iter(told.cloned());
    namesakes.retain(|id| seen.insert(id.clone()));
    let known = domain.is_some() || ending.is_some();
    Ok(known.then_some(told::Why { domain, ending, defined: None, namesakes }))
}

/// Of endings, newest first, perhaps of several VMs, the newest of the VM that is meant.
fn likely(endings: Vec<told::Ending>) -> Option<told::Ending> {
    let ran = |ending: &told::Ending| NEVER_RAN.iter().all(|cause| cause.row().word != ending.cause);
    let domain = endings.iter().find(|ending| ran(ending)).or(endings.first())?.domain.clone();
    endings.into_iter().find(|ending| ending.domain == domain)
}
