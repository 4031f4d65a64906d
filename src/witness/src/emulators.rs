//! Whom a word of the kernel's on a process is about: the run of that process, a start that has not come up, or the run of
//! a program that has QEMU as its child.
//!
//! ```text
//! a process begins a program ─ with libvirt's arguments, and in its pid file ─▶ begun for a domain ─┬─▶ libvirt tells of it
//!                                                     as a child of such a one ─▶ QEMU itself       └─▶ the start failed
//! ```

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::emulator::{self, Emulator, Wrapper};
use crate::process;
use whydown_core::evidence::{ExitStatus, Fact};
use whydown_core::hypervisor::Process;
use whydown_core::id::DomainId;
use whydown_core::lifecycle::Subject;

/// Processes that are kept before anybody looks which are gone.
const SWEEP_MIN: usize = 256;

/// How long after the end of a process a word may be about it: its number is not given again so soon, and the kernel's own
/// log may lie in a queue.
const AFTER_THE_END: Duration = Duration::from_secs(30);

/// Shared by who learns of processes and who hears of them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Emulators {
    /// libvirt's folder of pid files; without one no start is known to be libvirt's.
    run_dir: Option<PathBuf>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    by_pid: HashMap<u32, One>,
    left: usize,
}

#[derive(Debug, Clone)]
struct One {
    process: Process,
    is: Is,
    gone: Option<Instant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Is {
    /// Begun by libvirt for a domain.
    Begun { domain: DomainId, program: String },
    /// QEMU itself, below this one of libvirt's.
    Inner { outer: Process, domain: DomainId },
}

/// A process that libvirt began, directly or below another.
#[derive(Debug, PartialEq, Eq)]
pub struct Begun {
    /// It.
    pub process: Process,
    /// Whom it is about.
    pub subject: Subject,
    /// What it shows.
    pub facts: Vec<Fact>,
}

impl Emulators {
    /// With libvirt's folder of pid files.
    pub fn new(run_dir: Option<PathBuf>) -> Self {
        Self { run_dir, known: Arc::default() }
    }

    /// A process has begun a program. `None` if that is not to run a domain.
    pub fn begun(&self, pid: u32) -> Option<Begun> {
        let one = Emulator::begun(pid)?;
        let above = one.above();
        let outer = {
            let known = self.known();
            let outer = above.iter().find_map(|pid| known.begun_for(*pid, one.domain));
            outer.filter(|_| one.calls_itself_qemu())
        };
        let process = one.process;
        if let Some((outer, program)) = outer {
            self.known().add(process, Is::Inner { outer, domain: one.domain });
            let facts = vec![Fact::Wrapped { program, qemu: Some(process.pid) }];
            return Some(Begun { process, subject: Subject::Starting(one.domain, outer), facts });
        }
        if !self.run_dir.as_ref().is_some_and(|folder| one.is_of_libvirt(folder)) {
            return None;
        }
        // A child that is not QEMU by its name is one of a script's tools, as far as we know.
        if above.iter().any(|pid| self.known().begun_for(*pid, one.domain).is_some()) {
            return None;
        }
        self.known().add(process, Is::Begun { domain: one.domain, program: one.program().to_owned() });
        Some(Begun { process, subject: Subject::Starting(one.domain, process), facts: Vec::new() })
    }

    /// libvirt tells of this process: what it shows, and QEMU below it, if it is not QEMU itself.
    pub fn came_up(&self, process: Process) -> (Vec<Fact>, Option<Process>) {
        let Some(one) = Emulator::of(process.pid).filter(|one| one.process == process) else {
            return (Vec::new(), None);
        };
        let mut facts = Vec::new();
        facts.extend(one.guests_exit.map(|device| Fact::GuestMayExit { device: device.into() }));
        let Some(Wrapper { program, qemu }) = emulator::wrapper(&one) else { return (facts, None) };
        facts.push(Fact::Wrapped { program, qemu: qemu.map(|qemu| qemu.pid) });
        if let Some(qemu) = qemu {
            self.known().add(qemu, Is::Inner { outer: process, domain: one.domain });
        }
        (facts, qemu)
    }

    /// Whom a word on the process with this number is about.
    pub fn subject(&self, pid: u32) -> Subject {
        match self.known().now(pid) {
            Some(One { process, is: Is::Begun { domain, .. }, .. }) => Subject::Starting(*domain, *process),
            Some(One { is: Is::Inner { outer, domain }, .. }) => Subject::Starting(*domain, *outer),
            None => Subject::Pid(pid),
        }
    }

