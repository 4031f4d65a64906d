//! Files that the configuration names, opened with care: whatever lies at a path, opening and reading it must not wait
//! for ever, as a FIFO or a device would have it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a plain file to read it.
///
/// # Errors
/// Those of the system; and if it is no plain file.
pub fn open_plain(path: &Path) -> io::Result<File> {
    open(path, File::options().read(true))
}

/// Opens a plain file to write it, and makes it if it is not there.
///
/// # Errors
/// Those of the system; and if it is no plain file.
pub fn create_plain(path: &Path) -> io::Result<File> {
    open(path, File::options().write(true).create(true).truncate(false))
}

/// Opens a disk's image to read it: a plain file, or a block device.
///
/// # Errors
/// Those of the system; and if it is neither.
pub fn open_image(path: &Path) -> io::Result<File> {
    let is_image = |kind: std::fs::FileType| kind.is_file() || kind.is_block_device();
    let none =
        || io::Error::new(io::ErrorKind::InvalidInput, "it is neither a plain file nor a block device");
    if !is_image(std::fs::metadata(path)?.file_type()) {
        return Err(none());
    }
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("it is one bit");
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if is_image(file.metadata()?.file_type()) { Ok(file) } else { Err(none()) }
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Looked at before, as opening a device may do something, and afterwards, as it may be another by then.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(no_plain_file());
    }
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("it is one bit");
    let file = options.custom_flags(flags).open(path)?;
    let kind = file.metadata()?;
    // A folder fails by itself, with words of the system.
    if kind.is_file() || kind.is_dir() { Ok(file) } else { Err(no_plain_file()) }
}

fn no_plain_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_are_opened_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for path in [fifo.as_path(), Path::new("/dev/zero"), Path::new("/dev/tty")] {
            for opened in [open_plain(path), create_plain(path)] {
                assert_eq!(opened.unwrap_err().to_string(), "it is no plain file", "{}", path.display());
            }
        }
        assert!(open_image(&fifo).is_err() && open_image(Path::new("/dev/zero")).is_err());
        let plain = folder.path().join("plain");
        assert_eq!(open_plain(&plain).unwrap_err().kind(), io::ErrorKind::NotFound);
        create_plain(&plain).unwrap();
        open_plain(&plain).unwrap();
        open_image(&plain).unwrap();
    }
}
