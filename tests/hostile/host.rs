//! The daemon under attack, and what is watched of it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use whydown_lab::{Authority, Launch, Term, Whydownd, lab_dir, wait_for, wait_until};

use crate::attacker::{Attacker, PATIENCE, post, xml};

/// The limits of the daemon in most tests: short, so that what runs into them does so soon.
pub const LIMITS: &str = "max_connections = 64\nmax_request_bytes = 262144\nheader_timeout_s = 1\nbody_timeout_s = 2\n\
                          idle_timeout_s = 3\nwrite_timeout_s = 2\n";

/// `max_connections` of [`LIMITS`].
pub const CONNECTIONS: usize = 64;

/// `max_request_bytes` of [`LIMITS`].
pub const REQUEST_BYTES: usize = 256 << 10;

/// How much memory the daemon may take above what it had, at any moment of an attack that does not fill all places with
/// large requests: one of them read into values (64 bytes for a byte, as `tests/fuzz` holds it), and buffers.
pub const MEMORY_KIB: u64 = 64 * 256 + 16 * 1024;

/// The same where every place at three listeners has a request of the largest size coming in: of these, 16 MiB wait, and the
/// rest is refused; a connection has buffers of 32 KiB both ways.
pub const CROWDED_KIB: u64 = MEMORY_KIB + 16 * 1024 + 3 * 64 * 64;

/// The longest that an honest poll may take while an attack goes on. It takes a millisecond on an idle machine.
const HONEST_LIMIT: Duration = Duration::from_secs(5);

/// Between two polls of an honest manager.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// The one domain of libvirt's test driver, running from the start.
pub const VM: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

/// One of the VMs of [`Host::start_with`].
pub fn other_vm(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// A way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// TCP in plain text.
    Plain,
    /// TCP with TLS and a certificate.
    Tls,
    /// The unix socket.
    Unix,
}

/// All ways in.
pub const LISTENERS: [Listener; 3] = [Listener::Plain, Listener::Tls, Listener::Unix];

/// A whydownd with all listeners open.
pub struct Host {
    daemon: Whydownd,
    /// Where TCP in plain text is.
    pub plain: SocketAddr,
    /// Where TLS is.
    pub secured: SocketAddr,
    /// Where the unix socket is.
    pub socket: PathBuf,
    /// What a client with a certificate needs.
    pub client: Arc<ClientConfig>,
    folder: TempDir,
    /// What libvirt reads its VMs from, also at the next start.
    node: Option<TempDir>,
}

impl Host {
    /// With these lines in `[xmlrpc]`.
    pub fn start(limits: &str) -> Self {
        Self::begin(limits, "test:///default", |_| (), |launch| launch)
    }

    /// The same, with so many more VMs on the host.
    pub fn start_with(limits: &str, more: usize) -> Self {
        let node = lab_dir().expect("a folder");
        let domain = |name: &str, uuid: &str| {
            format!(
                "<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>8192</memory>\
                 <os><type>hvm</type></os></domain>"
            )
        };
        let others: String = (0..more).map(|n| domain(&format!("vm-{n}"), &other_vm(n))).collect();
        let file = node.path().join("node.xml");
        fs::write(&file, format!("<node>{}{others}</node>", domain("test", VM)))
            .expect("the folder can be written");
        let mut host = Self::begin(limits, &format!("test://{}", file.display()), |_| (), |launch| launch);
        host.node = Some(node);
        host
    }

    /// The same, over what `fill` puts into its folder of state.
    pub fn start_over(limits: &str, fill: impl FnOnce(&Path)) -> Self {
        Self::begin(limits, "test:///default", fill, |launch| launch)
    }

    /// The same, with the listeners as they are delivered.
    pub fn start_as_delivered(limits: &str) -> Self {
        Self::begin(limits, "test:///default", |_| (), Launch::as_delivered)
    }

