//! The clients: how each is made ready and started, what its language cannot tell apart, and how it sends.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use whydown_lab::run;

use crate::peers::line::{Reply, Value, call_line, read_reply};
use crate::peers::relay::Relay;

/// How long one call may take; a virtual machine may take its time to save itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// One client library.
#[derive(Debug)]
pub struct Kind {
    pub name: &'static str,
    pub language: &'static str,
    pub library: &'static str,
    /// What `tests/setup.sh test` installs for it.
    from: &'static str,
    /// Commands that must succeed before it can run: they compile it, or fail where a part is missing.
    prepare: &'static [&'static [&'static str]],
    run: &'static [&'static str],
    pub reads: Reads,
    pub sends: Sends,
    /// Its request for `ping` to the last byte, where that matters; the head in small letters, and without the port.
    pub exact: Option<&'static str>,
}

/// What a client makes of values that its language has no type of its own for.
#[derive(Debug, Default)]
pub struct Reads {
    /// An empty struct as an empty array.
    pub empty_struct_as_array: bool,
    /// An empty text as nothing.
    pub empty_text_as_nothing: bool,
    /// `&amp;amp;` as `&`: it decodes what it has decoded already.
    pub decodes_twice: bool,
    /// One letter beyond U+FFFF makes the whole answer unreadable.
    pub no_astral: bool,
}

/// How a client sends, with its defaults. All of this is checked on the wire, and stands in docs/reference/xmlrpc.md.
#[derive(Debug)]
pub struct Sends {
    /// How its `User-Agent` begins, in small letters; empty where it sends none.
    pub user_agent: &'static str,
    /// It asks for packed answers in the way that the daemon packs them, and gets them.
    pub gzip: bool,
    /// It uses a connection for more than one call.
    pub keeps_alive: Keeps,
    /// Marks that stand in its requests: of a text, of a number, and of no parameters.
    pub text: &'static str,
    pub int: &'static str,
    pub none: &'static str,
    pub astral: Astral,
}

/// What becomes of letters beyond U+FFFF that a client is to send.
#[derive(Clone, Copy, Debug)]
pub enum Astral {
    Arrive,
    /// It writes what is no XML: the call is refused, as VDSM refused it.
    AreNoXml,
    /// It refuses to send them.
    StayAtHome,
}

const JARS: &str = "{out}:/usr/share/java/axmlrpc.jar:/usr/share/java/commons-httpclient.jar:\
                    /usr/share/java/commons-logging.jar:/usr/share/java/commons-codec.jar";

/// As it was captured from the engine's own client, with the header by which an engine says what it is about.
const ENGINE_PING: &str = "\
post / http/1.1
content-type: text/xml
user-agent: apache xml rpc 3.1.3 (jakarta commons httpclient transport)
flowid: 1f2e3d4c
host:
content-length: 101

<?xml version=\"1.0\" encoding=\"UTF-8\"?><methodCall><methodName>ping</methodName><params/></methodCall>";

/// Debian has the library's source only, and `gccgo` is less than half of what the other compiler takes on the disk.
const GO_STEPS: &[&[&str]] = &[
    &["mkdir", "-p", "{out}/github.com/kolo"],
    &[
        "sh",
        "-c",
        "cd /usr/share/gocode/src/github.com/kolo/xmlrpc && \
         gccgo -c -fgo-pkgpath=github.com/kolo/xmlrpc -o \"$1\" $(ls *.go | grep -v _test.go)",
        "sh",
        "{out}/github.com/kolo/xmlrpc.o",
    ],
    &["gccgo", "-I", "{out}", "-o", "{out}/peer-go", "{in}/peer.go", "{out}/github.com/kolo/xmlrpc.o"],
];

/// Reads everything for what it is.
const ALL: Reads = Reads {
    empty_struct_as_array: false,
    empty_text_as_nothing: false,
    decodes_twice: false,
    no_astral: false,
};

