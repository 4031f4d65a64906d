//! What managers have done to a domain that runs. As in `act`, each call takes as long as libvirt takes, on its caller's
//! thread; a migration takes as long as the guest's memory does.

use virt_sys as sys;
use whydown_core::id::DomainId;
use whydown_core::operation::Migration;

use crate::act::Refusal;
use crate::ffi::Dom;
use crate::link::Hypervisor;
use crate::translate;

/// By which means a guest is asked to reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RebootHow {
    /// The power button: libvirt starts the machine again when it has shut down.
    Acpi,
    /// The guest agent.
    Agent,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes in all, as far as known.
    pub total: u64,
    /// Bytes still to go.
    pub remaining: u64,
}

/// All of these fail as [`Refusal`] says; `Refused` also for a domain that is off.
impl Hypervisor {
    /// Stops its CPUs. Already stopped is as good.
    ///
    /// # Errors
    ///
    /// As above; so for all here.
    pub fn pause(&self, id: DomainId) -> Result<(), Refusal> {
        self.act(id, Dom::suspend)
    }

    /// Lets its CPUs run.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn resume(&self, id: DomainId) -> Result<(), Refusal> {
        self.act(id, Dom::resume)
    }

    /// Asks the guest to reboot. That libvirt accepted says nothing about the guest.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn reboot(&self, id: DomainId, how: RebootHow) -> Result<(), Refusal> {
        let flags = match how {
            RebootHow::Acpi => sys::VIR_DOMAIN_REBOOT_ACPI_POWER_BTN,
            RebootHow::Agent => sys::VIR_DOMAIN_REBOOT_GUEST_AGENT,
        };
        let reboot = |dom: &Dom| dom.reboot(flags);
        if how == RebootHow::Agent { self.order_agent(id, reboot) } else { self.act(id, reboot) }
    }

    /// Resets the machine at once.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn reset(&self, id: DomainId) -> Result<(), Refusal> {
        self.act(id, Dom::reset)
    }

    /// Moves it to another host, live, the two hypervisors talking to each other. Returns when it is there; a
    /// persistent domain is then persistent there and undefined here. `screen` is the address to which those who look at
    /// its screen are sent, such as `spice://host`.
    ///
    /// # Errors
    ///
    /// As above; [`Refusal::is_aborted`] when it was given up on request.
    pub fn migrate(&self, id: DomainId, how: &Migration, screen: Option<&str>) -> Result<(), Refusal> {
        let mut flags = sys::VIR_MIGRATE_LIVE | sys::VIR_MIGRATE_PEER2PEER;
        for (wanted, flag) in [
            (how.tunnelled, sys::VIR_MIGRATE_TUNNELLED),
            (how.compressed, sys::VIR_MIGRATE_COMPRESSED),
            (how.auto_converge, sys::VIR_MIGRATE_AUTO_CONVERGE),
            (how.abort_on_error, sys::VIR_MIGRATE_ABORT_ON_ERROR),
        ] {
            flags |= if wanted { flag } else { 0 };
        }
        let texts = [
            (sys::VIR_MIGRATE_PARAM_URI, how.memory_uri.as_deref()),
            (sys::VIR_MIGRATE_PARAM_DEST_XML, how.document.as_deref()),
            (sys::VIR_MIGRATE_PARAM_GRAPHICS_URI, screen),
        ];
        let texts: Vec<_> = texts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect();
        let numbers: Vec<_> =
            how.bandwidth_mib.map(|mib| (sys::VIR_MIGRATE_PARAM_BANDWIDTH, mib)).into_iter().collect();
        self.act(id, |dom| {
            if dom.is_persistent()? {
                flags |= sys::VIR_MIGRATE_PERSIST_DEST | sys::VIR_MIGRATE_UNDEFINE_SOURCE;
            }
            if let Some(milliseconds) = how.downtime_ms {
                dom.set_max_downtime(milliseconds)?;
            }
            dom.migrate(&how.destination, &texts, &numbers, flags)
        })
    }

    /// Gives up the save or the migration that is under way.
    ///
    /// # Errors
    ///
    /// As above; `Refused` if there is none.
    pub fn abort_job(&self, id: DomainId) -> Result<(), Refusal> {
        self.act(id, Dom::abort_job)
    }

    /// How far the job is that is under way; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn progress(&self, id: DomainId) -> Result<Option<Progress>, Refusal> {
        let job = self.act(id, Dom::job)?;
        Ok(job.map(|(total, remaining)| Progress { total, remaining }))
    }

    /// Moves the balloon's mark, in KiB.
    ///
    /// # Errors
    ///
    /// As above; `Refused` without a balloon.
    pub fn set_memory(&self, id: DomainId, kib: u64) -> Result<(), Refusal> {
        self.act(id, |dom| dom.set_memory(kib))
    }

    /// Plugs processors in or out.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn set_vcpus(&self, id: DomainId, count: u32) -> Result<(), Refusal> {
        self.act(id, |dom| dom.set_vcpus(count))
    }

    /// The domain's document with its passwords.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn secret_xml(&self, id: DomainId) -> Result<String, Refusal> {
        self.act(id, |dom| dom.xml(sys::VIR_DOMAIN_XML_SECURE))
    }

    /// Changes a device of the running domain to what this document says.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn update_device(&self, id: DomainId, xml: &str) -> Result<(), Refusal> {
        self.act(id, |dom| dom.update_device(xml, false))
    }

    /// Changes the medium in a drive of the running domain to what this document says, also one that the guest has locked.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn change_medium(&self, id: DomainId, xml: &str) -> Result<(), Refusal> {
        self.act(id, |dom| dom.update_device(xml, true))
    }

    /// Plugs the device of this document into the running domain.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn attach_device(&self, id: DomainId, xml: &str) -> Result<(), Refusal> {
        self.act(id, |dom| dom.attach_device(xml))
    }

    /// Asks the guest to give a device up. libvirt does not wait for that: it is gone when it is no longer in the domain's
    /// document. Already asked is as good: QEMU may refuse to ask a guest again.
    ///
    /// # Errors
    ///
    /// As above; `Refused` also where the guest says no.
    pub fn detach_device(&self, id: DomainId, alias: &str) -> Result<(), Refusal> {
        match self.act(id, |dom| dom.detach_device(alias)) {
            Err(Refusal::Refused { text, .. }) if translate::is_leaving_already(&text) => Ok(()),
            done => done,
        }
    }

    /// Lets the disks in this snapshot document go on in new images. libvirt keeps no record of it.
    ///
    /// # Errors
    ///
    /// As above; with `quiesce` also without a guest agent.
    pub fn snapshot_disks(&self, id: DomainId, xml: &str, quiesce: bool) -> Result<(), Refusal> {
        let mut flags = sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC;
        if quiesce {
            flags |= sys::VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE;
        }
        let snapshot = |dom: &Dom| dom.snapshot(xml, flags);
        if quiesce { self.with_agent(id, snapshot) } else { self.act(id, snapshot) }
    }

    /// Has the guest's agent freeze its file systems.
    ///
    /// # Errors
    ///
    /// As above; `Refused` without an agent.
    pub fn freeze(&self, id: DomainId) -> Result<(), Refusal> {
        self.with_agent(id, Dom::freeze)
    }

    /// Has the guest's agent thaw them.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn thaw(&self, id: DomainId) -> Result<(), Refusal> {
        self.with_agent(id, Dom::thaw)
    }
}
