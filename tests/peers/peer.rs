//! The clients: how each is made ready and started, what its language cannot tell apart, and how it sends.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use whydown_lab::run;

use crate::line::{Reply, Value, call_line, read_reply};
use crate::relay::Relay;

/// How long one call may take; a virtual machine may take its time to save itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// One client library.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    /// What `tests/setup.sh test` installs for it.
    from: &'static str,
    /// Commands that must succeed before it can run: they compile it, or fail where a part is missing.
    prepare: &'static [&'static [&'static str]],
    run: &'static [&'static str],
    pub reads: Reads,
    pub sends: Sends,
}

/// What a client makes of values that its language has no type of its own for.
#[derive(Debug, Default)]
pub struct Reads {
    /// An empty struct as an empty array.
    pub empty_struct_as_array: bool,
    /// An empty text as nothing.
    pub empty_text_as_nothing: bool,
    /// Letters beyond U+FFFF make the whole answer unreadable.
    pub no_astral: bool,
}

/// How a client sends, with its defaults. All of this is checked on the wire, and stands in docs/reference/xmlrpc.md.
#[derive(Debug)]
pub struct Sends {
    /// Where a client says who it is.
    pub user_agent: &'static str,
    /// It asks for packed answers in the way that the daemon packs them, and gets them.
    pub gzip: bool,
    /// It uses a connection for more than one call.
    pub keeps_alive: bool,
    /// Marks that stand in its requests: of a text, of a number, and of no parameters.
    pub text: &'static str,
    pub int: &'static str,
    pub none: &'static str,
}

const JARS: &str = "{out}:/usr/share/java/axmlrpc.jar:/usr/share/java/commons-httpclient.jar:\
                    /usr/share/java/commons-logging.jar:/usr/share/java/commons-codec.jar";

const GO: &str = "/usr/share/gocode/src/github.com/kolo/xmlrpc";

/// All of them. The first is the one that the others are compared with.
pub static KINDS: [Kind; 10] = [
    Kind {
        name: "python",
        from: "python3",
        prepare: &[],
        run: &["python3", "{in}/peer.py"],
        reads: Reads { empty_struct_as_array: false, empty_text_as_nothing: false, no_astral: false },
        sends: Sends {
            user_agent: "Python-xmlrpc/",
            gzip: true,
            keeps_alive: true,
            text: "<value><string>ping</string></value>",
            int: "<value><int>7</int></value>",
            none: "<params>\n</params>",
        },
    },
    Kind {
        name: "engine",
        from: "libcommons-httpclient-java and default-jdk-headless",
        prepare: &[&["javac", "-proc:none", "-cp", JARS, "-d", "{out}", "{in}/Engine.java"]],
        run: &["java", "-XX:TieredStopAtLevel=1", "-cp", JARS, "Engine"],
        reads: Reads { empty_struct_as_array: false, empty_text_as_nothing: false, no_astral: false },
        sends: Sends {
            user_agent: "Apache XML RPC 3.1.3 (Jakarta Commons httpclient Transport)",
            gzip: false,
            keeps_alive: true,
            text: "<value>ping</value>",
            int: "<value><i4>7</i4></value>",
            none: "<params/>",
        },
    },
];

/// Compiles it, or finds out what is missing.
///
/// # Errors
///
/// What failed, and what to install.
pub fn prepare(kind: &Kind, out: &Path) -> Result<(), String> {
    for step in kind.prepare {
        let mut command = command(step, out);
        run(&mut command, PATIENCE).map_err(|error| {
            format!(
                "{} cannot be had: {error}\nIt needs {}, which `tests/setup.sh test` installs",
                kind.name, kind.from
            )
        })?;
    }
    Ok(())
}

fn command(words: &[&str], out: &Path) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fill = |word: &&str| {
        let clients = root.join("tests/peers/clients");
        word.replace("{in}", &clients.display().to_string()).replace("{out}", &out.display().to_string())
    };
    let mut words = words.iter().map(fill);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).env("NODE_PATH", root.join("target/peers/node_modules"));
    // Nothing of the environment may stand between two processes of one machine, or change how a client reads.
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY", "JAVA_TOOL_OPTIONS", "PERL5OPT"]
    {
        command.env_remove(name);
    }
    command
}

/// A running client with its own wire to the daemon. On drop it is gone.
#[derive(Debug)]
pub struct Peer {
    pub kind: &'static Kind,
    pub relay: Relay,
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
    errors: PathBuf,
}

impl Peer {
    /// Starts a client that was prepared in `out`; what it complains about goes to a file in `folder`.
    pub fn start(kind: &'static Kind, out: &Path, daemon: SocketAddr, folder: &Path) -> Self {
        let relay = Relay::to(daemon).expect("a port can be had");
        let errors = folder.join(format!("{}.err", kind.name));
        let mut child = command(kind.run, out)
            .arg(format!("http://{}", relay.address))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("a file can be made"))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `tests/setup.sh test` installs {}", kind.name, kind.from));
        let input = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (sender, output) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { kind, relay, child, input, output, errors }
    }

    /// Lets it call `method` at `path`, and tells what it read.
    pub fn ask(&mut self, path: &str, method: &str, arguments: &[Value]) -> Reply {
        let sent = writeln!(self.input, "{}", call_line(path, method, arguments)).and_then(|()| self.input.flush());
        let line = match (sent, self.output.recv_timeout(PATIENCE)) {
            (Ok(()), Ok(line)) => line,
            (_, Err(RecvTimeoutError::Timeout)) => panic!("{}: no reply to {method}", self.kind.name),
            _ => panic!("{} ended at {method}: {}", self.kind.name, self.complaints()),
        };
        read_reply(&line).unwrap_or_else(|error| panic!("{}: {method}: {error}", self.kind.name))
    }

    /// What it wrote to its standard error.
    pub fn complaints(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
