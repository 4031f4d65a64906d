//! Lack of memory in the control group of one guest.

use whydown_lab::{MemoryGroup, Result, Signal, wait_until};

use crate::signals::tracing_host;
use whydown_lab::host::{PATIENCE, says, told};

/// What the group may hold; less than what QEMU is made to ask for.
const GROUP_BYTES: u64 = 16 << 20;

#[test]
fn lack_of_memory_is_told_of_the_vm_that_it_ended_and_of_no_other() -> Result<()> {
    let host = tracing_host("memory")?;
    let (greedy, neighbour) = (host.guest("greedy")?, host.guest("neighbour")?);
    let _a = host.up(&greedy)?;
    let _b = host.up(&neighbour)?;
    let group = MemoryGroup::make("greedy", GROUP_BYTES)?;
    group.take(&host.libvirtd.qemu("greedy")?)?;
    // QEMU asks for four times of what its group may hold, and touches all of it. It is killed meanwhile.
    let more = "object_add memory-backend-ram,id=more,size=67108864,prealloc=on";
    let _ = host.libvirtd.try_virsh(&["qemu-monitor-command", "greedy", "--hmp", more])?;
    let ending = host.check(&greedy, &told("oom-killed", 1, 2), "certain")?;
    assert!(says(&ending["because"], "the kernel says: "), "{ending:#}");
    assert!(says(&ending["because"], "SIGKILL from the kernel itself"), "both witnesses agree: {ending:#}");
    assert!(!says(&ending["evidence"], "somebody on the host"), "{ending:#}");

    assert_eq!(host.status(&neighbour).as_deref(), Some("up"), "its neighbour goes on");
    host.libvirtd.qemu("neighbour")?.signal(Signal::KILL)?;
    let ending = host.check(&neighbour, &told("process-killed", 1, 2), "certain")?;
    assert!(!says(&ending["evidence"], "the kernel"), "{ending:#}");
    wait_until("the group is empty", PATIENCE, || group.is_empty());
    Ok(())
}
