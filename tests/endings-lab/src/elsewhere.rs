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

const RUNS: &[Elsewhere] = &[Elsewhere {
    host: "Debian 13",
    libvirt: "11.3",
    qemu: "10.0",
    cases: "all",
    right: 362,
    honest: 3,
    wrong: 3,
}];

/// What was learnt there.
const LEARNT: &[&str] = &[];

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
