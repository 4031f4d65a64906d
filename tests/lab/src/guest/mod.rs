//! The 512-byte guest: a whole machine that is up in a quarter of a second and ends in the way it is told to.
//!
//! It has no kernel, no download and needs neither KVM nor root: SeaBIOS loads one boot sector, which then obeys
//! single letters on its serial line ([`Serial`]).
//! It cannot run a guest agent, cannot suspend and prints no panic text.

mod code;
mod qcow2;
mod serial;
mod xml;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use qcow2::empty_qcow2;
pub use serial::Serial;
pub use xml::{OnCrash, OnEnd, WatchdogAction};

use crate::{Error, Result};

/// The boot sector: code, zeros, and the mark by which a BIOS knows it.
pub const BOOT_SECTOR: [u8; 512] = {
    let mut sector = [0; 512];
    let mut at = 0;
    while at < code::CODE.len() {
        sector[at] = code::CODE[at];
        at += 1;
    }
    sector[510] = 0x55;
    sector[511] = 0xaa;
    sector
};

/// Size of the boot disk in bytes, nearly all of it a hole. One megabyte is the least that the BIOS takes for a disk.
const DISK_BYTES: u64 = 1 << 20;

/// Where a written sector lands: BIOS sector 63 of the first track.
pub const WRITTEN_OFFSET: u64 = 62 * 512;

/// The longest path of a serial socket; a UNIX address ends at 107 bytes, and QEMU and libvirt add nothing to it.
const LONGEST_SOCKET_PATH: usize = 100;

/// How the guest's boot disk is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootDisk {
    /// Not writable: [`Serial::write_sector`] answers a BIOS error.
    ReadOnly,
    /// Writable; the text is libvirt's `error_policy` (`stop`, `report`, `ignore`, `enospace`).
    Writable(&'static str),
}

/// A machine to be: its files are in a directory, its XML is for libvirt to define or create.
#[derive(Clone, Debug)]
pub struct Guest {
    directory: PathBuf,
    name: String,
    uuid: String,
    image: PathBuf,
    boot_disk: BootDisk,
    data_disks: Vec<PathBuf>,
    on_poweroff: OnEnd,
    on_reboot: OnEnd,
    on_crash: OnCrash,
    panic_device: bool,
    watchdog: Option<WatchdogAction>,
    device_xml: String,
    domain_xml: String,
    kernel: Option<Kernel>,
}

/// What a machine boots instead of a disk.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    pub(crate) initramfs: PathBuf,
    pub(crate) command_line: String,
    pub(crate) memory_mib: u32,
}

impl Guest {
    /// A guest called `name` with a random UUID, whose image and serial socket lie in `directory`.
    ///
    /// It is destroyed by power off and by panic, restarts on reboot, has a panic device and no watchdog.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] for a name with other characters than letters, digits, `-`, `_` and `.`;
    /// [`Error::PathTooLong`] when the serial socket's path would be; [`Error::Io`] when the image cannot be written.
    pub fn new(directory: impl AsRef<Path>, name: &str) -> Result<Self> {
        let guest = Self::without_disk(directory.as_ref(), name)?;
        write_image(&guest.image)?;
        Ok(guest)
    }

