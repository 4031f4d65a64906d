//! The daemon under test: whydownd as a process of its own, started as systemd would and stopped as an enemy would.
//!
//! Readiness comes through `NOTIFY_SOCKET`; the port that the system chose is read from `STATE_DIR/listen`, where
//! whydownd writes one bound address a line.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::command::{spawn, wait_child};
use crate::guard::{Guard, name_main};
use crate::wait::{try_wait_for, wait_for};
use crate::{Error, Result};

/// How long whydownd may take to say `READY=1`; opening an embedded root may probe QEMU first.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// How long whydownd may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How much of a log is shown with a failure, in bytes.
const TAIL_BYTES: usize = 8 << 10;

/// Lets everybody in, with everything.
const OPEN: [(&str, &str); 4] = [
    ("WHYDOWN_XMLRPC__PLAIN_MAY_ACT", "true"),
    ("WHYDOWN_CREATE__EMULATORS", "/"),
    ("WHYDOWN_CREATE__FOLDERS", "/"),
    ("WHYDOWN_CREATE__ALLOW", "commandline,hostdev,share,host,seclabel,pool,formats,unknown"),
];

/// The word with which the reader of notifications is ended; no service manager knows it.
const LAST_WORD: &[u8] = b"LAB_END=1";

/// A program of this project, beside the test that runs.
///
/// # Panics
/// If it was not built: `cargo test` builds it for the tests of the whole project.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its program");
    let beside = test.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    beside.unwrap_or_else(|| panic!("{name} is not beside {}: cargo build --bins", test.display()))
}

/// How to run whydownd.
#[derive(Clone, Debug)]
pub struct Launch {
    program: PathBuf,
    directory: PathBuf,
    connect: String,
    config: String,
    listen: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    tracefs: bool,
    audit: bool,
    no_kvm: bool,
    network: Option<String>,
    without: Option<String>,
    delivered: bool,
}

impl Launch {
    /// Runs `program` (a root test says `env!("CARGO_BIN_EXE_whydownd")`) with all its files in `directory`,
    /// connected to the hypervisor at `connect`, with an empty configuration and a port chosen by the system.
    pub fn new(program: impl AsRef<Path>, directory: impl AsRef<Path>, connect: &str) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            directory: directory.as_ref().to_owned(),
            connect: connect.into(),
            config: String::new(),
            listen: "127.0.0.1:0".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            tracefs: false,
            audit: false,
            no_kvm: false,
            network: None,
            without: None,
            delivered: false,
        }
    }

    /// With this TOML as the configuration file.
    pub fn config(mut self, toml: &str) -> Self {
        self.config = toml.into();
        self
    }

    /// Listening at this address.
    pub fn listen(mut self, address: &str) -> Self {
        self.listen = address.into();
        self
    }

    /// With one more argument at the end.
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With the kernel's tracefs, mounted for this daemon alone. Without this it traces nothing, wherever the host has
    /// mounted it.
    pub fn tracefs(mut self) -> Self {
        self.tracefs = true;
        self
    }

    /// With an ear for the kernel's audit. Without this it does not listen, whatever the host's audit does.
    pub fn audit(mut self) -> Self {
        self.audit = true;
        self
    }

    /// On a host without KVM: its device is hidden from this daemon and what it starts. QEMU then computes what a
    /// processor would do, and can do other models.
    pub fn without_kvm(mut self) -> Self {
        self.no_kvm = true;
        self
    }

    /// In a network of its own, which these commands of the shell lay out. Only the unix socket leads there.
    pub fn network(mut self, commands: &str) -> Self {
        self.network = Some(commands.into());
        self
    }

    /// With the listeners as they are delivered. Without this everybody who reaches the TCP port may act, and documents may
    /// have everything: most tests are about something else.
    pub fn as_delivered(mut self) -> Self {
        self.delivered = true;
        self
    }

    /// Without this capability, named as `setpriv` does.
    pub fn without_capability(mut self, name: &str) -> Self {
        self.without = Some(name.into());
        self
    }

    /// With this variable in the environment.
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

/// A running (or stopped) whydownd. On drop it is killed; its directory stays.
#[derive(Debug)]
pub struct Whydownd {
    launch: Launch,
    child: Option<Child>,
    notifications: Notifications,
    guard: Option<Guard>,
}

