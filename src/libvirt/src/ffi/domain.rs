//! A domain handle. It names a domain; whether the domain still exists only a call tells.

use std::ffi::{CStr, CString};
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

    /// Starts a defined domain, with these `virDomainCreateFlags`.
    pub(crate) fn start(&self, flags: c_uint) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainCreateWithFlags(self.raw(), flags) })
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

    /// Its document, with these `virDomainXMLFlags`.
    pub(crate) fn xml(&self, flags: c_uint) -> Result<String, Fault> {
        // SAFETY: the handle is valid; libvirt returns a malloc'ed C string that is ours, or NULL.
        unsafe { take_string(sys::virDomainGetXMLDesc(self.raw(), flags)) }
    }

    /// Stops its CPUs.
    pub(crate) fn suspend(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainSuspend(self.raw()) })
    }

    /// Lets its CPUs run.
    pub(crate) fn resume(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainResume(self.raw()) })
    }

    /// Saves it where libvirt keeps such images, and ends it.
    pub(crate) fn managed_save(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainManagedSave(self.raw(), 0) })
    }

    /// Asks the guest to reboot, with these `virDomainRebootFlagValues`.
    pub(crate) fn reboot(&self, flags: c_uint) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainReboot(self.raw(), flags) })
    }

    /// Resets it as its reset button would.
    pub(crate) fn reset(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainReset(self.raw(), 0) })
    }

    /// Removes its definition; a running domain goes on as a transient one.
    pub(crate) fn undefine(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainUndefineFlags(self.raw(), sys::VIR_DOMAIN_UNDEFINE_KEEP_NVRAM) })
    }

    /// Writes a mark of ours into its persistent definition.
    pub(crate) fn set_mark(&self, element: &CStr, key: &CStr, uri: &CStr) -> Result<(), Fault> {
        let (kind, flags) = (sys::VIR_DOMAIN_METADATA_ELEMENT as c_int, sys::VIR_DOMAIN_AFFECT_CONFIG);
        // SAFETY: the handle is valid, and the texts are C strings that outlive the call.
        checked(unsafe {
            sys::virDomainSetMetadata(self.raw(), kind, element.as_ptr(), key.as_ptr(), uri.as_ptr(), flags)
        })
    }

    /// Whether its persistent definition carries that mark.
    pub(crate) fn has_mark(&self, uri: &CStr) -> bool {
        let (kind, flags) = (sys::VIR_DOMAIN_METADATA_ELEMENT as c_int, sys::VIR_DOMAIN_AFFECT_CONFIG);
        // SAFETY: as above; libvirt returns a malloc'ed C string that is ours, or NULL.
        unsafe { take_string(sys::virDomainGetMetadata(self.raw(), kind, uri.as_ptr(), flags)) }.is_ok()
    }

    /// Gives up the job that is under way.
    pub(crate) fn abort_job(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainAbortJob(self.raw()) })
    }

    /// Bytes in all and bytes still to go of the job that is under way; `None` if there is none.
    pub(crate) fn job(&self) -> Result<Option<(u64, u64)>, Fault> {
        let (mut kind, mut parameters, mut count) = (0, std::ptr::null_mut(), 0);
        // SAFETY: the handle is valid and the three places are.
        checked(unsafe { sys::virDomainGetJobStats(self.raw(), &mut kind, &mut parameters, &mut count, 0) })?;
        let read = |name: &CStr| {
            let mut value = 0;
            // SAFETY: parameters and count came together from libvirt and are freed below; `value` is a valid place.
            let found = unsafe { sys::virTypedParamsGetULLong(parameters, count, name.as_ptr(), &mut value) };
            (found == 1).then_some(value)
        };
        let total = read(sys::VIR_DOMAIN_JOB_DATA_TOTAL).unwrap_or(0);
        let remaining = read(sys::VIR_DOMAIN_JOB_DATA_REMAINING).unwrap_or(total);
        // SAFETY: libvirt allocated them for us, and nothing borrows from them any more.
        unsafe { sys::virTypedParamsFree(parameters, count) };
        let active = [sys::VIR_DOMAIN_JOB_BOUNDED, sys::VIR_DOMAIN_JOB_UNBOUNDED];
        Ok(active.iter().any(|active| *active as c_int == kind).then_some((total, remaining)))
    }

    /// How long it may stand still at the end of its migration.
    pub(crate) fn set_max_downtime(&self, milliseconds: u64) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainMigrateSetMaxDowntime(self.raw(), milliseconds, 0) })
    }

    /// Moves it, the hypervisors talking to each other. Returns when it is moved.
    pub(crate) fn migrate(
        &self,
        destination: &str,
        texts: &[(&CStr, &str)],
        numbers: &[(&CStr, u64)],
        flags: c_uint,
    ) -> Result<(), Fault> {
        let destination = CString::new(destination).map_err(|_| Fault::zero_byte("the destination"))?;
        let mut parameters = Parameters::default();
        for (name, text) in texts {
            parameters.text(name, text)?;
        }
        for (name, number) in numbers {
            parameters.number(name, *number)?;
        }
        let count = parameters.count as c_uint;
        // SAFETY: handle, text and parameters are valid for the time of the call.
        checked(unsafe {
            sys::virDomainMigrateToURI3(self.raw(), destination.as_ptr(), parameters.list, count, flags)
        })
    }

    /// Moves the balloon's mark, in KiB.
    pub(crate) fn set_memory(&self, kib: u64) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainSetMemoryFlags(self.raw(), kib, sys::VIR_DOMAIN_AFFECT_LIVE) })
    }

    /// Plugs processors in or out.
    pub(crate) fn set_vcpus(&self, count: u32) -> Result<(), Fault> {
        // SAFETY: the handle is valid while self lives.
        checked(unsafe { sys::virDomainSetVcpusFlags(self.raw(), count, sys::VIR_DOMAIN_VCPU_LIVE) })
    }

    /// Changes a device of the running domain; with `force` also a medium that the guest holds.
    pub(crate) fn update_device(&self, xml: &str, force: bool) -> Result<(), Fault> {
        let xml = CString::new(xml).map_err(|_| Fault::zero_byte("the device's document"))?;
        let flags = sys::VIR_DOMAIN_AFFECT_LIVE | if force { sys::VIR_DOMAIN_DEVICE_MODIFY_FORCE } else { 0 };
        // SAFETY: the handle is valid, and `xml` is a C string that outlives the call.
        checked(unsafe { sys::virDomainUpdateDeviceFlags(self.raw(), xml.as_ptr(), flags) })
    }

    /// Plugs a device into the running domain.
    pub(crate) fn attach_device(&self, xml: &str) -> Result<(), Fault> {
        let xml = CString::new(xml).map_err(|_| Fault::zero_byte("the device's document"))?;
        // SAFETY: the handle is valid, and `xml` is a C string that outlives the call.
        checked(unsafe {
            sys::virDomainAttachDeviceFlags(self.raw(), xml.as_ptr(), sys::VIR_DOMAIN_AFFECT_LIVE)
        })
    }

    /// Has the guest give up a device of the running domain.
    pub(crate) fn detach_device(&self, alias: &str) -> Result<(), Fault> {
        let alias = CString::new(alias).map_err(|_| Fault::zero_byte("the device's alias"))?;
        // SAFETY: the handle is valid, and `alias` is a C string that outlives the call.
        checked(unsafe {
            sys::virDomainDetachDeviceAlias(self.raw(), alias.as_ptr(), sys::VIR_DOMAIN_AFFECT_LIVE)
        })
    }

    /// Takes a snapshot from its document.
    pub(crate) fn snapshot(&self, xml: &str, flags: c_uint) -> Result<(), Fault> {
        let xml = CString::new(xml).map_err(|_| Fault::zero_byte("the snapshot's document"))?;
        // SAFETY: the handle is valid, and `xml` is a C string that outlives the call.
        let snapshot = unsafe { sys::virDomainSnapshotCreateXML(self.raw(), xml.as_ptr(), flags) };
        if snapshot.is_null() {
            return Err(Fault::last());
        }
        // SAFETY: the snapshot's handle is ours, and is given back once.
        unsafe { sys::virDomainSnapshotFree(snapshot) };
        Ok(())
    }

    /// Freezes all file systems; how many there were.
    pub(crate) fn freeze(&self) -> Result<(), Fault> {
        // SAFETY: the handle is valid; no list of mount points stands for all.
        checked(unsafe { sys::virDomainFSFreeze(self.raw(), std::ptr::null_mut(), 0, 0) })
    }

    /// Thaws all file systems.
    pub(crate) fn thaw(&self) -> Result<(), Fault> {
        // SAFETY: as above.
        checked(unsafe { sys::virDomainFSThaw(self.raw(), std::ptr::null_mut(), 0, 0) })
    }
}

