//! Fixed bounds, each with its reason. What an administrator may choose stands in the default configuration instead.

use std::time::Duration;

/// Run numbers that the ledger has reserved on disk before they are given. A daemon that is killed leaves those of them
/// unused that nothing on disk speaks of, and none is ever given twice. Half of them are more than all VMs of a host.
pub const RUNS_RESERVED: u64 = 4096;

/// Virtual processors of one VM: QEMU has machines of so many. libvirt makes something for each before it asks QEMU, and takes
/// all memory of the host for numbers that have no bound.
pub const VCPUS: u64 = 4096;

/// Threads for input and output of one VM.
pub const IO_THREADS: u64 = 1024;

/// A destroy of a QEMU that hangs takes libvirt up to half a minute.
pub const LONGEST_ACT: Duration = Duration::from_secs(60);

/// A disk that has not taken a commit for this long is taken for one that cannot be written: who asks for a destroy must
/// not wait for a storage that is gone for ever. Ten times the longest pause of a disk that works.
pub const DISK_PATIENCE: Duration = Duration::from_secs(10);

/// A wall clock that goes on by so much more or less than it should was set. NTP moves it by less as long as it can, and
/// a machine under load reads both clocks some milliseconds apart.
pub const CLOCK_SET: Duration = Duration::from_secs(5);

/// A time that lies so far ahead was read from a wrong clock. Less than that is caught up with.
pub const CLOCK_AHEAD: Duration = Duration::from_secs(3600);

/// A wall clock that was not set for so long is believed. NTP has corrected a wrong one minutes after a boot.
pub const CLOCK_STEADY: Duration = Duration::from_secs(600);

/// Distinct facts kept for one run. A storm repeats facts, and repeats are counted, not kept; only a guest or
/// client that invents ever new texts gets here.
pub const FACTS_PER_RUN: usize = 128;

/// Ended runs of which it is remembered when they began, the latest one of each domain: whatever began after them while
/// nobody listened is told apart by that.
pub const RUNS_REMEMBERED: usize = 4096;

/// The host's clock may be corrected by so much after its boot, by which the boot's own time moves.
pub const BOOT_SLACK: Duration = Duration::from_secs(5);

/// Bytes of any one text from libvirt, QEMU, a manager or a log that is kept as evidence.
pub const TEXT_BYTES: usize = 4096;

/// Bytes of a domain's name. libvirt's QEMU driver keeps names below 256, as they are file names.
pub const NAME_BYTES: usize = 1024;

/// How long a press of the power button or a shutdown request explains a guest's shutdown that begins after it.
pub const REQUEST_LIFE: Duration = Duration::from_secs(300);

/// A watchdog, or a suspend-to-disk, explains a shutdown that begins within this time after it.
pub const PRELUDE_LIFE: Duration = Duration::from_secs(120);

/// An ending this close behind a gap in our hearing is never told as certain: its prelude may lie in the gap.
pub const GAP_SHADOW: Duration = Duration::from_secs(60);

/// systemd is asked whether the host goes down when a VM begins to end, and may be that late with its word: on a host that
/// goes down everything is slow.
pub const HOST_WORD_DELAY: Duration = Duration::from_secs(5);

/// How long before its end a shutdown of the host may have begun of which only the end is known. libvirt-guests gives guests
/// five minutes as a rule.
pub const SHUTDOWN_LASTS: Duration = Duration::from_secs(300);

/// Two witnesses of one moment may date it this far apart: events carry no time of their own and are dated when they
/// arrive.
pub const CLOCK_GRACE: Duration = Duration::from_secs(1);

/// How long after an ending was told, or after the daemon began, proof of what it was may still come: a core dump or a hung
/// log takes minutes. Whoever acted on the first answer has done so long before.
pub const LATE_PROOF: Duration = Duration::from_secs(900);

/// How often one ending may be corrected. There are only so many witnesses; more would be a quarrel, not proof.
pub const REVISIONS: usize = 3;

/// Ended runs that are remembered for late proof; a storm of uncertain endings forgets its oldest. Each has at most some
/// hundred kilobytes of evidence, and as a rule some.
pub const ENDED_RUNS: usize = 256;

/// When a log that said nothing, or could not be read, is read again: this long after the ending was told.
pub const SECOND_LOOKS: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(300)];
