//! The old host as a process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use whydown_lab::{Result, xmlrpc_client};

/// A running one; killed on drop.
pub struct OldHost {
    child: Child,
    pub port: u16,
}

impl OldHost {
    pub fn start() -> Self {
        let spawned =
            Command::new("python3").args(["-c", include_str!("old_host.py")]).stdout(Stdio::piped()).spawn();
        let mut child = spawned.expect("python3 is there: tests/setup.sh test");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let port = line.trim().parse();
        let host = Self { child, port: port.as_ref().copied().unwrap_or(0) };
        port.expect("a port");
        host
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Calls one of its verbs for tests.
    pub fn lab(&self, call: &str) -> Result<String> {
        xmlrpc_client(self.port, &format!("print(server.lab.{call})"))
    }
}

impl Drop for OldHost {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
    }
}
