//! What a hypervisor can be asked to do with a VM, as plain data. How it is done is the hypervisor's business.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sample::Devices;

/// Something to do with a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Start it, transient, from the hypervisor's document. Identity and name were read from the document.
    Create {
        /// Its name.
        name: String,
        /// The document, with the VM's UUID in it.
        xml: String,
        /// What it will be made of, as far as the document says.
        made: Option<Arc<Devices>>,
        /// Its CPUs stand still until somebody lets them run.
        paused: bool,
    },
    /// Have its guest agent shut it down.
    AgentShutdown,
    /// Press its power button.
    Shutdown,
    /// End it now: the last step of a shutdown.
    ForceOff,
    /// Have its guest agent restart it.
    AgentReboot,
    /// Press its power button for a restart.
    Reboot,
    /// Reset it now: the last step of a restart.
    ForceReset,
    /// End it now.
    Destroy,
    /// Stop its CPUs.
    Pause,
    /// Let its CPUs run.
    Resume,
    /// Save it to disk and end it; its next start goes on there. Takes as long as its memory takes to be written.
    Save,
    /// Move it to another host. Takes as long as its memory takes to be copied, or for ever.
    Migrate(Migration),
    /// Give up the move or the save that is under way.
    Abort,
    /// Let a person at its console in.
    SetTicket(Ticket),
    /// Give the guest this much memory, in KiB, by its balloon.
    SetMemory {
        /// KiB.
        kib: u64,
    },
    /// Give the guest this many processors.
    SetVcpus {
        /// How many.
        count: u32,
    },
    /// Plug the cable of one of its network cards in, out or elsewhere.
    SetLink(NewLink),
    /// Put another medium into one of its drives, or take it out.
    ChangeMedium(NewMedium),
    /// Plug a device in.
    Plug(NewDevice),
    /// Plug a device out.
    Unplug(OldDevice),
    /// From now on write to new disk images, and leave the present ones as they are.
    Snapshot {
        /// Which disks go on where.
        disks: Vec<SnapshotDisk>,
        /// Have the guest's agent freeze its file systems for that moment.
        quiesce: bool,
    },
    /// Have the guest's agent freeze its file systems.
    Freeze,
    /// And thaw them.
    Thaw,
}

impl Operation {
    /// The word for it in evidence.
    pub const fn kind(&self) -> OperationKind {
        match self {
            Self::Create { .. } => OperationKind::Create,
            Self::AgentShutdown => OperationKind::AgentShutdown,
            Self::Shutdown => OperationKind::Shutdown,
            Self::ForceOff => OperationKind::ForceOff,
            Self::AgentReboot => OperationKind::AgentReboot,
            Self::Reboot => OperationKind::Reboot,
            Self::ForceReset => OperationKind::ForceReset,
            Self::Destroy => OperationKind::Destroy,
            Self::Pause => OperationKind::Pause,
            Self::Resume => OperationKind::Resume,
            Self::Save => OperationKind::Save,
            Self::Migrate(_) => OperationKind::Migrate,
            Self::Abort => OperationKind::Abort,
            Self::SetTicket(_) => OperationKind::SetTicket,
            Self::SetMemory { .. } => OperationKind::SetMemory,
            Self::SetVcpus { .. } => OperationKind::SetVcpus,
            Self::SetLink(_) => OperationKind::SetLink,
            Self::ChangeMedium(_) => OperationKind::ChangeMedium,
            Self::Plug(NewDevice { kind: Pluggable::Card, .. }) => OperationKind::PlugCard,
            Self::Plug(NewDevice { kind: Pluggable::Disk, .. }) => OperationKind::PlugDisk,
            Self::Unplug(OldDevice { kind: Pluggable::Card, .. }) => OperationKind::UnplugCard,
            Self::Unplug(OldDevice { kind: Pluggable::Disk, .. }) => OperationKind::UnplugDisk,
            Self::Snapshot { .. } => OperationKind::Snapshot,
            Self::Freeze => OperationKind::Freeze,
            Self::Thaw => OperationKind::Thaw,
        }
    }

