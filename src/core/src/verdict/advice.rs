//! What to do about an ending, said from the evidence at hand.
//!
//! Advice is a text with choices, `[first|second|last]`: the first of them counts whose slots, such as `{sender}`, the
//! evidence can fill. The last one of a choice has no slots. THE TABLE has the advice of each cause; what led to an
//! ending adds its own.

use super::explain::{bytes, signal_word};
use crate::evidence::{Audited, Evidence, EvidenceId, ExitStatus, Fact, Sender};
use crate::hypervisor::Happening;
use crate::lifecycle::internal_error;
use crate::record::{Ending, When};

/// Characters of QEMU's words that advice repeats.
const WORDS: usize = 200;

/// What is added to the advice of any cause where the trouble before the end asks for it.
const ADDED: &[&str] = &[
    "[Make room for {full_file}: {full_disk} had no space left.|Make room for {full_disk}, which had no space left.|]",
    "[The host's memory failed under it: {memory_failure}. Look at the host's hardware.|]",
    "[QEMU could not go on before: {internal_error}.|]",
];

/// The advice for this ending, with everything filled in that is known.
pub fn advice(ending: &Ending) -> String {
    let added = ADDED.iter().map(|text| fill(text, |slot| led(slot, ending)));
    let all =
        std::iter::once(fill(ending.verdict.cause.row().advice, |slot| value(slot, ending))).chain(added);
    all.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The advice of a cause where nothing is known of an ending.
pub fn plain_advice(advice: &str) -> String {
    fill(advice, |_| None)
}

/// Takes the first choice of each bracket whose slots are all filled.
fn fill(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, choices)) = rest.split_once('[') {
        filled.push_str(before);
        let (choices, after) = choices.split_once(']').unwrap_or((choices, ""));
        let chosen = choices.split('|').find_map(|choice| with_slots(choice, &value));
        filled.push_str(&chosen.unwrap_or_default());
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// This choice with its slots filled; `None` if one cannot be.
fn with_slots(choice: &str, value: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut filled = String::new();
    let mut rest = choice;
    while let Some((before, slot)) = rest.split_once('{') {
        let (slot, after) = slot.split_once('}')?;
        filled.push_str(before);
        filled.push_str(&value(slot)?);
        rest = after;
    }
    filled.push_str(rest);
    Some(filled)
}

/// What fills a slot in the advice of a cause: from what the verdict stands on.
fn value(slot: &str, ending: &Ending) -> Option<String> {
    let because = || pieces(&ending.verdict.because, &ending.evidence);
    match slot {
        "sender" => because().find_map(|piece| sender(piece, &ending.evidence)),
        "manager" => because().find_map(manager),
        "gone_sender" => because().find_map(|piece| gone_sender(piece, &ending.evidence)),
        "stopped_unit" => because().find_map(|piece| match &piece.fact {
            Fact::UnitStopping { unit } => Some(format!("\"{}\"", cut(unit))),
            _ => None,
        }),
        // Of what was heard as it happened nobody missed anything.
        "gap" => match ending.ended {
            When::At(_) => None,
            When::Between(..) => ending.evidence.iter().rev().find_map(|piece| match piece.fact {
                Fact::Gap { .. } => Some(super::describe(&piece.fact)),
                _ => None,
            }),
        },
        "signal" => because().find_map(|piece| match &piece.fact {
            Fact::Signalled { signal, .. } | Fact::LogSignal { signal, .. } => Some(signal_word(*signal)),
            _ => None,
        }),
        "unsaid" if because().any(|piece| matches!(piece.fact, Fact::OomKilled { .. })) => None,
        "unsaid" => because().find_map(|piece| match &piece.fact {
            Fact::Signalled { signal, sender: Sender::Kernel, .. } => {
                Some(format!("The kernel itself sent {}", signal_word(*signal)))
            }
            _ => None,
        }),
        "limit" => because().find_map(|piece| match &piece.fact {
            Fact::Signalled { signal, .. } | Fact::Exit(ExitStatus::Signal(signal)) => limit(*signal),
            Fact::InnerExit(ExitStatus::Signal(signal)) => limit(*signal),
            Fact::ProcessorTime { .. } => limit(super::process::XCPU),
            _ => None,
        }),
        "group" => because().find_map(|piece| match &piece.fact {
            Fact::OomKilled { line } => group(line),
            _ => None,
        }),
        "words" => words(ending.evidence.iter()),
        "its_words" => words(because()),
        "full_disk" => because().find_map(full_disk),
        "full_file" => because().find_map(full_file),
        // It says where something is, and not what happened: the verdict stands on other pieces.
        "core" => ending.evidence.iter().rev().find_map(core),
        _ => None,
    }
}

/// What fills a slot where something led to the ending.
fn led(slot: &str, ending: &Ending) -> Option<String> {
    let led = super::context::led_by(&ending.evidence, &ending.verdict);
    let mut pieces = pieces(&led, &ending.evidence);
    match slot {
        "full_disk" => pieces.find_map(full_disk),
        "full_file" => pieces.find_map(full_file),
        "memory_failure" => pieces.find_map(|piece| match piece.fact {
            Fact::Host(Happening::MemoryFailure { .. }) => Some(super::describe(&piece.fact)),
            _ => None,
        }),
        "internal_error" => pieces.find_map(|piece| match &piece.fact {
            Fact::LogText(text) => internal_error(text).map(cut),
            _ => None,
        }),
        _ => None,
    }
}

fn pieces<'a>(ids: &'a [EvidenceId], evidence: &'a [Evidence]) -> impl Iterator<Item = &'a Evidence> {
    ids.iter().filter_map(|id| evidence.get(usize::from(*id)))
}

/// What the limit is on whose signal this is.
fn limit(signal: i32) -> Option<String> {
    super::explain::limit_of(signal).map(str::to_owned)
}

/// A sender who is somebody: not libvirt, the kernel or QEMU itself.
fn sender(piece: &Evidence, evidence: &[Evidence]) -> Option<String> {
    let (pid, program, sender, audit) = match &piece.fact {
        Fact::Signalled { pid, program, sender, audit, .. } => (*pid, program, *sender, audit.as_ref()),
        Fact::LogSignal { pid, program, sender, .. } => (*pid, program, *sender, None),
        _ => return None,
    };
    if matches!(sender, Sender::Libvirt | Sender::Kernel | Sender::Itself | Sender::Init | Sender::Manager) {
        return None;
    }
    let mut told = format!("process {pid}");
    let (exe, user) = match audit {
        Some(Audited::Process { exe, uid, login }) => (exe.as_str(), Some((uid, login))),
        _ => ("", None),
    };
    let name = if exe.is_empty() { program.as_str() } else { exe };
    let unit = evidence.iter().find_map(|piece| match &piece.fact {
        Fact::SenderUnit { pid: of, unit } if *of == pid => Some(unit),
        _ => None,
    });
    // Of a number alone nobody finds out anything.
    if name.is_empty() && user.is_none() && unit.is_none() {
        return None;
    }
    if !name.is_empty() {
        told += &format!(", \"{}\"", cut(name));
    }
    if let Some((uid, login)) = user {
        told += &format!(", user {uid}");
        if let Some(login) = login.filter(|login| login != uid) {
            told += &format!(" (logged in as user {login})");
        }
    }
    if let Some(unit) = unit {
        told += &format!(", in \"{}\" of systemd,", cut(unit));
    }
    Some(told)
}

/// A service manager, which ends processes because somebody stopped their unit.
fn manager(piece: &Evidence) -> Option<String> {
    let (pid, program) = match &piece.fact {
        Fact::Signalled { pid, program, sender: Sender::Init | Sender::Manager, .. }
        | Fact::LogSignal { pid, program, sender: Sender::Init | Sender::Manager, .. } => (pid, program),
        _ => return None,
    };
    let name = if program.is_empty() { String::new() } else { format!(", \"{}\",", cut(program)) };
    Some(format!("process {pid}{name}"))
}

/// The number of a sender of whom nothing else is known.
fn gone_sender(piece: &Evidence, evidence: &[Evidence]) -> Option<String> {
    let (Fact::Signalled { pid, sender: by, .. } | Fact::LogSignal { pid, sender: by, .. }) = &piece.fact
    else {
        return None;
    };
    (*by == Sender::Outside && sender(piece, evidence).is_none()).then(|| pid.to_string())
}

/// The control group whose bound was reached, in the kernel's line; nothing where the host itself had no more.
fn group(line: &str) -> Option<String> {
    let after = line.split_once("oom_memcg=")?.1;
    let name = after.split([',', ' ', '\n']).next().unwrap_or_default();
    (name.len() > 1).then(|| cut(name))
}

fn full_disk(piece: &Evidence) -> Option<String> {
    match &piece.fact {
        Fact::Host(Happening::IoError { disk, reason, .. }) if reason == "enospc" && !disk.is_empty() => {
            Some(format!("the disk \"{}\"", cut(disk)))
        }
        _ => None,
    }
}

fn full_file(piece: &Evidence) -> Option<String> {
    match &piece.fact {
        Fact::DiskSpace { path, free: Some(free), .. } => {
            Some(format!("\"{}\" ({} were free there)", cut(path), bytes(*free)))
        }
        Fact::DiskSpace { path, free: None, .. } => Some(format!("\"{}\"", cut(path))),
        _ => None,
    }
}

/// Where QEMU's own memory is.
fn core(piece: &Evidence) -> Option<String> {
    match &piece.fact {
        Fact::CoreDump { file } => Some(format!("in \"{}\"", cut(file))),
        Fact::CoreTaken { by, pid } if by.ends_with("/systemd-coredump") => {
            Some(format!("that \"coredumpctl info {pid}\" shows"))
        }
        Fact::CoreTaken { by, .. } => Some(format!("that the kernel gave to \"{}\"", cut(by))),
        _ => None,
    }
}

/// QEMU's last line of words.
fn words<'a>(pieces: impl Iterator<Item = &'a Evidence>) -> Option<String> {
    let said = pieces.filter_map(|piece| match &piece.fact {
        Fact::LogText(text) if !text.trim().is_empty() => Some((piece.last, text)),
        _ => None,
    });
    let (_, text) = said.max_by_key(|(at, _)| *at)?;
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(cut)
}

