//! A Linux guest's serial line: words of one line each, confirmed by their echo, and everything that was ever said.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::wait::{try_wait_for, wait_for};
use crate::{Error, Result};

/// What the guest says when it is ready; again after each boot.
const READY: &str = "lab: ready";

/// How long the guest may take to echo a word, on a machine that is busy with other tests.
const ECHO_LIMIT: Duration = Duration::from_secs(30);

/// A connected Linux guest. While it lives no one else can connect to the same line.
#[derive(Debug)]
pub struct Console {
    stream: UnixStream,
    log: PathBuf,
}

impl Console {
    /// Connects to the socket as soon as it is there.
    pub(crate) fn connect(socket: &Path, log: PathBuf, limit: Duration) -> Result<Self> {
        let what = format!("a connection to {}", socket.display());
        let stream = wait_for(&what, limit, || UnixStream::connect(socket).ok())?;
        // What is said is read from the log; here it is only taken out of the way.
        let mut sink = stream.try_clone().map_err(|source| Error::io("share the serial line", source))?;
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while sink.read(&mut bytes).is_ok_and(|count| count > 0) {}
        });
        Ok(Self { stream, log })
    }

    /// All that the guest has said on this line since its machine was started, over all boots.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it has become ready for the `times`-th time.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] with what it said last.
    pub fn wait_ready(&self, times: usize, limit: Duration) -> Result<()> {
        self.wait_said(READY, times, limit)
    }

    /// Waits until it has said `words`, `times` times in all.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] with what it said last.
    pub fn wait_said(&self, words: &str, times: usize, limit: Duration) -> Result<()> {
        let what = format!("the guest's word {words:?}");
        let waited =
            try_wait_for(&what, limit, || Ok((self.said().matches(words).count() >= times).then_some(())));
        match waited {
            Err(Error::TimedOut { what, limit, .. }) => {
                let seen = format!("its console:\n{}", crate::daemon::tail_of(&self.log));
                Err(Error::TimedOut { what, limit, seen })
            }
            other => other,
        }
    }

    /// Has the guest do something, and waits for its echo, which comes before the deed:
    ///
    /// * `poweroff`, `reboot`, `halt` (the machine stays, its processor stands still);
    /// * `panic`, `oom` (one process takes all memory and is killed), `oom-panic`;
    /// * `load-crash-kernel`: says `lab: loaded`;
    /// * `suspend` to memory, `hibernate` (suspend to disk): it says `lab: awake` when it goes on;
    /// * `ignore-button`: the power button has no effect any more;
    /// * `stop-agent`, `continue-agent`, `end-agent`, `start-agent`;
    /// * `ping`: nothing.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] without an echo, [`Error::Io`] when the line is closed.
    pub fn order(&mut self, word: &str) -> Result<()> {
        let echo = format!("lab: {word}\r");
        let before = self.said().matches(&echo).count();
        self.stream
            .write_all(format!("{word}\n").as_bytes())
            .map_err(|source| Error::io("write to the serial line", source))?;
        self.wait_said(&echo, before + 1, ECHO_LIMIT)
    }

    /// Has the guest write these lines on its second serial line, and waits until it says that it has. No line may be
    /// longer than a terminal takes at once, 4096 bytes.
    ///
    /// # Errors
    ///
    /// As [`Console::order`].
    pub fn say_there(&mut self, text: &str) -> Result<()> {
        const SAID: &str = "lab: said";
        let before = self.said().matches(SAID).count();
        self.order("say-there")?;
        // A line at a time: the guest's serial port holds some bytes, and its terminal one page.
        for line in text.lines().chain(["."]) {
            self.stream
                .write_all(format!("{line}\n").as_bytes())
                .map_err(|source| Error::io("write to the serial line", source))?;
        }
        self.wait_said(SAID, before + 1, ECHO_LIMIT)
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Ends the thread that reads.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if std::thread::panicking() {
            eprintln!("the Linux guest said:\n{}", crate::daemon::tail_of(&self.log));
        }
    }
}
