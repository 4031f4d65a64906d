//! How a daemon is started, awaited, killed and started again.
//!
//! The lab knows no daemon of its own, so a few lines of Python keep the bargain here: arguments, `NOTIFY_SOCKET` and
//! `STATE_DIR/listen`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use whydown_lab::{Error, Launch, Result, Signal, Whydownd, lab_dir};

const SCRIPT: &str = r#"#!/usr/bin/env python3
import os, signal, socket, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
print("started with", sorted(options), open(options["--config"]).read(), flush=True)
if options.get("--behave") == "end":
    sys.exit("no such hypervisor: " + options["--connect"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
host, port = options["--listen"].rsplit(":", 1)
server = socket.create_server((host, int(port)))
with open(options["--state-dir"] + "/listen", "w") as listen:
    print(options["--socket"], "%s:%d" % server.getsockname(), sep="\n", file=listen)
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"STATUS=waiting\nREADY=1", os.environ["NOTIFY_SOCKET"])
# A signal that comes just before Python begins to wait would else be seen only with the next client.
server.settimeout(0.2)
while True:
    try:
        client, _ = server.accept()
    except TimeoutError:
        continue
    client.sendall(os.environ.get("WORD", "none").encode())
    client.close()
"#;

fn program(directory: &Path) -> PathBuf {
    let path = directory.join("daemon.py");
    std::fs::write(&path, SCRIPT).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn word_at(port: u16) -> String {
    let mut word = String::new();
    TcpStream::connect(("127.0.0.1", port)).unwrap().read_to_string(&mut word).unwrap();
    word
}

#[test]
fn a_ready_daemon_is_at_the_port_that_the_system_chose() -> Result<()> {
    let directory = lab_dir()?;
    let launch = Launch::new(program(directory.path()), directory.path().join("d"), "test:///default")
        .config("answer = 42\n")
        .environment("WORD", "here");
    let mut daemon = Whydownd::start(launch)?;
    assert_eq!(word_at(daemon.port()?), "here");
    assert_eq!(daemon.notifications(), ["STATUS=waiting", "READY=1"]);
    let said = daemon.output_tail();
    assert!(
        said.contains("['--config', '--connect', '--listen', '--socket', '--state-dir'] answer = 42"),
        "{said}"
    );
    assert_eq!(daemon.terminate()?.and_then(|status| status.code()), Some(0));
    assert_eq!(daemon.pid(), None);
    assert!(daemon.signal(Signal::TERM).is_err());
    Ok(())
}

#[test]
fn a_daemon_killed_or_terminated_starts_again_with_its_state() -> Result<()> {
    let directory = lab_dir()?;
    let launch = Launch::new(program(directory.path()), directory.path().join("d"), "test:///default");
    let mut daemon = Whydownd::start(launch)?;
    let first = daemon.pid();
    let kept = daemon.state_dir().join("kept");
    std::fs::File::create(&kept).unwrap().write_all(b"x").unwrap();
    let status = daemon.kill_9()?.unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    daemon.start_again()?;
    assert_ne!(daemon.pid(), first);
    daemon.restart()?;
    assert_eq!(word_at(daemon.port()?), "none");
    assert!(kept.exists());
    Ok(())
}

#[test]
fn a_daemon_that_cannot_start_is_an_error_with_its_own_words() -> Result<()> {
    let directory = lab_dir()?;
    let launch = Launch::new(program(directory.path()), directory.path().join("d"), "no:///thing")
        .argument("--behave")
        .argument("end");
    let error = Whydownd::start(launch).unwrap_err();
    assert!(
        matches!(&error, Error::Ended { log, .. } if log.contains("no such hypervisor: no:///thing")),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_program_that_is_missing_is_an_error_and_not_a_wait() -> Result<()> {
    let directory = lab_dir()?;
    let launch = Launch::new(directory.path().join("absent"), directory.path().join("d"), "test:///default");
    let error = Whydownd::start(launch).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    Ok(())
}
