//! A domain handle. It names a domain; whether the domain still exists only a call tells.

use std::ffi::CStr;
use std::os::raw::{c_int, c_uint};
use std::ptr::NonNull;

use virt_sys as sys;
use whydown_core::evidence::tame;
use whydown_core::hypervisor::{DomainRef, DomainState};
use whydown_core::id::DomainId;
use whydown_core::limits;

use super::Fault;
use super::connection::{checked, take_string};
use crate::translate;

/// A libvirt domain handle.
pub(crate) struct Dom(NonNull<sys::virDomain>);

// SAFETY: libvirt's domain objects are thread safe by its documentation; reference counts are atomic.
unsafe impl Send for Dom {}
// SAFETY: as above.
unsafe impl Sync for Dom {}

impl Dom {
    /// Takes over a handle that a libvirt call has just returned; NULL is that call's error.
    pub(super) fn owned(dom: sys::virDomainPtr) -> Result<Self, Fault> {
        NonNull::new(dom).map(Self).ok_or_else(Fault::last)
    }

    pub(super) fn raw(&self) -> sys::virDomainPtr {
        self.0.as_ptr()
    }

    /// The identity.
    pub(crate) fn id(&self) -> Option<DomainId> {
        // SAFETY: the handle is valid while self lives.
        unsafe { uuid(self.raw()) }
    }

    /// Identity, name and number as the handle knows them. Asks nobody.
    pub(crate) fn reference(&self) -> Option<DomainRef> {
        // SAFETY: the handle is valid while self lives.
        unsafe { reference(self.raw()) }
    }

    /// State and reason. An error for a domain that is gone, unlike the safe crate's `state()`.
    pub(crate) fn state(&self) -> Result<DomainState, Fault> {
        let (mut state, mut reason) = (0, 0);
        // SAFETY: both places are valid.
        checked(unsafe { sys::virDomainGetState(self.raw(), &mut state, &mut reason, 0) })?;
        Ok(translate::domain_state(state, reason))
    }

    /// Whether libvirt keeps its definition.
    pub(crate) fn is_persistent(&self) -> Result<bool, Fault> {
        // SAFETY: the handle is valid while self lives.
        let answer = unsafe { sys::virDomainIsPersistent(self.raw()) };
        checked(answer).map(|()| answer == 1)
    }

    /// Whether a managed save image waits.
    pub(crate) fn has_managed_save(&self) -> Result<bool, Fault> {
        // SAFETY: the handle is valid while self lives.
        let answer = unsafe { sys::virDomainHasManagedSaveImage(self.raw(), 0) };
        checked(answer).map(|()| answer == 1)
    }

    /// Starts a defined domain.
    pub(crate) fn start(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainCreate(self.raw()) })
    }

    /// Asks the guest to shut down.
    pub(crate) fn shutdown(&self, flags: c_uint) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainShutdownFlags(self.raw(), flags) })
    }

    /// Ends it.
    pub(crate) fn destroy(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainDestroy(self.raw()) })
    }

    /// Its document.
    pub(crate) fn xml(&self) -> Result<String, Fault> {
        // SAFETY: the handle is valid; libvirt returns a malloc'ed C string that is ours, or NULL.
        unsafe { take_string(sys::virDomainGetXMLDesc(self.raw(), 0)) }
    }
}

impl Drop for Dom {
    fn drop(&mut self) {
        // SAFETY: this reference is ours and given back once.
        unsafe { sys::virDomainFree(self.raw()) };
    }
}

/// The identity behind a handle; `None` if libvirt refuses the handle.
///
/// # Safety
///
/// `dom` must be a valid handle for the time of the call.
pub(super) unsafe fn uuid(dom: sys::virDomainPtr) -> Option<DomainId> {
    let mut bytes = [0u8; 16];
    // SAFETY: the handle is valid by contract, and libvirt writes sixteen bytes.
    let result = unsafe { sys::virDomainGetUUID(dom, bytes.as_mut_ptr()) };
    (result == 0).then(|| DomainId::from_bytes(bytes))
}

/// Identity, name and number behind a handle. Reads the handle only, so a callback may do it.
///
/// # Safety
///
/// `dom` must be a valid handle for the time of the call.
pub(super) unsafe fn reference(dom: sys::virDomainPtr) -> Option<DomainRef> {
    // SAFETY: the handle is valid by contract; the name lives as long as the handle and is copied at once.
    unsafe {
        let id = uuid(dom)?;
        let name = text(sys::virDomainGetName(dom), limits::NAME_BYTES);
        let number = sys::virDomainGetID(dom);
        Some(DomainRef { id, name, libvirt_id: (number != c_uint::MAX).then_some(number) })
    }
}

/// A copy of a C string of at most `limit` bytes, with what cannot be shown replaced; empty for NULL.
///
/// # Safety
///
/// `text` must be NULL or a C string that lives for the time of the call.
pub(super) unsafe fn text(text: *const std::os::raw::c_char, limit: usize) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: not NULL, and a C string by contract.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    tame(&String::from_utf8_lossy(&bytes[..bytes.len().min(limit)]))
}

/// A number out of libvirt's typed parameters, if it is there and an `int`.
pub(super) fn int_parameter(
    parameters: sys::virTypedParameterPtr,
    count: c_int,
    name: &CStr,
) -> Option<c_int> {
    let mut value = 0;
    // SAFETY: parameters and count come together from libvirt and are alive; `value` is a valid place.
    let found = unsafe { sys::virTypedParamsGetInt(parameters, count, name.as_ptr(), &mut value) };
    (found == 1).then_some(value)
}