fn cut(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Cause;

    #[test]
    fn a_choice_is_taken_when_all_of_its_slots_are_known() {
        let known = |slot: &str| (slot == "a").then(|| "known".to_owned());
        for (text, filled) in [
            ("plain", "plain"),
            ("[x {a}|y] z", "x known z"),
            ("[x {b}|y] z", "y z"),
            ("[x {a} {b}|q {a}|y]", "q known"),
            ("Keep it[ ({b})|], and say so.", "Keep it, and say so."),
            ("[only {b}|]", ""),
        ] {
            assert_eq!(fill(text, known), filled, "{text}");
        }
    }

    /// Whatever is not known, advice is a whole sentence without a slot.
    #[test]
    fn the_advice_of_every_cause_reads_well_where_nothing_is_known() {
        for cause in Cause::ALL {
            let plain = plain_advice(cause.row().advice);
            assert!(plain.ends_with('.') && !plain.contains(['[', ']', '{', '}', '|']), "{plain}");
        }
    }

    #[test]
    fn the_group_whose_bound_was_reached_is_named_and_not_the_whole_host() {
        let line = |memcg: &str| {
            format!(
                "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,oom_memcg={memcg},task_memcg=/x"
            )
        };
        assert_eq!(group(&line("/machine.slice/a.scope")), Some("/machine.slice/a.scope".into()));
        assert_eq!(group(&line("/")), None);
        assert_eq!(group("Out of memory: Killed process 7"), None);
    }
}
