//! What must hold for any bytes that a stranger sends, beside that nothing panics.
//!
//! ```text
//! libFuzzer (run.sh) ─┐
//! corpus (cargo test) ┼─▶ call | reply | document | audit ─▶ the readers as they are ─▶ properties
//! a file (cargo run)  ┘
//! ```
//!
//! The readers of the daemon's shell, of the manager and of the audit's witness are compiled from their own files, without the rooms around
//! them: with those, libFuzzer would watch an HTTP stack and SQLite. Nothing here is a copy, and nothing is run otherwise
//! than in the daemon.

#[path = "../../../src/daemon/document.rs"]
pub mod document_file;
#[path = "../../../src/http/inflate.rs"]
pub mod inflate;
#[path = "../../../src/manager/src/read.rs"]
pub mod read;
#[path = "../../../src/manager/src/reason.rs"]
pub mod reason;

mod audit;
mod call;
mod document;
mod memory;
mod reply;
mod written;

pub use audit::audit;
pub use call::call;
pub use document::document;
pub use reply::reply;

/// One fuzz target: anything goes in, and it panics if something does not hold.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: [(&str, Target); 4] =
    [("call", call), ("reply", reply), ("document", document), ("audit", audit)];

/// Without libFuzzer: runs `target` on the files that were named, as to see again what it found.
///
/// # Panics
/// When a file cannot be read, or a property does not hold.
pub fn replay(target: Target) {
    for path in std::env::args_os().skip(1) {
        target(&std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    }
}
