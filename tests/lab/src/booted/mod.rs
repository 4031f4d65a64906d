//! A whole host: Debian's systemd as the first process of namespaces of its own, libvirtd and libvirt-guests as its
//! services, and whydown installed as its manual says.
//!
//! It shares the machine's `/usr`, over which libvirt's units and systemd-machined are laid (`tests/setup.sh` has
//! unpacked them), and nothing else. Its disk is a folder that stays from boot to boot:
//!
//! ```text
//! DIR/root     /                    etc, var and whatever else it writes
//! DIR/usr      /usr, on top         whydown's units
//! DIR/guests   DIR/guests           images and serial lines, under the same name inside
//! DIR/boot-id  /proc/sys/kernel/random/boot_id
//! DIR/console                       what is said before there is a journal
//! ```
//!
//! Its control groups are those of version 2 alone, whatever the machine has. The pids in it are its own, which the
//! kernel's traces and process events do not know: what whydown hears through them cannot be heard here.
//! Nothing of the machine is changed, but that journald says a line or two in the kernel's log. All of it ends with its
//! first process.

mod install;

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::command::{collect, run, spawn, wait_child};
use crate::guard::Guard;
use crate::guest::random_uuid;
use crate::libvirtd::may_mount;
use crate::wait::{try_wait_for, wait_for};
use crate::{Error, Guest, Result};

const OUTER: &str = include_str!("outer.sh");
const BEGIN: &str = include_str!("begin.sh");
const BECOME: &str = include_str!("become.sh");

/// How long a boot may take. It takes seconds.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// How long a shutdown may take: longer than systemd waits for a service.
const OFF_LIMIT: Duration = Duration::from_secs(150);

/// How long one command in it may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// How a host goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoDown {
    /// `systemctl poweroff`.
    PowerOff,
    /// `systemctl reboot`; it is booted again by the next [`BootedHost::boot`] all the same.
    Reboot,
    /// `systemctl halt`.
    Halt,
    /// SIGRTMIN+4 to its first process, as container managers do.
    Signal,
}

/// A host, on or off. On drop everything of it is gone but its folder.
#[derive(Debug)]
pub struct BootedHost {
    folder: PathBuf,
    packages: PathBuf,
    programs: [PathBuf; 2],
    outer: Option<Child>,
    _guard: Guard,
}

