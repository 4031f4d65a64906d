//! Samples of all active domains with one call, in the words of [`whydown_core::sample`].

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use virt_sys as sys;
use whydown_core::id::DomainId;
use whydown_core::sample::{
    CpuTime, Devices, DiskCounters, Memory, NicCounters, Operations, Sample, Traffic,
};

use crate::act::Refusal;
use crate::devices;
use crate::ffi::{Dom, Fault, Value};
use crate::link::Hypervisor;

/// What is asked of every domain.
const GROUPS: u32 = sys::VIR_DOMAIN_STATS_STATE
    | sys::VIR_DOMAIN_STATS_CPU_TOTAL
    | sys::VIR_DOMAIN_STATS_BALLOON
    | sys::VIR_DOMAIN_STATS_VCPU
    | sys::VIR_DOMAIN_STATS_INTERFACE
    | sys::VIR_DOMAIN_STATS_BLOCK;

/// Disks of one domain, and its network interfaces. QEMU has room for far fewer.
const ENTRIES: usize = 4096;

impl Hypervisor {
    /// Counters of all active domains, with one call that may be as slow as the slowest monitor: a domain whose monitor
    /// hangs holds the first call that comes to it for as long as it hangs, and later calls pass it by.
    ///
    /// A driver that cannot be asked without waiting is asked for nothing but states.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoLink`], or `Refused`.
    pub fn sample(&self) -> Result<Vec<(DomainId, Sample)>, Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        let ask = |groups, nowait| {
            line.conn()
                .all_stats(groups, nowait, Reading::default, |reading, name, value| reading.put(name, value))
        };
        let states_only = || ask(sys::VIR_DOMAIN_STATS_STATE, false);
        let read = if session.states_only.load(Ordering::Relaxed) {
            states_only()
        } else {
            ask(GROUPS, true).or_else(|fault: Fault| {
                // The test driver knows neither the flag nor the groups.
                if fault.code != sys::VIR_ERR_INVALID_ARG as i32 {
                    return Err(fault);
                }
                session.states_only.store(true, Ordering::Relaxed);
                states_only()
            })
        };
        let read = read.map_err(|fault| Refusal::of(fault, line.conn()))?;
        Ok(read.into_iter().map(|(id, reading)| (id, reading.sample())).collect())
    }

    /// What a domain is made of, from its document. Does not wait for its monitor.
    ///
    /// # Errors
    ///
    /// As [`Refusal`] says; `Refused` also for a document that cannot be read.
    pub fn devices(&self, id: DomainId) -> Result<Devices, Refusal> {
        let session = self.session()?;
        let line = session.line()?;
        let xml = line.conn().lookup(id).and_then(|dom: Dom| dom.xml(0));
        let xml = xml.map_err(|fault| Refusal::of(fault, line.conn()))?;
        devices::read(&xml).map_err(|unread| Refusal::Refused { code: 0, text: unread.to_string() })
    }
}

/// A sample while its values come in, each with a name such as `block.0.rd.bytes`.
#[derive(Debug, Default)]
struct Reading {
    state: Option<u64>,
    cpu: [Option<u64>; 3],
    vcpus: Option<u64>,
    memory: Memory,
    /// Kept resident by the process: given only when the monitor could be asked.
    resident: bool,
    balloon: bool,
    nics: BTreeMap<usize, NicCounters>,
    disks: BTreeMap<usize, DiskCounters>,
}