    /// Whether it changes what the VM is made of.
    pub const fn changes_devices(&self) -> bool {
        match self {
            Self::SetLink(_)
            | Self::ChangeMedium(_)
            | Self::Plug(_)
            | Self::Unplug(_)
            | Self::Snapshot { .. }
            | Self::SetVcpus { .. } => true,
            Self::Create { .. }
            | Self::AgentShutdown
            | Self::Shutdown
            | Self::ForceOff
            | Self::AgentReboot
            | Self::Reboot
            | Self::ForceReset
            | Self::Destroy
            | Self::Pause
            | Self::Resume
            | Self::Save
            | Self::Migrate(_)
            | Self::Abort
            | Self::SetTicket(_)
            | Self::SetMemory { .. }
            | Self::Freeze
            | Self::Thaw => false,
        }
    }
}

/// What was asked of us, or is done on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationKind {
    /// Start it.
    Create,
    /// Shut it down by its power button or agent.
    Shutdown,
    /// The forced last step of a shutdown.
    ForceOff,
    /// Destroy it and forget it.
    Destroy,
    /// The first step of a shutdown: by its guest agent.
    AgentShutdown,
    /// Reboot it.
    Reboot,
    /// The first step of a reboot: by its guest agent.
    AgentReboot,
    /// The forced last step of a reboot.
    ForceReset,
    /// Stop its CPUs.
    Pause,
    /// Let its CPUs run.
    Resume,
    /// Save it to disk.
    Save,
    /// Move it to another host.
    Migrate,
    /// Give up a save or a move.
    Abort,
    /// Set the password of its console.
    SetTicket,
    /// Change its memory.
    SetMemory,
    /// Change its number of processors.
    SetVcpus,
    /// Plug the cable of one of its network cards in, out or elsewhere.
    SetLink,
    /// Put another medium into one of its drives, or take it out.
    ChangeMedium,
    /// Plug a network card in.
    PlugCard,
    /// Plug a network card out.
    UnplugCard,
    /// Plug a disk in.
    PlugDisk,
    /// Plug a disk out.
    UnplugDisk,
    /// Take a snapshot of its disks.
    Snapshot,
    /// Freeze its file systems.
    Freeze,
    /// Thaw its file systems.
    Thaw,
}

impl OperationKind {
    /// What was asked for, in words that follow *asked to*.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Create => "start it",
            Self::Shutdown => "shut it down",
            Self::ForceOff => "force it off",
            Self::Destroy => "destroy it",
            Self::AgentShutdown => "have its agent shut it down",
            Self::Reboot => "reboot it",
            Self::AgentReboot => "have its agent reboot it",
            Self::ForceReset => "reset it",
            Self::Pause => "pause it",
            Self::Resume => "resume it",
            Self::Save => "save it to disk",
            Self::Migrate => "migrate it to another host",
            Self::Abort => "give up its migration or save",
            Self::SetTicket => "set its console's password",
            Self::SetMemory => "change its memory",
            Self::SetVcpus => "change its number of processors",
            Self::SetLink => "plug the cable of its network card in, out or elsewhere",
            Self::ChangeMedium => "change the medium in one of its drives",
            Self::PlugCard => "plug a network card in",
            Self::UnplugCard => "plug a network card out",
            Self::PlugDisk => "plug a disk in",
            Self::UnplugDisk => "plug a disk out",
            Self::Snapshot => "take a snapshot of its disks",
            Self::Freeze => "freeze its file systems",
            Self::Thaw => "thaw its file systems",
        }
    }

    /// Whether it goes on long after it was begun: who asks is told at once that it has begun.
    pub const fn is_long(self) -> bool {
        matches!(self, Self::Save | Self::Migrate)
    }

    /// Whether it is a start, or a step on the way to an end or a restart.
    pub const fn is_a_step(self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Shutdown
                | Self::ForceOff
                | Self::Destroy
                | Self::AgentShutdown
                | Self::Reboot
                | Self::AgentReboot
                | Self::ForceReset
        )
    }

    /// Whether it can be why a VM ends. What cannot must not crowd out what can.
    pub const fn may_end_it(self) -> bool {
        self.is_a_step() || self.is_long()
    }
}