/// All of them. The first is the one that the others are compared with.
pub static KINDS: [Kind; 10] = [
    Kind {
        name: "python",
        language: "Python",
        library: "`xmlrpc.client` of 3.11",
        from: "python3",
        prepare: &[],
        run: &["python3", "{in}/peer.py"],
        reads: ALL,
        sends: Sends {
            user_agent: "python-xmlrpc/",
            gzip: true,
            keeps_alive: Keeps::Yes,
            text: "<value><string>ping</string></value>",
            int: "<value><int>7</int></value>",
            none: "<params></params>",
            astral: Astral::Arrive,
        },
        exact: None,
    },
    Kind {
        name: "engine",
        language: "Java",
        library: "as oVirt's engine: commons-httpclient 3.1 with the XML of Apache XML-RPC 3.1.3",
        from: "default-jdk-headless and libcommons-httpclient-java",
        prepare: &[&[
            "javac",
            "-proc:none",
            "-cp",
            JARS,
            "-d",
            "{out}",
            "{in}/Engine.java",
            "{in}/Lines.java",
        ]],
        run: &["java", "-XX:TieredStopAtLevel=1", "-cp", JARS, "Engine"],
        reads: ALL,
        sends: Sends {
            user_agent: "apache xml rpc 3.1.3 (jakarta commons httpclient transport)\r",
            gzip: false,
            keeps_alive: Keeps::Yes,
            text: "<value>ping</value>",
            int: "<value><i4>7</i4></value>",
            none: "<params/>",
            astral: Astral::AreNoXml,
        },
        exact: Some(ENGINE_PING),
    },
    Kind {
        name: "java",
        language: "Java",
        library: "aXMLRPC 1.13",
        from: "default-jdk-headless and libaxmlrpc-java",
        prepare: &[&["javac", "-proc:none", "-cp", JARS, "-d", "{out}", "{in}/Peer.java", "{in}/Lines.java"]],
        run: &["java", "-XX:TieredStopAtLevel=1", "-cp", JARS, "Peer"],
        reads: Reads { decodes_twice: true, ..ALL },
        sends: Sends {
            user_agent: "axmlrpc\r",
            gzip: false,
            keeps_alive: Keeps::Yes,
            text: "<value><string>ping</string></value>",
            int: "<value><int>7</int></value>",
            none: "</methodName></methodCall>",
            astral: Astral::Arrive,
        },
        exact: None,
    },
    Kind {
        name: "perl",
        language: "Perl",
        library: "RPC::XML 0.82",
        from: "librpc-xml-perl",
        prepare: &[&["perl", "-MRPC::XML::Client", "-e1"]],
        run: &["perl", "{in}/peer.pl"],
        reads: ALL,
        sends: Sends {
            user_agent: "rpc::xml::client/",
            gzip: false,
            keeps_alive: Keeps::No,
            text: "<value><string>ping</string></value>",
            int: "<value><int>7</int></value>",
            none: "<params></params>",
            astral: Astral::Arrive,
        },
        exact: None,
    },
    Kind {
        name: "frontier",
        language: "Perl",
        library: "Frontier 0.07",
        from: "libfrontier-rpc-perl",
        prepare: &[&["perl", "-MFrontier::Client", "-e1"]],
        run: &["perl", "{in}/frontier.pl"],
        reads: ALL,
        sends: Sends {
            user_agent: "libwww-perl/",
            gzip: false,
            keeps_alive: Keeps::No,
            text: "<value><string>ping</string></value>",
            int: "<value><int>7</int></value>",
            none: "<params></params>",
            astral: Astral::StayAtHome,
        },
        exact: None,
    },
    Kind {
        name: "ruby",
        language: "Ruby",
        library: "`xmlrpc` 0.3",
        from: "ruby and ruby-xmlrpc",
        prepare: &[&["ruby", "-rxmlrpc/client", "-e0"]],
        run: &["ruby", "{in}/peer.rb"],
        reads: ALL,
        sends: Sends {
            user_agent: "xmlrpc::client (ruby ",
            gzip: true,
            keeps_alive: Keeps::Yes,
            text: "<value><string>ping</string></value>",
            int: "<value><i4>7</i4></value>",
            none: "<params/>",
            astral: Astral::Arrive,
        },
        exact: None,
    },
    Kind {
        name: "php",
        language: "PHP",
        library: "the extension `xmlrpc`, over streams",
        from: "php8.2-cli and php8.2-xmlrpc",
        prepare: &[&["php", "-r", "exit((int) !function_exists('xmlrpc_decode'));"]],
        run: &["php", "{in}/peer.php"],
        reads: Reads { empty_struct_as_array: true, ..ALL },
        sends: Sends {
            user_agent: "",
            gzip: false,
            keeps_alive: Keeps::No,
            text: "<value><string>ping</string></value>",
            int: "<value><int>7</int></value>",
            none: "<params/>",
            astral: Astral::Arrive,
        },
        exact: None,
    },
    Kind {
        name: "javascript",
        language: "JavaScript",
        library: "`xmlrpc` 1.3 of npm",
        from: "nodejs, and the npm package xmlrpc in target/peers",
        prepare: &[&["node", "-e", "require('xmlrpc')"]],
        run: &["node", "{in}/peer.js"],
        reads: ALL,
        sends: Sends {
            user_agent: "nodejs xml-rpc client\r",
            gzip: false,
            keeps_alive: Keeps::ByVersion,
            text: "<value><string>ping</string></value>",
            int: "<value><int>7</int></value>",
            none: "<params/>",
            astral: Astral::Arrive,
        },
        exact: None,
    },
    Kind {
        name: "go",
        language: "Go",
        library: "kolo/xmlrpc of 2020",
        from: "gccgo and golang-github-kolo-xmlrpc-dev",
        prepare: GO_STEPS,
        run: &["{out}/peer-go"],
        reads: Reads { empty_text_as_nothing: true, ..ALL },
        sends: Sends {
            user_agent: "go-http-client/1.1\r",
            gzip: true,
            keeps_alive: Keeps::Yes,
            text: "<value><string>ping</string></value>",
            int: "<value><int>7</int></value>",
            none: "<params></params>",
            astral: Astral::Arrive,
        },
        exact: None,
    },
    Kind {
        name: "c",
        language: "C",
        library: "xmlrpc-c 1.33",
        from: "libxmlrpc-core-c3-dev",
        prepare: &[&[
            "cc",
            "-o",
            "{out}/peer-c",
            "{in}/peer.c",
            "-lxmlrpc_client",
            "-lxmlrpc",
            "-lxmlrpc_util",
        ]],
        run: &["{out}/peer-c"],
        reads: Reads { no_astral: true, ..ALL },
        sends: Sends {
            user_agent: "xmlrpc-c/",
            gzip: false,
            keeps_alive: Keeps::Yes,
            text: "<value><string>ping</string></value>",
            int: "<value><i4>7</i4></value>",
            none: "<params></params>",
            astral: Astral::StayAtHome,
        },
        exact: None,
    },
];

