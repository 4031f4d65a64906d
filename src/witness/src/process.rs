//! Who a process is: its pid with its start time, which together never come twice within one boot of the host.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use whydown_core::evidence::tame;
use whydown_core::hypervisor::Process;
use whydown_core::id::BootId;
use whydown_core::time::{Mono, Wall};

/// Bytes of `/proc/PID/stat`. Its 52 fields take at most some 900.
const STAT_BYTES: u64 = 4096;

/// Bytes of the kernel's boot id. It is a UUID and a line break.
const BOOT_ID_BYTES: u64 = 64;

/// The process that has this pid now, dead but unreaped ones included; `None` if there is none.
pub fn identify(pid: u32) -> Option<Process> {
    Stat::of(pid).map(|stat| Process { pid, start_ticks: stat.start_ticks })
}

/// Whether exactly this process runs. One that has died and waits to be reaped does not.
pub fn alive(process: Process) -> bool {
    Stat::of(process.pid).is_some_and(|stat| stat.start_ticks == process.start_ticks && !stat.dead())
}

/// Two clocks that date one moment may disagree by this much.
pub(crate) const SLACK: Duration = Duration::from_secs(2);

/// Whether exactly this process runs and has for at least so long.
pub(crate) fn ran_for(process: Process, so_long: Duration) -> bool {
    if !alive(process) {
        return false;
    }
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let since_boot = Duration::new(
        u64::try_from(now.tv_sec).unwrap_or_default(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    );
    let hertz = rustix::param::clock_ticks_per_second().max(1);
    let began = Duration::from_millis(process.start_ticks.saturating_mul(1000) / hertz);
    since_boot.saturating_sub(began) + SLACK >= so_long
}

/// Since when the process with this pid has been running, to the hundredth of a second; `None` if it runs no more, or where
/// `/proc` does not tell.
pub fn running_since(pid: u32) -> Option<Wall> {
    let stat = Stat::of(pid).filter(|stat| !stat.dead())?;
    let ticks = u128::from(stat.start_ticks) * 1_000_000_000;
    let began = u64::try_from(ticks / u128::from(rustix::param::clock_ticks_per_second())).ok()?;
    // The clock by which the kernel counts from the boot, suspended times included.
    let booted = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let since_boot = Duration::new(u64::try_from(booted.tv_sec).ok()?, u32::try_from(booted.tv_nsec).ok()?);
    let age = since_boot.checked_sub(Duration::from_nanos(began))?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let now = Wall(now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec));
    Some(now.before(age))
}

/// The host's present boot. Fails where `/proc` is not mounted.
pub fn boot_id() -> io::Result<BootId> {
    let text = read_start("/proc/sys/kernel/random/boot_id", BOOT_ID_BYTES)?;
    Ok(BootId(tame(String::from_utf8_lossy(&text).trim())))
}

/// Names of a first process that is a host's init. Any other is the only program of a container, which runs where it likes.
const INITS: [&str; 4] = ["systemd", "init", "openrc-init", "runit"];

/// When the host's present boot began, by its present clock: when the kernel was begun, and of a host that shares a kernel
/// with others, which have run for longer, when its init was. `None` where `/proc` does not say.
pub fn booted() -> Option<Wall> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let seconds: i64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let kernel = Wall::from_millis(seconds.checked_mul(1000)?);
    let name = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
    let init = running_since(1).filter(|_| INITS.contains(&name.trim_end()));
    Some(init.map_or(kernel, |init| init.max(kernel)))
}

/// A thread, as far as `/proc` shows it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Task {
    /// The process that it belongs to.
    pub(crate) process: u32,
    /// The name of that process, 15 bytes at most.
    pub(crate) name: String,
}

impl Task {
    pub(crate) fn of(thread: u32) -> Option<Self> {
        let status = read_start(&format!("/proc/{thread}/status"), STAT_BYTES).ok()?;
        let status = String::from_utf8_lossy(&status);
        let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())?;
        let name = read_start(&format!("/proc/{process}/comm"), STAT_BYTES).ok()?;
        let name = String::from_utf8_lossy(&name).trim_end_matches('\n').to_owned();
        Some(Self { process, name })
    }
}

/// What a process has used of the processor time that its hard limit gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessorTime {
    /// By all its threads, in milliseconds.
    pub(crate) used_ms: u64,
    /// Its hard limit, in seconds.
    pub(crate) limit_s: u64,
}

impl ProcessorTime {
    /// `None` if the process is gone, or has no such limit.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let limits = read_start(&format!("/proc/{pid}/limits"), STAT_BYTES).ok()?;
        let limit_s = Self::limit(&String::from_utf8_lossy(&limits))?;
        let ticks = Stat::of(pid)?.used_ticks;
        let used_ms = ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1);
        Some(Self { used_ms, limit_s })
    }

    /// `Max cpu time`, the soft limit, the hard limit, `seconds`; `None` for `unlimited`.
    fn limit(limits: &str) -> Option<u64> {
        let line = limits.lines().find_map(|line| line.strip_prefix("Max cpu time "))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
    }
}

/// Whether the pids that we see are those of which the kernel speaks in its log, its traces and its process events. In a
/// container with pids of its own they are not, and the same number is another process.
pub(crate) fn hosts_own_pids() -> bool {
    // `PROC_PID_INIT_INO` of the kernel: the first pid namespace.
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|name| name.as_os_str() == "pid:[4026531836]")
}

