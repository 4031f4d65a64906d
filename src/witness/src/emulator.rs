//! Processes that run QEMU for a domain: what their command lines say, whether a process is QEMU itself, and where QEMU is
//! if another program runs it.
//!
//! ```text
//! libvirt ── the process of its pid file ─┬─ is QEMU, as a rule
//!                                         └─ a script or another program ── … ── QEMU, with the same -uuid
//! ```
//!
//! Whoever likes may give a program such arguments. So a process counts for a domain only if libvirt's pid file names it,
//! or one that it descends from: that file nobody else can write.

use std::path::Path;

use whydown_core::evidence::tame;
use whydown_core::hypervisor::Process;
use whydown_core::id::DomainId;

use crate::process::{Stat, read_start};

/// Bytes of a command line that are read. libvirt's are some 4 KiB, and longer with hundreds of devices.
const COMMAND_BYTES: u64 = 256 * 1024;

/// The beginning of a command line, in which libvirt's arguments name the domain.
const FIRST_BYTES: u64 = 16 * 1024;

const UUID_OPTION: &[u8] = b"\0-uuid\0";

/// Programs between libvirt and QEMU that are looked through.
const DEPTH: usize = 4;

/// Children of a process, and threads of one, that are looked at.
const RELATIVES: usize = 1024;

/// Bytes of a list of children.
const CHILDREN_BYTES: u64 = 64 * 1024;

/// Bytes of the name of a program.
const PROGRAM_BYTES: usize = 256;

/// A process with the arguments that libvirt gives QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emulator {
    /// The process.
    pub process: Process,
    /// For which domain.
    pub domain: DomainId,
    /// The domain's name, which is the name of libvirt's files.
    pub name: String,
    /// What lets its guest end it with a status of the guest's own.
    pub guests_exit: Option<&'static str>,
    /// The name of its program.
    program: String,
    parent: u32,
}

impl Emulator {
    /// As [`Emulator::of`], quickly of one that was not begun to run a domain: of every program that begins on a host.
    pub fn begun(pid: u32) -> Option<Self> {
        let line = read_start(&format!("/proc/{pid}/cmdline"), FIRST_BYTES).ok()?;
        line.windows(UUID_OPTION.len()).any(|bytes| bytes == UUID_OPTION).then(|| Self::of(pid))?
    }

    /// What this process was begun with; `None` if it is gone, or was not begun to run a domain.
    pub fn of(pid: u32) -> Option<Self> {
        let before = Stat::of(pid)?;
        let line = read_start(&format!("/proc/{pid}/cmdline"), COMMAND_BYTES).ok()?;
        let arguments = arguments(&line)?;
        // The number was not given to another meanwhile.
        let stat = Stat::of(pid).filter(|stat| stat.start_ticks == before.start_ticks)?;
        let Arguments { domain, name, guests_exit, program } = arguments;
        let process = Process { pid, start_ticks: stat.start_ticks };
        Some(Self { process, domain, name, guests_exit, program, parent: stat.parent })
    }

    /// Whether libvirt began it: its pid file in `run_dir` names it or one above it.
    pub fn is_of_libvirt(&self, run_dir: &Path) -> bool {
        if self.name.is_empty() || self.name.starts_with('.') || self.name.contains(['/', '\0']) {
            return false;
        }
        let file = run_dir.join(format!("{}.pid", self.name));
        let Some(known) = file.to_str().and_then(|file| read_start(file, 64).ok()) else { return false };
        let Ok(known) = String::from_utf8_lossy(&known).trim().parse::<u32>() else { return false };
        self.process.pid == known || self.above().contains(&known)
    }

    /// Whether its program has a name of QEMU's.
    pub fn calls_itself_qemu(&self) -> bool {
        self.program.starts_with("qemu") || self.program.starts_with("kvm")
    }

    /// The name of its program.
    pub fn program(&self) -> &str {
        &self.program
    }

    /// The processes above it, the nearest first.
    pub fn above(&self) -> Vec<u32> {
        let mut above = vec![self.parent];
        while above.len() <= DEPTH
            && let Some(stat) = above.last().and_then(|pid| Stat::of(*pid))
        {
            above.push(stat.parent);
        }
        above
    }

