//! The text of the tree: every wall that the compiler cannot hold.

use std::path::{Path, PathBuf};

use whydown_lab::generated::root;

/// A second idea usually waits beyond this.
const LINES_MOST: usize = 600;

fn files(ending: &str) -> Vec<(PathBuf, String)> {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is there: apt-get install git");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let found: Vec<_> = names
        .lines()
        .filter(|name| name.ends_with(ending))
        .map(PathBuf::from)
        .filter_map(|path| Some((path.clone(), std::fs::read_to_string(root().join(&path)).ok()?)))
        .collect();
    assert!(!found.is_empty(), "no {ending} file is found");
    found
}

fn in_room(path: &Path, room: &str) -> bool {
    path.starts_with(room)
}

#[test]
fn every_module_says_what_it_is_for() {
    for (path, text) in files(".rs") {
        let generated = text.starts_with("// Generated");
        assert!(generated || text.trim_start().starts_with("//!"), "{}: begins without //!", path.display());
    }
}

#[test]
fn no_file_hides_a_second_idea() {
    for (path, text) in files(".rs") {
        let lines = text.lines().count();
        assert!(text.starts_with("// Generated") || lines <= LINES_MOST, "{}: {lines} lines", path.display());
    }
}

#[test]
fn libvirts_constants_and_unsafe_code_stay_in_their_room() {
    for (path, text) in files(".rs").into_iter().filter(|(path, _)| !in_room(path, "src/libvirt")) {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let place = format!("{}:{}", path.display(), number + 1);
            assert!(!code.contains(concat!("VIR", "_DOMAIN_")), "{place}: a constant of libvirt");
            assert!(!code.contains(concat!("un", "safe ")), "{place}: a block that the compiler trusts");
        }
    }
}

#[test]
fn core_knows_no_world() {
    for (path, text) in files(".rs").into_iter().filter(|(path, _)| in_room(path, "src/core")) {
        for word in
            ["std::fs", "std::net", "std::process", "std::env", "std::thread", "SystemTime", "Instant::now"]
        {
            assert!(!text.contains(word), "{}: {word}", path.display());
        }
    }
}

#[test]
fn nothing_is_skipped_in_silence() {
    for (path, text) in files(".rs") {
        assert!(!text.contains(concat!("#[", "ignore")), "{}: an ignored test", path.display());
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    for (path, text) in files(".md") {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let full = root().join(path.parent().unwrap_or(Path::new(""))).join(target);
            assert!(full.exists(), "{}: {target} leads nowhere", path.display());
        }
    }
}

#[test]
fn every_page_is_reachable_from_the_readme() {
    let pages = files(".md");
    let mut seen = std::collections::BTreeSet::new();
    let mut next = vec![PathBuf::from("README.md")];
    while let Some(path) = next.pop() {
        let Some((_, text)) = pages.iter().find(|(page, _)| *page == path) else { continue };
        if !seen.insert(path.clone()) {
            continue;
        }
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = target.split('#').next().unwrap_or_default();
            let joined = path.parent().unwrap_or(Path::new("")).join(target);
            let mut plain = PathBuf::new();
            for part in joined.components() {
                match part {
                    std::path::Component::ParentDir => {
                        plain.pop();
                    }
                    part => plain.push(part),
                }
            }
            next.push(plain);
        }
    }
    let orphans: Vec<_> = pages.iter().map(|(page, _)| page).filter(|page| !seen.contains(*page)).collect();
    assert!(orphans.is_empty(), "no page leads to {orphans:?}");
}
