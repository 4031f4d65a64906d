//! A whole listing that agrees with the events around it.
//!
//! Order is everything: callbacks are registered first, then the domains are listed with their processes, then a barrier
//! lets every event that libvirt had queued reach its callback. What changed meanwhile is known by then; while anything
//! did, the listing is taken again a few times, and what still changes is named as *changing*.

use std::collections::HashMap;
use std::time::Duration;

use virt_sys as sys;
use whydown_core::hypervisor::{DomainState, DomainView, Listing};
use whydown_core::time::Wall;

use crate::ffi::{Conn, Dom, Fault, event_loop};
use crate::hearing::Hearing;
use crate::process::Processes;
use crate::translate;

/// Listings taken before what still changes is named.
const TRIES: usize = 3;

/// How long libvirt's loop may take to give out what it has queued. Only a listener that hangs can hold it up.
const BARRIER: Duration = Duration::from_secs(10);

/// Why there is no listing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoListing {
    #[error("libvirt did not list its domains: {0}")]
    Refused(#[from] Fault),
    #[error("libvirt's event loop did not come round within {} s", BARRIER.as_secs())]
    LoopStuck,
    #[error("more happened while the domains were listed than could be kept")]
    TooMuch,
}

/// Takes a listing that agrees with what `hearing` keeps.
///
/// `heard_from` is a moment before the callbacks were registered.
pub(crate) fn take(
    conn: &Conn,
    hearing: &Hearing,
    processes: &Processes,
    heard_from: Wall,
) -> Result<Listing, NoListing> {
    let mut left = TRIES;
    loop {
        left -= 1;
        let mark = hearing.mark();
        let domains = views(conn, processes)?;
        if !event_loop::barrier(BARRIER) {
            return Err(NoListing::LoopStuck);
        }
        let changes = hearing.changes_since(mark).ok_or(NoListing::TooMuch)?;
        if changes.states.is_empty() || left == 0 {
            let changing = changes.runs.union(&changes.states).copied().collect();
            return Ok(Listing { domains, changing, heard_from, server: None });
        }
    }
}

/// All domains at about one moment. One that vanishes meanwhile is left out; the number of calls does not grow with the
/// number of domains, except for the states, which come a thousand at a time.
fn views(conn: &Conn, processes: &Processes) -> Result<Vec<DomainView>, Fault> {
    let domains = conn.list(0)?;
    let persistent = conn.list_ids(sys::VIR_CONNECT_LIST_DOMAINS_PERSISTENT)?;
    let saved = conn.list_ids(sys::VIR_CONNECT_LIST_DOMAINS_MANAGEDSAVE).ok();
    let states: HashMap<_, _> =
        conn.states(&domains)?.into_iter().map(|(id, state, reason)| (id, (state, reason))).collect();
    let view = |dom: &Dom| {
        let domain = dom.reference()?;
        let (state, reason) = *states.get(&domain.id)?;
        let state = translate::domain_state(state, reason);
        let mut view = DomainView {
            state,
            persistent: persistent.contains(&domain.id),
            managed_save: saved.as_ref().map(|saved| saved.contains(&domain.id)),
            process: None,
            domain,
        };
        settle(&mut view, processes);
        Some(view)
    };
    Ok(domains.iter().filter_map(view).collect())
}

/// One domain, asked for by itself. `None` if it vanished.
pub(crate) fn view(dom: &Dom, processes: &Processes) -> Result<Option<DomainView>, Fault> {
    let Some(domain) = dom.reference() else { return Ok(None) };
    let asked = || {
        let state = dom.state()?;
        let persistent = dom.is_persistent()?;
        Ok(DomainView { domain, state, persistent, managed_save: dom.has_managed_save().ok(), process: None })
    };
    match asked() {
        Ok(mut view) => {
            settle(&mut view, processes);
            Ok(Some(view))
        }
        Err(fault) if Fault::is_no_domain(&fault) => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Number and process belong to active domains only. A handle may still carry the number of a moment ago.
fn settle(view: &mut DomainView, processes: &Processes) {
    match view.state {
        DomainState::ShutOff(_) => view.domain.libvirt_id = None,
        _ => view.process = processes.of(&view.domain.name),
    }
}
