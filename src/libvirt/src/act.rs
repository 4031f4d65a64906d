//! What callers ask of libvirt. Every call runs on the caller's own thread and may take as long as libvirt takes: a start
//! about 0.3 s, a destroy up to 25 s, a call on a domain that hangs 30 s. While libvirt destroys a QEMU that does not react
//! it answers nothing else about that domain, not even its state. Calls on different domains do not wait for each other.
//!
//! Without a link each returns [`Refusal::NoLink`] at once. A link that dies during a call ends the call when keepalive
//! notices it.

use std::ffi::CStr;
use std::path::PathBuf;

use virt_sys as sys;
use whydown_core::hypervisor::{DomainState, DomainView, ShutOffReason};
use whydown_core::id::DomainId;

use crate::ffi::{Conn, Dom, Fault, NodeInfo};
use crate::link::Hypervisor;
use crate::{listing, process};

/// How often a domain that restarts under our hands is looked at again.
const LOOKS: usize = 3;

/// What marks a definition that was only made for a save.
const MARK: &CStr = c"<transient/>";
const MARK_KEY: &CStr = c"whydown";
const MARK_URI: &CStr = c"https://whydown.invalid/saved/1";

/// Why a call did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no link to libvirt, or it broke during the call: then nobody knows whether the call took effect.
    #[error("there is no link to libvirt")]
    NoLink,
    /// libvirt knows no such domain.
    #[error("libvirt knows no such domain")]
    NoDomain,
    /// libvirt refused, in its own words.
    #[error("{text}")]
    Refused {
        /// `virErrorNumber`; 0 for a refusal of our own.
        code: i32,
        /// libvirt's text.
        text: String,
    },
}

impl Refusal {
    /// Whether a job was given up because somebody asked for that.
    pub fn is_aborted(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == sys::VIR_ERR_OPERATION_ABORTED as i32)
    }

    /// Whether this hypervisor has no such means: a flag or a call that it does not know.
    pub fn is_unsupported(&self) -> bool {
        let codes = [sys::VIR_ERR_INVALID_ARG, sys::VIR_ERR_NO_SUPPORT];
        matches!(self, Self::Refused { code, .. } if codes.iter().any(|known| *known as i32 == *code))
    }

    pub(crate) fn of(fault: Fault, conn: &Conn) -> Self {
        if fault.is_no_domain() {
            Self::NoDomain
        } else if !conn.is_alive() {
            Self::NoLink
        } else {
            Self::Refused { code: fault.code, text: fault.text }
        }
    }
}

/// By which means a guest is asked to shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownHow {
    /// libvirt chooses: the agent where there is one, otherwise the power button.
    AcpiOrAgent,
    /// The power button.
    Acpi,
    /// The guest agent.
    Agent,
}

/// What libvirt says of itself and of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// libvirt's version: 1,000,000 * major + 1,000 * minor + release.
    pub libvirt: u64,
    /// The hypervisor's version in the same form; `None` if libvirt cannot tell.
    pub hypervisor: Option<u64>,
    /// The driver's name, such as `QEMU`.
    pub driver: String,
    /// The host's name, as libvirt tells it.
    pub host_name: String,
    /// The machine.
    pub node: NodeInfo,
    /// libvirt's capabilities document.
    pub capabilities: String,
}

impl Hypervisor {
    /// Starts a transient domain from its document and returns it as it then was.
    ///
    /// A domain that has ended already when it is looked at is returned as off, with an unknown reason.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says; `Refused` also for a document that libvirt cannot read.
    pub fn create(&self, xml: &str) -> Result<DomainView, Refusal> {
        self.create_as(xml, false)
    }

