//! What the same cases gave with other versions of libvirt and QEMU (`tests/hosts.sh`). These runs are made by hand, and their
//! counts are written down here: a section of the page.

use std::fmt::Write;

/// A run of all cases, or of some.
struct Elsewhere {
    host: &'static str,
    libvirt: &'static str,
    qemu: &'static str,
    cases: &'static str,
    right: usize,
    honest: usize,
    wrong: usize,
}

const RUNS: &[Elsewhere] = &[
    Elsewhere {
        host: "Debian 13",
        libvirt: "11.3",
        qemu: "10.0",
        cases: "all",
        right: 367,
        honest: 3,
        wrong: 0,
    },
    Elsewhere {
        host: "Debian sid",
        libvirt: "12.8",
        qemu: "11.1",
        cases: "all",
        right: 363,
        honest: 3,
        wrong: 2,
    },
    Elsewhere {
        host: "Debian 11, built there",
        libvirt: "7.0",
        qemu: "5.2",
        cases: "the guest's own endings, signals, destroys, saves, some migrations",
        right: 97,
        honest: 0,
        wrong: 0,
    },
];

/// What was learnt there.
const LEARNT: &[&str] = &[
    "The two of sid were mended, and right when they and their like were run again: the kernel's line on a kill for lack of memory came later than the end of a failed start, and the lab asked for a live dump, which libvirt 12 refuses.",
    "libvirt 11 and later report their own kill as SHUTDOWN/host, before STOPPED of every kind.",
    "QEMU 10 and later shut down in good order for a guest that writes to `isa-debug-exit`; only the exit status tells.",
    "libvirt 7.0 dies when a guest is reset whose `on_reboot` was changed while it ran (`--except action-changed`), and never ends a migration whose source ended in flight. Two rows more could not be begun there, and what libvirt 7.0 does when it hangs was not tried again.",
    "virtqemud, Ubuntu and other architectures were not run again.",
];

/// The section.
pub fn section() -> String {
    let mut text = String::from(
        "\n## On other hosts\n\n\
         The rows above are those of libvirt 9.0 and QEMU 7.2.\n\
         The same cases with others, by `tests/hosts.sh`, on 28 November 2026:\n\n\
         | host | libvirt | QEMU | cases | rows | right | honest | wrong |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for run in RUNS {
        let Elsewhere { host, libvirt, qemu, cases, right, honest, wrong } = run;
        let rows = right + honest + wrong;
        let _ = writeln!(
            text,
            "| {host} | {libvirt} | {qemu} | {cases} | {rows} | {right} | {honest} | {wrong} |"
        );
    }
    text.push('\n');
    for line in LEARNT {
        let _ = writeln!(text, "- {line}");
    }
    text
}
