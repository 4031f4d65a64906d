//! Rates between two samples of one run.
//!
//! The time between them is the monotonic clock's: the wall clock may be set meanwhile. A counter that went back began
//! again, and says nothing until it was read twice.

use std::time::Duration;

use whydown_core::sample::{
    CpuTime, DiskCounters, DiskRates, NicRates, Operations, Paging, PagingRates, Rates, Sample,
};

/// Samples closer than this say more about the sampling than about the domain.
const CLOSEST: Duration = Duration::from_millis(50);

/// What was used per second from `old` to `new`; `None` if that cannot be told.
pub(super) fn between(old: &Sample, new: &Sample, elapsed: Duration) -> Option<Rates> {
    if elapsed < CLOSEST {
        return None;
    }
    let seconds = elapsed.as_secs_f64();
    let (cpu_guest, cpu_user_and_system) = match (old.cpu, new.cpu) {
        (Some(old), Some(new)) => cpu(old, new, seconds)?,
        (None, None) => (0.0, 0.0),
        _ => return None,
    };
    let paging = paging(old.memory.paging, new.memory.paging, seconds);
    let mut rates = Rates { cpu_guest, cpu_user_and_system, paging, ..Rates::default() };
    for nic in &new.nics {
        let before = old.nics.iter().find(|old| old.name == nic.name);
        let moved = before.and_then(|old| {
            let received = per_second(old.received.bytes, nic.received.bytes, seconds)?;
            Some(NicRates { received, sent: per_second(old.sent.bytes, nic.sent.bytes, seconds)? })
        });
        rates.nics.extend(moved.map(|moved| (nic.name.clone(), moved)));
    }
    for disk in &new.disks {
        // Another medium in the same drive counts from its own beginning.
        let before = old.disks.iter().find(|old| old.target == disk.target && old.path == disk.path);
        let moved = before.and_then(|old| disk_rates(old, disk, seconds));
        rates.disks.extend(moved.map(|moved| (disk.target.clone(), moved)));
    }
    Some(rates)
}

/// The guest's part, then user and system mode together, in percent of one processor. Their sum is what the total says;
/// the parts are counted in coarser steps and may be ahead of it.
fn cpu(old: CpuTime, new: CpuTime, seconds: f64) -> Option<(f64, f64)> {
    let total = new.total_ns.checked_sub(old.total_ns)?;
    let user = new.user_ns.checked_sub(old.user_ns)?;
    let system = new.system_ns.checked_sub(old.system_ns)?;
    let user_and_system = user.saturating_add(system).min(total);
    let percent = |ns: u64| ns as f64 / (seconds * 1e9) * 100.0;
    Some((percent(total - user_and_system), percent(user_and_system)))
}

fn per_second(old: u64, new: u64, seconds: f64) -> Option<f64> {
    new.checked_sub(old).map(|moved| moved as f64 / seconds)
}

fn disk_rates(old: &DiskCounters, new: &DiskCounters, seconds: f64) -> Option<DiskRates> {
    let (reads, writes) = (since(old.reads, new.reads)?, since(old.writes, new.writes)?);
    let flushes = since(old.flushes, new.flushes).unwrap_or_default();
    Some(DiskRates {
        read: reads.bytes as f64 / seconds,
        written: writes.bytes as f64 / seconds,
        read_latency_ns: latency(reads),
        write_latency_ns: latency(writes),
        flush_latency_ns: latency(flushes),
    })
}

fn paging(old: Paging, new: Paging, seconds: f64) -> Option<PagingRates> {
    let rate = |of: fn(&Paging) -> Option<u64>| per_second(of(&old)?, of(&new)?, seconds);
    let major_faults = rate(|paging| paging.major_faults)?;
    Some(PagingRates {
        swapped_in_kib: rate(|paging| paging.swapped_in_kib)?,
        swapped_out_kib: rate(|paging| paging.swapped_out_kib)?,
        major_faults,
        faults: major_faults + rate(|paging| paging.minor_faults)?,
    })
}

fn since(old: Option<Operations>, new: Option<Operations>) -> Option<Operations> {
    let (old, new) = (old?, new?);
    Some(Operations {
        count: new.count.checked_sub(old.count)?,
        bytes: new.bytes.checked_sub(old.bytes)?,
        time_ns: new.time_ns.checked_sub(old.time_ns)?,
    })
}

