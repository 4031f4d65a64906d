//! Starts that failed, found by asking: where libvirt refuses a start before QEMU runs it reports no event at all.

use std::collections::HashMap;

use virt_sys as sys;
use whydown_core::hypervisor::{DomainRef, DomainState, DomainView, ShutOffReason};
use whydown_core::id::DomainId;

use crate::act::Refusal;
use crate::link::Hypervisor;
use crate::{listing, translate};

impl Hypervisor {
    /// All domains that are off because their last start failed. Two calls and one for each thousand domains, which wait
    /// for no monitor: some 15 microseconds a domain.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoLink`], or `Refused`.
    pub fn failed_starts(&self) -> Result<Vec<DomainRef>, Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        let conn = line.conn();
        let found = || {
            let domains = conn.list(sys::VIR_CONNECT_LIST_DOMAINS_INACTIVE)?;
            let states = conn.states(&domains)?.into_iter().map(|(id, state, reason)| (id, (state, reason)));
            let states: HashMap<DomainId, _> = states.collect();
            let failed = |domain: &DomainRef| {
                states.get(&domain.id).is_some_and(|(state, reason)| {
                    translate::domain_state(*state, *reason) == DomainState::ShutOff(ShutOffReason::Failed)
                })
            };
            Ok(domains.iter().filter_map(|dom| dom.reference()).filter(failed).collect())
        };
        found().map_err(|fault| Refusal::of(fault, conn))
    }

    /// What libvirt says of a network that a start needs, in its own words, if it lacks it: libvirt keeps this refusal out of
    /// its log.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoLink`].
    pub fn network_trouble(&self, name: &str) -> Result<Option<String>, Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        match line.conn().network_is_active(name) {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(format!("network '{name}' is not active"))),
            Err(_) if !line.conn().is_alive() => Err(Refusal::NoLink),
            Err(fault) if fault.code == sys::VIR_ERR_NO_NETWORK as i32 => Ok(Some(fault.text)),
            Err(_) => Ok(None),
        }
    }

    /// The domain of this name, as it is now; `None` if libvirt knows none.
    ///
    /// # Errors
    ///
    /// `NoLink` or `Refused`.
    pub fn view_named(&self, name: &str) -> Result<Option<DomainView>, Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        let seen = line.conn().lookup_name(name).and_then(|dom| listing::view(&dom, self.processes()));
        match seen.map_err(|fault| Refusal::of(fault, line.conn())) {
            Err(Refusal::NoDomain) => Ok(None),
            seen => seen,
        }
    }
}