    /// Whether it is QEMU, and not a program that runs QEMU: its virtual processors are threads of it. One that calls itself
    /// QEMU and starts is taken for it.
    fn is_qemu(&self) -> bool {
        has_processors(self.process.pid) || self.calls_itself_qemu() && self.below(DEPTH).is_none()
    }

    /// QEMU below this process, of the same domain.
    fn below(&self, depth: usize) -> Option<Self> {
        let depth = depth.checked_sub(1)?;
        let mut children: Vec<Self> = children(self.process.pid)
            .into_iter()
            .filter_map(Self::of)
            .filter(|child| child.domain == self.domain)
            .collect();
        if let Some(at) = children.iter().position(|child| has_processors(child.process.pid)) {
            return Some(children.swap_remove(at));
        }
        children.iter().find_map(|child| child.below(depth))
    }
}

/// A program that libvirt started and that is not QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapper {
    /// Its name.
    pub program: String,
    /// QEMU below it, if it was found.
    pub qemu: Option<Process>,
}

/// What this process of libvirt's is, where it is not QEMU. `None` also where that cannot be seen.
pub fn wrapper(of: &Emulator) -> Option<Wrapper> {
    if of.is_qemu() {
        return None;
    }
    Some(Wrapper { program: of.program.clone(), qemu: of.below(DEPTH).map(|qemu| qemu.process) })
}

/// Whether it has a virtual processor as a thread; libvirt has QEMU name its threads.
fn has_processors(pid: u32) -> bool {
    tasks(pid).any(|task| {
        read_start(&format!("/proc/{pid}/task/{task}/comm"), 64).is_ok_and(|name| name.starts_with(b"CPU "))
    })
}

fn tasks(pid: u32) -> impl Iterator<Item = u32> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    folder.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).take(RELATIVES)
}

fn children(pid: u32) -> Vec<u32> {
    let lists = tasks(pid)
        .filter_map(|task| read_start(&format!("/proc/{pid}/task/{task}/children"), CHILDREN_BYTES).ok());
    let numbers = |list: Vec<u8>| {
        let list = String::from_utf8_lossy(&list).into_owned();
        list.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<u32>>()
    };
    lists.flat_map(numbers).take(RELATIVES).collect()
}

/// What lets a guest end QEMU with a status of its own: each option with its value.
pub(crate) fn guests_exit(options: impl IntoIterator<Item = (String, String)>) -> Option<&'static str> {
    // QEMU takes two dashes for one.
    let dash = |option: String| option.strip_prefix("--").map_or(option.clone(), |rest| format!("-{rest}"));
    options.into_iter().find_map(|(option, value)| match dash(option).as_str() {
        "-device" if is_debug_exit(&value) => Some("isa-debug-exit"),
        "-semihosting" | "-semihosting-config" => Some("semihosting"),
        // What stands in the file nobody has read.
        "-readconfig" => Some("readconfig"),
        _ => None,
    })
}

/// `isa-debug-exit,iobase=0xf4`, or the same in JSON.
fn is_debug_exit(device: &str) -> bool {
    let plain: String = device.chars().filter(|c| !c.is_whitespace()).collect();
    let first = plain.split(',').next().unwrap_or_default();
    let first = first.strip_prefix("driver=").unwrap_or(first);
    first == "isa-debug-exit" || plain.contains("\"driver\":\"isa-debug-exit\"")
}

#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    domain: DomainId,
    name: String,
    guests_exit: Option<&'static str>,
    program: String,
}

