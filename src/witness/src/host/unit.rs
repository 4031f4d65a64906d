//! In which units of systemd a process runs, from its control group.

use whydown_core::evidence::tame;

use crate::process::read_start;

/// Bytes of `/proc/PID/cgroup`.
const CGROUP_BYTES: u64 = 16 * 1024;

/// The units that end a process when they are stopped, and are never stopped for a restart of something that leaves it
/// alone: scopes, such as a machine's or a login's, and the manager of a user.
pub fn units_of(pid: u32) -> Vec<String> {
    let text = read_start(&format!("/proc/{pid}/cgroup"), CGROUP_BYTES).unwrap_or_default();
    units_in(&String::from_utf8_lossy(&text))
}

/// The unit in which a process runs, the innermost one; `None` if it is gone, or in none.
pub fn unit_of(pid: u32) -> Option<String> {
    let text = read_start(&format!("/proc/{pid}/cgroup"), CGROUP_BYTES).ok()?;
    unit_in(&String::from_utf8_lossy(&text))
}

/// systemd's own hierarchy says it: the only one of version 2, or that of its name.
fn unit_in(text: &str) -> Option<String> {
    const KINDS: [&str; 5] = [".service", ".scope", ".mount", ".socket", ".swap"];
    let path = text.lines().find_map(|line| match line.splitn(3, ':').collect::<Vec<_>>()[..] {
        [_, "" | "name=systemd", path] => Some(path).filter(|path| path.len() > 1),
        _ => None,
    })?;
    let is_unit = |part: &&str| KINDS.iter().any(|kind| part.len() > kind.len() && part.ends_with(kind));
    path.rsplit('/').find(is_unit).map(tame)
}

/// `0::/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator`: each part of the path that is such a unit.
fn units_in(text: &str) -> Vec<String> {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut units: Vec<String> = paths
        .flat_map(|path| path.split('/'))
        .filter(|part| part.ends_with(".scope") || part.starts_with("user@") && part.ends_with(".service"))
        .map(tame)
        .collect();
    units.sort();
    units.dedup();
    units
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_and_managers_of_users_end_what_is_in_them() {
        for (text, units) in [
            (
                "0::/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator\n",
                &["machine-qemu\\x2d1\\x2dvm.scope"][..],
            ),
            (
                "12:pids:/user.slice\n1:name=systemd:/user.slice/user-1000.slice/user@1000.service/app.slice/vm.scope\n",
                &["user@1000.service", "vm.scope"],
            ),
            ("0::/system.slice/libvirtd.service\n", &[]),
            ("0::/\n", &[]),
            ("", &[]),
            ("x", &[]),
        ] {
            assert_eq!(units_in(text), units, "{text}");
        }
        for (text, unit) in [
            ("0::/system.slice/cron.service\n", Some("cron.service")),
            ("0::/user.slice/user-0.slice/session-3.scope\n", Some("session-3.scope")),
            (
                "0::/user.slice/user-1.slice/user@1.service/app.slice/backup.service/sub\n",
                Some("backup.service"),
            ),
            ("9:pids:/x.service\n1:name=systemd:/system.slice/ssh.service\n0::/\n", Some("ssh.service")),
            ("9:pids:/x.service\n0::/\n", None),
            ("0::/kubepods/pod1/.service\n", None),
            ("", None),
        ] {
            assert_eq!(unit_in(text).as_deref(), unit, "{text}");
        }
        assert!(!units_of(std::process::id()).iter().any(String::is_empty));
    }
}
