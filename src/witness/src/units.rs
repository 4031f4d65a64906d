//! In which units of systemd the VMs run, so that a job of systemd's is known to be about one of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{host, process};
use whydown_core::hypervisor::Process;

/// Processes that are kept before anybody looks which are gone.
const SWEEP_MIN: usize = 256;

/// Shared by who learns of processes and who hears of units.
#[derive(Debug, Clone, Default)]
pub struct Units(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    units: HashMap<Process, Vec<String>>,
    left: usize,
}

impl Units {
    /// Notes the units of this process.
    pub fn note(&self, process: Process) {
        let units = host::units_of(process.pid);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.units.len() >= SWEEP_MIN.max(2 * known.left) {
            known.units.retain(|process, _| process::alive(*process));
            known.left = known.units.len();
        }
        known.units.insert(process, units);
    }

    /// Has this process run in this unit.
    #[cfg(test)]
    pub(crate) fn put(&self, process: Process, unit: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.units.entry(process).or_default().push(unit.into());
    }

    /// Those that run in this unit, or ran there not long ago: systemd tells of a job when it has begun it.
    pub fn processes_of(&self, unit: &str) -> Vec<Process> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let in_it = known.units.iter().filter(|(_, units)| units.iter().any(|known| known == unit));
        in_it.map(|(process, _)| *process).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_its_processes_until_they_are_long_gone() {
        let me = process::identify(std::process::id()).unwrap();
        let gone = Process { start_ticks: me.start_ticks + 1, ..me };
        let units = Units::default();
        let put = |process| units.put(process, "machine-a.scope");
        put(gone);
        assert_eq!(units.processes_of("machine-a.scope"), [gone]);
        assert_eq!(units.processes_of("machine-b.scope"), []);
        for number in 0..SWEEP_MIN {
            put(Process { pid: u32::MAX, start_ticks: number as u64 });
        }
        put(me);
        units.note(me);
        put(me);
        assert_eq!(units.processes_of("machine-a.scope"), [me]);
    }
}
