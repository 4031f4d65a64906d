//! One record of `/dev/kmsg`: `PRIORITY,SEQUENCE,MICROSECONDS,FLAGS;LINE`, a line break, and lines of attributes.
//!
//! The line of a kill holds the name that the victim gave itself, and names of control groups, between the words that
//! matter. Those are therefore read only from the end or the beginning of the line, where no name can stand. The kernel
//! writes line breaks in names as `\x0a`.

use std::time::Duration;

use whydown_core::evidence::tame;

/// The lower three bits of a priority are the level; above them stands who speaks, and zero is the kernel.
const LEVELS: u32 = 8;

/// If this record of the kernel names the victim of an out-of-memory kill: its pid, and the line.
pub(super) fn oom_killed(record: &[u8]) -> Option<(u32, String)> {
    let line_end = record.iter().position(|b| *b == b'\n').unwrap_or(record.len());
    let record = String::from_utf8_lossy(&record[..line_end]);
    let (prefix, line) = record.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    if priority >= LEVELS {
        return None;
    }
    let pid = oom_verdict(line).or_else(|| oom_report(line))?;
    Some((pid, tame(line)))
}

/// When the kernel wrote this record, counted from the boot.
pub(super) fn stamp(record: &[u8]) -> Option<Duration> {
    let prefix = record.split(|b| *b == b';').next()?;
    let micros = prefix.split(|b| *b == b',').nth(2)?;
    std::str::from_utf8(micros).ok()?.parse().ok().map(Duration::from_micros)
}

/// `Memory cgroup out of memory: Killed process 10529 (tail) total-vm:…`: the pid stands before the name.
fn oom_verdict(line: &str) -> Option<u32> {
    let (why, victim) = line.split_once("Killed process ")?;
    let known = [
        "",
        "Out of memory: ",
        "Memory cgroup out of memory: ",
        "Out of memory (oom_kill_allocating_task): ",
    ];
    if !known.contains(&why) {
        return None;
    }
    let (pid, name) = victim.split_once([' ', ','])?;
    // Kernels before 4.20 wrote `Killed process 1 (name)`, and some in between `Killed process 1, UID 0, (name)`.
    name.contains('(').then(|| decimal(pid))?
}

/// `oom-kill:constraint=…,task=tail,pid=10529,uid=0`: the pid stands after the name.
fn oom_report(line: &str) -> Option<u32> {
    let (before, uid) = line.strip_prefix("oom-kill:constraint=")?.rsplit_once(",uid=")?;
    decimal(uid)?;
    let (_, pid) = before.rsplit_once(",pid=")?;
    decimal(pid)
}

/// Decimal digits only: no sign, no space. Zero is no process.
fn decimal(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pid(line: &str) -> Option<u32> {
        let record = format!("6,1234,12196966835,-;{line}\n SUBSYSTEM=x\n");
        oom_killed(record.as_bytes()).inspect(|(_, told)| assert_eq!(told, line)).map(|(pid, _)| pid)
    }

    #[test]
    fn recorded_kills_are_understood() {
        for line in [
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/wdtest,\
             task_memcg=/wdtest,task=tail,pid=10529,uid=0",
            "Memory cgroup out of memory: Killed process 10529 (tail) total-vm:19076kB, anon-rss:16256kB, \
             file-rss:1548kB, shmem-rss:0kB, UID:0 pgtables:68kB oom_score_adj:0",
            "Out of memory: Killed process 10529 (qemu-system-x86) total-vm:19076kB, anon-rss:16256kB",
            "Out of memory (oom_kill_allocating_task): Killed process 10529 (x) total-vm:19076kB",
            "Killed process 10529 (qemu-kvm) total-vm:19076kB, anon-rss:16256kB, file-rss:1548kB",
            "Killed process 10529, UID 107, (qemu-kvm) total-vm:19076kB",
        ] {
            assert_eq!(pid(line), Some(10529), "{line}");
        }
    }

    #[test]
    fn a_victims_name_cannot_accuse_another() {
        assert_eq!(
            pid(
                "oom-kill:constraint=CONSTRAINT_NONE,task_memcg=/a,pid=1,uid=0,task=x,pid=2,uid=0,pid=7,uid=0"
            ),
            Some(7)
        );
        assert_eq!(pid("Out of memory: Killed process 7 (Killed process 1 (x)) total-vm:1kB"), Some(7));
    }

    #[test]
    fn other_lines_accuse_nobody() {
        for line in [
            "oom_reaper: reaped process 10529 (tail), now anon-rss:0kB, file-rss:1548kB, shmem-rss:0kB",
            "tail invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
            "Memory cgroup out of memory: Kill process 77 (qemu-kvm) score 900 or sacrifice child",
            "audit: Out of memory: Killed process 1 (x)",
            "x: Killed process 1 (x)",
            "Out of memory: Killed process -1 (x)",
            "Out of memory: Killed process 99999999999 (x)",
            "Out of memory: Killed process 1",
            "oom-kill:constraint=CONSTRAINT_NONE,task=x,pid=1,uid=0,x",
            "oom-kill:constraint=CONSTRAINT_NONE,task=x,pid=1",
            "",
        ] {
            assert_eq!(pid(line), None, "{line}");
        }
    }

    #[test]
    fn the_stamp_is_the_third_number() {
        let told = |record: &str| stamp(record.as_bytes());
        assert_eq!(told("6,1234,12196966835,-;x,1"), Some(Duration::from_micros(12_196_966_835)));
        assert_eq!(told("6,1234,12196966835,-,caller=T1;x"), Some(Duration::from_micros(12_196_966_835)));
        for record in ["", "6,1234;7,8,9", "6,1234,-1,-;x", "6,1,99999999999999999999999,-;x", "x"] {
            assert_eq!(told(record), None, "{record}");
        }
    }

    #[test]
    fn only_the_kernel_is_believed() {
        let line = "Out of memory: Killed process 7 (x) total-vm:1kB";
        assert!(oom_killed(format!("3,1,1,-;{line}").as_bytes()).is_some());
        for priority in ["8", "11", "14", "30", "4294967299", "-3", "", "x"] {
            assert_eq!(oom_killed(format!("{priority},1,1,-;{line}").as_bytes()), None, "{priority}");
        }
        assert_eq!(oom_killed(line.as_bytes()), None);
        assert_eq!(oom_killed(format!("6,1,1,-;x\n 3,1,1,-;{line}").as_bytes()), None, "an attribute");
    }

    proptest! {
        #[test]
        fn any_record_is_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "\\PC{0,90}") {
            let _ = oom_killed(&bytes);
            let _ = stamp(&bytes);
            let _ = oom_killed(format!("3,1,1,-;Out of memory: Killed process {text}").as_bytes());
            let _ = oom_killed(format!("3,1,1,-;oom-kill:constraint={text},pid=1,uid={text}").as_bytes());
        }
    }
}
