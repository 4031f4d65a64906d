//! The callbacks: what libvirt calls when something happens. Each copies what it was given and hands it to the [`Ear`];
//! none calls back into libvirt, and no panic gets out.
//!
//! Every registration holds a reference on its connection, which therefore stays open until each is taken back.

use std::collections::BTreeMap;
use std::os::raw::{c_char, c_int, c_longlong, c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{error, info, warn};
use virt_sys as sys;
use whydown_core::hypervisor::{DomainRef, Happening};
use whydown_core::id::DomainId;
use whydown_core::limits::TEXT_BYTES;

use super::connection::checked;
use super::domain::{int_parameter, reference, text};
use super::{Conn, Fault};
use crate::translate;

/// Why libvirt says that a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The other side closed it: all it had said was heard.
    EndOfFile,
    /// It did not answer keepalive messages.
    KeepAlive,
    /// Another reason; libvirt's number.
    Other(c_int),
}

/// Who listens. Called on the event loop's thread only.
pub(crate) trait Ear: Send + Sync + 'static {
    /// Something happened to a domain.
    fn hear(&self, domain: DomainRef, what: Happening);
    /// A domain is made of something else now.
    fn devices(&self, domain: DomainId);
    /// The connection is gone.
    fn closed(&self, reason: CloseReason);
}

/// What every callback's `opaque` points to.
struct Listener(Arc<dyn Ear>);

impl Listener {
    fn into_opaque(ear: &Arc<dyn Ear>) -> *mut c_void {
        Box::into_raw(Box::new(Self(Arc::clone(ear)))).cast()
    }
}

unsafe extern "C" fn free_listener(opaque: *mut c_void) {
    // SAFETY: called once by libvirt (or by us after a refused registration) with the pointer from `into_opaque`.
    let listener = unsafe { Box::from_raw(opaque.cast::<Listener>()) };
    let _ = catch_unwind(AssertUnwindSafe(|| drop(listener)));
}

/// Runs a callback's body so that no panic gets into C.
fn guarded(body: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        error!("a bug: a libvirt callback panicked, and its event is lost");
    }
}

/// Hands over what happened to `dom`.
///
/// # Safety
///
/// `opaque` must come from [`Listener::into_opaque`] and `dom` be a valid handle, both for the time of the call.
unsafe fn hand_over(dom: sys::virDomainPtr, opaque: *mut c_void, what: impl FnOnce() -> Option<Happening>) {
    guarded(|| {
        // SAFETY: by contract.
        let (listener, domain) = unsafe { (&*opaque.cast::<Listener>(), reference(dom)) };
        if let (Some(domain), Some(what)) = (domain, what()) {
            listener.0.hear(domain, what);
        }
    });
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let what = || {
        let what = translate::lifecycle(event, detail);
        if what.is_none() {
            warn!(event, detail, "libvirt reported a lifecycle event that this program does not know");
        }
        what
    };
    // SAFETY: libvirt gives the opaque pointer of the registration and a valid handle.
    unsafe { hand_over(dom, opaque, what) };
    0
}

unsafe extern "C" fn on_reboot(_: sys::virConnectPtr, dom: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { hand_over(dom, opaque, || Some(Happening::Rebooted)) }
}

unsafe extern "C" fn on_control_error(_: sys::virConnectPtr, dom: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { hand_over(dom, opaque, || Some(Happening::ControlError)) }
}

unsafe extern "C" fn on_watchdog(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    action: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { hand_over(dom, opaque, || Some(Happening::Watchdog(translate::watchdog_action(action)))) }
}

unsafe extern "C" fn on_io_error(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    _source: *const c_char,
    alias: *const c_char,
    action: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    let what = || {
        // SAFETY: libvirt gives C strings that live for the time of the call.
        let (disk, reason) = unsafe { (text(alias, TEXT_BYTES), text(reason, TEXT_BYTES)) };
        Some(Happening::IoError { disk, action: translate::io_error_action(action), reason })
    };
    // SAFETY: as in `on_lifecycle`.
    unsafe { hand_over(dom, opaque, what) }
}

