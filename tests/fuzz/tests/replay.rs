//! Everything that fuzzing has found worth keeping, in the usual test run.

use std::path::Path;

/// One after another: the memory that a reader takes is counted for the whole process.
#[test]
fn every_input_of_the_corpus_is_read_or_refused_as_it_should_be() {
    let mut broken = Vec::new();
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in whydown_fuzz::TARGETS {
        let folder = corpora.join(name);
        let entries =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
        paths.sort();
        assert!(paths.len() >= 20, "{}: only {} inputs", folder.display(), paths.len());
        for path in paths {
            let input = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            if std::panic::catch_unwind(|| target(&input)).is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "something does not hold of {broken:#?}: the reasons stand above");
}
