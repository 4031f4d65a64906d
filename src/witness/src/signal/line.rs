//! One line of `trace_pipe`: a signal that was generated, or one that is about to end the thread that got it.
//!
//! ```text
//!             kill-19250   (  19250) [001]  24986.226286: signal_generate: sig=9 errno=0 code=0 comm=sleep pid=19249 grp=1 res=0
//!              thr-19246   (  19240) [001]  24986.218002: signal_deliver: sig=11 errno=0 code=1 sa_handler=0 sa_flags=0
//! ```
//!
//! Names of threads are at most 15 bytes of their owners' choice, line breaks among them. Each stands between parts that
//! are longer or that are read from the other end, so that a name can spoil its own line and no other's meaning.

use std::time::Duration;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// A thread sent a signal, or the kernel did in its place.
    Generated {
        /// On the kernel's monotonic clock.
        at: Duration,
        /// The thread that ran.
        by: u32,
        /// The process that it belongs to, where the kernel remembers that.
        process: Option<u32>,
        /// Its name, where the kernel remembers it.
        name: Option<String>,
        /// Signal number.
        signal: i32,
        /// The kernel's code.
        code: i32,
        /// The thread, or the process, that gets it.
        to: u32,
    },
    /// A signal ends the process of the thread that got it.
    Deadly {
        /// On the kernel's monotonic clock.
        at: Duration,
        /// Signal number.
        signal: i32,
        /// The kernel's code.
        code: i32,
        /// The thread.
        to: u32,
        /// The process that it belongs to, where the kernel remembers that.
        process: Option<u32>,
    },
    /// The kernel overwrote lines before they were read.
    Missed,
}

const GENERATE: &str = ": signal_generate: ";
const DELIVER: &str = ": signal_deliver: ";

/// Reads a line without its line break; `None` for what is no event.
pub(super) fn parse(line: &str) -> Option<Line> {
    if line.starts_with("CPU:") && line.ends_with(" EVENTS]") {
        return Some(Line::Missed);
    }
    // Longer than any name, so that only the kernel writes it.
    if let Some((head, said)) = line.split_once(GENERATE) {
        let Header { thread: by, process, name, at } = header(head)?;
        let (sent, rest) = said.split_once(" comm=")?;
        let (signal, code) = numbers(sent)?;
        let (_, to) = rest.rsplit_once(" grp=").and_then(|(rest, _)| rest.rsplit_once(" pid="))?;
        return Some(Line::Generated { at, by, process, name, signal, code, to: to.parse().ok()? });
    }
    let (head, said) = line.split_once(DELIVER)?;
    let Header { thread: to, process, at, .. } = header(head)?;
    let (signal, code) = numbers(said.split_once(" sa_handler=")?.0)?;
    Some(Line::Deadly { at, signal, code, to, process })
}

/// `sig=9 errno=0 code=0`
fn numbers(text: &str) -> Option<(i32, i32)> {
    let mut fields = text.split(' ');
    let signal = fields.next()?.strip_prefix("sig=")?.parse().ok()?;
    let code = fields.find_map(|field| field.strip_prefix("code="))?.parse().ok()?;
    Some((signal, code))
}

/// Who ran, and when.
struct Header {
    thread: u32,
    process: Option<u32>,
    name: Option<String>,
    at: Duration,
}

/// `NAME-PID   (  TGID) [CPU]  SECONDS.MICROSECONDS`, from its end: only there no name can stand. Kernels that do not
/// remember processes leave theirs out, and write `-------` for one that they have forgotten.
fn header(head: &str) -> Option<Header> {
    let (task, rest) = head.rsplit_once('[')?;
    let (_, stamp) = rest.rsplit_once(' ')?;
    let (seconds, micros) = stamp.split_once('.')?;
    let at = Duration::from_secs(seconds.parse().ok()?)
        + Duration::from_micros(micros.parse().ok().filter(|_| micros.len() == 6)?);
    let task = task.trim_end_matches(' ');
    let (task, process) = match task.strip_suffix(')').and_then(|task| task.rsplit_once('(')) {
        Some((task, process)) => (task.trim_end_matches(' '), process.trim_start_matches(' ').parse().ok()),
        None => (task, None),
    };
    let (name, thread) = task.rsplit_once('-')?;
    let name = name.trim_start_matches(' ');
    let name = (!name.is_empty() && name != UNKNOWN).then(|| name.to_owned());
    Some(Header { thread: thread.parse().ok()?, process, name, at })
}

