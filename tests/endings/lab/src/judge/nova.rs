//! Nova's libvirt driver, put to the same events: it looks at lifecycle events alone, and of STOPPED it drops the detail.
//!
//! A STOPPED waits 15 s for a STARTED that would make it a reboot; then its instance is stopped through its own API if it
//! should be running. What ended while it was away it finds by comparing power states, again without a cause.

use super::{Given, Said};
use crate::case::Asked;

/// What becomes of the instance.
pub fn says(given: &Given) -> Said {
    if !given.heard {
        return Said::words(match given.found.as_deref() {
            None => "missing",
            Some(state) if state.starts_with("shut off") => "stopped",
            Some(state) if state.starts_with("crashed") => "crashed",
            Some(_) => "nothing",
        });
    }
    let mut last = None;
    for (event, detail) in given.lifecycle() {
        last = match (event, detail) {
            ("Stopped", _) => Some("stopped"),
            // It asks whether the job is complete; what follows tells that here.
            ("Suspended", "Migrated") => Some("migration completed"),
            ("Suspended", "Post-copy") => Some("post-copy started"),
            ("Suspended", _) => Some("paused"),
            ("Started", _) => None,
            ("Resumed", _) if last == Some("paused") => None,
            _ => last,
        };
    }
    let words = last.unwrap_or("nothing");
    match given.asked {
        Asked::Nothing | Asked::Create => Said::words(words),
        _ if words == "nothing" => Said::words(words),
        // Its own task explains it; the event alone is the same.
        _ => Said::words(format!("{words} (its own task)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::given;

    #[test]
    fn every_stop_is_the_same_and_what_is_no_lifecycle_event_is_nothing() {
        for detail in ["Stopped Shutdown", "Stopped Crashed", "Stopped Failed", "Stopped Saved"] {
            assert_eq!(says(&given(&["Shutdown Finished", detail])).words, "stopped", "{detail}");
        }
        assert_eq!(says(&given(&["Crashed Panicked"])).words, "nothing");
        assert_eq!(says(&given(&["Suspended I/O Error"])).words, "paused");
        assert_eq!(says(&given(&["Stopped Snapshot", "Started Snapshot"])).words, "nothing");
    }
}
