//! A libvirtd of one's own: real, complete, and apart from the host's and from all others.
//!
//! It runs as root in its own mount and UTS namespaces, where the five directories that libvirt has compiled in are
//! bound to directories of the test. From outside it is reached through those:
//!
//! ```text
//! DIR/etc    /etc/libvirt          configuration
//! DIR/run    /run/libvirt          libvirt-sock, qemu/NAME.pid
//! DIR/lib    /var/lib/libvirt      monitors, dumps, saved machines
//! DIR/log    /var/log/libvirt      qemu/NAME.log
//! DIR/cache  /var/cache/libvirt    what it knows of QEMU
//! DIR/full   (a tiny tmpfs)        a disk to fill, see FullDisk
//! ```
//!
//! Its machines outlive it, as everywhere; only dropping the handle ends them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::command::{collect, run, spawn, wait_child};
use crate::embed::{require_qemu, write_qemu_conf};
use crate::guard::{Guard, name_main};
use crate::guest::{random_uuid, write_image};
use crate::process::{Owner, kill_all};
use crate::wait::try_wait_for;
use crate::{Error, Guest, Qemu, Result, cache};

/// How long libvirtd may take to answer its first client; without a cache it probes QEMU first.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How long libvirtd may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// How long one virsh command may take. A destroy of a stopped QEMU takes 10 s, a graceful one 25 s.
const VIRSH_LIMIT: Duration = Duration::from_secs(90);

/// Size of the tmpfs at `DIR/full`, in bytes.
const FULL_BYTES: u64 = 128 << 10;

/// Mounts the directories, takes a host name and becomes libvirtd. Runs in the new namespaces; `$1` is DIR, `$2` the name.
const INSIDE: &str = r#"
set -e
hostname "$2"
mount -t tmpfs -o size=131072 lab-full "$1/full"
for pair in /etc/libvirt:etc /run/libvirt:run /var/lib/libvirt:lib /var/log/libvirt:log /var/cache/libvirt:cache; do
    mkdir -p "${pair%%:*}"
    mount --bind "$1/${pair##*:}" "${pair%%:*}"
done
exec libvirtd --config /etc/libvirt/libvirtd.conf --pid-file "$1/libvirtd.pid"
"#;

/// A running (or stopped) libvirtd and all its machines. On drop everything of it is gone.
#[derive(Debug)]
pub struct Libvirtd {
    directory: PathBuf,
    name: String,
    child: Option<Child>,
    guard: Option<Guard>,
    network: Option<Network>,
}

impl Libvirtd {
    /// Starts a libvirtd with everything in `directory` (made if missing) and the host name `name`, and waits until
    /// it answers. Two of them migrate machines to each other if their names differ.
    ///
    /// # Errors
    ///
    /// [`Error::NotRoot`] when not root; [`Error::Missing`] when a program is missing; [`Error::NotReaped`] where
    /// machines would take 40 s to stop; [`Error::PathTooLong`]; [`Error::Ended`] with its log when it fails.
    pub fn start(directory: impl AsRef<Path>, name: &str) -> Result<Self> {
        Self::start_in(directory, name, &[])
    }

    /// As [`Libvirtd::start`], in a network of its own with nothing in it but these bridges.
    ///
    /// # Errors
    ///
    /// As [`Libvirtd::start`].
    pub fn start_with_bridges(directory: impl AsRef<Path>, name: &str, bridges: &[&str]) -> Result<Self> {
        Self::start_in(directory, name, bridges)
    }

    fn start_in(directory: impl AsRef<Path>, name: &str, bridges: &[&str]) -> Result<Self> {
        let uid = rustix::process::geteuid();
        if !uid.is_root() || !may_mount() {
            return Err(Error::NotRoot { uid: uid.as_raw() });
        }
        crate::require_reaper()?;
        require_qemu()?;
        let directory = std::path::absolute(&directory).map_err(Error::file("find", directory.as_ref()))?;
        let mut libvirtd = Self { directory, name: name.into(), child: None, guard: None, network: None };
        let socket = libvirtd.socket();
        if socket.as_os_str().len() > 100 {
            return Err(Error::PathTooLong { path: socket, limit: 100 });
        }
        libvirtd.prepare()?;
        if !bridges.is_empty() {
            libvirtd.network = Some(Network::new(&libvirtd.directory, bridges)?);
        }
        libvirtd.guard = Some(Guard::new(&libvirtd.directory, true)?);
        libvirtd.start_again()?;
        Ok(libvirtd)
    }

