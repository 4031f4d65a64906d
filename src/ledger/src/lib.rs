//! The durable record of runs, evidence, endings and acknowledgements, in one SQLite file.
//!
//! The shell hands over what the engine wants kept ([`Ledger::keep`]); one thread writes it in that order, many
//! operations to one commit, and says of each ending when it is on disk ([`Told::Kept`]). Only then may the ending
//! become public.
//!
//! ```text
//!  keep() ──▶ queue (bounded memory) ──▶ thread "ledger" ──▶ one commit ──▶ told(Kept)
//!                    │                        │ fails
//!                    │                        └──▶ told(NotKept), waits, opens the file again, tries again
//!  ask() ◀── a page, merged ◀── queue (bounded) ◀── threads "ledger-reader", with connections that only read
//! ```
//!
//! This room never decides why a VM ended, never changes an ending that was told, never makes the caller wait for a
//! disk, never fails to open, and never loses anything without saying so. Nothing outside of it knows SQL.

// What the rest of the program meets.
mod error;
mod health;
mod ledger;
mod settings;

// From the handle to the thread.
mod known;
mod queue;
mod shared;
mod writer;

// From the thread to the file.
mod codec;
mod place;
mod rows;
mod schema;
mod store;

// From the file to the reader.
mod history;
mod readers;

// Starting, mending, tidying.
mod damage;
mod mend;
mod opening;
mod recovery;
mod retention;

pub use error::{LedgerError, Salvaged, Trouble};
pub use health::{Condition, Health};
pub use history::{Cursor, History, NotACursor, Page, Query};
pub use ledger::{Ledger, Opened, Told};
pub use readers::{Busy, Reading};
pub use settings::{Clock, Retention, Settings, Uptime};