impl BootedHost {
    /// A host in `folder`, which must exist and have a short path, with these programs and the files of whydown's folder
    /// `systemd`. It is off.
    ///
    /// # Errors
    ///
    /// [`Error::NotRoot`] without the rights that namespaces need; [`Error::Missing`] where a package is missing;
    /// [`Error::Io`].
    pub fn install(folder: &Path, whydownd: &Path, whydown: &Path, systemd: &Path) -> Result<Self> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() || !may_mount() {
            return Err(Error::NotRoot { uid: uid.as_raw() });
        }
        let packages = install::packages()?;
        install::host(folder, &packages, systemd)?;
        let guard = Guard::new(folder, true)?;
        let programs = [whydownd.to_owned(), whydown.to_owned()];
        Ok(Self { folder: folder.to_owned(), packages, programs, outer: None, _guard: guard })
    }

    /// Boots, with a new boot id, and waits until systemd says that it is up. Services may have failed.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] or [`Error::TimedOut`] with what it said.
    pub fn boot(&mut self) -> Result<()> {
        assert!(self.outer.is_none(), "it is on");
        self.write("boot-id", &format!("{}\n", random_uuid()?))?;
        let pid_file = self.folder.join("main.pid");
        let _ = fs::remove_file(&pid_file);
        let console = self.folder.join("console");
        let console = File::options()
            .append(true)
            .create(true)
            .open(&console)
            .map_err(Error::file("open", &console))?;
        let errors = console.try_clone().map_err(|source| Error::io("open the console again", source))?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", OUTER, "lab-host"])
            .arg(&self.folder)
            .args([BEGIN, BECOME])
            .arg(&self.packages)
            .args(&self.programs)
            .stdin(Stdio::null())
            .stdout(console)
            .stderr(errors);
        self.outer = Some(spawn(&mut command)?);
        let mut seen = String::new();
        let booted = try_wait_for("the boot of the host", BOOT_LIMIT, || {
            if let Some(status) = self.ended()? {
                let log = self.said();
                return Err(Error::Ended { what: "the host".into(), status, during: "booting".into(), log });
            }
            let Ok(answer) = self.try_run(&["systemctl", "is-system-running"]) else { return Ok(None) };
            seen = String::from_utf8_lossy(&answer.stdout).trim().to_owned();
            Ok(["running", "degraded"].contains(&&*seen).then_some(()))
        });
        booted.map_err(|error| match error {
            Error::TimedOut { what, limit, .. } => {
                Error::TimedOut { what, limit, seen: format!("systemd: {seen}; {}", self.said()) }
            }
            other => other,
        })
    }

    /// The first process, as the machine counts.
    fn init(&self) -> Result<Pid> {
        let path = self.folder.join("main.pid");
        let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        pid.filter(|_| self.outer.is_some()).ok_or(Error::Invalid {
            what: "the first process of the host",
            expected: "a process id of a host that is on",
            got: text,
        })
    }

    /// How it has ended, if it has.
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let Some(outer) = &mut self.outer else { return Ok(Some(ExitStatus::from_raw(0))) };
        let ended = outer.try_wait().map_err(|source| Error::io("wait for the host", source))?;
        if ended.is_some() {
            self.outer = None;
        }
        Ok(ended)
    }

    /// Runs a command in it, as root; fails when it does.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with its words; [`Error::TimedOut`].
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let output = run(&mut self.inside(command)?, COMMAND_LIMIT)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The same whatever its exit status.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`]; [`Error::Invalid`] where it is off.
    pub fn try_run(&self, command: &[&str]) -> Result<Output> {
        collect(&mut self.inside(command)?, COMMAND_LIMIT)
    }

    fn inside(&self, command: &[&str]) -> Result<Command> {
        let mut nsenter = Command::new("nsenter");
        nsenter
            .arg("--target")
            .arg(self.init()?.as_raw_nonzero().to_string())
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd=/", "--"])
            .args(["/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin", "LC_ALL=C"])
            .args(command);
        Ok(nsenter)
    }

    /// A place of the host, as the machine names it; the same whether it is on or off. Not for `/run`, which is gone with
    /// each boot, and not for what is mounted.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.join("root").join(inside.trim_start_matches('/'))
    }

    /// A place of the host while it is on, `/run` among them.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] where it is off.
    pub fn live_path(&self, inside: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root{inside}", self.init()?.as_raw_nonzero())))
    }

    /// Writes a file of the host; folders above it are made.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn write_inside(&self, inside: &str, text: &str) -> Result<()> {
        self.write(&format!("root/{}", inside.trim_start_matches('/')), text)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        install::write(&self.folder.join(name), text)
    }

    /// A guest whose files are in the host, not yet known to it.
    ///
    /// # Errors
    ///
    /// As [`Guest::new`].
    pub fn guest(&self, name: &str) -> Result<Guest> {
        Guest::new(self.folder.join("guests"), name)
    }

    /// Has it go down, and waits until it has.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] with the end of its journal.
    pub fn go_down(&mut self, how: GoDown) -> Result<()> {
        match how {
            GoDown::PowerOff | GoDown::Reboot | GoDown::Halt => {
                let verb = match how {
                    GoDown::PowerOff => "poweroff",
                    GoDown::Reboot => "reboot",
                    _ => "halt",
                };
                // It answers before the end or is ended with the host: only the end counts.
                let _ = self.try_run(&["systemctl", verb]);
            }
            GoDown::Signal => drop(self.run(&["kill", "-s", "RTMIN+4", "1"])?),
        }
        self.wait_off()
    }

    fn wait_off(&mut self) -> Result<()> {
        let Some(outer) = &mut self.outer else { return Ok(()) };
        let ended = wait_child(outer, "the end of the host", OFF_LIMIT);
        match ended {
            Ok(_) => {
                self.outer = None;
                Ok(())
            }
            Err(Error::TimedOut { what, limit, .. }) => {
                Err(Error::TimedOut { what, limit, seen: self.said() })
            }
            Err(other) => Err(other),
        }
    }

    /// Cuts its power: everything in it is gone at once, and nothing says goodbye.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`].
    pub fn cut_power(&mut self) -> Result<()> {
        kill_process(self.init()?, Signal::KILL).map_err(|error| Error::io("kill the host", error.into()))?;
        self.wait_off()
    }

    /// What it has said, for a failure: the end of its console and of its journal.
    pub fn said(&self) -> String {
        let console = crate::daemon::tail_of(&self.folder.join("console"));
        format!("its console:\n{console}\nits journal:\n{}", self.journal(60))
    }

    /// The last lines of its journal over all boots.
    pub fn journal(&self, lines: usize) -> String {
        let mut command = Command::new("journalctl");
        command.arg("--directory").arg(self.path("/var/log/journal"));
        command.args(["--no-pager", "--quiet", "--output=short-precise", &format!("--lines={lines}")]);
        match collect(&mut command, COMMAND_LIMIT) {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for BootedHost {
    fn drop(&mut self) {
        let Some(mut outer) = self.outer.take() else { return };
        // The first process takes all others with it; without one the namespaces were never made.
        let named = wait_for("", Duration::from_secs(5), || {
            let ended = outer.try_wait().is_ok_and(|status| status.is_some());
            (ended || self.folder.join("main.pid").is_file()).then_some(())
        });
        let pid = fs::read_to_string(self.folder.join("main.pid"));
        let pid = pid.ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        if let (Ok(()), Some(pid), Ok(None)) = (named, pid, outer.try_wait()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if wait_child(&mut outer, "the end of the host", Duration::from_secs(20)).is_err() {
            let _ = outer.kill();
            let _ = outer.wait();
        }
    }
}