fn latency(operations: Operations) -> u64 {
    operations.time_ns.checked_div(operations.count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use whydown_core::sample::{NicCounters, Traffic};

    const SECOND: Duration = Duration::from_secs(1);

    fn sample(total: u64, user: u64, system: u64, bytes: u64) -> Sample {
        let operations = |count| Some(Operations { count, bytes, time_ns: count * 500 });
        Sample {
            answered: true,
            cpu: Some(CpuTime { total_ns: total, user_ns: user, system_ns: system }),
            nics: vec![NicCounters {
                name: "vnet0".into(),
                received: Traffic { bytes, ..Traffic::default() },
                sent: Traffic { bytes: bytes * 2, ..Traffic::default() },
            }],
            disks: vec![DiskCounters {
                target: "vda".into(),
                reads: operations(bytes / 512),
                writes: operations(0),
                flushes: operations(2),
                ..DiskCounters::default()
            }],
            ..Sample::default()
        }
    }

    #[test]
    fn rates_are_per_second_of_the_time_between_two_samples() {
        let (old, new) = (sample(0, 0, 0, 0), sample(1_800_000_000, 200_000_000, 400_000_000, 10_240));
        let rates = between(&old, &new, 2 * SECOND).unwrap();
        assert_eq!((rates.cpu_guest, rates.cpu_user_and_system), (60.0, 30.0));
        assert_eq!(rates.nics["vnet0"], NicRates { received: 5120.0, sent: 10_240.0 });
        let disk = rates.disks["vda"];
        assert_eq!((disk.read, disk.read_latency_ns), (5120.0, 500));
        assert_eq!((disk.write_latency_ns, disk.flush_latency_ns), (0, 0), "no operation, no latency");
    }

    #[test]
    fn paging_is_known_where_all_of_it_is_counted() {
        let counted = |count| {
            let mut sample = sample(count, 0, 0, 0);
            sample.memory.paging = Paging {
                swapped_in_kib: Some(count),
                swapped_out_kib: Some(3 * count),
                major_faults: Some(count),
                minor_faults: Some(9 * count),
            };
            sample
        };
        let (old, mut new) = (counted(10), counted(30));
        let expected =
            PagingRates { swapped_in_kib: 10.0, swapped_out_kib: 30.0, major_faults: 10.0, faults: 100.0 };
        assert_eq!(between(&old, &new, 2 * SECOND).unwrap().paging, Some(expected));
        assert_eq!(between(&new, &counted(40), Duration::ZERO), None);
        new.memory.paging.minor_faults = Some(1);
        assert_eq!(between(&old, &new, SECOND).unwrap().paging, None, "a guest that began again");
        new.memory.paging.minor_faults = None;
        assert_eq!(between(&old, &new, SECOND).unwrap().paging, None);
    }

    #[test]
    fn coarse_parts_never_make_more_than_the_whole() {
        let rates = between(&sample(0, 0, 0, 0), &sample(9_000_000, 10_000_000, 0, 0), SECOND).unwrap();
        assert_eq!(rates.cpu_guest, 0.0);
        assert!((rates.cpu_user_and_system - 0.9).abs() < 1e-9);
    }

    #[test]
    fn a_counter_that_began_again_says_nothing() {
        let old = sample(100, 50, 50, 1000);
        assert_eq!(between(&old, &sample(99, 50, 50, 1000), SECOND), None);
        let reset = between(&old, &sample(100, 50, 50, 999), SECOND).unwrap();
        assert!(reset.nics.is_empty() && reset.disks.is_empty());
        let mut other = sample(100, 50, 50, 2000);
        other.disks[0].path = "/other.iso".into();
        other.nics[0].name = "vnet1".into();
        let changed = between(&old, &other, SECOND).unwrap();
        assert!(changed.nics.is_empty() && changed.disks.is_empty());
    }

    #[test]
    fn without_time_between_them_or_with_half_of_the_counters_there_are_no_rates() {
        let (old, new) = (sample(0, 0, 0, 0), sample(9, 9, 9, 9));
        assert_eq!(between(&old, &new, Duration::ZERO), None);
        assert_eq!(between(&Sample { cpu: None, ..old.clone() }, &new, SECOND), None);
        assert_eq!(between(&old, &Sample { cpu: None, ..new }, SECOND), None);
    }
}
