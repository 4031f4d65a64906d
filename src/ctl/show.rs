//! Answers in the form that people read. Texts from guests and managers, names above all, are shown with what is hidden in
//! them made [visible](crate::visible).

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};
use jiff::{Timestamp, tz::TimeZone};

use crate::told::{Change, Doctor, Domain, Domains, Ending, FindingLevel, Health, History, Why, Witnessed};

/// The table of `whydown list`.
pub fn domains(told: &Domains) -> String {
    let mut text = String::new();
    if !told.settled {
        text.push_str("whydown has not seen libvirt's domains yet; this list is not complete.\n");
    }
    if let Some(since) = told.link_lost_since {
        let _ = writeln!(
            text,
            "The link to libvirt is lost since {}; this is what was known then.",
            local(since)
        );
    }
    if told.domains.is_empty() {
        text.push_str("No VM is running, and none is down without being acknowledged.");
        return text;
    }
    let mut table = table(&["NAME", "STATUS", "SINCE", "CAUSE", "EXIT", "UUID"]);
    let mut sorted: Vec<_> = told.domains.iter().collect();
    sorted.sort_by(|a, b| (&a.name, &a.domain).cmp(&(&b.name, &b.domain)));
    for domain in sorted {
        let (since, cause, exit) = match &domain.ending {
            None => (domain.started, String::new(), String::new()),
            Some(ending) => (ending.ended, cause(ending), exit(ending)),
        };
        let status = status(domain);
        table.add_row([clean(&domain.name), status, local(since), cause, exit, domain.domain.clone()]);
    }
    text + &table.to_string()
}

/// The story of `whydown why`.
pub fn why(told: &Why) -> String {
    let mut text = String::new();
    if !told.namesakes.is_empty() {
        let meant = told.domain.as_ref().map(|domain| &domain.domain);
        let meant = meant.or(told.ending.as_ref().map(|ending| &ending.domain));
        let _ = writeln!(
            text,
            "There are {} VMs of this name. This is about {}: it runs, or ran last. The others: {}\n",
            told.namesakes.len() + 1,
            meant.map_or("", String::as_str),
            told.namesakes.join(", ")
        );
    }
    if let Some(domain) = told.domain.as_ref().filter(|domain| domain.ending.is_none()) {
        let _ = writeln!(
            text,
            "{} is {} (run {}, since {}).",
            clean(&domain.name),
            status(domain),
            domain.run,
            local(domain.started)
        );
        let _ = match &told.ending {
            Some(ending) if ending.domain == domain.domain => {
                write!(
                    text,
                    "It has not gone down since {}. Its last ending before that:\n\n",
                    local(domain.started)
                )
            }
            Some(_) => write!(text, "No ending of it is known; the last one of another VM of this name:\n\n"),
            None => writeln!(
                text,
                "It has not gone down since {}, and no ending of it is known.",
                local(domain.started)
            ),
        };
    }
    if let Some(defined) = &told.defined {
        let name = clean(&defined.name);
        let _ = match &told.ending {
            _ if defined.start_failed => writeln!(
                text,
                "The last start of {name} failed, and why is being found out: {}.\n",
                clean(&defined.state)
            ),
            None => writeln!(
                text,
                "{name} is defined and has never run, as far as is known: {}.",
                clean(&defined.state)
            ),
            Some(ending) if ending.domain == defined.domain && ending.name != defined.name => {
                writeln!(text, "{name} was called {} when it last ran.\n", clean(&ending.name))
            }
            Some(_) => Ok(()),
        };
    }
    let Some(ending) = &told.ending else { return text };
    let _ = writeln!(text, "{} went down: {}", clean(&ending.name), ending.sentence);
    let _ = writeln!(text);
    let when = span(ending.ended_not_before.map(local), local(ending.ended));
    let mut facts: Vec<(&str, String)> = vec![
        ("When", when),
        ("Run", format!("{}, since {}", ending.run, local(ending.started))),
        ("Cause", ending.cause.clone()),
        ("Certainty", ending.certainty.clone()),
        (
            "To managers",
            format!(
                "exitCode {}, exitReason {}: {}",
                ending.exit_code,
                ending.exit_reason,
                clean(&ending.message)
            ),
        ),
        ("Decided by", format!("row {}: {}", ending.row, ending.story)),
    ];
    for before in ending.earlier.iter().rev() {
        let was = format!(
            "until {} it was told as {} ({}): {}; the exit code stays",
            local(before.until),
            before.cause,
            before.certainty,
            before.sentence
        );
        facts.push(("Corrected", was));
    }
    if let Some(by) = &ending.acknowledged_by {
        let at = ending.acknowledged_at.map(|at| format!(", {}", local(at))).unwrap_or_default();
        facts.push(("Acknowledged", format!("by {}{at}", clean(by))));
    }
    for (name, value) in facts {
        let _ = writeln!(text, "{:<13} {value}", format!("{name}:"));
    }
    evidence(&mut text, "Because", &ending.because);
    evidence(&mut text, "Despite", &ending.despite);
    evidence(&mut text, "What led to it", &ending.led_by);
    let _ = writeln!(text, "\nWhat to do: {}", ending.advice);
    text
}

