//! The guest's serial line: words of one letter, each confirmed by its echo.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::wait::{try_wait_for, wait_for};
use crate::{Error, Result};

/// How long the guest may take to echo a letter. It takes milliseconds; a loaded machine gets a thousand times that.
const ECHO_LIMIT: Duration = Duration::from_secs(20);

/// How long to listen for an answer before asking or looking again.
const LISTEN: Duration = Duration::from_millis(100);

/// A connected guest. While it lives no one else can connect to the same line.
#[derive(Debug)]
pub struct Serial {
    stream: UnixStream,
}

impl Serial {
    /// Connects to the socket at `path` as soon as it is there, and waits until the guest answers; both within `limit`.
    ///
    /// What the guest says before the connection is lost, therefore it is asked until it echoes.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when there is no socket or no answer in time.
    pub fn connect(path: &Path, limit: Duration) -> Result<Self> {
        let until = Instant::now() + limit;
        let what = format!("a connection to {}", path.display());
        let stream = wait_for(&what, limit, || UnixStream::connect(path).ok())?;
        stream
            .set_read_timeout(Some(LISTEN))
            .map_err(|source| Error::io("set a read timeout on the serial line", source))?;
        let mut serial = Self { stream };
        serial.answer(until.saturating_duration_since(Instant::now()))?;
        Ok(serial)
    }

    /// Asks until the guest answers, for at most `limit`: it is running and obeys.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when it does not, [`Error::Io`] when the line is closed.
    pub fn answer(&mut self, limit: Duration) -> Result<()> {
        let what = "an answer of the guest on its serial line";
        let until = Instant::now() + limit;
        self.forget()?;
        try_wait_for(what, limit, || {
            self.send(b'?')?;
            Ok(self.receive()?.filter(|byte| *byte == b'?').map(drop))
        })?;
        // Echoes of earlier questions may still be on their way; the echo of another letter comes after them all.
        self.send(b'!')?;
        self.expect(b'!', what, until.saturating_duration_since(Instant::now()))
    }

    /// Waits until the guest says that it has just started, after a reset, for at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] when it does not, [`Error::Io`] when the line is closed.
    pub fn started_again(&mut self, limit: Duration) -> Result<()> {
        self.expect(b'R', "the guest's word that it has started", limit)
    }

    /// Sends one letter and waits for its echo, which comes before the deed.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] without an echo, [`Error::Io`] when the line is closed.
    pub fn obey(&mut self, letter: char) -> Result<()> {
        let byte = u8::try_from(letter).ok().filter(u8::is_ascii).ok_or_else(|| Error::Invalid {
            what: "a command",
            expected: "an ASCII letter",
            got: letter.into(),
        })?;
        self.send(byte)?;
        self.expect(byte, &format!("the guest's echo of {letter:?}"), ECHO_LIMIT)
    }

    /// Lets the guest power itself off (ACPI S5).
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`]; so for all commands below.
    pub fn power_off(&mut self) -> Result<()> {
        self.obey('p')
    }

    /// Lets the guest reset itself through the keyboard controller.
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`].
    pub fn reset(&mut self) -> Result<()> {
        self.obey('r')
    }

    /// Lets the guest's processor fault three times, which resets it.
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`].
    pub fn triple_fault(&mut self) -> Result<()> {
        self.obey('t')
    }

    /// Lets the guest report a panic.
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`].
    pub fn panic(&mut self) -> Result<()> {
        self.obey('c')
    }

    /// Lets the guest report that a crash kernel runs.
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`].
    pub fn crash_loaded(&mut self) -> Result<()> {
        self.obey('l')
    }

    /// Lets the guest stop for good with interrupts off; it answers no more.
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`].
    pub fn hang(&mut self) -> Result<()> {
        self.obey('h')
    }

    /// Lets the guest spin for good at full processor load; it answers no more.
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`].
    pub fn spin(&mut self) -> Result<()> {
        self.obey('s')
    }

    /// Lets the guest ignore its power button from now on, until it is reset.
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`].
    pub fn ignore_button(&mut self) -> Result<()> {
        self.obey('i')
    }

    /// Lets the guest start its watchdog, which fires two seconds later. Without the device nothing happens.
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`].
    pub fn arm_watchdog(&mut self) -> Result<()> {
        self.obey('d')
    }

    /// Lets the guest eject the first PCI device that it was asked to give up. Without one nothing happens.
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`].
    pub fn eject(&mut self) -> Result<()> {
        self.obey('e')
    }

    /// Lets the guest write one sector to its boot disk; [`Serial::written`] has the result.
    ///
    /// # Errors
    ///
    /// As [`Serial::obey`].
    pub fn write_sector(&mut self) -> Result<()> {
        self.obey('w')
    }

    /// The result of [`Serial::write_sector`]: the BIOS status, 0 when written.
    /// [`None`] when there is none within `limit`, as for a machine that was stopped by the error.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the line is closed.
    pub fn written(&mut self, limit: Duration) -> Result<Option<u8>> {
        let until = Instant::now() + limit;
        loop {
            if let Some(byte) = self.receive()? {
                return Ok(Some(byte.wrapping_sub(b'0')));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    fn expect(&mut self, byte: u8, what: &str, limit: Duration) -> Result<()> {
        try_wait_for(what, limit, || Ok(self.receive()?.filter(|got| *got == byte).map(drop)))
    }

    /// Reads away what was said before, which could be taken for an answer.
    fn forget(&mut self) -> Result<()> {
        let blocking = |stream: &UnixStream, yes: bool| {
            stream.set_nonblocking(!yes).map_err(|source| Error::io("set up the serial line", source))
        };
        blocking(&self.stream, false)?;
        let read = loop {
            match self.receive() {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        blocking(&self.stream, true)?;
        read
    }

    fn send(&mut self, byte: u8) -> Result<()> {
        self.stream.write_all(&[byte]).map_err(|source| Error::io("write to the serial line", source))
    }

    /// One byte, if one comes soon.
    fn receive(&mut self) -> Result<Option<u8>> {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(0) => {
                Err(Error::io("read from the serial line: QEMU closed it", ErrorKind::UnexpectedEof.into()))
            }
            Ok(_) => Ok(Some(byte[0])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(Error::io("read from the serial line", error)),
        }
    }
}
