//! What happens when a test is killed (Ctrl-C, a time limit): no handle is dropped, so someone else has to clear away.
//!
//! A guard is a small shell that reads from a pipe whose other end only the test's process holds.
//! When that process is gone, in whatever way, the read ends and the shell clears away what the directory names.
//! It takes no process for its own whose command line does not say so.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::command::spawn;
use crate::{Error, Result};

/// Where the main process of a directory is named.
const PID_FILE: &str = "main.pid";

/// `$1` is the directory, `$2` says whether it is removed.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
cat >/dev/null
end() {
    pid=$(cat "$1" 2>/dev/null) || return 0
    tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -qF -- "$2" && kill -KILL "$pid"
}
end "$1/main.pid" "$1/"
for file in "$1"/run/qemu/*.pid; do
    end "$file" qemu-system-
done
[ "$2" = keep ] || rm -rf -- "$1"
"#;

/// Clears a directory's processes away if our own process ends without doing so.
#[derive(Debug)]
pub(crate) struct Guard {
    shell: Child,
}

impl Guard {
    /// Guards `directory`, which must exist and be a path from the root; with `remove` it goes too.
    pub(crate) fn new(directory: &Path, remove: bool) -> Result<Self> {
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "lab-guard"])
            .arg(directory)
            .arg(if remove { "remove" } else { "keep" })
            .stdin(Stdio::piped())
            // Whoever reads our output to its end must not wait for the guard.
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Ok(Self { shell: spawn(&mut command)? })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Waiting closes the pipe first; by now there is nothing left for the shell to find.
        let _ = self.shell.wait();
    }
}

/// Names the main process of `directory` to its guard.
pub(crate) fn name_main(directory: &Path, child: &Child) -> Result<()> {
    let path = directory.join(PID_FILE);
    fs::write(&path, child.id().to_string()).map_err(Error::file("write", &path))
}