impl Whydownd {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] with its output when it ends first, [`Error::TimedOut`] with its output, [`Error::Io`].
    pub fn start(mut launch: Launch) -> Result<Self> {
        launch.directory =
            std::path::absolute(&launch.directory).map_err(Error::file("find", &launch.directory))?;
        fs::create_dir_all(launch.directory.join("state")).map_err(Error::file("make", &launch.directory))?;
        let config = launch.directory.join("whydown.toml");
        fs::write(&config, &launch.config).map_err(Error::file("write", &config))?;
        let notifications = Notifications::listen(launch.directory.join("notify"))?;
        let guard = Some(Guard::new(&launch.directory, false)?);
        let mut daemon = Self { launch, child: None, notifications, guard };
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Starts it again after its end, with the same files, and waits until it is ready. Does nothing when it runs.
    ///
    /// # Errors
    ///
    /// As [`Whydownd::start`].
    pub fn start_again(&mut self) -> Result<()> {
        if self.child.is_some() {
            return Ok(());
        }
        self.notifications.forget();
        let listen = self.listen_path();
        if listen.exists() {
            // An address of the previous start must not be taken for one of this.
            fs::remove_file(&listen).map_err(Error::file("remove", &listen))?;
        }
        let output = self.output_path();
        let stdout =
            File::options().append(true).create(true).open(&output).map_err(Error::file("open", &output))?;
        let stderr = stdout.try_clone().map_err(Error::file("open", &output))?;
        let mut command = self.command()?;
        command
            .arg("--config")
            .arg(self.launch.directory.join("whydown.toml"))
            .args(["--connect", &self.launch.connect, "--listen", &self.launch.listen])
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.socket_path())
            .args(&self.launch.arguments)
            .envs(self.launch.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr);
        let child = self.child.insert(spawn(&mut command)?);
        name_main(&self.launch.directory, child)?;
        self.wait_ready()
    }

    /// The program in its environment, without its arguments. A mount for it alone goes with its last process.
    fn command(&self) -> Result<Command> {
        let (mut command, traces) = if self.launch.tracefs {
            let folder = self.tracefs_path();
            fs::create_dir_all(&folder).map_err(Error::file("make", &folder))?;
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", "mount -t tracefs tracefs \"$0\" && exec \"$@\""]);
            command.arg(&folder).arg(&self.launch.program);
            (command, folder)
        } else {
            (Command::new(&self.launch.program), PathBuf::new())
        };
        if self.launch.no_kvm {
            let whole = command;
            // libvirt asks whether the file can be written, which root can anywhere but on what is read-only.
            let hide = "[ ! -e /dev/kvm ] || { : >\"$0\" && mount --bind \"$0\" /dev/kvm && \
                        mount -o remount,bind,ro /dev/kvm; } && exec \"$@\"";
            let place = self.launch.directory.join("no-kvm");
            command = Command::new("unshare");
            command
                .args(["--mount", "sh", "-c", hide])
                .arg(place)
                .arg(whole.get_program())
                .args(whole.get_args());
        }
        if let Some(commands) = &self.launch.network {
            let whole = command;
            let lay_out = format!("mount -t sysfs sysfs /sys && {{ {commands}; }} && exec \"$@\"");
            command = Command::new("unshare");
            command.args(["--net", "--mount", "sh", "-c", &lay_out, "sh"]);
            command.arg(whole.get_program()).args(whole.get_args());
        }
        if let Some(name) = &self.launch.without {
            let whole = command;
            let less = format!("-{name}");
            command = Command::new("setpriv");
            command.args(["--inh-caps", &less, "--bounding-set", &less, "--"]);
            command.arg(whole.get_program()).args(whole.get_args());
        }
        if !self.launch.delivered {
            command.envs(OPEN);
        }
        command
            .env("NOTIFY_SOCKET", &self.notifications.path)
            .env("WHYDOWN_WITNESS__TRACEFS", traces)
            .env("WHYDOWN_WITNESS__AUDIT", self.launch.audit.to_string());
        Ok(command)
    }

    fn tracefs_path(&self) -> PathBuf {
        self.launch.directory.join("tracefs")
    }

    /// The trace instances of the kernel, as the running daemon sees them; empty without [`Launch::tracefs`].
    pub fn trace_instances(&self) -> Vec<String> {
        let Some(pid) = self.pid() else { return Vec::new() };
        let folder = self.tracefs_path().join("instances");
        let seen = Path::new("/proc").join(pid.to_string()).join("root");
        let seen = seen.join(folder.strip_prefix("/").unwrap_or(&folder));
        let all = fs::read_dir(seen).into_iter().flatten().flatten();
        all.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let ready = try_wait_for("READY=1 of whydownd", READY_LIMIT, || {
            if self.notifications.has("READY=1") {
                return Ok(Some(()));
            }
            let child = self.child.as_mut().expect("started by the caller");
            let ended = child.try_wait().map_err(|source| Error::io("wait for whydownd", source))?;
            let Some(status) = ended else { return Ok(None) };
            self.child = None;
            Err(Error::Ended {
                what: "whydownd".into(),
                status,
                during: "starting".into(),
                log: self.output_tail(),
            })
        });
        match ready {
            Err(Error::TimedOut { what, limit, .. }) => {
                let seen = format!("its output:\n{}", self.output_tail());
                Err(Error::TimedOut { what, limit, seen })
            }
            other => other,
        }
    }

    /// Its process id, [`None`] while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Its directory of state, which survives restarts.
    pub fn state_dir(&self) -> PathBuf {
        self.launch.directory.join("state")
    }

    /// Its local socket.
    pub fn socket_path(&self) -> PathBuf {
        self.launch.directory.join("socket")
    }

    /// The file with everything that it has printed, over all starts.
    pub fn output_path(&self) -> PathBuf {
        self.launch.directory.join("whydownd.out")
    }

    /// The last 8 KiB that it has printed.
    pub fn output_tail(&self) -> String {
        tail_of(&self.output_path())
    }

    /// All that it has told the service manager since its last start, such as `STATUS=...`, one variable each.
    pub fn notifications(&self) -> Vec<String> {
        self.notifications.all()
    }

    fn listen_path(&self) -> PathBuf {
        self.state_dir().join("listen")
    }

    /// The TCP addresses that it is bound to, as it wrote them: one a line, other lines are left out.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when it writes none within 10 s.
    pub fn addresses(&self) -> Result<Vec<SocketAddr>> {
        let path = self.listen_path();
        wait_for(&format!("an address in {}", path.display()), Duration::from_secs(10), || {
            let text = fs::read_to_string(&path).ok()?;
            let found: Vec<_> = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
            (!found.is_empty()).then_some(found)
        })
    }

    /// The first TCP port that it is bound to.
    ///
    /// # Errors
    ///
    /// As [`Whydownd::addresses`].
    pub fn port(&self) -> Result<u16> {
        Ok(self.addresses()?[0].port())
    }

    /// Kills it at once, as a crash would.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when it does not end.
    pub fn kill_9(&mut self) -> Result<Option<ExitStatus>> {
        self.end(Signal::KILL)
    }

    /// Asks it to end, as systemd does, and waits for that.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when it does not end within 30 s.
    pub fn terminate(&mut self) -> Result<Option<ExitStatus>> {
        self.end(Signal::TERM)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it does not run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // The child is not waited for yet, so its number cannot have been given to another process.
        let pid = self.child.as_ref().map(Pid::from_child);
        let pid = pid.ok_or_else(|| Error::io("signal whydownd", std::io::ErrorKind::NotFound.into()))?;
        kill_process(pid, signal).map_err(|error| Error::io("signal whydownd", error.into()))
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] with its output when it does not.
    pub fn wait_end(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let Some(child) = self.child.as_mut() else { return Ok(None) };
        match wait_child(child, "the end of whydownd", limit) {
            Ok(status) => {
                self.child = None;
                Ok(Some(status))
            }
            Err(Error::TimedOut { what, limit, .. }) => {
                let seen = format!("its output:\n{}", self.output_tail());
                Err(Error::TimedOut { what, limit, seen })
            }
            Err(error) => Err(error),
        }
    }

    fn end(&mut self, signal: Signal) -> Result<Option<ExitStatus>> {
        if self.child.is_none() {
            return Ok(None);
        }
        self.signal(signal)?;
        self.wait_end(STOP_LIMIT)
    }

    /// Asks it to end and starts it again.
    ///
    /// # Errors
    ///
    /// As [`Whydownd::terminate`] and [`Whydownd::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.terminate()?;
        self.start_again()
    }
}

