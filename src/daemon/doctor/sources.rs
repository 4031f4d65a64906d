//! From how the sources of evidence stand to findings.

use whydown_core::cause::Cause;
use whydown_witness::source::{About, Advice};
use whydown_witness::{audit, exit, signal};

use super::super::sources::State;
use crate::told::{Finding, FindingLevel};

/// A finding for each. `unseen` says why ends of processes are missed that the source would see otherwise; `names_senders`,
/// whether the audit has told who sent a signal.
pub fn of_sources(
    all: &[(&'static About, State)],
    unseen: Option<String>,
    names_senders: bool,
) -> Vec<Finding> {
    let by_audit =
        names_senders && all.iter().any(|one| is(one.0, &audit::ABOUT) && one.1 == State::Available);
    let of = |(about, state): &(&'static About, State)| match (&unseen, state) {
        (Some(why), State::Available) if is(about, &exit::ABOUT) => {
            found(about, FindingLevel::Cannot, why.clone(), about.advice)
        }
        (_, State::Available) if is(about, &audit::ABOUT) && !names_senders => unruled(about),
        (_, State::Off | State::Unavailable { .. }) if is(about, &signal::ABOUT) && by_audit => {
            let mut finding = of_source(about, state);
            // Not all of them, perhaps: that is up to its rules.
            finding.level = FindingLevel::Note;
            finding.what.push_str("; the kernel's audit names the senders that its rules ask for");
            finding
        }
        _ => of_source(about, state),
    };
    all.iter().map(of).collect()
}

/// How one stands by itself.
fn of_source(about: &About, state: &State) -> Finding {
    match (state, about.off) {
        (State::Off, Some((what, advice))) => {
            let level = if about.needed { FindingLevel::Cannot } else { FindingLevel::Note };
            found(about, level, what.into(), advice)
        }
        (State::Unavailable { why, .. }, _) => missing(about, why),
        (State::Available | State::Off, _) => {
            found(about, FindingLevel::Fine, about.fine.into(), Advice { what: "", add: "" })
        }
    }
}

fn missing(about: &About, why: &str) -> Finding {
    let what = format!("unavailable: {}: {why}", about.gives);
    match about.instead {
        Some(instead) => found(about, FindingLevel::Note, format!("{instead}; {what}"), about.advice),
        None if about.needed => found(about, FindingLevel::Cannot, what, about.advice),
        None => found(about, FindingLevel::Note, what, about.advice),
    }
}

/// The audit is heard, and may have no rule for signals.
fn unruled(about: &About) -> Finding {
    let what = "the kernel's audit is heard, and has named no sender of a signal yet";
    let advice = "To have it name who kills, and as whom they logged in, add to /etc/audit/rules.d/whydown.rules, or give \
        to auditctl line by line:";
    found(about, FindingLevel::Note, what.into(), Advice { what: advice, add: audit::RULES })
}

fn found(about: &About, level: FindingLevel, what: String, advice: Advice) -> Finding {
    let causes = Cause::ALL.iter().filter(|cause| about.causes.contains(cause));
    let causes = causes.map(|cause| cause.row().word.to_owned()).collect();
    let (advice, add) = (advice.what.into(), advice.add.into());
    Finding { about: about.name.into(), level, what, causes, advice, add }
}

fn is(one: &About, other: &About) -> bool {
    one.name == other.name
}

#[cfg(test)]
mod tests {
    use whydown_core::time::Wall;
    use whydown_witness::{host, kernel};

    use super::super::super::sources::ALL;
    use super::*;

    fn of(about: &'static About, state: State) -> Finding {
        of_source(about, &state)
    }

    #[test]
    fn what_is_missing_names_its_causes_and_what_is_there_loses_none() {
        let missing = || State::Unavailable { why: "gone".into(), since: Wall(1) };
        for about in ALL {
            let fine = of(about, State::Available);
            assert_eq!((fine.level, fine.about.as_str()), (FindingLevel::Fine, about.name));
            let lost = of(about, missing());
            assert!(
                lost.what.ends_with("gone") && !lost.causes.is_empty() && !lost.advice.is_empty(),
                "{lost:?}"
            );
        }
        let level = |about, state| of(about, state).level;
        assert_eq!(level(&kernel::ABOUT, missing()), FindingLevel::Cannot);
        assert_eq!(level(&signal::ABOUT, State::Off), FindingLevel::Cannot);
        assert_eq!(level(&audit::ABOUT, State::Off), FindingLevel::Note);
        assert_eq!(level(&audit::ABOUT, missing()), FindingLevel::Note);
        assert_eq!(level(&host::ABOUT, State::Off), FindingLevel::Cannot, "nobody says it");
        assert_eq!(level(&host::ABOUT, missing()), FindingLevel::Note, "systemctl says it");
    }

    #[test]
    fn one_stands_in_for_another_where_it_has_shown_that_it_does() {
        let all = [(&signal::ABOUT, State::Off), (&audit::ABOUT, State::Available)];
        let levels = |names_senders| {
            of_sources(&all, None, names_senders).into_iter().map(|one| one.level).collect::<Vec<_>>()
        };
        assert_eq!(levels(false), [FindingLevel::Cannot, FindingLevel::Note]);
        assert_eq!(levels(true), [FindingLevel::Note, FindingLevel::Fine]);
        let unseen = of_sources(&[(&exit::ABOUT, State::Available)], Some("elsewhere".into()), false);
        assert_eq!(unseen[0].level, FindingLevel::Cannot);
        assert!(unseen[0].what.contains("elsewhere"));
    }
}