fn evidence(text: &mut String, title: &str, pieces: &[Witnessed]) {
    if pieces.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for piece in pieces {
        let times = if piece.times > 1 { format!(" ({} times)", piece.times) } else { String::new() };
        let _ = writeln!(text, "  {}  {}{times}", local(piece.last), clean(&piece.what));
    }
}

/// A moment, or a window as it is written: one of less than a second is about a moment.
fn span(from: Option<String>, to: String) -> String {
    match from {
        None => to,
        Some(from) if from == to => format!("about {to}"),
        Some(from) => format!("between {from} and {to}"),
    }
}

/// The table of `whydown history`.
pub fn history(told: &History) -> String {
    if told.endings.is_empty() && told.unread.is_empty() {
        return "No ending is known.".into();
    }
    let mut table = table(&["ENDED", "NAME", "RUN", "CAUSE", "EXIT", "ACKNOWLEDGED", "UUID"]);
    for ending in &told.endings {
        table.add_row([
            local(ending.ended),
            clean(&ending.name),
            ending.run.to_string(),
            cause(ending),
            exit(ending),
            ending.acknowledged_by.as_deref().map(clean).unwrap_or_default(),
            ending.domain.clone(),
        ]);
    }
    let unread = told.unread.iter().map(|unread| format!("\nNot the whole truth: {}", clean(unread)));
    table.to_string() + &unread.collect::<String>()
}

/// A line of `whydown watch`.
pub fn change(told: &Change) -> String {
    let at = local(told.at);
    if told.missed > 0 {
        return format!("{at}  ({} changes were missed)", told.missed);
    }
    let down = |ending: &Ending| {
        let (cause, certainty, exit) = (&ending.cause, &ending.certainty, exit(ending));
        let word = if told.corrected { "corrected" } else { "down" };
        format!(
            "{at}  {}  {word}: {cause} ({certainty}, {exit})  {}",
            clean(&ending.name),
            clean(&ending.message)
        )
    };
    match (&told.domain, &told.left, &told.ending) {
        (Some(domain), ..) => match &domain.ending {
            Some(ending) => down(ending),
            None => format!("{at}  {}  {}", clean(&domain.name), status(domain)),
        },
        (None, Some(_), Some(ending)) => format!("{}; no longer shown", down(ending)),
        (None, Some(left), None) => format!("{at}  {left}  no longer shown"),
        (None, None, Some(ending)) => down(ending),
        (None, None, None) => at,
    }
}

