//! One line of the log: who wrote it, and what it says.

use jiff::Timestamp;
use jiff::fmt::strtime;
use whydown_core::evidence::{LogWord, tame};
use whydown_core::time::Wall;

/// Bytes of a line that are looked at. libvirt's and QEMU's lines that matter here are below 300; the one with a
/// program's name is as long as that name.
const LINE_BYTES: usize = 8192;

/// Bytes of the name of a signal's sender. It is the sender's first argument, and may be of any length.
const PROGRAM_BYTES: usize = 256;

/// `2026-11-21 10:04:50.163+0000`
const LIBVIRT_STAMP_BYTES: usize = 28;

/// The highest signal number of Linux.
const SIGNALS: i32 = 64;

/// A line outside a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// libvirt: a block begins.
    Start { at: Wall },
    /// libvirt: its farewell.
    End { word: LogWord, at: Wall },
    /// libvirt: what the guest said of its panic.
    Panic { at: Wall, text: String },
    /// libvirt: anything else.
    Libvirt { at: Wall },
    /// QEMU: a signal ends it. The pid is zero if the kernel sent it.
    Signal { signal: i32, pid: u32, program: String, at: Option<Wall> },
    /// QEMU, or a library in it: anything else.
    Words { at: Option<Wall>, text: String },
    /// QEMU: what it says at every start.
    Noise,
}

impl Line {
    /// When it was written, where it says so.
    pub(super) fn at(&self) -> Option<Wall> {
        match self {
            Line::Start { at } | Line::End { at, .. } | Line::Panic { at, .. } | Line::Libvirt { at } => {
                Some(*at)
            }
            Line::Signal { at, .. } | Line::Words { at, .. } => *at,
            Line::Noise => None,
        }
    }
}

/// Whether the line can close the name of a signal's sender.
pub(super) fn closes(line: &[u8]) -> bool {
    line.strip_suffix(b"\r").unwrap_or(line).ends_with(b")")
}

/// Reads a line without its line break. Accepts every byte.
pub(super) fn parse(bytes: &[u8]) -> Line {
    let text = text(bytes);
    if let Some((at, said)) = by_libvirt(&text) {
        return match said.strip_prefix("shutting down") {
            _ if said.starts_with("starting up libvirt version: ") => Line::Start { at },
            Some(rest) => farewell(rest).map_or(Line::Libvirt { at }, |word| Line::End { word, at }),
            None if said.starts_with("panic ") => Line::Panic { at, text: said.to_owned() },
            None => Line::Libvirt { at },
        };
    }
    let (at, said) = by_qemu(&text);
    if let Some((signal, pid, program)) = signal(said) {
        return Line::Signal { signal, pid, program, at };
    }
    if said.split(": ").last().is_some_and(|words| words.starts_with("char device redirected to /dev/pts/")) {
        return Line::Noise;
    }
    Line::Words { at, text }
}

/// The line as text, cut to what is looked at.
pub(super) fn text(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    String::from_utf8_lossy(&bytes[..bytes.len().min(LINE_BYTES)]).into_owned()
}

/// libvirt writes `2026-11-21 10:04:50.163+0000: ` before its words.
fn by_libvirt(text: &str) -> Option<(Wall, &str)> {
    let stamp = text.get(..LIBVIRT_STAMP_BYTES)?;
    let said = text.get(LIBVIRT_STAMP_BYTES..)?.strip_prefix(": ")?;
    let at = strtime::parse("%Y-%m-%d %H:%M:%S%.3f%z", stamp).ok()?.to_timestamp().ok()?;
    Some((wall(at)?, said))
}

/// QEMU writes `2026-11-21T10:04:50.622396Z ` before its words, as libvirt asks it to unless its administrator forbade it.
fn by_qemu(text: &str) -> (Option<Wall>, &str) {
    let stamped = || {
        let (stamp, said) = text.split_once(' ')?;
        let at = stamp.ends_with('Z').then(|| stamp.parse::<Timestamp>().ok())??;
        Some((wall(at)?, said))
    };
    match stamped() {
        Some((at, said)) => (Some(at), said),
        None => (None, text),
    }
}

fn wall(at: Timestamp) -> Option<Wall> {
    i64::try_from(at.as_nanosecond()).ok().map(Wall)
}

/// What follows `shutting down`. libvirt before 3.5 gave no reason.
fn farewell(rest: &str) -> Option<LogWord> {
    if rest.is_empty() {
        return Some(LogWord::Other);
    }
    Some(match rest.strip_prefix(", reason=")? {
        "shutdown" => LogWord::Shutdown,
        "destroyed" => LogWord::Destroyed,
        "crashed" => LogWord::Crashed,
        "migrated" => LogWord::Migrated,
        "saved" => LogWord::Saved,
        "failed" => LogWord::Failed,
        "from snapshot" => LogWord::FromSnapshot,
        "daemon" => LogWord::Daemon,
        _ => LogWord::Other,
    })
}