/// Those of a program that runs a domain: `-name guest=…` and `-uuid …`, as libvirt always writes them.
fn arguments(line: &[u8]) -> Option<Arguments> {
    let all: Vec<String> =
        line.split(|b| *b == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect();
    let next = all.iter().skip(1).cloned().chain([String::new()]);
    let pairs: Vec<(String, String)> = all.iter().cloned().zip(next).collect();
    let value =
        |wanted: &str| pairs.iter().find(|(option, _)| option == wanted).map(|(_, value)| value.as_str());
    let domain = value("-uuid")?.parse().ok()?;
    let name = guest_name(value("-name")?)?;
    let program = all.first()?.rsplit('/').next().unwrap_or_default();
    let program = tame(program).chars().take(PROGRAM_BYTES).collect();
    Some(Arguments { domain, name, guests_exit: guests_exit(pairs), program })
}

/// `guest=NAME,debug-threads=on`; a comma in the name is written twice.
fn guest_name(value: &str) -> Option<String> {
    let rest = value.strip_prefix("guest=")?;
    let mut name = String::new();
    let mut letters = rest.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == ',' && letters.next_if_eq(&',').is_none() {
            break;
        }
        name.push(letter);
    }
    Some(name)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

    fn line(arguments: &[&str]) -> Vec<u8> {
        arguments.iter().flat_map(|argument| argument.bytes().chain([0])).collect()
    }

    #[test]
    fn libvirts_arguments_name_the_domain() {
        let told = arguments(&line(&[
            "/usr/bin/qemu-system-x86_64",
            "-name",
            "guest=a,,b=c,debug-threads=on",
            "-S",
            "-uuid",
            UUID,
            "-device",
            "{\"driver\":\"isa-debug-exit\",\"iobase\":244}",
        ]))
        .unwrap();
        assert_eq!((told.name.as_str(), told.program.as_str()), ("a,b=c", "qemu-system-x86_64"));
        assert_eq!((told.domain, told.guests_exit), (UUID.parse().unwrap(), Some("isa-debug-exit")));
        for other in [
            &["qemu", "-name", "guest=a"][..],
            &["qemu", "-uuid", UUID],
            &["qemu", "-name", "a", "-uuid", UUID],
            &["qemu", "-name", "guest=a", "-uuid", "x"],
            &["qemu", "-name", "guest=a", "-uuid"],
            &[],
        ] {
            assert_eq!(arguments(&line(other)), None, "{other:?}");
        }
    }

    /// Ended with its whole group, however the test ends.
    pub(crate) struct Family(pub(crate) Child);

    impl Drop for Family {
        fn drop(&mut self) {
            let group = rustix::process::Pid::from_child(&self.0);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = self.0.wait();
        }
    }

    /// A shell that runs another as its child, both with libvirt's arguments; the inner one says its number.
    fn wrapped() -> (Family, u32) {
        let script = "sh -c 'echo $$; read x' \"$@\"; exit 7";
        let mut command = Command::new("sh");
        command.args(["-c", script, "emu", "sh", "-name", "guest=w,debug-threads=on", "-uuid", UUID]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut lines, &mut said).unwrap();
        (Family(child), said.trim().parse().unwrap())
    }

    #[test]
    fn a_program_around_qemu_is_not_qemu() {
        let (outer, inner) = wrapped();
        let seen = Emulator::of(outer.0.id()).unwrap();
        assert_eq!((seen.name.as_str(), seen.program.as_str()), ("w", "sh"));
        assert_eq!(wrapper(&seen), Some(Wrapper { program: "sh".into(), qemu: None }), "no QEMU is there");
        assert!(children(outer.0.id()).contains(&inner));
        assert_eq!(Emulator::of(std::process::id()), None, "this one runs no domain");
    }

    #[test]
    fn only_the_one_that_libvirts_pid_file_names_and_its_children_are_libvirts() {
        let (outer, inner) = wrapped();
        let folder = tempfile::tempdir().unwrap();
        let seen = [outer.0.id(), inner].map(|pid| Emulator::of(pid).unwrap());
        let is = |text: &str| {
            std::fs::File::create(folder.path().join("w.pid")).unwrap().write_all(text.as_bytes()).unwrap();
            seen.clone().map(|one| one.is_of_libvirt(folder.path()))
        };
        assert_eq!(seen.clone().map(|one| one.is_of_libvirt(folder.path())), [false, false], "no file");
        assert_eq!(is(&outer.0.id().to_string()), [true, true]);
        assert_eq!(is(&inner.to_string()), [false, true]);
        assert_eq!(is("1"), [false, false]);
        assert_eq!(is("x"), [false, false]);
    }

    #[test]
    fn a_thread_that_is_called_a_processor_makes_a_qemu() {
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("CPU 0/TCG".into());
        let thread = thread.spawn(move || told.recv()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !has_processors(std::process::id()) {
            assert!(Instant::now() < deadline, "the thread has its name");
            std::thread::yield_now();
        }
        drop(tell);
        let _ = thread.join().unwrap();
    }

    proptest! {
        #[test]
        fn any_command_line_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), name in "\\PC{0,30}") {
            let _ = arguments(&bytes);
            let name = format!("guest={name}");
            let _ = arguments(&line(&["q", "-uuid", UUID, "-name", &name, "-device", &name]));
        }
    }
}