/// Where to move a VM, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Migration {
    /// The hypervisor's address on the other host.
    pub destination: String,
    /// The address for the memory itself, where it is not for the hypervisor to choose.
    pub memory_uri: Option<String>,
    /// The document that the VM gets there, where it differs.
    pub document: Option<String>,
    /// Through the hypervisor's own connection.
    pub tunnelled: bool,
    /// Packed.
    pub compressed: bool,
    /// Slow the guest down where it changes memory faster than it can be copied.
    pub auto_converge: bool,
    /// Give up at the first disk error.
    pub abort_on_error: bool,
    /// Milliseconds that the guest may stand still at the end.
    pub downtime_ms: Option<u64>,
    /// MiB a second at most.
    pub bandwidth_mib: Option<u64>,
    /// The host to which those who look at its screen are sent, where that is not for the hypervisor to choose. An IPv6
    /// address is in brackets.
    pub console: Option<String>,
    /// It waits until fewer than so many are on their way from here; nothing if there is no such limit.
    pub outgoing_most: Option<u64>,
}

/// A password for a VM's console. Never shown by `Debug`, and no part of any evidence.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The password.
    pub password: String,
    /// How long it is valid; for ever if nothing is said.
    pub valid_for: Option<Duration>,
    /// What becomes of whoever is connected.
    pub connected: Connected,
    /// At which of its consoles; at all of them if nothing is said.
    pub console: Option<Console>,
}

/// A kind of console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// VNC.
    Vnc,
    /// SPICE.
    Spice,
}

impl Console {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Vnc => "vnc",
            Self::Spice => "spice",
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("valid_for", &self.valid_for)
            .field("connected", &self.connected)
            .field("console", &self.console)
            .finish()
    }
}

/// What becomes of whoever is connected to a console when its password changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connected {
    /// Disconnected.
    Disconnect,
    /// Stays.
    Keep,
    /// Makes the change fail.
    Fail,
}

/// Where a network card is plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLink {
    /// The card, as the hypervisor calls it, such as `net0`.
    pub alias: String,
    /// Whether it is plugged in; as it was if nothing is said.
    pub up: Option<bool>,
    /// Where it leads; as it was if nothing is said.
    pub network: Option<NewNetwork>,
}

/// Where a network card is to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewNetwork {
    /// To a bridge, or to a network of the hypervisor's.
    Named(String),
    /// Nowhere: its cable is out whatever is said of it.
    Nowhere,
}

/// What is to be in a drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMedium {
    /// The kind of drive.
    pub drive: Drive,
    /// The drive's target, such as `hdc`; the usual one of its kind, or else the only one, if nothing is said.
    pub target: Option<String>,
    /// The image; nothing for an empty drive.
    pub path: Option<String>,
}

/// A kind of drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drive {
    /// For compact discs.
    Disc,
    /// For floppies.
    Floppy,
}

/// What can be plugged in and out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pluggable {
    /// A network card.
    Card,
    /// A disk.
    Disk,
}

/// A device to be plugged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDevice {
    /// What it is.
    pub kind: Pluggable,
    /// The hypervisor's document of it.
    pub document: String,
    /// Of a disk whose place on its bus is left open, how the names of its targets begin, such as `vd`. The document's
    /// own target is then one of them, and any.
    pub targets: Option<String>,
}

/// A device to be plugged out, by what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldDevice {
    /// What it is.
    pub kind: Pluggable,
    /// A card's hardware address, or the path of a disk.
    pub place: Option<String>,
    /// As the hypervisor calls it, such as `net0`.
    pub alias: Option<String>,
    /// How the hypervisor calls it if its manager named it.
    pub given: Option<String>,
}

/// One disk in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotDisk {
    /// Its target, such as `vda`.
    pub target: String,
    /// The new image.
    pub file: String,
}