    fn prepare(&self) -> Result<()> {
        for part in ["etc", "run", "lib", "log/qemu", "cache", "full"] {
            let part = self.directory.join(part);
            fs::create_dir_all(&part).map_err(Error::file("make", &part))?;
        }
        let etc = self.directory.join("etc");
        write_qemu_conf(&etc)?;
        cache::fill(&self.directory.join("cache"));
        let conf = etc.join("libvirtd.conf");
        let text = format!(
            "auth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nhost_uuid = \"{}\"\nlog_outputs = \"2:file:{}\"\n",
            random_uuid()?,
            self.log_path().display()
        );
        fs::write(&conf, text).map_err(Error::file("write", &conf))
    }

    /// Starts it again after [`Libvirtd::stop`] or [`Libvirtd::kill_9`] and waits until it answers.
    /// Does nothing when it runs.
    ///
    /// # Errors
    ///
    /// As [`Libvirtd::start`].
    pub fn start_again(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        let output = self.directory.join("libvirtd.out");
        let stdout =
            File::options().append(true).create(true).open(&output).map_err(Error::file("open", &output))?;
        let stderr = stdout.try_clone().map_err(Error::file("open", &output))?;
        // unshare and the shell become libvirtd without another fork, so the child is libvirtd itself.
        let mut command = match &self.network {
            None => Command::new("unshare"),
            Some(network) => network.enter("unshare"),
        };
        command
            .args(["--mount", "--uts", "--propagation", "private", "sh", "-c", INSIDE, "lab-libvirtd"])
            .arg(&self.directory)
            .arg(&self.name)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        // A shell may lack the places where Debian puts system programs.
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut path: Vec<PathBuf> = std::env::split_paths(&path).collect();
        path.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        command.env("PATH", std::env::join_paths(path).expect("parts of PATH have no colons"));
        let child = self.child.insert(spawn(&mut command)?);
        name_main(&self.directory, child)?;
        self.wait_ready()?;
        cache::keep(&self.directory.join("cache"));
        Ok(())
    }

    /// Waits until it answers a client.
    fn wait_ready(&mut self) -> Result<()> {
        let what = format!("an answer of libvirtd {}", self.name);
        let mut said = String::new();
        let ready = try_wait_for(&what, START_LIMIT, || {
            let child = self.child.as_mut().expect("started by the caller");
            let ended = child.try_wait().map_err(|source| Error::io("wait for libvirtd", source))?;
            if let Some(status) = ended {
                self.child = None;
                let log = self.tail();
                let what = format!("libvirtd {}", self.name);
                return Err(Error::Ended { what, status, during: "starting".into(), log });
            }
            // A connection is accepted early and answered when the drivers are ready.
            let answer = self.try_virsh(&["uri"])?;
            said = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
            Ok(answer.status.success().then_some(()))
        });
        match ready {
            Err(Error::TimedOut { what, limit, .. }) => {
                let seen = format!("virsh said: {said}; its log:\n{}", self.tail());
                Err(Error::TimedOut { what, limit, seen })
            }
            other => other,
        }
    }

