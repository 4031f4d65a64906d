//! The guest's domain XML.

use std::fmt::Write;
use std::path::Path;

use super::{BootDisk, Guest};

/// What libvirt does when a guest powers off or resets (`on_poweroff`, `on_reboot`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEnd {
    /// The domain ends.
    Destroy,
    /// The machine starts again, in the same process.
    Restart,
    /// The domain ends and its resources are kept; QEMU's driver takes it as destroy.
    Preserve,
}

/// What libvirt does when a guest panics (`on_crash`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCrash {
    /// The domain ends.
    Destroy,
    /// The machine starts again, in the same process.
    Restart,
    /// The machine stays stopped, for a look inside.
    Preserve,
    /// As destroy, after a core dump.
    CoredumpDestroy,
    /// As restart, after a core dump.
    CoredumpRestart,
}

/// What the watchdog does when it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchdogAction {
    /// Resets the machine.
    Reset,
    /// Presses the power button.
    Shutdown,
    /// Ends QEMU at once.
    Poweroff,
    /// Stops the machine.
    Pause,
    /// Dumps the machine's memory and lets it run on.
    Dump,
    /// Only reports.
    None,
    /// Sends a non-maskable interrupt.
    InjectNmi,
}

pub(super) fn of(guest: &Guest) -> String {
    let mut devices = String::new();
    if guest.panic_device {
        devices.push_str("<panic model='isa'/>\n");
    }
    if let Some(action) = guest.watchdog {
        let _ = writeln!(devices, "<watchdog model='ib700' action='{}'/>", watchdog(action));
    }
    let mut letters = 'a'..='z';
    if guest.kernel.is_none() {
        letters.next();
        match guest.boot_disk {
            BootDisk::ReadOnly => disk(&mut devices, &guest.image, "vda", "", "<readonly/>"),
            BootDisk::Writable(policy) => {
                disk(&mut devices, &guest.image, "vda", &format!(" error_policy='{policy}'"), "");
            }
        }
    }
    for (path, letter) in guest.data_disks.iter().zip(letters) {
        disk(&mut devices, path, &format!("vd{letter}"), "", "");
    }
    let (memory, boot, log) = match &guest.kernel {
        None => (2, "<boot dev='hd'/>".to_owned(), String::new()),
        Some(kernel) => {
            let boot = format!(
                "<kernel>{}</kernel><initrd>{}</initrd><cmdline>{}</cmdline>",
                escaped(&kernel.image),
                escaped(&kernel.initramfs),
                kernel.command_line.replace('&', "&amp;").replace('<', "&lt;"),
            );
            let log = format!("<log file='{}' append='off'/>", escaped(&guest.serial_log()));
            (kernel.memory_mib, boot, log)
        }
    };
    // Linux reports by its balloon what it uses.
    let balloon = match guest.kernel {
        None => "<memballoon model='none'/>",
        Some(_) => "<memballoon model='virtio'><stats period='1'/></memballoon>",
    };
    format!(
        "<domain type='qemu'>
<name>{name}</name>
<uuid>{uuid}</uuid>
<memory unit='MiB'>{memory}</memory>
<os><type arch='x86_64' machine='pc'>hvm</type>{boot}</os>
<features><acpi/></features>
<on_poweroff>{on_poweroff}</on_poweroff>
<on_reboot>{on_reboot}</on_reboot>
<on_crash>{on_crash}</on_crash>
{domain_xml}<devices>
<controller type='usb' model='none'/>
{balloon}
{devices}<serial type='unix'><source mode='bind' path='{serial}'/>{log}<target port='0'/></serial>
{device_xml}</devices>
</domain>
",
        name = guest.name,
        uuid = guest.uuid,
        on_poweroff = on_end(guest.on_poweroff),
        on_reboot = on_end(guest.on_reboot),
        on_crash = on_crash(guest.on_crash),
        domain_xml = guest.domain_xml,
        serial = escaped(&guest.serial_path()),
        device_xml = guest.device_xml,
    )
}

fn disk(devices: &mut String, path: &Path, target: &str, driver: &str, more: &str) {
    let _ = writeln!(
        devices,
        "<disk type='file' device='disk'><driver name='qemu' type='raw'{driver}/><source file='{}'/>\
         <target dev='{target}' bus='virtio'/>{more}</disk>",
        escaped(path)
    );
}

/// A path as an attribute value in single quotes.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace('&', "&amp;").replace('<', "&lt;").replace('\'', "&apos;")
}

fn on_end(action: OnEnd) -> &'static str {
    match action {
        OnEnd::Destroy => "destroy",
        OnEnd::Restart => "restart",
        OnEnd::Preserve => "preserve",
    }
}

fn on_crash(action: OnCrash) -> &'static str {
    match action {
        OnCrash::Destroy => "destroy",
        OnCrash::Restart => "restart",
        OnCrash::Preserve => "preserve",
        OnCrash::CoredumpDestroy => "coredump-destroy",
        OnCrash::CoredumpRestart => "coredump-restart",
    }
}

fn watchdog(action: WatchdogAction) -> &'static str {
    match action {
        WatchdogAction::Reset => "reset",
        WatchdogAction::Shutdown => "shutdown",
        WatchdogAction::Poweroff => "poweroff",
        WatchdogAction::Pause => "pause",
        WatchdogAction::Dump => "dump",
        WatchdogAction::None => "none",
        WatchdogAction::InjectNmi => "inject-nmi",
    }
}