impl Reading {
    fn put(&mut self, name: &str, value: Value) {
        let (group, rest) = name.split_once('.').unwrap_or((name, ""));
        match (group, value) {
            ("state", Value::Number(number)) if rest == "state" => self.state = Some(number),
            ("cpu", Value::Number(number)) => {
                if let Some(index) = ["time", "user", "system"].iter().position(|known| *known == rest) {
                    self.cpu[index] = Some(number);
                }
            }
            ("vcpu", Value::Number(number)) if rest == "current" => self.vcpus = Some(number),
            ("balloon", Value::Number(number)) => self.put_balloon(rest, number),
            ("net", value) => {
                if let Some((nic, key)) = entry(&mut self.nics, rest) {
                    put_nic(nic, key, value);
                }
            }
            ("block", value) => {
                if let Some((disk, key)) = entry(&mut self.disks, rest) {
                    put_disk(disk, key, value);
                }
            }
            _ => {}
        }
    }

    fn put_balloon(&mut self, key: &str, number: u64) {
        let memory = &mut self.memory;
        match key {
            "current" => (self.balloon, memory.balloon_kib) = (true, Some(number)),
            "maximum" => memory.maximum_kib = Some(number),
            "available" => memory.available_kib = Some(number),
            "usable" => memory.usable_kib = Some(number),
            "unused" => memory.unused_kib = Some(number),
            "swap_in" => memory.paging.swapped_in_kib = Some(number),
            "swap_out" => memory.paging.swapped_out_kib = Some(number),
            "major_fault" => memory.paging.major_faults = Some(number),
            "minor_fault" => memory.paging.minor_faults = Some(number),
            "rss" => self.resident = true,
            _ => {}
        }
    }

    fn sample(self) -> Sample {
        let disks: Vec<_> = self.disks.into_values().filter(|disk| !disk.target.is_empty()).collect();
        // libvirt does not say that it left something out. A disk has counters and a balloon a resident size whenever
        // the monitor was asked; a machine without either is taken for one that answered. A drive without a medium
        // may have no counters, so one disk with counters is enough.
        let answered = self.resident
            || disks.iter().any(|disk| disk.reads.is_some())
            || (!self.balloon && disks.is_empty() && self.state.is_some());
        let cpu = match self.cpu {
            [Some(total_ns), user, system] => {
                Some(CpuTime { total_ns, user_ns: user.unwrap_or(0), system_ns: system.unwrap_or(0) })
            }
            _ => None,
        };
        Sample {
            answered,
            cpu,
            vcpus: self.vcpus.and_then(|vcpus| u32::try_from(vcpus).ok()),
            memory: self.memory,
            nics: self.nics.into_values().filter(|nic| !nic.name.is_empty()).collect(),
            disks,
        }
    }
}

/// The entry that a name such as `0.rd.bytes` is about, and the rest of the name.
fn entry<'a, 'b, T: Default>(
    entries: &'a mut BTreeMap<usize, T>,
    name: &'b str,
) -> Option<(&'a mut T, &'b str)> {
    let (index, key) = name.split_once('.')?;
    let index = index.parse().ok().filter(|index| *index < ENTRIES)?;
    Some((entries.entry(index).or_default(), key))
}

fn put_nic(nic: &mut NicCounters, key: &str, value: Value) {
    if let ("name", Value::Text(name)) = (key, &value) {
        nic.name.clone_from(name);
    }
    let (Some((direction, what)), Value::Number(number)) = (key.split_once('.'), value) else { return };
    let traffic: &mut Traffic = match direction {
        "rx" => &mut nic.received,
        "tx" => &mut nic.sent,
        _ => return,
    };
    match what {
        "bytes" => traffic.bytes = number,
        "errs" => traffic.errors = number,
        "drop" => traffic.dropped = number,
        _ => {}
    }
}

