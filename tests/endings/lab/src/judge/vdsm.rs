//! The newest rules of VDSM (4.40.29 and later), put to the same events.
//!
//! One slot, filled once: ADMIN by its own destroy and power button, else by SHUTDOWN's detail, HOST or USER; USER
//! becomes HOST while systemd stops the host. STOPPED with a filled slot is that, with an empty one a lost connection;
//! its own migration and save are told apart by its own state.
//! What ended while it was not listening is read from the state of the domain, which its domains keep as they are
//! persistent.

use super::{Given, Said};
use crate::case::Asked;

/// What it says.
pub fn says(given: &Given) -> Said {
    match given.asked {
        // Nobody ever reads the record of a destroyed VM.
        Asked::Destroy => return Said::words("forgotten"),
        Asked::Create if given.lifecycle().next().is_none() => {
            return Said::exit(1, 1, "the start failed");
        }
        _ => {}
    }
    if !given.heard {
        return recovered(given);
    }
    let mut slot = (given.asked == Asked::Shutdown).then_some(Slot::Admin);
    for (event, detail) in given.lifecycle() {
        match (event, detail) {
            ("Shutdown", "Finished after host request") => slot = slot.or(Some(Slot::Host)),
            ("Shutdown", _) => slot = slot.or(Some(if given.host_stops { Slot::Host } else { Slot::User })),
            ("Suspended", "Post-copy Error") => {
                return Said::exit(1, 12, "post-copy failed");
            }
            ("Stopped", "Migrated") if given.asked == Asked::Migrate => {
                return Said::exit(0, 4, "migrated");
            }
            ("Stopped", "Saved") if given.asked == Asked::Save => return Said::exit(0, 5, "saved"),
            ("Stopped", _) => return stopped(slot),
            _ => {}
        }
    }
    Said::words("nothing")
}

#[derive(Clone, Copy)]
enum Slot {
    Admin,
    User,
    Host,
}

fn stopped(slot: Option<Slot>) -> Said {
    match slot {
        Some(Slot::Admin) => Said::exit(0, 6, "admin"),
        Some(Slot::User) => Said::exit(0, 7, "user"),
        Some(Slot::Host) => Said::exit(1, 11, "host"),
        None => Said::exit(1, 2, "lost connection"),
    }
}

fn recovered(given: &Given) -> Said {
    let Some(found) = given.found.as_deref() else { return Said::exit(1, 9, "not found") };
    let Some(reason) = found.strip_prefix("shut off (") else { return Said::words("nothing") };
    match reason.trim_end_matches(')') {
        "shutdown" => Said::exit(0, 7, "user (by state)"),
        "destroyed" => Said::exit(0, 6, "admin (by state)"),
        "migrated" => Said::exit(0, 4, "migrated (by state)"),
        "saved" => Said::exit(0, 5, "saved (by state)"),
        "failed" => Said::exit(1, 3, "start failed (by state)"),
        _ => Said::exit(1, 1, "error (by state)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::given;

    #[test]
    fn the_first_word_on_the_shutdown_fills_the_slot() {
        let user = given(&["Shutdown Finished after guest request", "Stopped Shutdown"]);
        assert_eq!(says(&user).exit, Some((0, 7)));
        assert_eq!(says(&Given { host_stops: true, ..user.clone() }).exit, Some((1, 11)));
        assert_eq!(says(&Given { asked: Asked::Shutdown, ..user }).exit, Some((0, 6)));
        let host = given(&["Shutdown Finished after host request", "Stopped Destroyed"]);
        assert_eq!(says(&host).exit, Some((1, 11)));
    }

    #[test]
    fn without_it_every_end_is_a_lost_connection() {
        for detail in ["Stopped Crashed", "Stopped Failed", "Stopped Saved", "Stopped Migrated"] {
            assert_eq!(says(&given(&[detail])).exit, Some((1, 2)), "{detail}");
        }
        assert_eq!(says(&Given { asked: Asked::Save, ..given(&["Stopped Saved"]) }).exit, Some((0, 5)));
        assert_eq!(says(&given(&["Started Booted", "Suspended Paused"])).exit, None);
    }

    #[test]
    fn what_it_did_not_hear_is_read_from_the_state() {
        let away = Given { heard: false, ..given(&[]) };
        assert_eq!(says(&away).exit, Some((1, 9)));
        let found = |state: &str| says(&Given { found: Some(state.into()), ..away.clone() }).exit;
        assert_eq!(found("shut off (destroyed)"), Some((0, 6)));
        assert_eq!(found("shut off (crashed)"), Some((1, 1)));
        assert_eq!(found("running (booted)"), None);
    }
}
