//! From records to what they mean together: who sent a signal is one record, and each process that got it another.

use std::collections::VecDeque;

use super::record::{Record, Sending, Stamp};

/// Events whose targets may still come. The kernel writes an event's records one after another, and only those of other
/// processors stand between.
const OPEN: usize = 64;

/// What came of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A process was sent a signal.
    Sent { stamp: Stamp, from: Sending, to: u32, name: String },
    /// As the record says.
    Said(Stamp, Record),
}

/// Events that are not complete.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<(Stamp, Sending)>);

impl Events {
    /// What this record says, with what came before it.
    pub(super) fn take(&mut self, stamp: Stamp, record: Record) -> Option<Event> {
        match record {
            Record::Sending(sending) => {
                if self.0.len() >= OPEN {
                    self.0.pop_front();
                }
                self.0.push_back((stamp, sending));
                None
            }
            Record::Target { pid, uid, name } => {
                let (_, from) = self.0.iter().rev().find(|(open, _)| *open == stamp)?;
                // Of many, those that it may not signal are recorded like the others.
                let may = !from.many || from.euid == 0 || from.euid == uid || from.uid == uid;
                may.then(|| Event::Sent { stamp, from: from.clone(), to: pid, name })
            }
            said => Some(Event::Said(stamp, said)),
        }
    }
}
