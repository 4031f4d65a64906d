//! Runs a program to its end, with a limit, and says how to get it when it is missing.

use std::io::{self, Read};
use std::process::{Child, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait::try_wait_for;
use crate::{Error, Result};

/// Runs `command` with closed input, collects its output and fails unless it ends with success within `limit`.
///
/// # Errors
///
/// [`Error::Missing`] when the program is not installed, [`Error::Refused`] when it ends without success,
/// [`Error::TimedOut`] when it had to be killed.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    let line = line(command);
    let output = collect(command, limit)?;
    if output.status.success() {
        return Ok(output);
    }
    let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.is_empty() {
        said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Err(Error::Refused { command: line, status: output.status, said })
}

/// As [`run`], but any exit status is an answer.
pub(crate) fn collect(command: &mut Command, limit: Duration) -> Result<Output> {
    let line = line(command);
    let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    // Both pipes are emptied while the program runs: a full pipe would stop it.
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    match wait_child(&mut child, &format!("the end of `{line}`"), limit) {
        Ok(status) => Ok(Output { status, stdout: gather(stdout), stderr: gather(stderr) }),
        Err(error) => {
            // It may have ended in between; then there is nothing to kill.
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Starts `command`; a missing program is told with its package.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|source| {
        let program = command.get_program().to_string_lossy().into_owned();
        match (source.kind(), package_of(&program)) {
            (io::ErrorKind::NotFound, Some(package)) => Error::Missing { program, package },
            _ => Error::io(format!("start `{program}`"), source),
        }
    })
}

/// Waits for the end of a child, for at most `limit`; does not kill it.
pub(crate) fn wait_child(child: &mut Child, what: &str, limit: Duration) -> Result<std::process::ExitStatus> {
    try_wait_for(what, limit, || child.try_wait().map_err(|source| Error::io("wait for a child", source)))
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> Option<JoinHandle<Vec<u8>>> {
    pipe.map(|mut pipe| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
            bytes
        })
    })
}

fn gather(reader: Option<JoinHandle<Vec<u8>>>) -> Vec<u8> {
    reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
}

fn line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

fn package_of(program: &str) -> Option<&'static str> {
    Some(match program.rsplit('/').next().unwrap_or(program) {
        "virsh" => "libvirt-clients",
        "libvirtd" => "libvirt-daemon",
        "qemu-system-x86_64" => "qemu-system-x86",
        "as" | "ld" => "binutils",
        "unshare" | "mount" | "nsenter" | "setpriv" => "util-linux",
        "journalctl" => "systemd",
        "python3" => "python3",
        "tini" => "tini",
        _ => return None,
    })
}
