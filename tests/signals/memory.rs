//! Lack of memory in the control group of one guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use whydown_lab::{Qemu, Result, Signal, wait_for, wait_until};

use crate::host::{PATIENCE, says, told};
use crate::tracing_host;

/// What the group may hold; less than what QEMU is made to ask for.
const GROUP_BYTES: &str = "16777216";

/// A control group with little memory. It is removed in the end.
struct Group(PathBuf);

impl Group {
    /// Of version 1 or 2, whichever has the host's memory.
    fn make(name: &str) -> Self {
        let name = format!("whydown-test-{}-{name}", std::process::id());
        let (old, new) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (root, limit) = if old.join("memory.limit_in_bytes").exists() {
            (old, "memory.limit_in_bytes")
        } else {
            // Where it is on already the kernel takes it again.
            let _ = fs::write(new.join("cgroup.subtree_control"), "+memory");
            (new, "memory.max")
        };
        let group = Self(root.join(name));
        let made = fs::create_dir(&group.0).and_then(|()| fs::write(group.0.join(limit), GROUP_BYTES));
        if let Err(error) = made {
            panic!(
                "this test needs root and a memory control group below {} (version 1 or 2): {error}",
                root.display()
            );
        }
        // Where the group may swap, it would take its time to run out.
        let _ = fs::write(group.0.join("memory.swap.max"), "0");
        group
    }

    /// What QEMU asks for from now on counts here.
    fn take(&self, qemu: &Qemu) {
        fs::write(self.0.join("cgroup.procs"), qemu.pid().to_string()).expect("the process is moved");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel lets it go when the last process in it is reaped.
        let removed = || (fs::remove_dir(&self.0).is_ok() || !self.0.exists()).then_some(());
        let _ = wait_for("the group's end", Duration::from_secs(5), removed);
    }
}

#[test]
fn lack_of_memory_is_told_of_the_vm_that_it_ended_and_of_no_other() -> Result<()> {
    let host = tracing_host("memory")?;
    let (greedy, neighbour) = (host.guest("greedy")?, host.guest("neighbour")?);
    let _a = host.up(&greedy)?;
    let _b = host.up(&neighbour)?;
    let group = Group::make("greedy");
    group.take(&host.libvirtd.qemu("greedy")?);
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
    wait_until("the group is empty", PATIENCE, || {
        fs::read_to_string(group.0.join("cgroup.procs")).is_ok_and(|left| left.trim().is_empty())
    });
    Ok(())
}
