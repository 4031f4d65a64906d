//! The C side: handles with their reference counts, typed results, libvirt's event loop and the callbacks.
//!
//! Everything unsafe is below this module. What leaves it is safe: handles count their references, libvirt's error is
//! read on the thread that got it, and lists are freed with the function that libvirt names for them.
//! Nothing here decides anything.

pub(crate) mod event_loop;
pub(crate) mod register;

mod connection;
mod domain;
mod guest;
mod heap;
mod stats;

pub use connection::NodeInfo;
pub(crate) use connection::{Conn, KeepAlive};
pub(crate) use domain::Dom;
pub use heap::share_one_heap;
pub(crate) use stats::Value;

use virt_sys as sys;

/// libvirt's error for one call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} (libvirt error {code})")]
pub(crate) struct Fault {
    /// `virErrorNumber`.
    pub(crate) code: i32,
    /// libvirt's own words.
    pub(crate) text: String,
}

impl Fault {
    /// The error of the last libvirt call of this thread; to be read before any other libvirt call.
    fn last() -> Self {
        let error = virt::error::Error::last_error();
        Self { code: error.code().to_raw() as i32, text: error.message().to_owned() }
    }

    /// A text with a zero byte cannot be given to libvirt.
    fn zero_byte(what: &str) -> Self {
        Self { code: sys::VIR_ERR_INVALID_ARG as i32, text: format!("{what} contains a zero byte") }
    }

    /// Whether libvirt says that there is no such domain.
    pub(crate) fn is_no_domain(&self) -> bool {
        self.code == sys::VIR_ERR_NO_DOMAIN as i32
    }
}