/// What the kernel writes for a name that it does not remember.
const UNKNOWN: &str = "<...>";

/// The name that the kernel remembers for a thread, from its file `saved_cmdlines`: one `PID NAME` a line.
pub(super) fn remembered(saved: &str, thread: u32) -> Option<String> {
    let of_it = |line: &str| {
        let (pid, name) = line.split_once(' ')?;
        (pid.parse() == Ok(thread) && name != UNKNOWN).then(|| name.to_owned())
    };
    saved.lines().find_map(of_it)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(name: &str, target: &str) -> Option<Line> {
        parse(&format!(
            "{name:>16}-19250   [001]  24986.226286: signal_generate: sig=9 errno=0 code=-6 comm={target} pid=19249 \
             grp=1 res=0"
        ))
    }

    #[test]
    fn recorded_lines_are_understood() {
        let at = Duration::from_micros(24_986_226_286);
        let line = |name: Option<&str>| {
            let name = name.map(str::to_owned);
            Some(Line::Generated { at, by: 19250, process: None, name, signal: 9, code: -6, to: 19249 })
        };
        assert_eq!(sent("kill", "qemu-system-x86"), line(Some("kill")));
        assert_eq!(sent("<...>", "CPU 0/TCG"), line(None));
        assert_eq!(
            parse(
                "             thr-19246   [001]  24986.218002: signal_deliver: sig=11 errno=0 code=1 sa_handler=0 sa_flags=0"
            ),
            Some(Line::Deadly {
                at: Duration::from_micros(24_986_218_002),
                signal: 11,
                code: 1,
                to: 19246,
                process: None
            })
        );
        // As another administrator's options leave it.
        let flags = "  bash-29203   [101] d..1. 24569.237981: signal_generate: sig=9 errno=0 code=0 comm=x pid=29214 grp=1 res=0";
        assert!(matches!(parse(flags), Some(Line::Generated { by: 29203, to: 29214, .. })));
        // With the process of the thread, which is not always remembered.
        for (column, wanted) in [("(  21165)", Some(21165)), ("(-------)", None), ("", None)] {
            let line = format!(
                "  init (7)-21207   {column} [000] d..1. 40506.613363: signal_generate: sig=15 errno=0 code=0 comm=x pid=2 grp=1 res=0"
            );
            let Some(Line::Generated { by: 21207, process, name, .. }) = parse(&line) else {
                panic!("{line}")
            };
            assert_eq!((process, name.as_deref()), (wanted, Some("init (7)")), "{line}");
        }
        assert_eq!(parse("CPU:1 [LOST 12 EVENTS]"), Some(Line::Missed));
    }

    #[test]
    fn a_name_cannot_accuse_another_process() {
        for name in
            ["a-1   [001] 1.0", ": signal_genera", "x] 1.0: sig=9", "-1", "a b", "[001]", "comm=x pid=1 gr"]
        {
            for target in [name, "qemu", " pid=1 grp=1 re"] {
                let Some(Line::Generated { by, to, signal, code, .. }) = sent(name, target) else {
                    panic!("{name} {target}")
                };
                assert_eq!((by, to, signal, code), (19250, 19249, 9, -6), "{name} {target}");
            }
        }
        // A line break in a name makes two lines, and none of them is an event of another process.
        let broken =
            "  x-5   [000]  1.000000: signal_generate: sig=9 errno=0 code=0 comm=a\nb pid=7 grp=1 res=0";
        assert!(broken.lines().all(|line| parse(line).is_none()));
    }

    #[test]
    fn names_are_found_in_what_the_kernel_remembers() {
        let saved = "1 systemd\n77 two words\n78 <...>\n";
        assert_eq!(remembered(saved, 77).as_deref(), Some("two words"));
        assert_eq!(remembered(saved, 78), None);
        assert_eq!(remembered(saved, 7), None);
    }

    proptest! {
        #[test]
        fn any_line_is_read_without_panic(text in "\\PC{0,60}", name in "\\PC{0,15}") {
            let _ = parse(&text);
            let _ = parse(&format!("{text}-1 [0] 1.000000: signal_generate: {text}"));
            let _ = parse(&format!("{text}: signal_deliver: sig=1 errno=0 code=1 sa_handler={text}"));
            let _ = remembered(&text, 1);
            if let Some(Line::Generated { by, to, .. }) = sent(&name, &name) {
                prop_assert_eq!((by, to), (19250, 19249));
            }
        }
    }
}