/// The lines of `whydown health`.
pub fn health(told: &Health) -> String {
    let mut text = format!("whydown {}, since {}\n", told.version, local(told.started));
    let link = match (told.settled, told.link_lost_since) {
        (false, _) => "libvirt has not been seen yet".to_owned(),
        (true, None) => "libvirt: connected and listening".to_owned(),
        (true, Some(since)) => format!("libvirt: link lost since {}", local(since)),
    };
    let _ = writeln!(text, "{link}");
    match &told.ledger_trouble {
        None => text.push_str("ledger: fine\n"),
        Some(trouble) => {
            let _ = writeln!(text, "ledger: {trouble} ({} writes wait)", told.ledger_waiting);
        }
    }
    if let Some(moved_to) = &told.ledger_damaged {
        let _ = writeln!(
            text,
            "ledger: was damaged; what could be read was saved, the damaged file is {moved_to}"
        );
    }
    if let Some(mended) = &told.ledger_mended {
        let _ = writeln!(text, "ledger: {}", clean(mended));
    }
    if told.ledger_lost > 0 {
        let _ = writeln!(text, "ledger: {} records are lost; the log names each", told.ledger_lost);
    }
    if let Some(trouble) = &told.tls_trouble {
        let _ = writeln!(text, "certificates: {trouble}");
    }
    for source in &told.unavailable_sources {
        let _ = writeln!(text, "unavailable: {} ({}): {}", source.name, source.gives, clean(&source.why));
    }
    text
}

/// The lines of `whydown doctor`: what cannot be told first, then what is worth to know, then what is well.
pub fn doctor(told: &Doctor) -> String {
    let unknown = "unknown".to_owned();
    let (libvirt, hypervisor) = (&told.libvirt, &told.hypervisor);
    let mut text = format!(
        "whydown {}, libvirt {}, hypervisor {}\n",
        told.version,
        libvirt.as_ref().unwrap_or(&unknown),
        hypervisor.as_ref().unwrap_or(&unknown)
    );
    if let Some(vm) = &told.vm {
        let _ = writeln!(text, "VM {}, {}", clean(&vm.name), vm.domain);
    }
    let (can, all) = (told.can_tell.len(), told.can_tell.len() + told.cannot_tell.len());
    let _ = writeln!(text, "{can} of {all} causes can be told");
    for (level, head) in [
        (FindingLevel::Cannot, "\nCannot be told apart, or not for certain:"),
        (FindingLevel::Note, "\nWorth to know:"),
        (FindingLevel::Fine, "\nWell:"),
    ] {
        let found: Vec<_> = told.findings.iter().filter(|finding| finding.level == level).collect();
        if found.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{head}");
        for finding in found {
            let _ = writeln!(text, "  {}: {}", finding.about, clean(&finding.what));
            if level == FindingLevel::Fine {
                continue;
            }
            if !finding.causes.is_empty() {
                let _ = writeln!(text, "    concerns: {}", finding.causes.join(", "));
            }
            for line in finding.advice.lines() {
                let _ = writeln!(text, "    {line}");
            }
            for line in finding.add.lines() {
                let _ = writeln!(text, "        {line}");
            }
        }
    }
    text
}

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(head.to_vec());
    table
}

fn status(domain: &Domain) -> String {
    let word = serde_json::to_value(domain.status).ok();
    let word = word.as_ref().and_then(|word| word.as_str()).unwrap_or_default();
    match &domain.paused_by {
        _ if !domain.durable => format!("{word} (not on disk)"),
        Some(why) => format!("{word} ({})", clean(why)),
        None => word.into(),
    }
}

fn cause(ending: &Ending) -> String {
    let corrected = (ending.revision > 0).then_some("corrected");
    let unsure = Some(ending.certainty.as_str()).filter(|certainty| *certainty != "certain");
    let remarks: Vec<&str> = unsure.into_iter().chain(corrected).collect();
    if remarks.is_empty() {
        ending.cause.clone()
    } else {
        format!("{} ({})", ending.cause, remarks.join(", "))
    }
}

fn exit(ending: &Ending) -> String {
    format!("{}/{}", ending.exit_code, ending.exit_reason)
}

fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A text from elsewhere, with what is hidden in it made visible.
pub fn clean(text: &str) -> String {
    crate::visible::visible(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_of_less_than_a_second_is_about_a_moment() {
        let at = |text: &str| text.to_owned();
        assert_eq!(span(None, at("03:39:21")), "03:39:21");
        assert_eq!(span(Some(at("03:39:21")), at("03:39:21")), "about 03:39:21");
        assert_eq!(span(Some(at("03:39:20")), at("03:39:21")), "between 03:39:20 and 03:39:21");
    }
}