fn put_disk(disk: &mut DiskCounters, key: &str, value: Value) {
    match (key, value) {
        ("name", Value::Text(name)) => disk.target = name,
        ("path", Value::Text(path)) => disk.path = path,
        ("capacity", Value::Number(number)) => disk.capacity = Some(number),
        ("allocation", Value::Number(number)) => disk.allocation = Some(number),
        ("physical", Value::Number(number)) => disk.physical = Some(number),
        (key, Value::Number(number)) => {
            let Some((kind, what)) = key.split_once('.') else { return };
            let operations = match kind {
                "rd" => &mut disk.reads,
                "wr" => &mut disk.writes,
                "fl" => &mut disk.flushes,
                _ => return,
            };
            let operations: &mut Operations = operations.get_or_insert_default();
            match what {
                "reqs" => operations.count = number,
                "bytes" => operations.bytes = number,
                "times" => operations.time_ns = number,
                _ => {}
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, u64)], texts: &[(&str, &str)]) -> Sample {
        let mut reading = Reading::default();
        for (name, text) in texts {
            reading.put(name, Value::Text((*text).into()));
        }
        for (name, number) in values {
            reading.put(name, Value::Number(*number));
        }
        reading.sample()
    }

    #[test]
    fn names_and_values_become_a_sample() {
        let sample = read(
            &[
                ("state.state", 1),
                ("cpu.time", 400),
                ("cpu.user", 190),
                ("cpu.system", 210),
                ("balloon.current", 16384),
                ("balloon.maximum", 32768),
                ("balloon.rss", 46000),
                ("vcpu.current", 2),
                ("vcpu.0.time", 5),
                ("net.count", 1),
                ("net.0.rx.bytes", 10),
                ("net.0.tx.drop", 3),
                ("block.count", 1),
                ("block.0.rd.reqs", 1),
                ("block.0.rd.bytes", 512),
                ("block.0.rd.times", 123),
                ("block.0.fl.times", 9),
                ("block.0.capacity", 9),
                ("block.0.allocation", 7),
                ("block.0.physical", 8),
            ],
            &[("net.0.name", "vnet0"), ("block.0.name", "vda"), ("block.0.path", "/a")],
        );
        assert_eq!(sample.cpu, Some(CpuTime { total_ns: 400, user_ns: 190, system_ns: 210 }));
        assert_eq!(
            (sample.vcpus, sample.memory.balloon_kib, sample.memory.usable_kib),
            (Some(2), Some(16384), None)
        );
        assert_eq!((sample.nics[0].name.as_str(), sample.nics[0].received.bytes), ("vnet0", 10));
        assert_eq!(sample.nics[0].sent.dropped, 3);
        let disk = &sample.disks[0];
        assert_eq!((disk.target.as_str(), disk.path.as_str()), ("vda", "/a"));
        assert_eq!((disk.capacity, disk.allocation, disk.physical), (Some(9), Some(7), Some(8)));
        assert_eq!(disk.reads, Some(Operations { count: 1, bytes: 512, time_ns: 123 }));
        assert_eq!(disk.writes, None);
        assert!(sample.answered);
    }

    #[test]
    fn a_domain_whose_monitor_was_not_asked_has_not_answered() {
        let disk = [("block.0.name", "vda")];
        assert!(!read(&[("state.state", 1), ("balloon.current", 1), ("cpu.time", 1)], &disk).answered);
        assert!(!read(&[("state.state", 1), ("balloon.current", 1)], &[]).answered);
        assert!(!read(&[("state.state", 1)], &disk).answered);
        assert!(read(&[("state.state", 1), ("balloon.current", 1), ("balloon.rss", 1)], &disk).answered);
        assert!(read(&[("state.state", 1), ("block.0.rd.reqs", 0)], &disk).answered);
        assert!(read(&[("state.state", 1), ("cpu.time", 1)], &[]).answered);
    }

    #[test]
    fn odd_names_and_places_out_of_bounds_are_left_out() {
        let odd = [
            ("", 1),
            ("net", 1),
            ("net.x.rx.bytes", 1),
            ("block.99999999.rd.reqs", 1),
            ("block.0", 1),
            ("cpu.", 1),
        ];
        let sample = read(&odd, &[("block.1.rd.reqs", "text"), ("net.0.name", "")]);
        assert_eq!((sample.nics, sample.disks, sample.cpu), (vec![], vec![], None));
    }
}
