//! What libvirt asks a guest's agent. The agent is the guest's, and so is every count, name and number that it gives.

use std::os::raw::{c_int, c_uint};
use std::ptr;

use virt_sys as sys;

use super::connection::checked;
use super::domain::text;
use super::stats::{name_of, value_of};
use super::{Dom, Fault, Value};

/// Values of one answer that are read. An answer has at most ten megabytes, which is libvirt's own bound.
const VALUES: usize = 16 * 1024;

/// Interfaces that are read, and addresses of each.
const INTERFACES: usize = 1024;

/// Bytes of a name or an address that are looked at.
const TEXT: usize = 1024;

impl Dom {
    /// Hands out what the agent tells of these `virDomainGuestInfoTypes`, value by value.
    pub(crate) fn guest_info(&self, types: c_uint, mut put: impl FnMut(&str, Value)) -> Result<(), Fault> {
        let (mut list, mut count): (sys::virTypedParameterPtr, c_int) = (ptr::null_mut(), 0);
        // SAFETY: the handle is valid while self lives, and both places are.
        checked(unsafe { sys::virDomainGetGuestInfo(self.raw(), types, &mut list, &mut count, 0) })?;
        for index in 0..usize::try_from(count).unwrap_or(0).min(VALUES) {
            // SAFETY: libvirt made `count` parameters, alive until they are freed below.
            let parameter = unsafe { &*list.add(index) };
            // SAFETY: the type says which part of the union is set, as libvirt filled both.
            if let (Some(name), Some(value)) = (name_of(&parameter.field), unsafe { value_of(parameter) }) {
                put(name, value);
            }
        }
        // SAFETY: libvirt allocated them for us, and nothing borrows from them any more.
        unsafe { sys::virTypedParamsFree(list, count) };
        Ok(())
    }

    /// Hands out the guest's interfaces as its agent tells them: name, hardware address and addresses.
    pub(crate) fn agent_interfaces(
        &self,
        mut put: impl FnMut(String, String, Vec<String>),
    ) -> Result<(), Fault> {
        let mut list: *mut sys::virDomainInterfacePtr = ptr::null_mut();
        let source = sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT;
        // SAFETY: the handle is valid while self lives, and `list` is a valid place.
        let count = unsafe { sys::virDomainInterfaceAddresses(self.raw(), &mut list, source, 0) };
        let count = usize::try_from(count).map_err(|_| Fault::last())?;
        for index in 0..count {
            // SAFETY: libvirt made `count` interfaces, each alive until it is freed below.
            let interface = unsafe { *list.add(index) };
            if index < INTERFACES && !interface.is_null() {
                // SAFETY: a valid interface has texts that are C strings or NULL, and `naddrs` addresses.
                unsafe {
                    let addresses = usize::try_from((*interface).naddrs).unwrap_or(0).min(INTERFACES);
                    let address = |index| text((*(*interface).addrs.add(index)).addr, TEXT);
                    put(
                        text((*interface).name, TEXT),
                        text((*interface).hwaddr, TEXT),
                        (0..addresses).map(address).collect(),
                    );
                }
            }
            // SAFETY: each interface is ours and freed once; NULL is allowed.
            unsafe { sys::virDomainInterfaceFree(interface) };
        }
        // SAFETY: the array came from libvirt's malloc, and nothing borrows from it any more.
        unsafe { super::connection::libc_free(list.cast()) };
        Ok(())
    }

    /// How long libvirt waits for an answer of the agent, in seconds; without it, for ever. It holds for everybody who
    /// asks this agent.
    pub(crate) fn bound_agent(&self, seconds: Option<u16>) -> Result<(), Fault> {
        let wait = seconds.map_or(sys::VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK, c_int::from);
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainAgentSetResponseTimeout(self.raw(), wait, 0) })
    }
}