impl Drop for Whydownd {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        drop(self.guard.take());
        if std::thread::panicking() {
            eprintln!("whydownd said:\n{}", self.output_tail());
        }
    }
}

/// The service manager's side of `NOTIFY_SOCKET`: always read, so that the daemon never blocks on it.
#[derive(Debug)]
struct Notifications {
    path: PathBuf,
    heard: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Notifications {
    fn listen(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_file(&path).map_err(Error::file("remove", &path))?;
        }
        let socket = UnixDatagram::bind(&path).map_err(Error::file("bind", &path))?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::clone(&heard);
        let reader = std::thread::spawn(move || {
            let mut message = [0; 4096];
            while let Ok(length) = socket.recv(&mut message) {
                let message = &message[..length];
                if message == LAST_WORD {
                    return;
                }
                let text = String::from_utf8_lossy(message);
                let lines = text.lines().map(str::to_owned);
                ours.lock().unwrap_or_else(PoisonError::into_inner).extend(lines);
            }
        });
        Ok(Self { path, heard, reader: Some(reader) })
    }

    fn all(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has(&self, line: &str) -> bool {
        self.all().iter().any(|heard| heard == line)
    }

    fn forget(&self) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        let told = UnixDatagram::unbound().and_then(|socket| socket.send_to(LAST_WORD, &self.path));
        // Without the last word the reader would never end; then it is left behind rather than waited for.
        if let (Ok(_), Some(reader)) = (told, self.reader.take()) {
            let _ = reader.join();
        }
    }
}

/// The end of a log, for a failure's message; a log that is not there is told as such.
pub(crate) fn tail_of(path: &Path) -> String {
    match fs::read(path) {
        Ok(bytes) => {
            let from = bytes.len().saturating_sub(TAIL_BYTES);
            String::from_utf8_lossy(&bytes[from..]).into_owned()
        }
        Err(error) => format!("({}: {error})\n", path.display()),
    }
}
