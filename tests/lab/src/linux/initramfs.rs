//! The Linux guest's files, in the archive that the kernel unpacks: cpio in its `newc` form.

use std::fs;
use std::path::Path;

use crate::{Error, Result};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// Directories that must be there, each behind the one that holds it.
const DIRECTORIES: [&str; 15] = [
    "bin",
    "sbin",
    "lib",
    "lib64",
    "etc",
    "etc/acpi",
    "etc/acpi/PWRF",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "var",
    "modules",
    "root",
];

/// What the agent tells of the system.
const OS_RELEASE: &str = "ID=debian\nNAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n\
                          VERSION=\"12 (bookworm)\"\nVERSION_ID=\"12\"\n";

/// Writes the archive at `path`, from the `parts` that were fetched.
pub(super) fn write(path: &Path, parts: &Path, name: &str) -> Result<()> {
    let mut archive = Archive::default();
    for directory in DIRECTORIES {
        archive.add(directory, DIRECTORY, &[]);
    }
    archive.add("init", PROGRAM, include_bytes!("init.sh"));
    archive.add("sbin/shutdown", PROGRAM, include_bytes!("shutdown.sh"));
    archive.add("bin/liar", PROGRAM, include_bytes!("liar.sh"));
    archive.add("bin/hasty", PROGRAM, include_bytes!("hasty.sh"));
    archive.add("bin/busybox", PROGRAM, &read(&parts.join("busybox"))?);
    archive.add("bin/sh", LINK, b"busybox");
    archive.add("sbin/load-crash-kernel", PROGRAM, &read(&parts.join("load-crash-kernel"))?);
    archive.add("sbin/qemu-ga", PROGRAM, &read(&parts.join("qemu-ga"))?);
    for (file, bytes) in all(&parts.join("lib"))? {
        // The loader's path is in every program.
        let place = if file.starts_with("ld-linux") { "lib64" } else { "lib" };
        archive.add(&format!("{place}/{file}"), PROGRAM, &bytes);
    }
    for (file, bytes) in all(&parts.join("modules"))? {
        archive.add(&format!("modules/{file}"), FILE, &bytes);
    }
    archive.add("etc/acpi/PWRF/00000080", PROGRAM, b"#!/bin/sh\nsync\npoweroff -f\n");
    archive.add("etc/hostname", FILE, format!("{name}.guests.example\n").as_bytes());
    archive.add("etc/os-release", FILE, OS_RELEASE.as_bytes());
    archive.add("etc/passwd", FILE, b"root:x:0:0:root:/root:/bin/sh\n");
    archive.add("etc/utmp", FILE, &login_record("alice"));
    archive.add("var/run", LINK, b"/run");
    fs::write(path, archive.end()).map_err(Error::file("write", path))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::file("read", path))
}

/// All files of a directory, by name.
fn all(directory: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let entries = fs::read_dir(directory).map_err(Error::file("read", directory))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("read", directory))?;
        files.push((entry.file_name().to_string_lossy().into_owned(), read(&entry.path())?));
    }
    files.sort_unstable();
    Ok(files)
}

/// A record of `utmp` (glibc's on x86_64): `user` logged in at 2023-11-14 22:13:20 UTC.
fn login_record(user: &str) -> Vec<u8> {
    const USER_PROCESS: u8 = 7;
    let mut record = vec![0; 384];
    record[0] = USER_PROCESS;
    record[8..13].copy_from_slice(b"ttyS0");
    record[44..44 + user.len()].copy_from_slice(user.as_bytes());
    record[340..344].copy_from_slice(&1_700_000_000u32.to_le_bytes());
    record
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let numbers =
            [self.entries, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
