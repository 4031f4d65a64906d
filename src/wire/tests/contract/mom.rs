//! What MOM, which gives and takes VMs' memory, reads of a VM that runs. It breaks off a VM for good over a member that it
//! misses, and then never balloons it.

use crate::samples::{NOW, bodies_for, entries, everything, members, read, text};
use whydown_wire::{Generation, Range};

/// MOM 0.4.5 to 0.5.9: `getVmMemoryStats` and `getVmBalloonInfo` of its VDSM interfaces.
const MEMORY: [&str; 7] = ["mem_total", "mem_unused", "mem_free", "majflt", "pageflt", "swap_in", "swap_out"];
const BALLOON: [&str; 3] = ["balloon_max", "balloon_min", "balloon_cur"];

#[test]
fn mom_reads_the_memory_and_the_balloon_of_every_vm_that_runs() {
    let (mut with_memory, mut with_balloon) = (0, 0);
    for generation in Generation::ALL {
        let body = bodies_for(generation, everything()).all_vm_stats(Range::Classic, NOW);
        for vm in entries(&read(&body.plain), "statsList").into_values() {
            let status = text(&vm["status"]);
            if matches!(status, "Down" | "WaitForLaunch") {
                continue;
            }
            let at = format!("{generation:?}: {vm:?}");
            let integer = |value| text(value).parse::<i64>().unwrap_or_else(|_| panic!("{at}"));
            let used = integer(&vm["memUsage"]);
            assert_eq!(used > 0, vm.contains_key("memoryStats"), "{at}");
            if used > 0 {
                let memory = members(&vm["memoryStats"]);
                let [total, unused, free, major, faults, ..] = MEMORY.map(|name| integer(&memory[name]));
                assert!(unused <= total && free <= total && major <= faults, "{at}");
                assert_eq!(used, (total - free) * 100 / total, "{at}");
                with_memory += 1;
            }
            // Later MOMs ask whether it is there.
            if generation != Generation::V4_0 || vm.contains_key("balloonInfo") {
                let balloon = members(&vm["balloonInfo"]);
                if !balloon.is_empty() {
                    assert!(BALLOON.iter().all(|name| integer(&balloon[*name]) >= 0), "{at}");
                    with_balloon += 1;
                }
            }
        }
    }
    assert!(with_memory >= Generation::ALL.len() && with_balloon >= Generation::ALL.len());
}