    /// The end of a process, as it is told of whom it is about.
    pub fn ended(&self, process: Process, status: Option<ExitStatus>) -> (Subject, Option<Fact>) {
        let mut known = self.known();
        let one = known.by_pid.get_mut(&process.pid).filter(|one| one.process == process);
        let Some(one) = one else { return (Subject::Process(process), status.map(Fact::Exit)) };
        one.gone = Some(Instant::now());
        match &one.is {
            Is::Begun { domain, .. } => (Subject::Starting(*domain, process), status.map(Fact::Exit)),
            Is::Inner { outer, domain } => (Subject::Starting(*domain, *outer), status.map(Fact::InnerExit)),
        }
    }

    /// A witness's own word on an end, as it is told of whom it is about.
    pub fn as_told_of(&self, pid: u32, fact: Fact) -> Fact {
        match (fact, self.known().now(pid).map(|one| &one.is)) {
            (Fact::Exit(status), Some(Is::Inner { .. })) => Fact::InnerExit(status),
            (fact, _) => fact,
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn add(&mut self, process: Process, is: Is) {
        if self.by_pid.len() >= SWEEP_MIN.max(2 * self.left) {
            self.by_pid.retain(|_, one| one.is_of_use());
            self.left = self.by_pid.len();
        }
        self.by_pid.insert(process.pid, One { process, is, gone: None });
    }

    /// The one that has this number, or had it until a moment ago.
    fn now(&self, pid: u32) -> Option<&One> {
        self.by_pid.get(&pid).filter(|one| match process::identify(pid) {
            Some(there) => there == one.process,
            None => one.is_of_use(),
        })
    }

    /// The process with this number and its program, if libvirt began it for this domain.
    fn begun_for(&self, pid: u32, wanted: DomainId) -> Option<(Process, String)> {
        match self.now(pid)? {
            One { process, is: Is::Begun { domain, program }, .. } if *domain == wanted => {
                Some((*process, program.clone()))
            }
            _ => None,
        }
    }
}

impl One {
    /// Whether it runs, or ended so lately that words on it may still come.
    fn is_of_use(&self) -> bool {
        self.gone.is_none_or(|gone| gone.elapsed() < AFTER_THE_END)
            && (self.gone.is_some() || process::alive(self.process))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::emulator::tests::Family;

    const UUID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

    #[test]
    fn a_qemu_below_a_script_is_known_by_the_script_that_libvirt_began() {
        // Another name for the shell, as QEMU's would be.
        let folder = tempfile::tempdir().unwrap();
        let qemu = folder.path().join("qemu-system-x86_64");
        std::os::unix::fs::symlink("/bin/sh", &qemu).unwrap();
        let script = "\"$0\" -c 'echo $$; read x' \"$@\"; exit 7";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&qemu).args(["x", "-name", "guest=w", "-uuid", UUID]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut family = Family(command.spawn().unwrap());
        let mut said = String::new();
        BufReader::new(family.0.stdout.take().unwrap()).read_line(&mut said).unwrap();
        let (outer, inner): (u32, u32) = (family.0.id(), said.trim().parse().unwrap());
        let (domain, by) = (UUID.parse().unwrap(), |pid| process::identify(pid).unwrap());

        let emulators = Emulators::new(Some(folder.path().to_owned()));
        assert_eq!(emulators.begun(outer), None, "libvirt knows nothing of it");
        assert_eq!(emulators.subject(outer), Subject::Pid(outer));
        std::fs::write(folder.path().join("w.pid"), format!("{outer}\n")).unwrap();
        let of_it = Subject::Starting(domain, by(outer));
        let begun = emulators.begun(outer).unwrap();
        assert_eq!((begun.process, begun.subject, begun.facts), (by(outer), of_it, vec![]));
        let begun = emulators.begun(inner).unwrap();
        let wrapped = Fact::Wrapped { program: "sh".into(), qemu: Some(inner) };
        assert_eq!((begun.process, begun.subject, begun.facts), (by(inner), of_it, vec![wrapped]));
        assert_eq!([outer, inner].map(|pid| emulators.subject(pid)), [of_it, of_it]);
        let (killed, signal) = (by(inner), ExitStatus::Signal(9));
        assert_eq!(emulators.ended(killed, Some(signal)), (of_it, Some(Fact::InnerExit(signal))));
        assert_eq!(emulators.as_told_of(inner, Fact::Exit(signal)), Fact::InnerExit(signal));
        let status = ExitStatus::Code(137);
        assert_eq!(emulators.ended(by(outer), Some(status)), (of_it, Some(Fact::Exit(status))));
        let other = Process { pid: 1 << 23, start_ticks: 1 };
        let exit = Fact::Exit(status);
        assert_eq!(emulators.ended(other, Some(status)), (Subject::Process(other), Some(exit)));
    }
}