    /// The address for clients outside its namespaces.
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.socket().display())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/libvirt-sock")
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its process id, [`None`] while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its own log.
    pub fn log_path(&self) -> PathBuf {
        self.directory.join("libvirtd.log")
    }

    /// The log that QEMU and libvirt write about the domain `name`.
    pub fn domain_log_path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("log/qemu/{name}.log"))
    }

    /// The QEMU process of the running domain `name`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it does not run.
    pub fn qemu(&self, name: &str) -> Result<Qemu> {
        Qemu::from_pid_file(&self.directory.join(format!("run/qemu/{name}.pid")))
    }

    /// Runs one virsh command; fails when virsh does.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with virsh's words, [`Error::Missing`], [`Error::TimedOut`].
    pub fn virsh(&self, arguments: &[&str]) -> Result<Output> {
        run(&mut self.virsh_command(arguments), VIRSH_LIMIT)
    }

    /// Runs one virsh command and returns its output whatever its exit status.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`], [`Error::TimedOut`].
    pub fn try_virsh(&self, arguments: &[&str]) -> Result<Output> {
        collect(&mut self.virsh_command(arguments), VIRSH_LIMIT)
    }

    fn virsh_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("virsh");
        command.args(["-q", "-c", &self.uri()]).args(arguments).env("LC_ALL", "C");
        command
    }

    /// Defines `guest` as a persistent domain, not started.
    ///
    /// # Errors
    ///
    /// As [`Libvirtd::virsh`]; so for the next three.
    pub fn define(&self, guest: &Guest) -> Result<()> {
        let xml = guest.write_xml()?;
        self.virsh(&["define", &xml.to_string_lossy()]).map(drop)
    }

    /// Starts the defined domain `name`.
    ///
    /// # Errors
    ///
    /// As [`Libvirtd::virsh`].
    pub fn start_domain(&self, name: &str) -> Result<()> {
        self.virsh(&["start", name]).map(drop)
    }

    /// Creates `guest` as a transient domain, started.
    ///
    /// # Errors
    ///
    /// As [`Libvirtd::virsh`].
    pub fn create(&self, guest: &Guest) -> Result<()> {
        let xml = guest.write_xml()?;
        self.virsh(&["create", &xml.to_string_lossy()]).map(drop)
    }

    /// Destroys the domain `name`.
    ///
    /// # Errors
    ///
    /// As [`Libvirtd::virsh`].
    pub fn destroy(&self, name: &str) -> Result<()> {
        self.virsh(&["destroy", name]).map(drop)
    }

    /// State and reason of the domain `name` in virsh's words, such as `running (booted)`;
    /// [`None`] when libvirt does not know it.
    ///
    /// # Errors
    ///
    /// As [`Libvirtd::virsh`].
    pub fn state(&self, name: &str) -> Result<Option<String>> {
        match self.virsh(&["domstate", name, "--reason"]) {
            Ok(output) => Ok(Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())),
            // The second is said when the domain ends between virsh's lookup and its question.
            Err(Error::Refused { said, .. })
                if said.contains("failed to get domain") || said.contains("Domain not found") =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until the domain `name` is in `state` (virsh's words; [`None`]: libvirt does not know it).
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] with the last state, or as [`Libvirtd::virsh`].
    pub fn wait_state(&self, name: &str, state: Option<&str>, limit: Duration) -> Result<()> {
        let what = format!("the state {:?} of domain {name}", state.unwrap_or("gone"));
        let mut last = None;
        let waited = try_wait_for(&what, limit, || {
            last = self.state(name)?;
            Ok((last.as_deref() == state).then_some(()))
        });
        match waited {
            Err(Error::TimedOut { what, limit, .. }) => {
                let seen = format!("the last state was {:?}", last.as_deref().unwrap_or("gone"));
                Err(Error::TimedOut { what, limit, seen })
            }
            other => other,
        }
    }

    /// Ends it with SIGTERM, as the host's service manager does. Its machines run on.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when it does not end.
    pub fn stop(&mut self) -> Result<Option<ExitStatus>> {
        self.end(Signal::TERM)
    }

    /// Kills it. Its machines run on.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when it does not end.
    pub fn kill_9(&mut self) -> Result<Option<ExitStatus>> {
        self.end(Signal::KILL)
    }

    fn end(&mut self, signal: Signal) -> Result<Option<ExitStatus>> {
        if self.child.is_none() {
            return Ok(None);
        }
        self.signal(signal)?;
        let child = self.child.as_mut().expect("looked at above");
        let status = wait_child(child, &format!("the end of libvirtd {}", self.name), STOP_LIMIT)?;
        self.child = None;
        Ok(Some(status))
    }

    /// Ends it with SIGTERM and starts it again.
    ///
    /// # Errors
    ///
    /// As [`Libvirtd::stop`] and [`Libvirtd::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.start_again()
    }

    /// Stops it from executing: it is there and says nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it execute again.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it does not run.
    pub fn unpause(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let what = || format!("signal libvirtd {}", self.name);
        // The child is not waited for yet, so its number cannot have been given to another process.
        let pid = self.child.as_ref().map(Pid::from_child);
        let pid = pid.ok_or_else(|| Error::io(what(), std::io::ErrorKind::NotFound.into()))?;
        kill_process(pid, signal).map_err(|error| Error::io(what(), error.into()))
    }

    /// Makes the boot image of a guest on a disk that has no room left.
    /// The disk belongs to this start of libvirtd; after a restart there is another one.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when libvirtd does not run or the disk cannot be written.
    pub fn full_disk(&self, guest: &str) -> Result<FullDisk> {
        let pid = self.pid().ok_or_else(|| {
            Error::io("use the disk of a stopped libvirtd", std::io::ErrorKind::NotFound.into())
        })?;
        // The mount is in libvirtd's namespace only; this path leads there.
        let inside = self.directory.join("full");
        let outside = PathBuf::from(format!("/proc/{pid}/root{}", inside.display()));
        let image = format!("{guest}.img");
        write_image(&outside.join(&image))?;
        let disk = FullDisk { image: inside.join(image), filler: outside.join("filler") };
        disk.fill()?;
        Ok(disk)
    }

    /// The end of all that it has said.
    fn tail(&self) -> String {
        let mut text = String::new();
        for file in [self.directory.join("libvirtd.out"), self.log_path()] {
            text.push_str(&crate::daemon::tail_of(&file));
        }
        text
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGKILL ends a paused process too; libvirtd goes first so that it starts no new machine.
            let _ = child.kill();
            let _ = child.wait();
        }
        kill_all(&Owner::RunDirectory(&self.directory.join("run")));
        drop(self.network.take());
        // A file that cannot be removed lies in a temporary directory and must not hide the test's result.
        let _ = fs::remove_dir_all(&self.directory);
        drop(self.guard.take());
    }
}