unsafe extern "C" fn on_job(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    parameters: sys::virTypedParameterPtr,
    count: c_int,
    opaque: *mut c_void,
) {
    let what = || {
        let operation = int_parameter(parameters, count, c"operation").unwrap_or(0);
        Some(Happening::JobCompleted(translate::job_operation(operation)))
    };
    // SAFETY: as in `on_lifecycle`.
    unsafe { hand_over(dom, opaque, what) }
}

unsafe extern "C" fn on_agent(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    state: c_int,
    _reason: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { hand_over(dom, opaque, || translate::agent(state)) }
}

unsafe extern "C" fn on_memory_failure(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    _recipient: c_int,
    action: c_int,
    _flags: c_uint,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { hand_over(dom, opaque, || Some(translate::memory_failure(action))) }
}

/// Hands over that `dom` is made of something else.
///
/// # Safety
///
/// As of [`hand_over`].
unsafe fn hand_over_devices(dom: sys::virDomainPtr, opaque: *mut c_void) {
    guarded(|| {
        // SAFETY: by contract.
        let (listener, domain) = unsafe { (&*opaque.cast::<Listener>(), reference(dom)) };
        if let Some(domain) = domain {
            listener.0.devices(domain.id);
        }
    });
}

unsafe extern "C" fn on_device(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    _alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { hand_over_devices(dom, opaque) }
}

unsafe extern "C" fn on_tray(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    _alias: *const c_char,
    _reason: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    unsafe { hand_over_devices(dom, opaque) }
}

unsafe extern "C" fn on_qmp(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    event: *const c_char,
    _seconds: c_longlong,
    _micros: c_uint,
    details: *const c_char,
    opaque: *mut c_void,
) {
    let what = || {
        // SAFETY: libvirt gives C strings, or NULL for the details, that live for the time of the call.
        let (event, details) = unsafe {
            let details = (!details.is_null()).then(|| std::ffi::CStr::from_ptr(details));
            (text(event, TEXT_BYTES), details)
        };
        translate::qmp(&event, details.and_then(|details| details.to_str().ok()))
    };
    // SAFETY: as in `on_lifecycle`.
    unsafe { hand_over(dom, opaque, what) }
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    let reason = match u32::try_from(reason) {
        Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => CloseReason::EndOfFile,
        Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => CloseReason::KeepAlive,
        _ => CloseReason::Other(reason),
    };
    guarded(|| {
        let ear = close_listeners().get(&(opaque as usize)).cloned();
        if let Some(ear) = ear {
            ear.closed(reason);
        }
    });
}

type CloseListeners = BTreeMap<usize, Arc<dyn Ear>>;

/// Who is told of closed connections. libvirt is given a number instead of a pointer: a driver without close callbacks
/// accepts one all the same, and then never frees it.
fn close_listeners() -> MutexGuard<'static, CloseListeners> {
    static LISTENERS: Mutex<CloseListeners> = Mutex::new(BTreeMap::new());
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

/// A callback of the shape that one event id demands, made one only by [`callback!`] below.
struct Callback(Generic);

macro_rules! callback {
    ($function:ident as $shape:ty) => {{
        let checked: $shape = Some($function);
        // SAFETY: both are function pointers with C's calling convention; libvirt calls each with the arguments of
        // the event id for which it is registered, and the table below pairs them.
        Callback(unsafe {
            std::mem::transmute::<*const (), Generic>(checked.map_or(ptr::null(), |f| f as *const ()))
        })
    }};
}

