//! Orphans: whether they are reaped here, and a supervisor that reaps them and writes down how each one ended.
//!
//! QEMU is a daemon: its parent becomes pid 1 or the nearest subreaper.
//! libvirt takes it for alive until that parent has reaped it.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, WaitOptions, WaitStatus, getpid, set_child_subreaper, wait};

use crate::command::{run, spawn};
use crate::wait::wait_for;
use crate::{Error, Result};

/// The longest that an orphan may stay a zombie. A lazy init (1 to 2 s were measured) only makes the tests slower;
/// one that never reaps makes each stop of a machine take 40 s.
const LONGEST_ZOMBIE: Duration = Duration::from_secs(6);

/// Makes sure, once per process, that ended orphans are reaped in this environment.
///
/// # Errors
///
/// [`Error::NotReaped`] with the advice to run under `tini -s`.
pub fn require_reaper() -> Result<()> {
    static SEEN: OnceLock<std::result::Result<(), (Duration, u32)>> = OnceLock::new();
    if let Some(seen) = SEEN.get() {
        return seen.map_err(|(waited, parent)| Error::NotReaped { waited, parent });
    }
    let seen = match orphan_is_reaped(LONGEST_ZOMBIE) {
        Ok(()) => Ok(()),
        Err(Error::NotReaped { waited, parent }) => Err((waited, parent)),
        Err(other) => return Err(other),
    };
    SEEN.get_or_init(|| seen).map_err(|(waited, parent)| Error::NotReaped { waited, parent })
}

/// Makes an orphan that ends at once and waits until it is no longer listed.
fn orphan_is_reaped(limit: Duration) -> Result<()> {
    // The shell ends at once; its child outlives it a little and so is nobody's child but init's.
    // Its output is closed, for otherwise `run` would wait for it.
    let script = "sleep 0.1 <&- >/dev/null 2>&1 & echo $!";
    let output = run(Command::new("sh").args(["-c", script]), Duration::from_secs(10))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let pid: u32 = text.parse().map_err(|_| Error::Invalid {
        what: "the shell's answer",
        expected: "a process id",
        got: text,
    })?;
    let listed = format!("/proc/{pid}");
    match wait_for("", limit, || (!Path::new(&listed).exists()).then_some(())) {
        Ok(()) => Ok(()),
        Err(_) => Err(Error::NotReaped { waited: limit, parent: parent_of(pid).unwrap_or(0) }),
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Runs `command` as the nearest subreaper of all that it starts, and appends to `log` one line per ended process:
///
/// ```text
/// 1700000000.123 pid 4711 exit 0
/// 1700000000.456 pid 4712 signal 9
/// 1700000000.789 pid 4700 exit 0 (main)
/// ```
///
/// Returns when no process is left, with the exit code that a shell would give for `command` (128 + signal).
/// This process must have no other children. The binary `lab-reaper` is nothing but this function.
///
/// # Errors
///
/// [`Error::Io`] when the log is not writable, [`Error::Missing`] or [`Error::Io`] when the command cannot start.
pub fn supervise(log: &Path, program: &OsStr, arguments: &[impl AsRef<OsStr>]) -> Result<u8> {
    let mut log_file =
        OpenOptions::new().append(true).create(true).open(log).map_err(Error::file("open", log))?;
    set_child_subreaper(Some(getpid())).map_err(|error| Error::io("become a subreaper", error.into()))?;
    let main = spawn(Command::new(program).args(arguments).stdin(Stdio::inherit()))?.id();
    let mut code = 0;
    loop {
        let (pid, status) = match wait(WaitOptions::empty()) {
            Ok(Some(ended)) => ended,
            Ok(None) | Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CHILD) => return Ok(code),
            Err(error) => return Err(Error::io("wait for children", error.into())),
        };
        let is_main = u32::try_from(pid.as_raw_nonzero().get()) == Ok(main);
        if is_main {
            code = shell_code(status);
        }
        let line = line(pid, status, is_main);
        log_file.write_all(line.as_bytes()).map_err(Error::file("write", log))?;
    }
}

fn line(pid: Pid, status: WaitStatus, is_main: bool) -> String {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (how, number) = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ("exit", code),
        (None, Some(signal)) => ("signal", signal),
        (None, None) => ("status", status.as_raw()),
    };
    let mark = if is_main { " (main)" } else { "" };
    format!("{}.{:03} pid {} {how} {number}{mark}\n", at.as_secs(), at.subsec_millis(), pid.as_raw_nonzero())
}

fn shell_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or(status.terminating_signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_environment_reaps_orphans() {
        require_reaper().unwrap();
    }

    #[test]
    fn the_parent_of_a_process_is_read_from_its_status() {
        assert_eq!(parent_of(std::process::id()), Some(std::os::unix::process::parent_id()));
        assert_eq!(parent_of(u32::MAX), None);
    }
}
