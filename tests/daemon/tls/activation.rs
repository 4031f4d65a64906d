//! Sockets that systemd made before the daemon. A few lines of Python hand them over as systemd does, then become it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use whydown_lab::{Error, Launch, Result, Whydownd, lab_dir, xmlrpc_client};

const SYSTEMD: &str = r#"#!/usr/bin/env python3
import os, socket, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
held = []
unix = socket.socket(socket.AF_UNIX); path = options["--socket"]
if os.path.exists(path): os.unlink(path)
unix.bind(path); unix.listen(); held.append(unix)
for place in os.environ.get("HELD", "").split():
    host, port = place.rsplit(":", 1)
    family = socket.AF_INET6 if "[" in host else socket.AF_INET
    tcp = socket.socket(family); tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tcp.bind((host.strip("[]"), int(port))); tcp.listen(); held.append(tcp)
# Above the places where they go, so that none is overwritten by another.
high = [os.dup2(s.fileno(), 100 + i) for i, s in enumerate(held)]
for i, fd in enumerate(high): os.dup2(fd, 3 + i)
environment = dict(os.environ, LISTEN_FDS=str(len(held)), LISTEN_PID=str(os.getpid()))
os.execve(os.environ["DAEMON"], [os.environ["DAEMON"], *sys.argv[1:]], environment)
"#;

/// A port that was free just now. Another process may take it first; then the start fails and says so.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}

struct Held {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Held {
    fn new() -> Result<Self> {
        let folder = lab_dir()?;
        let program = folder.path().join("systemd.py");
        std::fs::write(&program, SYSTEMD).expect("the folder can be written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        Ok(Self { folder, program })
    }

    fn launch(&self, held: &str, listen: &str) -> Launch {
        Launch::new(&self.program, self.folder.path().join("d"), "test:///default")
            .listen(listen)
            .environment("DAEMON", env!("CARGO_BIN_EXE_whydownd"))
            .environment("HELD", held)
    }
}

#[test]
fn sockets_of_systemd_are_served_and_their_file_is_left_to_it() -> Result<()> {
    let held = Held::new()?;
    let address = format!("127.0.0.1:{}", free_port());
    let mut daemon = Whydownd::start(held.launch(&address, &address))?;
    assert_eq!(daemon.addresses()?, [address.parse().expect("an address")]);
    assert_eq!(xmlrpc_client(daemon.port()?, "print(server.list()['status']['code'])")?, "0");
    let mut health = std::process::Command::new(env!("CARGO_BIN_EXE_whydown"));
    health.arg("--socket").arg(daemon.socket_path()).arg("health");
    assert!(health.output().expect("it runs").status.success());
    daemon.terminate()?;
    assert!(daemon.socket_path().exists(), "the file is systemd's");
    daemon.start_again()?;
    assert_eq!(xmlrpc_client(daemon.port()?, "print(server.list()['status']['code'])")?, "0");
    Ok(())
}

#[test]
fn an_ipv6_socket_of_systemd_is_served() -> Result<()> {
    let held = Held::new()?;
    let port = free_port();
    let address = format!("[::1]:{port}");
    let daemon = Whydownd::start(held.launch(&address, &address))?;
    let code = format!("print(xmlrpc.client.ServerProxy('http://[::1]:{port}/').list()['status']['code'])");
    assert_eq!(xmlrpc_client(daemon.port()?, &code)?, "0");
    Ok(())
}

#[test]
fn a_socket_that_the_configuration_does_not_know_ends_the_start() -> Result<()> {
    let held = Held::new()?;
    let stray = format!("127.0.0.1:{}", free_port());
    let error = Whydownd::start(held.launch(&stray, "127.0.0.1:0")).unwrap_err();
    let wanted = format!("systemd passed {stray}: it is neither in xmlrpc.listen nor in tls.listen");
    assert!(matches!(&error, Error::Ended { log, .. } if log.contains(&wanted)), "{error}");
    Ok(())
}
