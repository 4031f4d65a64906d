//! What can go wrong in the lab, worded for the person who runs the tests.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use std::{fmt, io};

/// A result of the lab.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the lab. `Debug` prints the same text as `Display`, so that `unwrap` and `?` in a test say what to do.
#[derive(thiserror::Error)]
pub enum Error {
    /// An operation on a file, a socket or a process failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, as the end of "cannot ...".
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program is not installed.
    #[error("`{program}` is not installed: run `tests/setup.sh test` (Debian package: {package})")]
    Missing {
        /// The program.
        program: String,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// A libvirtd of our own needs mounts of its own.
    #[error(
        "a libvirtd of its own needs root with CAP_SYS_ADMIN (mount and UTS namespaces), but this runs as uid {uid}: \
         run these tests as root, for example `sudo -E env PATH=\"$PATH\" cargo test`, or in a container started \
         with `--privileged`"
    )]
    NotRoot {
        /// Our effective user id.
        uid: u32,
    },
    /// Orphaned processes stay zombies, so libvirt would wait 40 s at each stop of a machine.
    #[error(
        "orphaned processes are not reaped here: one that ended was still listed after {waited:?} (its parent is pid \
         {parent}). libvirt would wait 40 s at each stop of a machine. Run the tests under an init that reaps: \
         `tini -s -- cargo test ...`, or start the container with `docker run --init`"
    )]
    NotReaped {
        /// How long we looked.
        waited: Duration,
        /// The process that should have reaped it.
        parent: u32,
    },
    /// A program said no.
    #[error("`{command}` failed ({status}): {said}")]
    Refused {
        /// The command line.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// Its standard error, or its standard output when that was empty.
        said: String,
    },
    /// A program that should run on has ended.
    #[error("{what} ended ({status}) while {during}; its log:\n{log}")]
    Ended {
        /// The program.
        what: String,
        /// How it ended.
        status: ExitStatus,
        /// What we were waiting for.
        during: String,
        /// The end of its log.
        log: String,
    },
    /// A bounded wait ran out.
    #[error("{what} did not happen within {limit:?}{}", if .seen.is_empty() { String::new() } else { format!("; {}", .seen) })]
    TimedOut {
        /// What was awaited.
        what: String,
        /// How long, at most.
        limit: Duration,
        /// What was there instead, if anything is known.
        seen: String,
    },
    /// A socket path would not fit into the kernel's address.
    #[error("the socket path {} has {} bytes, more than {limit}: use a shorter directory (see `lab_dir`)", .path.display(), .path.as_os_str().len())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// The longest that is allowed, in bytes.
        limit: usize,
    },
    /// A text from the caller or from a program is not what it must be.
    #[error("{what} is not {expected}: {got:?}")]
    Invalid {
        /// What the text is.
        what: &'static str,
        /// What it has to be.
        expected: &'static str,
        /// The text.
        got: String,
    },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    pub(crate) fn file<'a>(verb: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { what: format!("{verb} {}", path.display()), source }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}