/// A list of typed parameters, freed with the function that libvirt names for it.
struct Parameters {
    list: sys::virTypedParameterPtr,
    count: c_int,
    room: c_int,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { list: std::ptr::null_mut(), count: 0, room: 0 }
    }
}

impl Parameters {
    fn text(&mut self, name: &CStr, value: &str) -> Result<(), Fault> {
        let value = CString::new(value).map_err(|_| Fault::zero_byte("a parameter"))?;
        // SAFETY: list, count and room belong together, and libvirt copies both texts.
        checked(unsafe {
            sys::virTypedParamsAddString(
                &mut self.list,
                &mut self.count,
                &mut self.room,
                name.as_ptr(),
                value.as_ptr(),
            )
        })
    }

    fn number(&mut self, name: &CStr, value: u64) -> Result<(), Fault> {
        // SAFETY: as above.
        checked(unsafe {
            sys::virTypedParamsAddULLong(
                &mut self.list,
                &mut self.count,
                &mut self.room,
                name.as_ptr(),
                value,
            )
        })
    }
}

impl Drop for Parameters {
    fn drop(&mut self) {
        // SAFETY: the list is libvirt's own, or NULL.
        unsafe { sys::virTypedParamsFree(self.list, self.count) };
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
        let name = name(sys::virDomainGetName(dom));
        let number = sys::virDomainGetID(dom);
        Some(DomainRef { id, name, libvirt_id: (number != c_uint::MAX).then_some(number) })
    }
}

/// A copy of a name as it is: QEMU's log is called by it, whatever is hidden in it. Whoever shows it makes that visible.
///
/// # Safety
///
/// `name` must be NULL or a C string that lives for the time of the call.
unsafe fn name(name: *const std::os::raw::c_char) -> String {
    if name.is_null() {
        return String::new();
    }
    // SAFETY: not NULL, and a C string by contract.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    String::from_utf8_lossy(&bytes[..bytes.len().min(limits::NAME_BYTES)]).into_owned()
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
