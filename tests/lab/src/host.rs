//! A libvirtd of one's own with whydownd beside it, and what a test wants to ask them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use crate::{
    Guest, Launch, Libvirtd, Result, Serial, Whydownd, lab_dir, program, run, wait_until, xmlrpc_client,
};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything here takes, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Both, and their folder. Dropped in this order: the daemon before its libvirtd.
pub struct Host {
    /// The daemon.
    pub daemon: Whydownd,
    /// Its libvirtd.
    pub libvirtd: Libvirtd,
    /// Their folder.
    pub folder: TempDir,
}

/// A verdict as the test compares it: cause, exitCode, exitReason.
pub type Told = (String, i64, i64);

/// A verdict to compare with.
pub fn told(cause: &str, code: i64, reason: i64) -> Told {
    (cause.into(), code, reason)
}

impl Host {
    /// Starts both; the libvirtd calls its host `name`.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_with(name, "")
    }

    /// With these keys of `[libvirt]` besides.
    pub fn start_with(name: &str, libvirt: &str) -> Result<Self> {
        Self::start_as(name, libvirt, |launch| launch)
    }

    /// With a daemon that is started in another way.
    pub fn start_as(name: &str, libvirt: &str, change: impl Fn(Launch) -> Launch) -> Result<Self> {
        let folder = lab_dir()?;
        let libvirtd = Libvirtd::start(folder.path().join("l"), name)?;
        Self::beside(libvirtd, folder, libvirt, change)
    }

    /// With a libvirtd in a network of its own, in which there are these bridges.
    pub fn start_with_bridges(name: &str, bridges: &[&str]) -> Result<Self> {
        let folder = lab_dir()?;
        let libvirtd = Libvirtd::start_with_bridges(folder.path().join("l"), name, bridges)?;
        Self::beside(libvirtd, folder, "", |launch| launch)
    }

    fn beside(
        libvirtd: Libvirtd,
        folder: TempDir,
        libvirt: &str,
        change: impl Fn(Launch) -> Launch,
    ) -> Result<Self> {
        // This libvirtd lives in namespaces of its own: its files are elsewhere than its address says.
        let its = libvirtd.directory();
        let config = format!(
            "[libvirt]\nlog_dir = '{}'\nrun_dir = '{}'\ndaemon_log = '{}'\n{libvirt}",
            its.join("log/qemu").display(),
            its.join("run/qemu").display(),
            libvirtd.log_path().display()
        );
        let launch = Launch::new(program("whydownd"), folder.path().join("d"), &libvirtd.uri());
        let launch = launch.config(&config);
        Ok(Self { daemon: Whydownd::start(change(launch))?, libvirtd, folder })
    }

    /// A guest that is not yet started.
    pub fn guest(&self, name: &str) -> Result<Guest> {
        Guest::new(self.folder.path(), name)
    }

    /// Starts it as a transient domain, and waits until it listens and whydown shows it Up.
    pub fn up(&self, guest: &Guest) -> Result<Serial> {
        self.libvirtd.create(guest)?;
        self.wait_up(guest)
    }

    /// Defines and starts it.
    pub fn up_persistent(&self, guest: &Guest) -> Result<Serial> {
        self.libvirtd.define(guest)?;
        self.libvirtd.start_domain(guest.name())?;
        self.wait_up(guest)
    }

    fn wait_up(&self, guest: &Guest) -> Result<Serial> {
        let serial = guest.serial(PATIENCE)?;
        self.wait_status(guest, "up");
        Ok(serial)
    }

    /// `whydown --json why`; `None` if it knows nothing of the VM.
    pub fn why(&self, guest: &Guest) -> Option<Value> {
        let mut command = Command::new(program("whydown"));
        command.arg("--socket").arg(self.daemon.socket_path()).args(["--json", "why", guest.uuid_text()]);
        let done = run(&mut command, PATIENCE).ok()?;
        serde_json::from_slice(&done.stdout).ok()
    }

    /// What `whydown` asks the daemon; `None` if it has nothing to tell. Waiting by this costs no process a look.
    fn ask(&self, target: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.daemon.socket_path()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        // By HTTP/1.0, which knows no chunks: history comes in as many as it has pages.
        let request = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.0 200 ").then(|| serde_json::from_str(body).expect("JSON"))
    }

    fn shown(&self, guest: &Guest) -> Option<Value> {
        Some(self.ask(&format!("/v1/why?vm={}", guest.uuid_text()))?["domain"].take())
    }

    /// What a VM's status is; `None` if the daemon knows nothing of it.
    pub fn status(&self, guest: &Guest) -> Option<String> {
        Some(self.shown(guest)?["status"].as_str()?.to_owned())
    }

    /// The number of the run that is shown.
    pub fn run(&self, guest: &Guest) -> Option<i64> {
        self.shown(guest)?["run"].as_i64()
    }

    /// Waits until it has this status.
    pub fn wait_status(&self, guest: &Guest, status: &str) {
        wait_until(&format!("{} is {status}", guest.name()), PATIENCE, || {
            self.status(guest).as_deref() == Some(status)
        });
    }

    /// Waits until it is Down, and gives the whole ending.
    pub fn ending(&self, guest: &Guest) -> Value {
        self.wait_status(guest, "down");
        let ending = self.why(guest).expect("it is down")["ending"].clone();
        assert!(
            !ending["because"].as_array().expect("a list").is_empty(),
            "a verdict without a because: {ending}"
        );
        ending
    }

    /// Checks the ending by `whydown` and by what a manager reads. `certainty` may name several, with bars between.
    pub fn check(&self, guest: &Guest, wanted: &Told, certainty: &str) -> Result<Value> {
        let ending = self.ending(guest);
        let number = |name: &str| ending[name].as_i64().expect("a number");
        let cause = ending["cause"].as_str().expect("a word").to_owned();
        assert_eq!((cause, number("exit_code"), number("exit_reason")), *wanted, "{ending:#}");
        assert!(certainty.split('|').any(|certainty| ending["certainty"] == certainty), "{ending:#}");
        let code = format!(
            "vm = server.getVmStats('{}')['statsList'][0]\n\
             print(vm['status'], vm['exitCode'], vm['exitReason'], vm['exitCause'], vm['exitMessage'], sep='|')",
            guest.uuid_text()
        );
        let read = xmlrpc_client(self.daemon.port()?, &code)?;
        let fields: Vec<&str> = read.trim().splitn(5, '|').collect();
        let classic: i64 = fields[2].parse().expect("exitReason is a number");
        assert_eq!((fields[0], fields[1], fields[3]), ("Down", &*wanted.1.to_string(), &*wanted.0), "{read}");
        assert!(classic <= 8 && (wanted.2 > 8 || classic == wanted.2), "an old manager reads {read}");
        assert_eq!(fields[4], ending["message"].as_str().expect("a text"));
        Ok(ending)
    }

    /// Calls a verb and gives its status code.
    pub fn call(&self, call: &str) -> Result<i64> {
        let read = xmlrpc_client(self.daemon.port()?, &format!("print(server.{call}['status']['code'])"))?;
        Ok(read.trim().parse().expect("a code"))
    }

    /// The past endings of a guest, newest first: causes with their run numbers.
    pub fn history(&self, guest: &Guest) -> Result<Vec<(String, i64)>> {
        let cause = |e: &Value| e["cause"].as_str().expect("a word").to_owned();
        let run = |e: &Value| e["run"].as_i64().expect("a number");
        Ok(self.past(guest)?.iter().map(|e| (cause(e), run(e))).collect())
    }

    /// The past endings of a guest, newest first and whole.
    pub fn past(&self, guest: &Guest) -> Result<Vec<Value>> {
        let history = self.ask(&format!("/v1/history?vm={}", guest.uuid_text())).expect("the daemon answers");
        Ok(history["endings"].as_array().expect("a list").clone())
    }

    /// What `whydown` prints as JSON.
    pub fn whydown(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(program("whydown"));
        command.arg("--socket").arg(self.daemon.socket_path()).args(arguments);
        let done = run(&mut command, PATIENCE)?;
        Ok(serde_json::from_slice(&done.stdout).expect("JSON"))
    }

    /// How often the daemon has found libvirt, over all its starts.
    pub fn links(&self) -> usize {
        let said = std::fs::read_to_string(self.daemon.output_path()).unwrap_or_default();
        said.matches("libvirt is there: ").count()
    }

    /// Waits until it has found libvirt more often than `before`, and shows what it found.
    pub fn wait_link(&self, before: usize) {
        wait_until("whydown finds libvirt again", PATIENCE, || {
            self.links() > before
                && self.ask("/v1/health").is_some_and(|health| health["link_lost_since"].is_null())
        });
    }

    /// Asks for the start of a guest through XML-RPC; gives the status code.
    pub fn create(&self, guest: &Guest) -> Result<i64> {
        let document = guest.write_xml()?;
        self.call(&format!(
            "create({{'vmId': '{}', 'xml': open('{}').read()}})",
            guest.uuid_text(),
            document.display()
        ))
    }
}

