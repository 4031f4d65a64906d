//! A connection handle. Its last clone closes it, unless a registered callback still holds a reference: then it leaks.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::os::raw::{c_int, c_uint, c_ulong, c_void};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use virt_sys as sys;
use whydown_core::id::DomainId;

use super::{Dom, Fault, domain};

/// Domains whose state is asked with one call; the remote protocol refuses more than 4,096.
const STATES_PER_CALL: usize = 1000;

/// What libvirt knows of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The processor's architecture, such as `x86_64`.
    pub cpu_model: String,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// Active processors.
    pub cpus: u32,
    /// Their expected frequency in MHz; 0 if not known.
    pub mhz: u32,
    /// NUMA nodes.
    pub numa_nodes: u32,
    /// Sockets per node.
    pub sockets: u32,
    /// Cores per socket.
    pub cores: u32,
    /// Threads per core.
    pub threads: u32,
}

/// Whether the other side of a connection is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    /// Keepalive messages run.
    Running,
    /// A remote driver, but the other side knows no keepalive, or it was not wanted.
    Silent,
    /// The driver lives in this process: there is no other side.
    Local,
}

/// A libvirt connection.
pub(crate) struct Conn(NonNull<sys::virConnect>);

// SAFETY: libvirt's connection objects are thread safe by its documentation; reference counts are atomic.
unsafe impl Send for Conn {}
// SAFETY: as above.
unsafe impl Sync for Conn {}

impl Conn {
    /// Opens `uri` for reading and writing. May block for as long as the other side likes.
    pub(crate) fn open(uri: &str) -> Result<Self, Fault> {
        // libvirt 9.0 sets an embedded driver up at its first connection, without a lock: of two at once one gets a
        // driver that is half ready, and crashes. No other side is involved, so this wait ends.
        static EMBEDDED: Mutex<()> = Mutex::new(());
        let _alone =
            uri.contains(":///embed").then(|| EMBEDDED.lock().unwrap_or_else(PoisonError::into_inner));
        let uri = CString::new(uri).map_err(|_| Fault::zero_byte("the address"))?;
        // SAFETY: `uri` is a C string that outlives the call. The result is ours to close.
        let conn = unsafe { sys::virConnectOpen(uri.as_ptr()) };
        NonNull::new(conn).map(Self).ok_or_else(Fault::last)
    }

    /// The raw handle; valid while `self` lives.
    pub(crate) fn raw(&self) -> sys::virConnectPtr {
        self.0.as_ptr()
    }

    /// Gives this reference back and returns how many are left: 0 when the connection is really closed.
    #[cfg(test)]
    pub(crate) fn close(self) -> Result<u32, Fault> {
        let conn = std::mem::ManuallyDrop::new(self);
        // SAFETY: we own one reference and give it back exactly once: ManuallyDrop keeps `drop` away.
        let left = unsafe { sys::virConnectClose(conn.raw()) };
        u32::try_from(left).map_err(|_| Fault::last())
    }

    /// Starts keepalive messages every `interval_s` seconds; after `count` unanswered ones the connection is closed.
    /// An interval of 0 or less only finds out what kind of driver it is.
    pub(crate) fn keep_alive(&self, interval_s: c_int, count: c_uint) -> Result<KeepAlive, Fault> {
        // SAFETY: the handle is valid while self lives.
        match unsafe { sys::virConnectSetKeepAlive(self.raw(), interval_s, count) } {
            0 if interval_s > 0 => Ok(KeepAlive::Running),
            0 | 1 => Ok(KeepAlive::Silent),
            _ => match Fault::last() {
                fault if fault.code == sys::VIR_ERR_NO_SUPPORT as i32 => Ok(KeepAlive::Local),
                fault => Err(fault),
            },
        }
    }

    /// Whether the connection is still open on our side. Asks nobody.
    pub(crate) fn is_alive(&self) -> bool {
        // SAFETY: the handle is valid while self lives.
        unsafe { sys::virConnectIsAlive(self.raw()) == 1 }
    }

    /// The domain with this identity.
    pub(crate) fn lookup(&self, id: DomainId) -> Result<Dom, Fault> {
        // SAFETY: sixteen bytes are given, as libvirt wants them; the result is ours.
        let dom = unsafe { sys::virDomainLookupByUUID(self.raw(), id.as_bytes().as_ptr()) };
        Dom::owned(dom)
    }

