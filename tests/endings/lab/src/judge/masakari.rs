//! Masakari, put to the same events: its monitor's filter, and which of the notices its engine acts on.
//!
//! The monitor passes on STOPPED with shutdown, destroyed and failed, pauses by trouble, watchdogs, I/O errors, reboots
//! and monitor errors; not STOPPED by crash, not a panic. The engine recovers an instance for STOPPED/FAILED and for a
//! reported I/O error, and ignores the rest. What happened while the monitor was away is lost.

use super::{Given, Said};
use crate::recorder::RawEvent;

/// What it notifies, and whether its engine restarts the instance.
pub fn says(given: &Given) -> Said {
    if !given.heard {
        return Said::words("nothing");
    }
    let mut notices: Vec<String> = given.events.iter().filter_map(notice).collect();
    notices.dedup();
    if notices.is_empty() {
        return Said::words("nothing");
    }
    let acts = notices.iter().any(|notice| notice == "STOPPED_FAILED" || notice == "IO_ERROR_REPORT");
    let outcome = if acts { "recovers" } else { "ignored" };
    Said::words(format!("{}: {outcome}", notices.join(", ")))
}

fn notice(event: &RawEvent) -> Option<String> {
    let notice = match (event.event.as_str(), event.lifecycle()) {
        ("lifecycle", Some(("Stopped", detail @ ("Shutdown" | "Destroyed" | "Failed")))) => {
            format!("STOPPED_{}", detail.to_uppercase())
        }
        ("lifecycle", Some(("Suspended", "I/O Error"))) => "SUSPENDED_IOERROR".into(),
        ("lifecycle", Some(("Suspended", "Watchdog"))) => "SUSPENDED_WATCHDOG".into(),
        ("lifecycle", Some(("Suspended", "API error"))) => "SUSPENDED_API_ERROR".into(),
        ("lifecycle", Some(("Shutdown", "Finished"))) => "SHUTDOWN_FINISHED".into(),
        ("watchdog", _) if event.detail != "inject-nmi" => {
            format!("WATCHDOG_{}", event.detail.to_uppercase())
        }
        ("io-error", _) => match event.detail.rsplit(' ').next() {
            Some(action @ ("none" | "pause" | "report")) => format!("IO_ERROR_{}", action.to_uppercase()),
            _ => return None,
        },
        ("reboot", _) => "REBOOT".into(),
        ("control-error", _) => "CONTROL_ERROR".into(),
        _ => return None,
    };
    Some(notice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::given;

    #[test]
    fn only_a_failed_stop_is_acted_on_and_a_crash_is_not_seen() {
        assert_eq!(says(&given(&["Stopped Failed"])).words, "STOPPED_FAILED: recovers");
        let shutdown = given(&["Shutdown Finished after guest request", "Stopped Shutdown"]);
        assert_eq!(says(&shutdown).words, "STOPPED_SHUTDOWN: ignored");
        assert_eq!(says(&given(&["Crashed Panicked", "Stopped Crashed"])).words, "nothing");
        assert_eq!(says(&Given { heard: false, ..shutdown }).words, "nothing");
    }
}
