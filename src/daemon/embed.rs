//! The folder of libvirt's embedded QEMU driver: what must be there before it is opened.

use std::io::{ErrorKind, Write};
use std::path::Path;

/// As root the driver wants a log daemon unless it is told otherwise, and would drop privileges and take over the
/// ownership of disks as a system's libvirtd does. This is for a small host that has neither.
const QEMU_CONF: &str = "\
# Written by whydownd, as there was none. See libvirt's qemu.conf.
# There is no virtlogd beside an embedded driver.
stdio_handler = \"file\"
";

/// Makes the folder, and a `qemu.conf` in it if there is none.
///
/// # Errors
/// What the file system says.
pub fn prepare(root: &Path) -> std::io::Result<()> {
    let folder = root.join("etc");
    std::fs::create_dir_all(&folder)?;
    match std::fs::File::create_new(folder.join("qemu.conf")) {
        Ok(mut file) => file.write_all(QEMU_CONF.as_bytes()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_is_made_and_what_is_there_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/b");
        prepare(&root).unwrap();
        let file = root.join("etc/qemu.conf");
        assert!(std::fs::read_to_string(&file).unwrap().contains("stdio_handler = \"file\""));
        std::fs::write(&file, "mine").unwrap();
        prepare(&root).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }
}