    /// The domain of this name.
    pub(crate) fn lookup_name(&self, name: &str) -> Result<Dom, Fault> {
        let name = CString::new(name).map_err(|_| Fault::zero_byte("the name"))?;
        // SAFETY: `name` is a C string that outlives the call; the result is ours.
        let dom = unsafe { sys::virDomainLookupByName(self.raw(), name.as_ptr()) };
        Dom::owned(dom)
    }

    /// Whether the network of this name is active.
    pub(crate) fn network_is_active(&self, name: &str) -> Result<bool, Fault> {
        let name = CString::new(name).map_err(|_| Fault::zero_byte("the name"))?;
        // SAFETY: `name` is a C string that outlives the call; the result is ours to free.
        let network = unsafe { sys::virNetworkLookupByName(self.raw(), name.as_ptr()) };
        let network = NonNull::new(network).ok_or_else(Fault::last)?;
        // SAFETY: the handle is valid until it is freed below.
        let active = unsafe { sys::virNetworkIsActive(network.as_ptr()) };
        let active = if active < 0 { Err(Fault::last()) } else { Ok(active == 1) };
        // SAFETY: we own this reference and give it back once.
        unsafe { sys::virNetworkFree(network.as_ptr()) };
        active
    }

    /// Starts a transient domain, with these `virDomainCreateFlags`.
    pub(crate) fn create_xml(&self, xml: &str, flags: c_uint) -> Result<Dom, Fault> {
        let xml = CString::new(xml).map_err(|_| Fault::zero_byte("the domain's document"))?;
        // SAFETY: `xml` is a C string that outlives the call; the result is ours.
        let dom = unsafe { sys::virDomainCreateXML(self.raw(), xml.as_ptr(), flags) };
        Dom::owned(dom)
    }

    /// Keeps this definition; a running domain of that identity becomes persistent.
    pub(crate) fn define(&self, xml: &str) -> Result<Dom, Fault> {
        let xml = CString::new(xml).map_err(|_| Fault::zero_byte("the domain's document"))?;
        // SAFETY: `xml` is a C string that outlives the call; the result is ours.
        let dom = unsafe { sys::virDomainDefineXMLFlags(self.raw(), xml.as_ptr(), 0) };
        Dom::owned(dom)
    }

    /// All domains that pass `filter` (`virConnectListAllDomainsFlags`; 0 for all).
    pub(crate) fn list(&self, filter: c_uint) -> Result<Vec<Dom>, Fault> {
        let mut list: *mut sys::virDomainPtr = ptr::null_mut();
        // SAFETY: `list` is a valid place for the array's address.
        let count = unsafe { sys::virConnectListAllDomains(self.raw(), &mut list, filter) };
        let count = usize::try_from(count).map_err(|_| Fault::last())?;
        // SAFETY: libvirt allocated `count` handles (and a closing NULL) with malloc; each becomes ours, and the array
        // itself is freed after the last read of it.
        unsafe {
            let domains = (0..count).filter_map(|index| Dom::owned(*list.add(index)).ok()).collect();
            libc_free(list.cast());
            Ok(domains)
        }
    }

    /// The identities of all domains that pass `filter`.
    pub(crate) fn list_ids(&self, filter: c_uint) -> Result<HashSet<DomainId>, Fault> {
        Ok(self.list(filter)?.iter().filter_map(Dom::id).collect())
    }

    /// State and reason of each of `domains` that still exists, with a handle that shows its number at that moment.
    /// Takes no job lock, so a domain with a hung monitor does not delay it.
    pub(crate) fn states(&self, domains: &[Dom]) -> Result<Vec<(DomainId, c_int, c_int)>, Fault> {
        let mut states = Vec::with_capacity(domains.len());
        for part in domains.chunks(STATES_PER_CALL) {
            let mut handles: Vec<sys::virDomainPtr> = part.iter().map(Dom::raw).collect();
            handles.push(ptr::null_mut());
            let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
            // SAFETY: `handles` are valid while `part` is borrowed and end with NULL; `records` is a valid place.
            let count = unsafe {
                sys::virDomainListGetStats(handles.as_mut_ptr(), sys::VIR_DOMAIN_STATS_STATE, &mut records, 0)
            };
            let count = usize::try_from(count).map_err(|_| Fault::last())?;
            for index in 0..count {
                // SAFETY: libvirt returned `count` valid records, alive until the list is freed below.
                let record = unsafe { &**records.add(index) };
                let read = |name| domain::int_parameter(record.params, record.nparams, name);
                // SAFETY: the record's handle is valid while the record is; only its UUID is copied.
                let id = unsafe { domain::uuid(record.dom) };
                let state = read(c"state.state");
                if let (Some(id), Some(state)) = (id, state) {
                    states.push((id, state, read(c"state.reason").unwrap_or(0)));
                }
            }
            // SAFETY: the list came from libvirt and nothing borrows from it any more.
            unsafe { sys::virDomainStatsRecordListFree(records) };
        }
        Ok(states)
    }

