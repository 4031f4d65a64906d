//! libvirt's embedded driver: `qemu:///embed?root=DIR`, real machines without any libvirtd and without root.
//!
//! One process at a time may open a root. A program that links libvirt opens [`EmbedRoot::uri`] itself;
//! without one an [`EmbedShell`] is that process.
//! Machines outlive the process that opened the root, but not the [`EmbedRoot`].
//!
//! Not root? Then libvirt needs a writable `HOME`.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::command::{run, spawn, wait_child};
use crate::guard::Guard;
use crate::process::{Owner, kill_all};
use crate::{Error, Qemu, Result, cache};

/// What `qemu.conf` must say so that root's machines run as root, and their files do not change owners.
pub(crate) const QEMU_AS_ROOT: &str = "\
user = \"root\"
group = \"root\"
dynamic_ownership = 0
remember_owner = 0
security_driver = \"none\"
namespaces = []
";

/// And so that they need no virtlogd.
const NO_VIRTLOGD: &str = "stdio_handler = \"file\"\n";

/// Writes `qemu.conf` into `etc` and makes sure that libvirt will start with it.
pub(crate) fn write_qemu_conf(etc: &Path) -> Result<()> {
    let conf = etc.join("qemu.conf");
    let text = if rustix::process::geteuid().is_root() {
        // libvirt looks this user up before it reads the file that says "root".
        let known = run(Command::new("getent").args(["passwd", "libvirt-qemu"]), Duration::from_secs(10));
        if known.is_err() {
            return Err(Error::Missing {
                program: "user libvirt-qemu".into(),
                package: "libvirt-daemon-system",
            });
        }
        format!("{QEMU_AS_ROOT}cgroup_controllers = []\n{NO_VIRTLOGD}")
    } else {
        NO_VIRTLOGD.to_owned()
    };
    fs::write(&conf, text).map_err(Error::file("write", &conf))
}

/// A directory in which libvirt's embedded driver keeps everything. On drop its machines and the directory are gone.
#[derive(Debug)]
pub struct EmbedRoot {
    directory: PathBuf,
    guard: Option<Guard>,
}

impl EmbedRoot {
    /// Makes `directory` (its parent must exist) and the configuration in it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be written; [`Error::Missing`] when a part of libvirt or QEMU is missing;
    /// [`Error::NotReaped`] where machines would take 40 s to stop; [`Error::PathTooLong`].
    pub fn new(directory: impl AsRef<Path>) -> Result<Self> {
        // libvirt adds "/lib/qemu/domain-NNNNN-TWENTYCHARACTERSNAME/monitor.sock".
        const LONGEST: usize = 45;
        let directory = std::path::absolute(&directory).map_err(Error::file("find", directory.as_ref()))?;
        if directory.as_os_str().len() > LONGEST {
            return Err(Error::PathTooLong { path: directory, limit: LONGEST });
        }
        require_qemu()?;
        crate::require_reaper()?;
        let etc = directory.join("etc");
        fs::create_dir_all(&etc).map_err(Error::file("make", &etc))?;
        let mut root = Self { directory, guard: None };
        root.guard = Some(Guard::new(&root.directory, true)?);
        write_qemu_conf(&etc)?;
        cache::fill(&root.directory.join("cache"));
        Ok(root)
    }