    fn create_as(&self, xml: &str, paused: bool) -> Result<DomainView, Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        let dom = line
            .conn()
            .create_xml(xml, start_flags(paused))
            .map_err(|fault| Refusal::of(fault, line.conn()))?;
        // It runs: from here on nothing may make the caller believe otherwise.
        let seen = listing::view(&dom, self.processes()).ok().flatten();
        seen.or_else(|| came_and_went(&dom)).ok_or(Refusal::NoDomain)
    }

    /// Starts a VM from its document, or lets it go on where its managed save image has it: then the document is not
    /// read. With `paused` its CPUs stand still until [`Hypervisor::resume`]. A definition that only [`Hypervisor::save`] had made is taken back, so that the domain is as it was.
    ///
    /// # Errors
    ///
    /// As [`Hypervisor::create`].
    pub fn create_or_restore(&self, id: DomainId, xml: &str, paused: bool) -> Result<(), Refusal> {
        let restored = self.act(id, |dom| {
            if !dom.has_managed_save()? {
                return Ok(false);
            }
            let made_by_us = dom.has_mark(MARK_URI);
            dom.start(start_flags(paused))?;
            if made_by_us && let Err(fault) = dom.undefine() {
                // It runs, which is what was asked.
                tracing::warn!(%id, "a definition that was made for a save stays behind: {fault}");
            }
            Ok(true)
        });
        match restored {
            Ok(true) => Ok(()),
            Ok(false) | Err(Refusal::NoDomain) => self.create_as(xml, paused).map(drop),
            Err(refusal) => Err(refusal),
        }
    }

    /// Saves a domain where libvirt keeps such images, and ends it. Returns when it is saved. A transient domain, for
    /// which libvirt keeps none, is defined for that; [`Hypervisor::create_or_restore`] takes it back.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says.
    pub fn save(&self, id: DomainId) -> Result<(), Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        let conn = line.conn();
        let save = || {
            let dom = conn.lookup(id)?;
            if dom.is_persistent()? {
                return dom.managed_save();
            }
            let xml = dom.xml(sys::VIR_DOMAIN_XML_INACTIVE | sys::VIR_DOMAIN_XML_SECURE)?;
            let dom = conn.define(&xml)?;
            let saved = dom.set_mark(MARK, MARK_KEY, MARK_URI).and_then(|()| dom.managed_save());
            if saved.is_err() {
                // What remains running is as it was before.
                let _ = dom.undefine();
            }
            saved
        };
        save().map_err(|fault| Refusal::of(fault, conn))
    }

    /// Starts a defined domain.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says; `Refused` for one that runs.
    pub fn start_defined(&self, id: DomainId) -> Result<(), Refusal> {
        self.act(id, |dom| dom.start(start_flags(false)))
    }

    /// Asks the guest to shut down. That libvirt accepted says nothing about the guest, and a guest that was gone before
    /// its agent had answered was asked all the same.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says; `Refused` for a domain that is off, or without the means, or whose agent does not answer
    /// within five seconds.
    pub fn shutdown(&self, id: DomainId, how: ShutdownHow) -> Result<(), Refusal> {
        let flags = match how {
            ShutdownHow::AcpiOrAgent => sys::VIR_DOMAIN_SHUTDOWN_DEFAULT,
            ShutdownHow::Acpi => sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN,
            ShutdownHow::Agent => sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT,
        };
        let shutdown = |dom: &Dom| dom.shutdown(flags);
        if how == ShutdownHow::Agent { self.order_agent(id, shutdown) } else { self.act(id, shutdown) }
    }

    /// Ends a domain at once.
    ///
    /// While a fresh libvirtd still reconnects to QEMU it ends the domain, answers `NoDomain` and reports no STOPPED
    /// (seen with 9.0): that answer alone does not say that the domain had ended before.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says; `Refused` for a domain that is off.
    pub fn destroy(&self, id: DomainId) -> Result<(), Refusal> {
        self.act(id, Dom::destroy)
    }

    /// The domain as it is now; `None` if libvirt knows none.
    ///
    /// # Errors
    ///
    /// `NoLink` or `Refused`.
    pub fn view(&self, id: DomainId) -> Result<Option<DomainView>, Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        let conn = line.conn();
        let mut seen = None;
        for _ in 0..LOOKS {
            let Some(dom) = found(conn.lookup(id), conn)? else { return Ok(None) };
            let Some(view) = found(listing::view(&dom, self.processes()), conn)?.flatten() else {
                return Ok(None);
            };
            // The same number before and after: all that was read belongs to one run.
            let before = dom.reference().and_then(|domain| domain.libvirt_id);
            let after = found(conn.lookup(id), conn)?.and_then(|dom| dom.reference()?.libvirt_id);
            seen = Some(view);
            if before == after {
                break;
            }
        }
        Ok(seen)
    }

    /// The domain's document, as libvirt has it now.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says.
    pub fn domain_xml(&self, id: DomainId) -> Result<String, Refusal> {
        self.act(id, |dom| dom.xml(0))
    }

    /// Where libvirt and QEMU write about the domain `name`, if that can be told. The file need not exist.
    pub fn log_path(&self, name: &str) -> Option<PathBuf> {
        process::file_of(&self.settings().log_files()?, name, "log")
    }

    /// Versions, host name, machine and capabilities. The first call of a fresh libvirt may take seconds, as it lets
    /// QEMU be probed.
    ///
    /// # Errors
    ///
    /// `NoLink` or `Refused`.
    pub fn versions(&self) -> Result<Versions, Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        let conn = line.conn();
        let all = || {
            Ok(Versions {
                libvirt: conn.libvirt_version()?,
                hypervisor: conn.hypervisor_version().ok().filter(|version| *version != 0),
                driver: conn.hypervisor_type()?,
                host_name: conn.host_name()?,
                node: conn.node_info()?,
                capabilities: conn.capabilities()?,
            })
        };
        all().map_err(|fault| Refusal::of(fault, conn))
    }

    /// libvirt's document of what VMs can have on this host: the emulator and the accelerator are those that it would
    /// choose itself.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says; drivers that are not for QEMU may not know the call.
    pub fn domain_capabilities(&self) -> Result<String, Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        line.conn().domain_capabilities().map_err(|fault| Refusal::of(fault, line.conn()))
    }

    pub(crate) fn act<T>(
        &self,
        id: DomainId,
        deed: impl FnOnce(&Dom) -> Result<T, Fault>,
    ) -> Result<T, Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        let done = line.conn().lookup(id).and_then(|dom| deed(&dom));
        done.map_err(|fault| Refusal::of(fault, line.conn()))
    }
}

fn start_flags(paused: bool) -> u32 {
    if paused { sys::VIR_DOMAIN_START_PAUSED } else { sys::VIR_DOMAIN_NONE }
}

/// "No such domain" is an answer here.
fn found<T>(answer: Result<T, Fault>, conn: &Conn) -> Result<Option<T>, Refusal> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(fault) => match Refusal::of(fault, conn) {
            Refusal::NoDomain => Ok(None),
            other => Err(other),
        },
    }
}

/// A transient domain that was created and is gone already.
fn came_and_went(dom: &Dom) -> Option<DomainView> {
    let mut domain = dom.reference()?;
    domain.libvirt_id = None;
    let state = DomainState::ShutOff(ShutOffReason::Unknown);
    Some(DomainView { domain, state, persistent: false, managed_save: None, process: None })
}
