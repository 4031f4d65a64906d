//! The quick selection of the endings lab: every answer is right, or honest where the case says why.

use whydown_endings_lab::host::Programs;
use whydown_endings_lab::runner::{Plan, run};
use whydown_endings_lab::{cases, elsewhere, trials};

#[test]
fn what_is_known_to_end_vms_is_told_rightly() {
    let programs = Programs {
        whydownd: env!("CARGO_BIN_EXE_whydownd").into(),
        whydown: env!("CARGO_BIN_EXE_whydown").into(),
    };
    let plan = Plan { trials: trials(|case| case.quick), jobs: 3, programs, seen: |_| () };
    let report = run(&plan).expect("the lab can be used");
    assert!(report.is_well(), "\n{}", report.table());
}

#[test]
fn the_page_names_every_case_and_nothing_wrong() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/endings.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let make = "make it anew: tests/endings-lab.sh --full --markdown docs/reference/endings.md";
    let mut rows: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    for case in cases::all() {
        let line = page.lines().find(|line| line.starts_with(&format!("| `{}` | {}", case.name, case.what)));
        let line = line.unwrap_or_else(|| panic!("{} is not in the page: {make}", case.name));
        assert!(line.contains("| right |") || line.contains("| honest |"), "{line}");
        rows.retain(|row| *row != case.name);
    }
    assert!(rows.is_empty(), "{rows:?} are no cases any more: {make}");
    for (what, _) in cases::NOT_COVERED {
        assert!(page.contains(&format!("- {what}: ")), "{what}: {make}");
    }
    assert!(page.ends_with(&elsewhere::section()), "the runs on other hosts: {make}");
    assert!(!page.contains("WRONG") && !page.contains("BROKEN"), "{make}");
}
