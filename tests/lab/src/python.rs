//! Python as a peer: its `xmlrpc.client` is what VDSM's managers have always used.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::{Result, run};

/// How long one script may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `code` in python3 with `xmlrpc.client` imported and `server` connected to `http://127.0.0.1:PORT/`;
/// returns what it printed, without the last line end.
///
/// # Errors
///
/// [`crate::Error::Missing`] without python3, [`crate::Error::Refused`] with the traceback when the code raises.
pub fn xmlrpc_client(port: u16, code: &str) -> Result<String> {
    let start = format!(
        "import xmlrpc.client\nserver = xmlrpc.client.ServerProxy('http://127.0.0.1:{port}/', allow_none=True)\n"
    );
    python(&(start + code), &[])
}

/// The same with `server` connected through the unix socket at `socket`.
///
/// # Errors
///
/// As [`xmlrpc_client`].
pub fn unix_client(socket: &Path, code: &str) -> Result<String> {
    let start = format!(
        "import http.client, socket, xmlrpc.client\n\
         class Local(xmlrpc.client.Transport):\n\
         \x20   def make_connection(self, host):\n\
         \x20       made = http.client.HTTPConnection('localhost')\n\
         \x20       made.sock = socket.socket(socket.AF_UNIX)\n\
         \x20       made.sock.connect('{}')\n\
         \x20       return made\n\
         server = xmlrpc.client.ServerProxy('http://localhost/', transport=Local(), allow_none=True)\n",
        socket.display()
    );
    python(&(start + code), &[])
}

/// Runs `code` in python3 with `arguments` in `sys.argv[1:]`; returns what it printed, without the last line end.
///
/// # Errors
///
/// As [`xmlrpc_client`].
pub fn python(code: &str, arguments: &[&str]) -> Result<String> {
    // No proxy of the environment may stand between two processes of one machine.
    let mut command = Command::new("python3");
    command.args(["-c", code]).args(arguments).env("no_proxy", "*");
    let output = run(&mut command, LIMIT)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn what_python_prints_comes_back() {
        assert_eq!(python("import sys; print(sys.argv[1] * 2)", &["ab"]).unwrap(), "abab");
    }

    #[test]
    fn a_traceback_is_an_error_with_its_text() {
        let error = python("raise ValueError('so')", &[]).unwrap_err();
        assert!(matches!(&error, Error::Refused { said, .. } if said.ends_with("ValueError: so")), "{error}");
    }

    #[test]
    fn the_client_speaks_to_a_real_server() {
        // Port 0 and one answered call; the port is told through the pipe of a second Python process.
        let server = "import sys, xmlrpc.server\n\
            s = xmlrpc.server.SimpleXMLRPCServer(('127.0.0.1', 0), logRequests=False)\n\
            s.register_function(lambda a: a + 1, 'next')\n\
            print(s.server_address[1], flush=True)\n\
            s.handle_request()";
        let mut child = Command::new("python3")
            .args(["-c", server])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("python3 is installed: run `tests/setup.sh test`");
        let mut line = String::new();
        let mut reader = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
        let answer = xmlrpc_client(line.trim().parse().unwrap(), "print(server.next(41))");
        if answer.is_err() {
            child.kill().unwrap();
        }
        assert_eq!(answer.unwrap(), "42");
        assert!(child.wait().unwrap().success());
    }
}
