//! systemd's word by `systemctl`, for hosts whose bus is not heard. It costs some milliseconds of processor time each.
//!
//! systemd's own word counts, and a shutdown that was scheduled and whose time has come.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use whydown_core::time::Wall;

use super::{ANSWER_WAIT, SYSTEMD};

/// How far in the future a scheduled shutdown counts as begun.
const SCHEDULE_SLACK: Duration = Duration::from_secs(5);

/// Bytes of systemd's answer, and of its schedule, that are read. Both are a few words.
const ANSWER_BYTES: u64 = 1024;

/// systemd's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The host is going down, and who says so, in words for an administrator.
    Down(String),
    /// It is not, and in which state it is.
    Up(String),
    /// There is no systemd, or it does not answer.
    Nothing,
}

/// States of a host that does not go down, in systemd's words. `offline` and `unknown` are none of systemd's own.
const UP: [&str; 5] = ["initializing", "starting", "running", "degraded", "maintenance"];

/// Whether the host is going down. Takes up to [`ANSWER_WAIT`], and runs `systemctl`, which changes nothing.
pub fn ask(now: Wall) -> Said {
    Host { run: "/run/systemd".into(), systemctl: vec!["/usr/bin/systemctl".into(), "/bin/systemctl".into()] }
        .ask(now, ANSWER_WAIT)
}

/// In words for an administrator.
pub(super) fn up(state: &str) -> String {
    format!("systemd says that it is {state}")
}

/// Where systemd is found.
struct Host {
    run: PathBuf,
    systemctl: Vec<PathBuf>,
}

impl Host {
    fn ask(&self, now: Wall, wait: Duration) -> Said {
        // systemd makes this folder where it is the init of the host (sd_booted(3)).
        if !self.run.join("system").is_dir() {
            return Said::Nothing;
        }
        let systemctl = self.systemctl.iter().find(|path| path.is_file());
        let state = systemctl.and_then(|path| state(path, wait).ok());
        if state.as_deref() == Some("stopping") {
            return Said::Down(SYSTEMD.into());
        }
        match (self.scheduled(now), state) {
            (Some(mode), _) => Said::Down(format!("a scheduled {mode} is due")),
            (None, Some(state)) if UP.contains(&state.as_str()) => Said::Up(up(&state)),
            (None, _) => Said::Nothing,
        }
    }

    /// What was scheduled for a moment that has come: `poweroff`, `reboot`, `halt` or `kexec`.
    fn scheduled(&self, now: Wall) -> Option<String> {
        let mut text = String::new();
        std::fs::File::open(self.run.join("shutdown/scheduled"))
            .and_then(|file| file.take(ANSWER_BYTES).read_to_string(&mut text))
            .ok()?;
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let micros: i64 = value("USEC")?.parse().ok()?;
        // Among the others is a rehearsal that only warns the users: `dry-poweroff` (`shutdown -k`).
        let mode = value("MODE").filter(|mode| ["poweroff", "reboot", "halt", "kexec"].contains(mode))?;
        (Wall(micros.checked_mul(1000)?) <= now.after(SCHEDULE_SLACK)).then(|| mode.into())
    }
}

/// The first word of `systemctl is-system-running`. Its exit status says the same less well.
fn state(systemctl: &Path, wait: Duration) -> io::Result<String> {
    let child = Command::new(systemctl)
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut child = Reaped(child);
    let Some(mut answers) = child.0.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let deadline = Instant::now() + wait;
    let mut answer = Vec::new();
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES as usize {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(&answers, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let mut some = [0; 64];
        match answers.read(&mut some)? {
            0 => break,
            length => answer.extend_from_slice(&some[..length]),
        }
    }
    let first = answer.split(|b| b.is_ascii_whitespace()).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(first).into_owned())
}

/// A child that is ended with us, however we end.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    const NOW: Wall = Wall::from_millis(1_000_000);

    /// A host whose `systemctl` is this shell script.
    fn host(script: &str) -> (TempDir, Host) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("run/system")).unwrap();
        fs::create_dir_all(folder.path().join("run/shutdown")).unwrap();
        let systemctl = folder.path().join("systemctl");
        fs::write(&systemctl, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        let host =
            Host { run: folder.path().join("run"), systemctl: vec!["/nowhere/systemctl".into(), systemctl] };
        (folder, host)
    }

    #[test]
    fn only_systemds_word_that_it_is_stopping_counts() {
        let wait = Duration::from_secs(20);
        for (script, down) in [
            ("[ $1 = is-system-running ] && echo stopping; exit 1", true),
            ("printf stopping", true),
            ("echo running", false),
            ("echo degraded; exit 1", false),
            ("echo starting stopping", false),
            ("echo 'not stopping'", false),
            ("echo offline; exit 1", false),
            ("exit 1", false),
            ("echo stopping >&2", false),
            ("head -c 100000 /dev/zero", false),
        ] {
            let (_folder, host) = host(script);
            let said = host.ask(NOW, wait);
            assert_eq!(matches!(said, Said::Down(_)), down, "{script}: {said:?}");
            let up = ["echo running", "echo degraded", "echo starting"]
                .iter()
                .any(|said| script.starts_with(said));
            assert_eq!(matches!(said, Said::Up(_)), up, "{script}: {said:?}");
        }
    }

    #[test]
    fn a_systemd_that_does_not_answer_is_not_waited_for() {
        let (folder, host) = host("echo $$ > $0.pid; exec sleep 1000");
        let begun = Instant::now();
        assert_eq!(host.ask(NOW, Duration::from_secs(2)), Said::Nothing);
        assert!(begun.elapsed() < Duration::from_secs(60));
        let pid = fs::read_to_string(folder.path().join("systemctl.pid")).unwrap();
        assert_eq!(crate::process::identify(pid.trim().parse().unwrap()), None, "nothing is left running");
    }

    #[test]
    fn a_scheduled_shutdown_counts_when_its_time_has_come() {
        let micros = NOW.0 / 1000;
        for (schedule, down) in [
            (format!("USEC={micros}\nWARN_WALL=1\nMODE=poweroff\n"), true),
            (format!("USEC={}\nMODE=reboot\n", micros - 1_000_000), true),
            (format!("USEC={}\nMODE=reboot\n", micros + 60_000_000), false),
            (format!("USEC={micros}\nMODE=dry-poweroff\n"), false),
            (format!("USEC={micros}\n"), false),
            ("USEC=99999999999999999999\nMODE=reboot\n".into(), false),
            (format!("USEC={}\nMODE=reboot\n", i64::MAX), false),
            ("\0\0".into(), false),
        ] {
            let (_folder, host) = host("echo running");
            fs::write(host.run.join("shutdown/scheduled"), &schedule).unwrap();
            let said = host.ask(NOW, Duration::from_secs(20));
            assert_eq!(matches!(said, Said::Down(_)), down, "{schedule}: {said:?}");
        }
    }

    #[test]
    fn without_systemd_nothing_is_said() {
        let (_folder, host) = host("echo stopping");
        fs::remove_dir(host.run.join("system")).unwrap();
        assert_eq!(host.ask(NOW, Duration::from_secs(20)), Said::Nothing);
    }

    #[test]
    fn the_host_of_this_test_is_not_going_down() {
        assert!(!matches!(ask(Wall(0)), Said::Down(_)));
    }
}
