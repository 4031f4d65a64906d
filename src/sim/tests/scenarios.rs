//! Every story of `src/sim/scenarios/` is played and judged; every row and every cause has one.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use whydown_core::cause::Cause;
use whydown_core::verdict::ROWS;
use whydown_sim::scenario::{Scenario, judge, read};

fn stories() -> Vec<(PathBuf, Scenario)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    read(&folder).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn what_is_said_of_every_story_is_what_should_be() {
    let mut failed = Vec::new();
    for (path, scenario) in stories() {
        let wrong = judge(&scenario);
        if !wrong.is_empty() {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            failed.push(format!("{file}: \"{}\"\n{}", scenario.name, wrong.join("\n")));
        }
    }
    assert!(failed.is_empty(), "{} stories failed\n\n{}", failed.len(), failed.join("\n\n"));
}

#[test]
fn every_row_and_every_cause_has_a_story() {
    let stories = stories();
    let expected: Vec<_> = stories.iter().flat_map(|(_, scenario)| &scenario.expect).collect();
    let told: BTreeSet<&str> = expected.iter().map(|ending| ending.row.as_str()).collect();
    let untold: Vec<_> = ROWS.iter().map(|row| row.label).filter(|label| !told.contains(label)).collect();
    assert!(untold.is_empty(), "rows without a story: {untold:?}");
    let told: BTreeSet<&str> = expected.iter().map(|ending| ending.cause.as_str()).collect();
    let untold: Vec<_> = Cause::ALL.iter().map(|c| c.word()).filter(|word| !told.contains(word)).collect();
    assert!(untold.is_empty(), "causes without a story: {untold:?}");
}

#[test]
fn every_story_has_a_name_of_its_own_and_a_sentence() {
    let mut names = BTreeSet::new();
    for (path, scenario) in stories() {
        assert!(names.insert(scenario.name.clone()), "{}: \"{}\" twice", path.display(), scenario.name);
        assert!(scenario.story.ends_with('.'), "{}: \"{}\"", path.display(), scenario.story);
    }
}

#[test]
fn every_word_that_must_not_be_said_is_one_that_could_be() {
    let statuses = [
        "launching",
        "up",
        "paused",
        "paused-io-error",
        "saving",
        "restoring",
        "migration-source",
        "migration-destination",
        "powering-down",
        "down",
    ];
    for (path, scenario) in stories() {
        for word in &scenario.never {
            let known = Cause::from_word(word).is_some() || statuses.contains(&word.as_str());
            assert!(known, "{}: \"{}\": {word}", path.display(), scenario.name);
        }
    }
}