/// `PROGRAM: terminating on signal 15 from pid 7371 (/usr/sbin/libvirtd)`, or without all that follows the number where
/// no process sent it. The words must be the first after the program, so that no quoted text can pass for them.
fn signal(said: &str) -> Option<(i32, u32, String)> {
    let (program, words) = said.split_once(": ")?;
    if program.is_empty() {
        return None;
    }
    let rest = words.strip_prefix("terminating on signal ")?;
    let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = decimal(number)?.try_into().ok().filter(|n| (1..=SIGNALS).contains(n))?;
    if rest.is_empty() {
        return Some((number, 0, String::new()));
    }
    let rest = rest.strip_prefix("from pid ")?;
    let (pid, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let sender = rest.strip_prefix('(').unwrap_or(rest);
    let sender = sender.strip_suffix(')').unwrap_or(sender);
    let sender = if sender == "<unknown process>" { "" } else { sender };
    let sender = &sender.as_bytes()[..sender.len().min(PROGRAM_BYTES)];
    Some((number, decimal(pid)?, tame(&String::from_utf8_lossy(sender))))
}

/// Decimal digits only: no sign, no space.
fn decimal(digits: &str) -> Option<u32> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn at(text: &str) -> Wall {
        wall(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn libvirts_lines_are_told_apart() {
        let when = at("2026-11-21T04:35:33.49Z");
        for (said, line) in [
            ("starting up libvirt version: 9.0.0, package: x", Line::Start { at: when }),
            ("shutting down, reason=crashed", Line::End { word: LogWord::Crashed, at: when }),
            ("shutting down, reason=from snapshot", Line::End { word: LogWord::FromSnapshot, at: when }),
            ("shutting down, reason=new word", Line::End { word: LogWord::Other, at: when }),
            ("shutting down", Line::End { word: LogWord::Other, at: when }),
            ("shutting downwards", Line::Libvirt { at: when }),
            ("Domain id=36 is tainted: custom-ga-command", Line::Libvirt { at: when }),
            ("initiating migration", Line::Libvirt { at: when }),
        ] {
            assert_eq!(parse(format!("2026-11-21 04:35:33.490+0000: {said}").as_bytes()), line, "{said}");
        }
    }

    #[test]
    fn a_stamp_of_another_zone_is_the_same_moment() {
        let line = parse(b"2026-11-21 06:35:33.490+0200: shutting down, reason=saved");
        assert_eq!(line, Line::End { word: LogWord::Saved, at: at("2026-11-21T04:35:33.49Z") });
    }

    #[test]
    fn a_signal_is_read_in_every_form_that_qemu_writes() {
        let when = at("2026-11-21T04:35:33.490646Z");
        for (said, signal, pid, program) in [
            (
                "qemu-system-x86_64: terminating on signal 15 from pid 7371 (/usr/sbin/libvirtd)",
                15,
                7371,
                "/usr/sbin/libvirtd",
            ),
            (
                "qemu-system-x86_64: terminating on signal 2 from pid 17371 (/usr/bin/python3)",
                2,
                17371,
                "/usr/bin/python3",
            ),
            ("qemu-system-x86_64: terminating on signal 15 from pid 9044 ()", 15, 9044, ""),
            ("qemu-kvm: terminating on signal 1 from pid 9044 (<unknown process>)", 1, 9044, ""),
            ("w1 qemu-kvm: terminating on signal 15 from pid 1 (/sbin/init)", 15, 1, "/sbin/init"),
            ("qemu-kvm: terminating on signal 15 from pid 5 (a) b (c)", 15, 5, "a) b (c"),
            ("qemu-kvm: terminating on signal 15 from pid 5", 15, 5, ""),
            ("qemu-kvm: terminating on signal 2", 2, 0, ""),
        ] {
            let wanted = Line::Signal { signal, pid, program: program.into(), at: Some(when) };
            assert_eq!(parse(format!("2026-11-21T04:35:33.490646Z {said}").as_bytes()), wanted, "{said}");
            assert!(matches!(parse(said.as_bytes()), Line::Signal { at: None, .. }), "{said}");
        }
    }

    #[test]
    fn what_only_looks_like_a_farewell_or_a_signal_is_words() {
        for text in [
            "qemu-kvm: guest said: terminating on signal 15 from pid 1 (/sbin/init)",
            " 2026-11-21 04:35:33.490+0000: shutting down, reason=destroyed",
            "x 2026-11-21 04:35:33.490+0000: shutting down, reason=destroyed",
            "2026-11-21 04:35:33.490+0000 shutting down, reason=destroyed",
            "2026-13-21 04:35:33.490+0000: shutting down, reason=destroyed",
            "9999-12-31 23:59:59.999+0000: shutting down, reason=destroyed",
            "qemu-kvm: terminating on signal 0 from pid 1 (x)",
            "qemu-kvm: terminating on signal 65 from pid 1 (x)",
            "qemu-kvm: terminating on signal +9 from pid 1 (x)",
            "qemu-kvm: terminating on signal 9 from pid -1 (x)",
            "qemu-kvm: terminating on signal 9 from pid 99999999999 (x)",
            "qemu-kvm: terminating on signal 99999999999999999999 from pid 1 (x)",
            ": terminating on signal 15 from pid 1 (x)",
            "shutting down, reason=destroyed",
        ] {
            assert_eq!(parse(text.as_bytes()), Line::Words { at: None, text: text.into() });
        }
    }

    #[test]
    fn a_senders_long_or_wild_name_is_cut_and_tamed() {
        let line = parse(
            format!("q: terminating on signal 15 from pid 5 (\x1b[2Jé{})", "ü".repeat(9000)).as_bytes(),
        );
        let Line::Signal { program, .. } = line else { panic!("{line:?}") };
        assert!(program.len() <= PROGRAM_BYTES + 4 && program.starts_with("\u{fffd}[2Jéü"), "{program}");
    }

    #[test]
    fn the_announcement_of_a_terminal_is_noise() {
        assert_eq!(parse(b"char device redirected to /dev/pts/0 (label charserial0)"), Line::Noise);
        assert_eq!(
            parse(b"2026-11-21T04:35:33.490646Z qemu-system-x86_64: char device redirected to /dev/pts/1 (label s)"),
            Line::Noise
        );
    }
}