/// Whether a client uses a connection again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    Yes,
    No,
    /// It depends on the version of its language, and either is right.
    ByVersion,
}

impl Kind {
    /// Its row in docs/reference/xmlrpc.md.
    pub fn row(&self) -> String {
        let Sends { gzip, keeps_alive, text, int, none, .. } = &self.sends;
        let yes = |truth: bool| if truth { "yes" } else { "no" };
        let Reads { empty_struct_as_array, empty_text_as_nothing, decodes_twice, no_astral } = &self.reads;
        let otherwise: Vec<&str> = [
            (*empty_struct_as_array, "an empty struct as an empty array"),
            (*empty_text_as_nothing, "an empty text as nothing"),
            (*decodes_twice, "`&amp;` in a text as `&`"),
            (*no_astral, "letters beyond U+FFFF not at all, and nothing of a reply that has one"),
        ]
        .into_iter()
        .filter_map(|(holds, words)| holds.then_some(words))
        .collect();
        format!(
            "| {} | {} | {} | {} | `{}` | `{}` | {} | {} |",
            self.language,
            self.library,
            match keeps_alive {
                Keeps::Yes => "yes",
                Keeps::No => "no",
                Keeps::ByVersion => "from Node 19 on",
            },
            yes(*gzip),
            text.replace("ping", "x"),
            int.replace("<value>", "").replace("</value>", ""),
            if none.contains("<params") { format!("`{none}`") } else { "no element".into() },
            otherwise.join("; "),
        )
        .replace("|  |", "| |")
    }
}

/// Compiles it into a folder of its own in `out`, or finds out what is missing.
///
/// # Errors
///
/// What failed, and what to install.
pub fn prepare(kind: &Kind, out: &Path) -> Result<(), String> {
    let out = out.join(kind.name);
    std::fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    for step in kind.prepare {
        let mut command = command(step, &out);
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
        let clients = root.join("tests/clients/peers/clients");
        word.replace("{in}", &clients.display().to_string()).replace("{out}", &out.display().to_string())
    };
    let mut words = words.iter().map(fill);
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).env("NODE_PATH", root.join("target/peers/node_modules"));
    // Nothing of the environment may stand between two processes of one machine, or change how a client reads.
    for name in
        ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY", "JAVA_TOOL_OPTIONS", "PERL5OPT"]
    {
        command.env_remove(name);
    }
    command
}

/// A running client with its own wire to the daemon. On drop it is gone.
#[derive(Debug)]
pub struct Peer {
    pub kind: &'static Kind,
    /// The wires to the daemons that it may call.
    pub relays: Vec<Relay>,
    child: Child,
    input: ChildStdin,
    output: Receiver<String>,
    errors: PathBuf,
}

impl Peer {
    /// Starts a client that was prepared in `out`; what it complains about goes to a file in `folder`.
    pub fn start(kind: &'static Kind, out: &Path, daemons: &[SocketAddr], folder: &Path) -> Self {
        let relays = daemons.iter().map(|daemon| Relay::to(*daemon).expect("a port can be had")).collect();
        let errors = folder.join(format!("{}.err", kind.name));
        let mut child = command(kind.run, &out.join(kind.name))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("a file can be made"))
            .spawn()
            .unwrap_or_else(|error| {
                panic!("{}: {error}; `tests/setup.sh test` installs {}", kind.name, kind.from)
            });
        let input = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (sender, output) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { kind, relays, child, input, output, errors }
    }

    /// Lets it call `method` at `path` of the daemon with this number, and tells what it read.
    pub fn ask(&mut self, daemon: usize, path: &str, method: &str, arguments: &[Value]) -> Reply {
        let url = format!("http://{}{path}", self.relays[daemon].address);
        let sent =
            writeln!(self.input, "{}", call_line(&url, method, arguments)).and_then(|()| self.input.flush());
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
