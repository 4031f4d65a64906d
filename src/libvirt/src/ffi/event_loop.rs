//! libvirt's event loop: one for the whole process, on a thread of its own, for ever.
//!
//! libvirt gives events to connections only through this loop, and it must be there before the first connection.
//! It cannot be taken back, therefore nothing here stops it.

use std::os::raw::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tracing::error;
use virt::event;
use virt_sys as sys;

use super::Fault;

/// Turns of the loop that [`barrier`] waits for. Events that were queued when it began are given out within one turn;
/// the second is for a turn that was already under way.
const TURNS: u8 = 2;

/// Starts the loop, at the first call; later calls only tell whether it runs.
pub(crate) fn ensure() -> Result<(), Fault> {
    static LOOP: OnceLock<Result<(), Fault>> = OnceLock::new();
    LOOP.get_or_init(start).clone()
}

fn start() -> Result<(), Fault> {
    // Without this libvirt prints every error to the terminal.
    virt::error::clear_error_callback();
    event::event_register_default_impl().map_err(|_| Fault::last())?;
    let spawned = std::thread::Builder::new().name("libvirt-loop".into()).spawn(|| {
        loop {
            if event::event_run_default_impl().is_err() {
                error!("libvirt's event loop failed at one turn: {}", Fault::last());
                // It is not known to fail; if it does so always, this keeps it from taking a whole processor.
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    });
    spawned.map(drop).map_err(|e| Fault { code: 0, text: format!("cannot start a thread for libvirt: {e}") })
}

struct Barrier {
    turns: AtomicU8,
    passed: SyncSender<()>,
}

unsafe extern "C" fn on_turn(timer: c_int, opaque: *mut c_void) {
    // The closure cannot panic today; this keeps it so for C whatever is added.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `opaque` is the Barrier given at registration; libvirt frees it only after the timer is removed.
        let barrier = unsafe { &*opaque.cast::<Barrier>() };
        if barrier.turns.fetch_add(1, Ordering::Relaxed) + 1 == TURNS {
            let _ = barrier.passed.try_send(());
            // SAFETY: libvirt allows a timer to be removed from inside its own callback; the free comes later.
            unsafe { sys::virEventRemoveTimeout(timer) };
        }
    }));
}

unsafe extern "C" fn free_barrier(opaque: *mut c_void) {
    // SAFETY: libvirt calls this once, with the pointer from `Box::into_raw` below, when nobody uses it any more.
    drop(unsafe { Box::from_raw(opaque.cast::<Barrier>()) });
}

/// Waits until every event that libvirt had queued in this process at the time of the call was given to its callback.
/// False if that took longer than `limit`. Must not be called on the loop's own thread.
pub(crate) fn barrier(limit: Duration) -> bool {
    let (passed, waiting) = sync_channel(1);
    let opaque = Box::into_raw(Box::new(Barrier { turns: AtomicU8::new(0), passed })).cast();
    // SAFETY: both functions fit the pointer, which stays valid until libvirt calls `free_barrier`.
    let timer = unsafe { sys::virEventAddTimeout(0, Some(on_turn), opaque, Some(free_barrier)) };
    if timer < 0 {
        // SAFETY: a registration that failed never calls the free function: the box is ours again.
        unsafe { free_barrier(opaque) };
        return false;
    }
    if waiting.recv_timeout(limit).is_ok() {
        return true;
    }
    // SAFETY: removing a timer that has removed itself meanwhile is an error without effect.
    unsafe { sys::virEventRemoveTimeout(timer) };
    false
}