/// Event id, its name for the log, whether we can do without it, and its callback.
fn wanted() -> [(sys::virDomainEventID, &'static str, bool, Callback); 11] {
    [
        (
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
            "lifecycle",
            false,
            callback!(on_lifecycle as sys::virConnectDomainEventCallback),
        ),
        (
            sys::VIR_DOMAIN_EVENT_ID_REBOOT,
            "reboot",
            true,
            callback!(on_reboot as sys::virConnectDomainEventGenericCallback),
        ),
        (
            sys::VIR_DOMAIN_EVENT_ID_WATCHDOG,
            "watchdog",
            true,
            callback!(on_watchdog as sys::virConnectDomainEventWatchdogCallback),
        ),
        (
            sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
            "io-error-reason",
            true,
            callback!(on_io_error as sys::virConnectDomainEventIOErrorReasonCallback),
        ),
        (
            sys::VIR_DOMAIN_EVENT_ID_CONTROL_ERROR,
            "control-error",
            true,
            callback!(on_control_error as sys::virConnectDomainEventGenericCallback),
        ),
        (
            sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
            "job-completed",
            true,
            callback!(on_job as sys::virConnectDomainEventJobCompletedCallback),
        ),
        (
            sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
            "agent-lifecycle",
            true,
            callback!(on_agent as sys::virConnectDomainEventAgentLifecycleCallback),
        ),
        (
            sys::VIR_DOMAIN_EVENT_ID_MEMORY_FAILURE,
            "memory-failure",
            true,
            callback!(on_memory_failure as sys::virConnectDomainEventMemoryFailureCallback),
        ),
        (
            sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
            "device-added",
            true,
            callback!(on_device as sys::virConnectDomainEventDeviceAddedCallback),
        ),
        (
            sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
            "device-removed",
            true,
            callback!(on_device as sys::virConnectDomainEventDeviceRemovedCallback),
        ),
        (
            sys::VIR_DOMAIN_EVENT_ID_TRAY_CHANGE,
            "tray-change",
            true,
            callback!(on_tray as sys::virConnectDomainEventTrayChangeCallback),
        ),
    ]
}

/// All that is registered on one connection.
pub(crate) struct Registrations {
    conn: Conn,
    events: Vec<c_int>,
    qmp: Option<c_int>,
    close: Option<usize>,
}

impl Registrations {
    /// Registers everything. The lifecycle events are needed; the rest is taken as far as this libvirt has it.
    pub(crate) fn new(conn: &Conn, ear: &Arc<dyn Ear>) -> Result<Self, Fault> {
        let mut all = Self { conn: conn.clone(), events: Vec::new(), qmp: None, close: None };
        for (id, name, optional, callback) in wanted() {
            match all.register(id, &callback, ear) {
                Ok(()) => {}
                Err(fault) if optional => info!("libvirt does not give {name} events here: {fault}"),
                Err(fault) => return Err(fault),
            }
        }
        if let Err(fault) = all.register_qmp(ear) {
            info!("libvirt does not give QEMU's own events here: {fault}");
        }
        if let Err(fault) = all.register_close(ear) {
            info!("libvirt does not tell here when the connection closes: {fault}");
        }
        Ok(all)
    }

    fn register(
        &mut self,
        id: sys::virDomainEventID,
        callback: &Callback,
        ear: &Arc<dyn Ear>,
    ) -> Result<(), Fault> {
        let opaque = Listener::into_opaque(ear);
        // SAFETY: the callback has the shape of this id, `opaque` lives until libvirt calls `free_listener`.
        let number = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.conn.raw(),
                ptr::null_mut(),
                id as c_int,
                Some(callback.0),
                opaque,
                Some(free_listener),
            )
        };
        let number = accepted(number, opaque)?;
        self.events.push(number);
        Ok(())
    }

    fn register_qmp(&mut self, ear: &Arc<dyn Ear>) -> Result<(), Fault> {
        let opaque = Listener::into_opaque(ear);
        // SAFETY: as in `register`; the filter is a C string that libvirt copies.
        let number = unsafe {
            sys::virConnectDomainQemuMonitorEventRegister(
                self.conn.raw(),
                ptr::null_mut(),
                translate::QMP_WANTED.as_ptr(),
                Some(on_qmp),
                opaque,
                Some(free_listener),
                sys::VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX,
            )
        };
        self.qmp = Some(accepted(number, opaque)?);
        Ok(())
    }

    fn register_close(&mut self, ear: &Arc<dyn Ear>) -> Result<(), Fault> {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        close_listeners().insert(number, Arc::clone(ear));
        self.close = Some(number);
        let opaque = ptr::without_provenance_mut(number);
        // SAFETY: the opaque is a number that is never followed, so nothing has to live or be freed.
        checked(unsafe {
            sys::virConnectRegisterCloseCallback(self.conn.raw(), Some(on_close), opaque, None)
        })
    }
}

