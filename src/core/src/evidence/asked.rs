//! The requests that are evidence.

use serde::{Deserialize, Serialize};

/// What a manager asked of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
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

impl Asked {
    /// Whether it can be why a VM ends. What cannot must not crowd out what can.
    pub const fn may_end_it(self) -> bool {
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
                | Self::Save
                | Self::Migrate
        )
    }
}
