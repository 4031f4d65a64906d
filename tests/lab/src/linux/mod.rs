//! The Linux guest: Debian's kernel, a shell and QEMU's own guest agent, up in some four seconds without KVM.
//!
//! It does what the small [`Guest`] cannot: it runs a guest agent, has a real file system to freeze, panics with a
//! text, runs out of memory, suspends to memory and to disk, and shuts down in an orderly way on its power button.
//! Kernel, shell and agent are those that `tests/setup.sh test` has fetched; nothing is installed on the host.

mod console;
mod initramfs;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use console::Console;

use crate::guest::Kernel;
use crate::{Error, Guest, Result};

/// What it says when it goes on after it was suspended.
const AWAKE: &str = "lab: awake";

/// Memory in MiB. The kernel needs 96 to unpack itself and its files.
const MEMORY_MIB: u32 = 128;

/// For a quick boot under emulation: no self tests, no mitigations, no moving about, and entropy from the processor.
const COMMAND_LINE: &str = "quiet console=ttyS0 rdinit=/init nokaslr mitigations=off random.trust_cpu=on \
                            cryptomgr.notests tsc=reliable panic=0";

/// The devices of a Linux guest: the agent's channel and a network card.
const DEVICES: &str = "<channel type='unix'><source mode='bind'/>\
                       <target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
                       <interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>";

/// Who speaks on the agent's channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agent {
    /// QEMU's guest agent.
    Real,
    /// A program that answers everything with what cannot be true: far too many things with far too long names.
    Liar,
    /// A program that obeys a shutdown or a reboot, and is gone before it has answered.
    Hasty,
    /// Nobody.
    None,
}

/// A Linux machine to be. It is a [`Guest`], but for what it boots.
#[derive(Clone, Debug)]
pub struct LinuxGuest {
    guest: Guest,
    agent: Agent,
    deed: Option<(String, Duration)>,
    arguments: String,
    memory_mib: u32,
    parts: PathBuf,
    initramfs: PathBuf,
}

impl LinuxGuest {
    /// A guest called `name` with a random UUID, whose files lie in `directory`, with QEMU's guest agent.
    ///
    /// One user is logged in, `alice`; the host's name is `NAME.guests.example`; the system calls itself Debian 12.
    /// A disk given by [`Guest::data_disk`] gets a file system, mounted at `/data`.
    ///
    /// # Errors
    ///
    /// As [`Guest::new`]; [`Error::Missing`] when `tests/setup.sh test` has not fetched the kernel.
    pub fn new(directory: impl AsRef<Path>, name: &str) -> Result<Self> {
        let parts = parts()?;
        let guest = Guest::without_disk(directory.as_ref(), name)?.device_xml(DEVICES);
        let initramfs = directory.as_ref().join(format!("{name}.cpio"));
        initramfs::write(&initramfs, &parts, name)?;
        let linux = Self {
            guest,
            agent: Agent::Real,
            deed: None,
            arguments: String::new(),
            memory_mib: MEMORY_MIB,
            parts,
            initramfs,
        };
        Ok(linux.with_kernel())
    }

    /// With somebody else on the agent's channel.
    pub fn agent(mut self, agent: Agent) -> Self {
        self.agent = agent;
        self.with_kernel()
    }

    /// Does this by itself, `after` it is ready: a word of [`Console::order`].
    pub fn deed(mut self, word: &str, after: Duration) -> Self {
        self.deed = Some((word.into(), after));
        self.with_kernel()
    }

    /// With this much memory.
    pub fn memory_mib(mut self, mib: u32) -> Self {
        self.memory_mib = mib;
        self.with_kernel()
    }

    /// With one more argument for its kernel, such as `panic=1`, which counts before those that are there.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(' ');
        self.arguments.push_str(argument);
        self.with_kernel()
    }

    /// With the disk at `path` as its first, for swap, and thus able to suspend to disk: this needs 256 MiB of memory,
    /// and as much room there. A start with an image on it resumes that.
    pub fn swap_disk(self, path: impl AsRef<Path>) -> Self {
        self.argument("lab.swap=vda").machine(|guest| guest.data_disk(path))
    }

    /// With a kernel that takes over when this one panics, in 128 MiB of its own, and then does the `word` of
    /// [`Console::order`]: `poweroff`, `reboot`. It is loaded by the word `load-crash-kernel`.
    pub fn crash_kernel(self, word: &str) -> Self {
        let disk = |file: &Path, target: &str| {
            format!(
                "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{}'/>\
                 <target dev='{target}' bus='virtio'/><readonly/></disk>",
                file.display()
            )
        };
        let disks = disk(&self.parts.join("vmlinuz"), "vda") + &disk(&self.initramfs, "vdb");
        self.memory_mib(320)
            .argument("crashkernel=128M crash_kexec_post_notifiers lab.kernel=vda lab.initramfs=vdb")
            .argument(&format!("lab.then={word}"))
            .machine(|guest| guest.device_xml(&disks))
    }

    /// With whatever else a [`Guest`] may have.
    pub fn machine(mut self, change: impl FnOnce(Guest) -> Guest) -> Self {
        self.guest = change(self.guest);
        self
    }

    /// Connects to the running guest's serial line and waits until it is ready to be told something.
    ///
    /// # Errors
    ///
    /// If nobody listens there in time.
    pub fn console(&self, limit: Duration) -> Result<Console> {
        let console = Console::connect(&self.guest.serial_path(), self.guest.serial_log(), limit)?;
        console.wait_ready(1, limit)?;
        Ok(console)
    }

    /// Connects to a machine that was started with an image of itself on disk, and waits until it goes on from there.
    ///
    /// # Errors
    ///
    /// If it does not, in time: without an image it boots.
    pub fn woken(&self, limit: Duration) -> Result<Console> {
        let console = Console::connect(&self.guest.serial_path(), self.guest.serial_log(), limit)?;
        console.wait_said(AWAKE, 1, limit)?;
        Ok(console)
    }

    fn with_kernel(mut self) -> Self {
        let agent = match self.agent {
            Agent::Real => "real",
            Agent::Liar => "liar",
            Agent::Hasty => "hasty",
            Agent::None => "none",
        };
        let mut command_line = format!("{COMMAND_LINE} lab.agent={agent}");
        if let Some((word, after)) = &self.deed {
            command_line.push_str(&format!(" lab.do={word} lab.after={}", after.as_secs()));
        }
        command_line.push_str(&self.arguments);
        self.guest = self.guest.kernel(Kernel {
            image: self.parts.join("vmlinuz"),
            initramfs: self.initramfs.clone(),
            command_line,
            memory_mib: self.memory_mib,
        });
        self
    }
}

impl Deref for LinuxGuest {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

/// Where `tests/setup.sh` has put the parts: in Cargo's target directory.
fn parts() -> Result<PathBuf> {
    let target = std::env::current_exe().ok().and_then(|program| {
        let profile = program.ancestors().find(|path| path.join(".fingerprint").is_dir())?;
        Some(profile.parent()?.join("lab-linux"))
    });
    target
        .filter(|parts| parts.join("complete").is_file() && parts.join("load-crash-kernel").is_file())
        .ok_or_else(|| Error::Missing {
            program: "target/lab-linux/vmlinuz".into(),
            package: "linux-image-cloud-amd64, which is fetched and not installed",
        })
}