    /// A machine with nothing to boot from yet.
    pub(crate) fn without_disk(directory: &Path, name: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(Error::Invalid {
                what: "the name of a guest",
                expected: "made of letters, digits, '-', '_' and '.'",
                got: name.into(),
            });
        }
        let directory = directory.to_owned();
        let guest = Self {
            image: directory.join(format!("{name}.img")),
            uuid: random_uuid()?,
            directory,
            name: name.into(),
            boot_disk: BootDisk::ReadOnly,
            data_disks: Vec::new(),
            on_poweroff: OnEnd::Destroy,
            on_reboot: OnEnd::Restart,
            on_crash: OnCrash::Destroy,
            panic_device: true,
            watchdog: None,
            device_xml: String::new(),
            domain_xml: String::new(),
            kernel: None,
        };
        let serial = guest.serial_path();
        if serial.as_os_str().len() > LONGEST_SOCKET_PATH {
            return Err(Error::PathTooLong { path: serial, limit: LONGEST_SOCKET_PATH });
        }
        Ok(guest)
    }

    /// Boots this kernel, and has no boot disk.
    pub(crate) fn kernel(mut self, kernel: Kernel) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// With this UUID instead of a random one.
    pub fn uuid(mut self, uuid: &str) -> Self {
        self.uuid = uuid.into();
        self
    }

    /// What libvirt does when the guest powers off.
    pub fn on_poweroff(mut self, action: OnEnd) -> Self {
        self.on_poweroff = action;
        self
    }

    /// What libvirt does when the guest resets itself.
    pub fn on_reboot(mut self, action: OnEnd) -> Self {
        self.on_reboot = action;
        self
    }

    /// What libvirt does when the guest panics; needs the panic device.
    pub fn on_crash(mut self, action: OnCrash) -> Self {
        self.on_crash = action;
        self
    }

    /// With or without the panic device. Without it a panic is invisible.
    pub fn panic_device(mut self, present: bool) -> Self {
        self.panic_device = present;
        self
    }

    /// With an ib700 watchdog and this action; [`Serial::arm_watchdog`] lets it fire.
    pub fn watchdog(mut self, action: WatchdogAction) -> Self {
        self.watchdog = Some(action);
        self
    }

    /// How the boot disk is attached.
    pub fn boot_disk(mut self, how: BootDisk) -> Self {
        self.boot_disk = how;
        self
    }

    /// Boots from the image at `path`, as QEMU sees it; the file must hold [`write_image`]'s content already.
    pub fn image(mut self, path: impl AsRef<Path>) -> Self {
        self.image = path.as_ref().to_owned();
        self
    }

    /// With one more writable raw disk, `vdb` and so on; without a boot disk from `vda` on. The guest itself never
    /// touches it, unless it is told to.
    pub fn data_disk(mut self, path: impl AsRef<Path>) -> Self {
        self.data_disks.push(path.as_ref().to_owned());
        self
    }

    /// With more XML inside `<devices>`; may be called often.
    pub fn device_xml(mut self, xml: &str) -> Self {
        self.device_xml.push_str(xml);
        self
    }

    /// With more XML inside `<domain>`, before the devices; may be called often.
    pub fn domain_xml(mut self, xml: &str) -> Self {
        self.domain_xml.push_str(xml);
        self
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The UUID in its usual text form.
    pub fn uuid_text(&self) -> &str {
        &self.uuid
    }

    /// The boot image.
    pub fn image_path(&self) -> &Path {
        &self.image
    }

    /// The file in which QEMU keeps what the guest said on its serial line; a Linux guest only.
    pub(crate) fn serial_log(&self) -> PathBuf {
        self.directory.join(format!("{}.console", self.name))
    }

    /// Where QEMU listens for the other end of the guest's serial line.
    pub fn serial_path(&self) -> PathBuf {
        self.directory.join(format!("{}.ser", self.name))
    }

    /// The domain's XML as libvirt wants it.
    pub fn xml(&self) -> String {
        xml::of(self)
    }

    /// Writes the XML beside the image and gives its path, for `virsh define` and `virsh create`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the file cannot be written.
    pub fn write_xml(&self) -> Result<PathBuf> {
        let path = self.directory.join(format!("{}.xml", self.name));
        fs::write(&path, self.xml()).map_err(Error::file("write", &path))?;
        Ok(path)
    }

    /// Connects to the running guest and waits until it answers.
    ///
    /// # Errors
    ///
    /// As [`Serial::connect`].
    pub fn serial(&self, limit: Duration) -> Result<Serial> {
        Serial::connect(&self.serial_path(), limit)
    }
}

/// Writes the boot disk at `path`: the boot sector and a hole up to one megabyte.
///
/// # Errors
///
/// [`Error::Io`] when the file cannot be written.
pub fn write_image(path: &Path) -> Result<()> {
    let write = || {
        let file = File::create(path)?;
        file.write_all_at(&BOOT_SECTOR, 0)?;
        file.set_len(DISK_BYTES)
    };
    write().map_err(Error::file("write", path))
}

/// A random UUID from the kernel.
pub(crate) fn random_uuid() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/uuid");
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{lab_dir, run};

    #[test]
    fn the_machine_code_is_what_the_assembler_makes_of_the_source() {
        let directory = lab_dir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("boot.S"), include_str!("boot.S")).unwrap();
        let limit = Duration::from_secs(30);
        run(Command::new("as").arg("--32").arg(at("boot.S")).arg("-o").arg(at("boot.o")), limit).unwrap();
        let link = ["-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary"];
        run(Command::new("ld").args(link).arg(at("boot.o")).arg("-o").arg(at("boot.img")), limit).unwrap();
        assert_eq!(fs::read(at("boot.img")).unwrap(), BOOT_SECTOR);
    }

    #[test]
    fn the_image_is_one_megabyte_and_almost_all_hole() {
        use std::os::unix::fs::MetadataExt;
        let directory = lab_dir().unwrap();
        let path = directory.path().join("x.img");
        write_image(&path).unwrap();
        let image = fs::read(&path).unwrap();
        assert_eq!(image.len(), 1 << 20);
        assert_eq!(image[..512], BOOT_SECTOR);
        assert!(image[512..].iter().all(|byte| *byte == 0));
        assert!(fs::metadata(&path).unwrap().blocks() <= 64, "the file is not sparse");
    }

    #[test]
    fn a_name_that_could_break_the_xml_or_the_path_is_refused() {
        let directory = lab_dir().unwrap();
        for name in ["", "a b", "a/b", "<a>", "a&b", "ä"] {
            assert!(matches!(Guest::new(directory.path(), name), Err(Error::Invalid { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_serial_path_that_would_not_fit_is_refused() {
        let directory = lab_dir().unwrap();
        let answer = Guest::new(directory.path(), &"n".repeat(100));
        assert!(matches!(answer, Err(Error::PathTooLong { .. })));
    }
}