/// One call of a verb with text parameters over `stream`, with one more header; gives the answer as it came.
pub fn post(mut stream: impl Read + Write, header: &str, verb: &str, texts: &[&str]) -> String {
    let values: String =
        texts.iter().map(|text| format!("<param><value><string>{text}</string></value></param>")).collect();
    let body = format!("<methodCall><methodName>{verb}</methodName><params>{values}</params></methodCall>");
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).expect("sent");
    let mut answer = String::new();
    // The daemon may be killed meanwhile; then there is what there is.
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// The status code of such an answer.
pub fn code_of(answer: &str) -> Option<i64> {
    let (_, rest) = answer.split_once("<name>code</name>")?;
    rest.split_once("<int>")?.1.split_once("</int>")?.0.parse().ok()
}

impl Host {
    /// A connection as a manager makes it.
    pub fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.daemon.addresses()?[0]).expect("the daemon listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
        Ok(stream)
    }
}

/// A child that does not outlive its test.
pub struct Held(pub std::process::Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Whether some piece of a list of evidence says this.
pub fn says(pieces: &Value, words: &str) -> bool {
    pieces.as_array().is_some_and(|pieces| {
        pieces.iter().any(|piece| piece["what"].as_str().is_some_and(|what| what.contains(words)))
    })
}