    fn begin(limits: &str, uri: &str, fill: impl FnOnce(&Path), how: impl FnOnce(Launch) -> Launch) -> Self {
        let folder = lab_dir().expect("a folder");
        let state = folder.path().join("d/state");
        fs::create_dir_all(&state).expect("the folder can be written");
        fill(&state);
        let authority = Authority::new("an authority").expect("an authority");
        let at = folder.path().display();
        fs::write(folder.path().join("ca.pem"), authority.pem()).expect("the folder can be written");
        let issue = |name: &str| authority.issue(name, &["127.0.0.1"], Term::Now).expect("a certificate");
        issue("host.example").write(folder.path(), "host").expect("the folder can be written");
        let config = format!(
            "[xmlrpc]\n{limits}[tls]\nlisten = ['127.0.0.1:0']\ncertificate = '{at}/host-cert.pem'\n\
             key = '{at}/host-key.pem'\nca = '{at}/ca.pem'\nactors = ['engine.example']\n"
        );
        let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), uri);
        let daemon = Whydownd::start(how(launch.config(&config))).expect("the daemon starts");
        let papers = issue("engine.example");
        let chain = CertificateDer::from_pem_slice(papers.certificate.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(papers.key.as_bytes()).expect("a key");
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("a certificate");
        roots.add(root).expect("an authority");
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![chain], key)
            .expect("a pair");
        let listen = daemon.state_dir().join("listen");
        let (plain, secured) = wait_for("both addresses", Duration::from_secs(20), || {
            let text = fs::read_to_string(&listen).ok()?;
            let (secured, plain): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with("tls "));
            Some((plain.first()?.parse().ok()?, secured.first()?.strip_prefix("tls ")?.parse().ok()?))
        })
        .expect("the daemon writes where it listens");
        let socket = daemon.socket_path();
        Self { daemon, plain, secured, socket, client: Arc::new(client), folder, node: None }
    }

    /// Attacks it, with an honest manager at every listener, and holds it to its bounds.
    pub fn under_attack(&self, attack: impl FnOnce(&Self)) {
        self.under_attack_within(MEMORY_KIB, attack);
    }

    /// The same, within so much more memory.
    pub fn under_attack_within(&self, memory_kib: u64, attack: impl FnOnce(&Self)) {
        let before = self.memory_kib("VmRSS");
        self.forget_peak();
        let polls = std::thread::scope(|scope| {
            let (inside, is_inside) = channel();
            let honest = LISTENERS.map(|listener| {
                let ((stop, stopped), inside) = (channel::<()>(), inside.clone());
                (stop, scope.spawn(move || self.poll_until(listener, &inside, &stopped)))
            });
            for _ in LISTENERS {
                is_inside.recv_timeout(HONEST_LIMIT).expect("honest managers come in before the attack");
            }
            attack(self);
            honest.map(|(stop, manager)| {
                drop(stop);
                manager.join().expect("an honest manager is served")
            })
        });
        for (listener, (count, worst)) in LISTENERS.iter().zip(polls) {
            assert!(
                count > 1 && worst < HONEST_LIMIT,
                "{listener:?}: an honest poll took {worst:?}, of {count}"
            );
        }
        let peak = self.memory_kib("VmHWM");
        let more = peak.saturating_sub(before);
        eprintln!("MEMORY {more} of {memory_kib} before {before}");
        assert!(more <= memory_kib, "{more} KiB more than the {before} before: over {memory_kib}");
        for listener in LISTENERS {
            wait_until("a newcomer is answered", PATIENCE, || {
                let answer = Attacker::connect(self, listener)
                    .ok()
                    .and_then(|mut new| new.send(post(xml("ping", ""))).then(|| new.response()).flatten());
                answer.is_some_and(|answer| answer.code() == 0)
            });
        }
    }

    /// An honest manager: polls on one connection, which nobody may break. How often, and the longest that one took.
    fn poll_until(
        &self,
        listener: Listener,
        inside: &Sender<()>,
        stopped: &Receiver<()>,
    ) -> (usize, Duration) {
        let mut manager = self.connect(listener);
        let poll = post(xml("getAllVmStats", ""));
        let (mut count, mut worst, mut last) = (0, Duration::ZERO, false);
        loop {
            let asked = Instant::now();
            assert!(manager.send(&poll), "{listener:?}: closed after {count} polls");
            let answer =
                manager.response().unwrap_or_else(|| panic!("{listener:?}: no answer to poll {count}"));
            worst = worst.max(asked.elapsed());
            count += 1;
            assert!(answer.status == 200 && answer.text().contains(VM), "{listener:?}: {answer:?}");
            if count == 1 {
                inside.send(()).expect("the test waits for it");
            }
            if last {
                return (count, worst);
            }
            last = stopped.recv_timeout(POLL_PAUSE) != Err(RecvTimeoutError::Timeout);
        }
    }

    /// A connection that is ready: with TLS, the handshake is done.
    pub fn connect(&self, listener: Listener) -> Attacker {
        Attacker::connect(self, listener).unwrap_or_else(|error| panic!("{listener:?}: {error}"))
    }

    /// A line of the daemon's `/proc/PID/status`.
    fn memory_kib(&self, line: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("the daemon runs");
        let found =
            status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':')?.split_whitespace().next());
        found.and_then(|number| number.parse().ok()).expect("the kernel tells of memory")
    }

    /// The most memory that it had at any moment since [`Host::forget_peak`].
    pub fn memory_peak_kib(&self) -> u64 {
        self.memory_kib("VmHWM")
    }

    /// Stops it as systemd would; it must end in time.
    pub fn stop(&mut self, within: Duration) {
        self.daemon.signal(Signal::TERM).expect("the daemon runs");
        let ended = self.daemon.wait_end(within).expect("it stops in time").expect("it ran");
        assert!(ended.success(), "{ended}");
    }

    /// Stops it and starts it again.
    pub fn restart(&mut self) {
        self.daemon.restart().expect("the daemon ends and starts");
    }

    /// Stops it, has something done, and starts it again.
    pub fn restart_after(&mut self, deed: impl FnOnce()) {
        self.daemon.terminate().expect("the daemon ends");
        deed();
        self.daemon.start_again().expect("the daemon starts");
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.daemon.signal(signal).expect("the daemon runs");
    }

    /// Its folder of state.
    pub fn state_dir(&self) -> PathBuf {
        self.daemon.state_dir()
    }

    /// The folder with everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Bounds how many files and sockets it may have open from now on.
    pub fn limit_open_files(&self, count: usize) {
        let pid = self.daemon.pid().expect("the daemon runs");
        let mut command = Command::new("prlimit");
        command.arg(format!("--pid={pid}")).arg(format!("--nofile={count}:{count}"));
        assert!(command.status().expect("prlimit runs").success());
    }

    /// Everything that it has logged.
    pub fn whole_log(&self) -> String {
        let bytes = fs::read(self.daemon.output_path()).expect("it has logged");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// What the command line prints.
    pub fn whydown(&self, arguments: &[&str]) -> Vec<u8> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whydown"));
        command.arg("--socket").arg(&self.socket).args(arguments);
        let output = command.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Begins a new peak of memory.
    pub fn forget_peak(&self) {
        fs::write(self.proc("clear_refs"), "5").expect("the kernel forgets the peak");
    }

    /// Files and sockets that the daemon has open.
    pub fn open_files(&self) -> usize {
        fs::read_dir(self.proc("fd")).expect("the daemon runs").count()
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.daemon.pid().expect("the daemon runs")))
    }

    /// What it has logged, at its end.
    pub fn log(&self) -> String {
        self.daemon.output_tail()
    }
}