/// A refused registration never frees its `opaque`: that is ours then.
fn accepted(number: c_int, opaque: *mut c_void) -> Result<c_int, Fault> {
    if number >= 0 {
        return Ok(number);
    }
    let fault = Fault::last();
    // SAFETY: libvirt has not kept the pointer, and we do not use it again.
    unsafe { free_listener(opaque) };
    Err(fault)
}

impl Drop for Registrations {
    /// Takes everything back. On a connection that is gone libvirt forgets its own side and only complains about the
    /// other.
    fn drop(&mut self) {
        for id in self.events.drain(..) {
            // SAFETY: the id came from this connection and is given back once.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.conn.raw(), id) };
        }
        if let Some(id) = self.qmp.take() {
            // SAFETY: as above.
            unsafe { sys::virConnectDomainQemuMonitorEventDeregister(self.conn.raw(), id) };
        }
        if let Some(number) = self.close.take() {
            close_listeners().remove(&number);
            // SAFETY: the function is the one that was registered; if that was refused, libvirt refuses this too.
            unsafe { sys::virConnectUnregisterCloseCallback(self.conn.raw(), Some(on_close)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::{KeepAlive, event_loop};

    #[derive(Default)]
    struct Counting {
        heard: AtomicUsize,
    }

    impl Ear for Counting {
        fn hear(&self, _: DomainRef, _: Happening) {
            self.heard.fetch_add(1, Ordering::SeqCst);
        }

        fn devices(&self, _: DomainId) {}

        fn closed(&self, _: CloseReason) {}
    }

    struct Panicking;

    impl Ear for Panicking {
        fn hear(&self, _: DomainRef, _: Happening) {
            panic!("this panic is part of the test");
        }

        fn devices(&self, _: DomainId) {}

        fn closed(&self, _: CloseReason) {}
    }

    fn xml(name: &str) -> String {
        format!(
            "<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
        )
    }

    fn open() -> Conn {
        event_loop::ensure().unwrap();
        Conn::open("test:///default").unwrap()
    }

    fn pass_events() {
        assert!(event_loop::barrier(std::time::Duration::from_secs(30)));
    }

    #[test]
    fn a_registration_keeps_the_connection_open_until_it_is_taken_back() {
        let conn = open();
        let counting = Arc::new(Counting::default());
        let ear: Arc<dyn Ear> = counting.clone();
        let registrations = Registrations::new(&conn, &ear).unwrap();
        assert_eq!(registrations.events.len(), wanted().len());
        drop(ear);
        assert!(Arc::strong_count(&counting) > registrations.events.len());
        drop(registrations);
        pass_events();
        assert_eq!(conn.close(), Ok(0));
        assert_eq!(Arc::strong_count(&counting), 1, "every listener was freed");
    }

    #[test]
    fn a_clone_is_a_reference_of_its_own() {
        let conn = open();
        let clone = conn.clone();
        assert_eq!(conn.close(), Ok(1));
        assert_eq!(clone.close(), Ok(0));
    }

    #[test]
    fn a_panic_in_a_listener_does_not_reach_libvirt_and_the_next_event_still_comes() {
        let conn = open();
        let panicking: Arc<dyn Ear> = Arc::new(Panicking);
        let counting = Arc::new(Counting::default());
        let ear: Arc<dyn Ear> = counting.clone();
        let other = conn.clone();
        let first = Registrations::new(&conn, &panicking).unwrap();
        let dom = conn.create_xml(&xml("panicking"), 0).unwrap();
        pass_events();
        drop(first);
        let second = Registrations::new(&other, &ear).unwrap();
        dom.destroy().unwrap();
        pass_events();
        assert!(counting.heard.load(Ordering::SeqCst) >= 1);
        drop(second);
    }

    #[test]
    fn a_refused_registration_frees_its_listener() {
        let conn = open();
        let counting = Arc::new(Counting::default());
        let ear: Arc<dyn Ear> = counting.clone();
        let first = Registrations::new(&conn, &ear).unwrap();
        let before = Arc::strong_count(&counting);
        // libvirt refuses the same function twice on one connection.
        assert!(Registrations::new(&conn, &ear).is_err());
        assert_eq!(Arc::strong_count(&counting), before);
        drop(first);
    }

    #[test]
    fn the_test_driver_has_no_other_side() {
        assert_eq!(open().keep_alive(5, 3), Ok(KeepAlive::Local));
    }
}