/// A network that outlives each libvirtd in it, as the host's does. On drop it is gone.
#[derive(Debug)]
struct Network {
    /// The kernel's name of it, mounted.
    file: PathBuf,
}

impl Network {
    fn new(directory: &Path, bridges: &[&str]) -> Result<Self> {
        let network = Self { file: directory.join("net") };
        File::create(&network.file).map_err(Error::file("make", &network.file))?;
        let make = "set -e; ip link set lo up; \
                    for bridge; do ip link add \"$bridge\" type bridge; ip link set \"$bridge\" up; done";
        let mut command = Command::new("unshare");
        command.arg(format!("--net={}", network.file.display())).args(["sh", "-c", make, "sh"]).args(bridges);
        run(&mut command, VIRSH_LIMIT)?;
        Ok(network)
    }

    /// This program, in it, and without another process.
    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.file.display())).arg(program);
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg(&self.file), VIRSH_LIMIT);
    }
}

/// Whether the kernel lets us make namespaces and mounts; root in an ordinary container may not.
pub(crate) fn may_mount() -> bool {
    const CAP_SYS_ADMIN: u32 = 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_SYS_ADMIN) != 0)
}

/// A disk without room, with one boot image on it: the guest's [`crate::Serial::write_sector`] fails with "no space".
#[derive(Debug)]
pub struct FullDisk {
    image: PathBuf,
    filler: PathBuf,
}

impl FullDisk {
    /// The image's path as QEMU sees it, for [`Guest::image`].
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Takes all room that is left.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the disk is gone.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(&self.filler).map_err(Error::file("make", &self.filler))?;
        let block = [0xff; 4096];
        for _ in 0..=FULL_BYTES / 4096 {
            match file.write_all(&block) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(Error::file("fill", &self.filler)(error)),
            }
        }
        Err(Error::Invalid {
            what: "the tiny disk",
            expected: "full after its own size was written",
            got: self.filler.display().to_string(),
        })
    }

    /// Gives the room back.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the disk is gone.
    pub fn make_room(&self) -> Result<()> {
        fs::remove_file(&self.filler).map_err(Error::file("remove", &self.filler))
    }
}
