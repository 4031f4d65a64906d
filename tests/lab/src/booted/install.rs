//! The disk of a host: what Debian's installer, its packages and whydown's manual would have left there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::run;
use crate::embed::QEMU_AS_ROOT;
use crate::guest::random_uuid;
use crate::{Error, Result, cache};

const LIBVIRTD_CONF: &str = "auth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\n";

/// Kept for whoever reads why a test failed; the kernel's log is the machine's.
const JOURNALD_CONF: &str = "[Journal]\nStorage=persistent\nReadKMsg=no\nAudit=no\nRateLimitBurst=0\n";

/// libvirtd holds every shutdown up by five seconds while guests run, whoever shuts them down.
const LOGIND_CONF: &str = "[Login]\nInhibitDelayMaxSec=1s\n";

/// A service with a view of its own gets a /proc of its own, and there the machine's boot id.
const BOOT_ID: &str = "[Service]\nBindReadOnlyPaths=/run/boot-id:/proc/sys/kernel/random/boot_id\n";

/// What the installation of packages enables: the link and its unit.
const ENABLED: [(&str, &str); 6] = [
    ("multi-user.target.wants", "libvirtd.service"),
    ("multi-user.target.wants", "libvirt-guests.service"),
    ("sockets.target.wants", "libvirtd.socket"),
    ("sockets.target.wants", "libvirtd-ro.socket"),
    ("sockets.target.wants", "virtlogd.socket"),
    ("sockets.target.wants", "virtlockd.socket"),
];

/// What a first boot does once, and takes seconds for.
const MASKED: [&str; 4] = [
    "ldconfig.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-firstboot.service",
];

/// Where `tests/setup.sh` has unpacked the packages: in Cargo's target directory.
pub(super) fn packages() -> Result<PathBuf> {
    let target = std::env::current_exe().ok().and_then(|program| {
        let profile = program.ancestors().find(|path| path.join(".fingerprint").is_dir())?;
        Some(profile.parent()?.join("lab-host"))
    });
    target.filter(|parts| parts.join("complete").is_file()).ok_or_else(|| Error::Missing {
        program: "target/lab-host/usr/lib/systemd/systemd-machined".into(),
        package: "libvirt-daemon-system-systemd and systemd-container, which are fetched and not installed",
    })
}

/// Writes a file; folders above it are made.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    make(path.parent().unwrap_or(path))?;
    fs::write(path, text).map_err(Error::file("write", path))
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::file("make", folder))
}

fn link(target: &str, at: &Path) -> Result<()> {
    make(at.parent().unwrap_or(at))?;
    symlink(target, at).map_err(Error::file("link", at))
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::file("change", path))
}

/// Lays a host down in `folder`.
pub(super) fn host(folder: &Path, packages: &Path, systemd: &Path) -> Result<()> {
    let root = folder.join("root");
    for part in
        ["boot", "dev", "etc", "home", "mnt", "opt", "proc", "root", "run", "srv", "sys", "tmp", "usr"]
    {
        make(&root.join(part))?;
    }
    for part in ["cache", "lib/libvirt", "lib/systemd", "log/journal", "log/libvirt/qemu", "spool", "tmp"] {
        make(&root.join("var").join(part))?;
    }
    make(&folder.join("guests"))?;
    mode(&root.join("tmp"), 0o1777)?;
    mode(&root.join("var/tmp"), 0o1777)?;
    // Services of other users pass through.
    mode(folder, 0o755)?;
    link("/run", &root.join("var/run"))?;
    link("/run/lock", &root.join("var/lock"))?;
    for merged in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        let machine = Path::new("/").join(merged);
        match fs::read_link(&machine) {
            Ok(target) => link(&target.to_string_lossy(), &root.join(merged))?,
            Err(_) if !machine.exists() => {}
            Err(_) => {
                let path = machine.display().to_string();
                return Err(Error::Invalid {
                    what: "the machine",
                    expected: "one whose /lib is in /usr",
                    got: path,
                });
            }
        }
    }
    etc(&root.join("etc"), packages)?;
    cache::fill(&root.join("var/cache/libvirt"));
    whydown(&folder.join("usr"), systemd)
}

fn etc(etc: &Path, packages: &Path) -> Result<()> {
    let mut copy = Command::new("cp");
    copy.args([
        "-a",
        "/etc/passwd",
        "/etc/group",
        "/etc/ld.so.cache",
        "/etc/alternatives",
        "/etc/login.defs",
    ]);
    copy.arg(packages.join("etc/libvirt")).arg(etc);
    run(&mut copy, Duration::from_secs(30))?;
    let group = fs::read_to_string(etc.join("group")).map_err(Error::file("read", etc))?;
    for (name, line) in [("libvirt", "libvirt:x:64056:\n"), ("kvm", "kvm:x:64057:\n")] {
        if !group.lines().any(|known| known.starts_with(&format!("{name}:"))) {
            let text = fs::read_to_string(etc.join("group")).map_err(Error::file("read", etc))?;
            write(&etc.join("group"), &format!("{text}{line}"))?;
        }
    }
    let id = random_uuid()?.replace('-', "");
    for (name, text) in [
        ("machine-id", &*format!("{id}\n")),
        ("hostname", "lab-host\n"),
        ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files\n"),
        ("hosts", "127.0.0.1 localhost\n127.0.1.1 lab-host\n"),
        ("fstab", ""),
        // All else as Debian has it, control groups and virtlogd among it.
        ("libvirt/qemu.conf", QEMU_AS_ROOT),
        ("libvirt/libvirtd.conf", LIBVIRTD_CONF),
        ("systemd/journald.conf.d/lab.conf", JOURNALD_CONF),
        ("systemd/logind.conf.d/lab.conf", LOGIND_CONF),
        ("systemd/system/whydown.service.d/boot-id.conf", BOOT_ID),
        // Debian empties /tmp at boot, and the guests' files are below it.
        ("tmpfiles.d/tmp.conf", ""),
    ] {
        write(&etc.join(name), text)?;
    }
    let system = etc.join("systemd/system");
    link("/lib/systemd/system/multi-user.target", &system.join("default.target"))?;
    for (wants, unit) in ENABLED {
        link(&format!("/lib/systemd/system/{unit}"), &system.join(wants).join(unit))?;
    }
    for unit in MASKED {
        link("/dev/null", &system.join(unit))?;
    }
    Ok(())
}

/// As the manual has it, but that the programs are bound into `bin`, and that units stand where a package has them.
fn whydown(usr: &Path, systemd: &Path) -> Result<()> {
    for program in ["bin/whydownd", "bin/whydown"] {
        write(&usr.join(program), "")?;
        mode(&usr.join(program), 0o755)?;
    }
    for (from, to) in [
        ("whydown.service", "lib/systemd/system/whydown.service"),
        ("whydown.sysusers", "lib/sysusers.d/whydown.conf"),
        ("whydown.tmpfiles", "lib/tmpfiles.d/whydown.conf"),
    ] {
        let from = systemd.join(from);
        let text = fs::read_to_string(&from).map_err(Error::file("read", &from))?;
        write(&usr.join(to), &text)?;
    }
    Ok(())
}