/// The clock by which the kernel dates process events and our traces.
pub(crate) fn kernel_clock() -> Mono {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Mono((now.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(now.tv_nsec as u64))
}

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Field 3.
    pub(crate) state: u8,
    /// Field 4.
    pub(crate) parent: u32,
    /// Fields 14 and 15, what all its threads have used of processors, in clock ticks.
    pub(crate) used_ticks: u64,
    /// Field 22, in clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// Field 28; zero where the reader lacks the right to see it, and in a dead process.
    pub(crate) start_stack: u64,
    /// Field 52, as `wait` gives it; zero where the reader lacks the right to see it, and in a live process.
    pub(crate) exit_code: i32,
}

impl Stat {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&read_start(&format!("/proc/{pid}/stat"), STAT_BYTES).ok()?)
    }

    pub(crate) fn dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// A process names itself, with brackets, spaces and line breaks if it likes: only the last bracket closes the name.
    fn parse(stat: &[u8]) -> Option<Self> {
        let name_end = stat.iter().rposition(|b| *b == b')')?;
        let rest = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
        // The first of these is field 3.
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            state: *field(3)?.as_bytes().first()?,
            parent: field(4)?.parse().ok()?,
            used_ticks: [14, 15]
                .into_iter()
                .filter_map(|number| field(number)?.parse::<u64>().ok())
                .fold(0, u64::saturating_add),
            start_ticks: field(22)?.parse().ok()?,
            start_stack: field(28).and_then(|f| f.parse().ok()).unwrap_or(0),
            exit_code: field(52).and_then(|f| f.parse().ok()).unwrap_or(0),
        })
    }
}

pub(crate) fn read_start(path: &str, bytes: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(bytes).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_process_that_was_begun_now_has_been_running_since_then_and_one_that_is_gone_has_not() {
        let before = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep runs");
        let since = running_since(child.id()).expect("it runs");
        let after = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        child.kill().expect("it can be killed");
        let child_pid = rustix::process::Pid::from_child(&child);
        let dead = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(child_pid), dead).expect("it dies");
        // A tick is a hundredth of a second, and the kernel cuts.
        assert!(since.as_secs() >= before.tv_sec - 1 && since.as_secs() <= after.tv_sec, "{since:?}");
        assert_eq!(running_since(child.id()), None, "it waits to be reaped");
        child.wait().expect("it is reaped");
        assert_eq!(running_since(child.id()), None);
    }

    #[test]
    fn we_know_ourselves() {
        let me = identify(std::process::id()).expect("this process runs");
        assert_eq!(me.pid, std::process::id());
        assert!(me.start_ticks > 0);
        assert!(alive(me));
        assert!(!alive(Process { start_ticks: me.start_ticks + 1, ..me }), "another process of the same pid");
    }

    #[test]
    fn a_dead_process_is_not_alive_and_after_reaping_unknown() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let process = identify(child.id()).unwrap();
        assert!(alive(process));
        child.kill().unwrap();
        // Waits without reaping.
        let options = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), options).unwrap();
        assert_eq!(identify(child.id()), Some(process));
        assert!(!alive(process));
        child.wait().unwrap();
        assert_eq!(identify(process.pid), None);
    }

    #[test]
    fn what_a_process_has_used_of_its_hard_limit_is_seen_while_it_is_there() {
        let limited = |limit: &str| {
            let mut child = Command::new("prlimit");
            child.args([limit, "sleep", "1000"]).spawn().expect("prlimit of util-linux runs")
        };
        let mut child = limited("--cpu=600:1200");
        let begins = std::time::Instant::now();
        let seen = loop {
            // It is given its limit before it begins the other program.
            match ProcessorTime::of(child.id()) {
                None if begins.elapsed() < Duration::from_secs(30) => std::thread::yield_now(),
                seen => break seen,
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(seen.is_some_and(|time| time.limit_s == 1200 && time.used_ms < 600_000), "{seen:?}");
        assert_eq!(ProcessorTime::of(child.id()), None, "it is gone");
        for (line, limit) in [
            ("Max cpu time              unlimited            unlimited            seconds   ", None),
            ("Max cpu time              1                    7                    seconds   ", Some(7)),
            ("Max cpu time              1                    unlimited            seconds   ", None),
            ("Max file size             1                    7                    bytes     ", None),
        ] {
            assert_eq!(ProcessorTime::limit(&format!("Limit  Soft Limit\n{line}\n")), limit, "{line}");
        }
    }

    #[test]
    fn the_boot_has_the_kernels_name() {
        let boot = boot_id().unwrap();
        assert_eq!(boot, boot_id().unwrap());
        assert_eq!(boot.0.len(), 36, "{boot:?}");
    }

    #[test]
    fn a_process_cannot_hide_behind_its_name() {
        let rest = "S 1 2 2 0 -1 4194560 0 0 0 0 7 5 0 0 20 0 1 0 4711 6000000 0 18446744073709551615 1 1 140000 0 0 0 0 0 0 \
                    0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 9\n";
        for name in ["qemu-system-x86", "a b", "evil) Z 1 2", "a\nb", ")", "(", "", "\u{fffd}"] {
            let stat = Stat::parse(format!("77 ({name}) {rest}").as_bytes());
            assert_eq!(
                stat,
                Some(Stat {
                    state: b'S',
                    parent: 1,
                    used_ticks: 12,
                    start_ticks: 4711,
                    start_stack: 140000,
                    exit_code: 9
                }),
                "{name:?}"
            );
        }
        assert_eq!(Stat::parse(b"77 (x) S 1 2"), None);
        assert_eq!(Stat::parse(b"77 x S 1 2"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Stat::parse(&bytes);
        }
    }
}
