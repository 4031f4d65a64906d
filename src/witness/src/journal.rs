//! systemd's journal, asked by its own program: what it has in its files is for nobody else to read.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use whydown_core::time::Wall;

/// How long it may take to say more.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// The program, where there is one.
pub(crate) fn program() -> Option<&'static Path> {
    ["/usr/bin/journalctl", "/bin/journalctl"].map(Path::new).into_iter().find(|path| path.is_file())
}

/// What it answers, one JSON object a line; at most some more than so many bytes of it. Blocks for as long as that takes.
///
/// # Errors
/// There is no such program, or it is silent for [`PATIENCE`].
pub(crate) fn ask(arguments: &[&str], most: u64) -> io::Result<String> {
    let program = program().ok_or(io::ErrorKind::NotFound)?;
    let child = Command::new(program)
        .args(["--quiet", "--no-pager", "--output=json"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut child = Reaped(child);
    let Some(mut answers) = child.0.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let mut said = Vec::new();
    let mut piece = vec![0; 16 * 1024];
    let wait = Timespec::try_from(PATIENCE).ok();
    while (said.len() as u64) < most {
        match poll(&mut [PollFd::new(&answers, PollFlags::IN)], wait.as_ref()) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => match answers.read(&mut piece)? {
                0 => break,
                count => said.extend_from_slice(&piece[..count]),
            },
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// When an entry was written, and only where that is not known, when the journal received it. Both are in microseconds.
pub(crate) fn time(entry: &serde_json::Value) -> Option<Wall> {
    let time = |name: &str| entry[name].as_str()?.parse::<i64>().ok();
    let at = time("_SOURCE_REALTIME_TIMESTAMP").or_else(|| time("__REALTIME_TIMESTAMP"))?;
    Some(Wall(at.checked_mul(1000)?))
}

/// A child that is ended with us, however we end.
pub(crate) struct Reaped(pub(crate) Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