    /// The address under which libvirt opens it.
    pub fn uri(&self) -> String {
        format!("qemu:///embed?root={}", self.directory.display())
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The log that QEMU and libvirt write about the domain `name`.
    pub fn log_path(&self, name: &str) -> PathBuf {
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

    /// The process id of the running domain `name`.
    ///
    /// # Errors
    ///
    /// As [`EmbedRoot::qemu`].
    pub fn pid(&self, name: &str) -> Result<u32> {
        Ok(self.qemu(name)?.pid())
    }

    /// Opens the root in a `virsh` process.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] without `virsh`; [`Error::Refused`]-like words come with the first command.
    pub fn shell(&self) -> Result<EmbedShell> {
        EmbedShell::start(&self.uri())
    }
}

impl Drop for EmbedRoot {
    fn drop(&mut self) {
        cache::keep(&self.directory.join("cache"));
        kill_all(&Owner::EmbedRoot(&self.directory));
        // A file that cannot be removed lies in a temporary directory and must not hide the test's result.
        let _ = fs::remove_dir_all(&self.directory);
        drop(self.guard.take());
    }
}

/// Fails with the package's name when QEMU is not there; libvirt's own words for it do not help.
pub(crate) fn require_qemu() -> Result<()> {
    run(Command::new("qemu-system-x86_64").arg("--version"), Duration::from_secs(30)).map(drop)
}

/// A `virsh` process that holds an embedded root open and obeys one command after another.
#[derive(Debug)]
pub struct EmbedShell {
    child: Child,
    commands: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
}

impl EmbedShell {
    /// How long one command may take; the first one may have to probe QEMU.
    const LIMIT: Duration = Duration::from_secs(60);

    /// What virsh prints, and flushes, when it is ready for a command.
    const PROMPT: &str = "virsh # ";

    fn start(uri: &str) -> Result<Self> {
        let (mut reader, writer) =
            std::io::pipe().map_err(|source| Error::io("make a pipe for virsh", source))?;
        let errors = writer.try_clone().map_err(|source| Error::io("make a pipe for virsh", source))?;
        let mut command = Command::new("virsh");
        command
            .args(["-q", "-c", uri])
            // The driver's own log and the line editor's escapes would be mixed into the answers.
            .envs([("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null"), ("TERM", "dumb"), ("INPUTRC", "/dev/null")])
            .stdin(Stdio::piped())
            .stdout(writer)
            .stderr(errors);
        let mut child = spawn(&mut command)?;
        // Our copies of the writing end go, so that the end of virsh is the end of the pipe.
        drop(command);
        let commands = child.stdin.take();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = reader.read(&mut bytes) {
                if count == 0 || sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut shell = Self { child, commands, output };
        shell.read_to_prompt("the start of virsh", |_| true)?;
        Ok(shell)
    }

    /// Gives one virsh command and returns what it printed, errors included ("error: ...").
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when it does not end, [`Error::Io`] or [`Error::Ended`] when virsh has ended.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        let pipe = self.commands.as_mut().expect("taken only on drop");
        pipe.write_all(format!("{command}\n").as_bytes())
            .map_err(|source| Error::io("write to virsh", source))?;
        // virsh repeats the command first; only a prompt after that is the end of the answer.
        let answer =
            self.read_to_prompt(&format!("the end of `virsh {command}`"), |text| text.contains('\n'))?;
        Ok(answer.split_once('\n').map_or("", |(_, answer)| answer).trim().to_owned())
    }

    fn read_to_prompt(&mut self, what: &str, complete: impl Fn(&str) -> bool) -> Result<String> {
        let until = Instant::now() + Self::LIMIT;
        let mut bytes = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&bytes);
            if let Some(answer) = text.strip_suffix(Self::PROMPT)
                && complete(answer)
            {
                return Ok(answer.to_owned());
            }
            match self.output.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(more) => bytes.extend(more),
                Err(RecvTimeoutError::Timeout) => {
                    let seen = format!("virsh said so far: {text}");
                    return Err(Error::TimedOut { what: what.into(), limit: Self::LIMIT, seen });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let log = text.into_owned();
                    let status = wait_child(&mut self.child, "the end of virsh", Self::LIMIT)?;
                    return Err(Error::Ended { what: "virsh".into(), status, during: what.into(), log });
                }
            }
        }
    }
}

impl Drop for EmbedShell {
    fn drop(&mut self) {
        // The end of its input lets virsh close the root in order; one that hangs is killed.
        drop(self.commands.take());
        if wait_child(&mut self.child, "the end of virsh", Duration::from_secs(10)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