    /// libvirt's version on the other side, as 1,000,000 * major + 1,000 * minor + release.
    pub(crate) fn libvirt_version(&self) -> Result<u64, Fault> {
        let mut version: c_ulong = 0;
        // SAFETY: `version` is a valid place.
        let result = unsafe { sys::virConnectGetLibVersion(self.raw(), &mut version) };
        checked(result).map(|()| version)
    }

    /// The hypervisor's version, in the same form; 0 if it cannot be told.
    pub(crate) fn hypervisor_version(&self) -> Result<u64, Fault> {
        let mut version: c_ulong = 0;
        // SAFETY: `version` is a valid place.
        let result = unsafe { sys::virConnectGetVersion(self.raw(), &mut version) };
        checked(result).map(|()| version)
    }

    /// The driver's name, such as `QEMU`.
    pub(crate) fn hypervisor_type(&self) -> Result<String, Fault> {
        // SAFETY: libvirt returns a static C string, not to be freed, or NULL.
        unsafe {
            let name = sys::virConnectGetType(self.raw());
            if name.is_null() {
                return Err(Fault::last());
            }
            Ok(CStr::from_ptr(name).to_string_lossy().into_owned())
        }
    }

    /// The host's name.
    pub(crate) fn host_name(&self) -> Result<String, Fault> {
        // SAFETY: libvirt returns a malloc'ed C string that is ours, or NULL.
        unsafe { take_string(sys::virConnectGetHostname(self.raw())) }
    }

    /// libvirt's capabilities document. The first call may let QEMU be probed.
    pub(crate) fn capabilities(&self) -> Result<String, Fault> {
        // SAFETY: libvirt returns a malloc'ed C string that is ours, or NULL.
        unsafe { take_string(sys::virConnectGetCapabilities(self.raw())) }
    }

    /// What the emulator that libvirt would choose can do, with the accelerator that it would choose. The first call may
    /// let QEMU be probed.
    pub(crate) fn domain_capabilities(&self) -> Result<String, Fault> {
        let any = std::ptr::null();
        // SAFETY: NULL leaves the choice to libvirt, and it returns a malloc'ed C string that is ours, or NULL.
        unsafe { take_string(sys::virConnectGetDomainCapabilities(self.raw(), any, any, any, any, 0)) }
    }

    /// The machine.
    pub(crate) fn node_info(&self) -> Result<NodeInfo, Fault> {
        // SAFETY: the structure is plain numbers and an array of characters, for which all zeros is a value.
        let mut info: sys::virNodeInfo = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is a valid place.
        checked(unsafe { sys::virNodeGetInfo(self.raw(), &mut info) })?;
        let model: Vec<u8> = info.model.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
        Ok(NodeInfo {
            cpu_model: String::from_utf8_lossy(&model).into_owned(),
            memory_kib: info.memory,
            cpus: info.cpus,
            mhz: info.mhz,
            numa_nodes: info.nodes,
            sockets: info.sockets,
            cores: info.cores,
            threads: info.threads,
        })
    }
}

impl Clone for Conn {
    fn clone(&self) -> Self {
        // SAFETY: the handle is valid, and the new reference belongs to the clone.
        unsafe { sys::virConnectRef(self.raw()) };
        Self(self.0)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // SAFETY: this reference is ours and given back once. A failure leaves nothing that could be done about it.
        unsafe { sys::virConnectClose(self.raw()) };
    }
}

/// libvirt's usual "negative means error".
pub(super) fn checked(result: c_int) -> Result<(), Fault> {
    if result < 0 { Err(Fault::last()) } else { Ok(()) }
}

/// Takes over a malloc'ed C string.
///
/// # Safety
///
/// `text` must be NULL or a C string from malloc that nobody else frees.
pub(super) unsafe fn take_string(text: *mut std::os::raw::c_char) -> Result<String, Fault> {
    if text.is_null() {
        return Err(Fault::last());
    }
    // SAFETY: by this function's contract.
    unsafe {
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        libc_free(text.cast());
        Ok(copy)
    }
}

unsafe extern "C" {
    /// The C library's `free`: libvirt hands out memory from its `malloc`.
    #[link_name = "free"]
    pub(super) fn libc_free(memory: *mut c_void);
}
