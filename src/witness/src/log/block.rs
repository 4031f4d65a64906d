//! The blocks of a log, one a start.

use whydown_core::evidence::LogWord;
use whydown_core::id::DomainId;
use whydown_core::limits;
use whydown_core::time::Wall;

use super::line::{self, Line, parse};

/// What libvirt begins every command with.
const ENVIRONMENT: &[u8] = b"LC_ALL=C ";

/// Nobody can choose to be this process: it ends QEMUs when the host goes down, and libvirt says no farewell then.
const INIT: u32 = 1;

/// Bytes of the longest name of a sender: the kernel's bound of one argument.
const NAME_BYTES: usize = 128 * 1024;

/// What was written between two starts.
#[derive(Debug)]
pub(super) struct Block<'a> {
    /// When it began; `None` if its beginning lies before what was read.
    pub(super) start: Option<Wall>,
    /// The command line, as libvirt wrote it for a shell; empty if its beginning was not read.
    pub(super) command: &'a [u8],
    /// What its command line says.
    pub(super) said: Command,
    /// Everything after its command line.
    body: &'a [u8],
}

impl<'a> Block<'a> {
    /// The lines after the command line.
    pub(super) fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.body.split(|b| *b == b'\n')
    }

    /// libvirt's first farewell to what had come up. A clock that was set back within the block tells nothing.
    pub(super) fn ended(&self) -> Option<Wall> {
        let farewells = self.lines().filter_map(|bytes| match parse(bytes) {
            Line::End { word, at } if word != LogWord::Failed => Some(at),
            _ => None,
        });
        farewells.filter(|at| self.start.is_none_or(|start| *at >= start)).min()
    }

    pub(super) fn stamps(&self) -> impl Iterator<Item = Wall> + use<'a> {
        self.lines().filter_map(|bytes| parse(bytes).at())
    }
}

/// What a command line says of the start. Only whole arguments of their own count, and of several the first, which is
/// libvirt's: whoever defines the domain may add others.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Command {
    /// `-uuid`
    pub(super) domain: Option<DomainId>,
    /// `-incoming defer`: it waits for a VM that migrates here.
    pub(super) incoming: bool,
    /// `-loadvm NAME`: it goes on from a snapshot.
    pub(super) from_snapshot: bool,
}

impl Command {
    fn read(&mut self, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else { return };
        let line = line.strip_suffix('\\').unwrap_or(line).trim_end();
        if let Some(uuid) = line.strip_prefix("-uuid ").filter(|_| self.domain.is_none()) {
            self.domain = uuid.parse().ok();
        }
        self.incoming |= line == "-incoming defer";
        self.from_snapshot |= line.starts_with("-loadvm ");
    }
}

/// Cuts a log into its blocks, in its order. The first one may lack its beginning.
pub(super) fn blocks(log: &[u8]) -> Vec<Block<'_>> {
    // A quote that never closes means a command line that was never written out (a full disk). Then quotes tell nothing.
    cut(log, true).or_else(|| cut(log, false)).unwrap_or_default()
}

/// Whether the lines from here on begin a block: libvirt's line, and the first of the command, which it always gives this
/// environment. Of a log that ends with libvirt's line the command is being written.
fn is_head(log: &[u8]) -> bool {
    let next = log.iter().position(|b| *b == b'\n').map_or(&[][..], |end| &log[end + 1..]);
    next.starts_with(ENVIRONMENT) || ENVIRONMENT.starts_with(next)
}

/// `None` if the log ends within a quoted argument.
fn cut(log: &[u8], heed_quotes: bool) -> Option<Vec<Block<'_>>> {
    let mut blocks = Vec::new();
    let (mut start, mut said) = (None, Command::default());
    let mut command = 0;
    let mut body = 0;
    let mut position = 0;
    let mut place = Place::Body;
    let mut name = Name::None;
    for bytes in log.split(|b| *b == b'\n') {
        let next = (position + bytes.len() + 1).min(log.len());
        if place == Place::Body {
            name = name.after(&log[position.min(log.len())..], bytes);
        }
        if place == Place::Quoted {
            place = place.after(bytes, heed_quotes);
            body = next;
        } else if let Some(line) = stamped(bytes) {
            let head = match line {
                Line::Start { at } if is_head(&log[position..]) => Some(at),
                _ => None,
            };
            if let Some(at) = head {
                name = name.before(&log[position..], at);
            }
            if let Some(at) = head
                && name == Name::None
            {
                blocks.push(Block { start, said, command: &log[command..body], body: &log[body..position] });
                (start, said, command, body, place) =
                    (Some(at), Command::default(), next, next, Place::Command);
            } else {
                place = Place::Body;
            }
        } else if place == Place::Command {
            said.read(bytes);
            place = place.after(bytes, heed_quotes);
            body = next;
        }
        position = next;
    }
    let body = body.min(log.len());
    blocks.push(Block { start, said, command: &log[command.min(body)..body], body: &log[body..] });
    if blocks.first().is_some_and(|first| first.start.is_none() && first.stamps().next().is_none()) {
        blocks.remove(0);
    }
    (place != Place::Quoted).then_some(blocks)
}

/// A line of libvirt's. The look at its first byte spares parsing every line of a chatty QEMU.
fn stamped(bytes: &[u8]) -> Option<Line> {
    let line = bytes.first().is_some_and(u8::is_ascii_digit).then(|| parse(bytes))?;
    matches!(line, Line::Start { .. } | Line::End { .. } | Line::Panic { .. } | Line::Libvirt { .. })
        .then_some(line)
}

/// The name of who sent a signal, as far as it may go on: QEMU writes it as it is, with all its line breaks, and closes it
/// with a bracket. Whatever seems to begin in it began nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    /// There is none, or it is over: libvirt has said its farewell since.
    None,
    /// It is closed on its line, and may be closed in pretence; when QEMU wrote that line, if it says so.
    Closed(Option<Wall>),
    /// It goes on until so many bytes before the end of the log.
    Until(usize),
}

impl Name {
    /// Behind this line, which `rest` begins with.
    fn after(self, rest: &[u8], bytes: &[u8]) -> Self {
        match self {
            Self::None if is_signal(bytes) => match line::closes(bytes) {
                true => Self::Closed(parse(bytes).at()),
                false if bytes.contains(&b'(') => last_closing(rest).map_or(Self::None, Self::Until),
                false => Self::None,
            },
            Self::Closed(at) => match stamped(bytes) {
                Some(Line::End { at: end, .. }) if !is_earlier(end, at) => Self::None,
                _ => self,
            },
            Self::Until(end) if rest.len() < end => Self::None,
            name => name,
        }
    }

    /// As a block seems to begin with `rest`: nobody has said farewell to the QEMU before. A name that is closed again behind
    /// it goes on until there. libvirt may have been away, and what comes then are words of later QEMUs: a name wins, as
    /// their words as a rule bear stamps. What is dated before the line of the signal is in the name: a log grows in order.
    fn before(self, rest: &[u8], start: Wall) -> Self {
        match self {
            Self::Closed(at) => {
                let else_so = if is_earlier(start, at) { self } else { Self::None };
                last_closing(rest).map_or(else_so, Self::Until)
            }
            name => name,
        }
    }
}

/// Whether libvirt, which writes milliseconds, wrote this before QEMU wrote that.
fn is_earlier(libvirts: Wall, qemus: Option<Wall>) -> bool {
    qemus.is_some_and(|at| libvirts < at.before(limits::CLOCK_GRACE))
}

/// How many bytes before the end the last line begins that can close a name which began with the first line.
fn last_closing(rest: &[u8]) -> Option<usize> {
    let (mut place, mut last) = (0, None);
    for bytes in rest[..rest.len().min(NAME_BYTES)].split(|b| *b == b'\n') {
        if place > 0 && line::closes(bytes) && matches!(parse(bytes), Line::Words { at: None, .. }) {
            last = Some(rest.len() - place);
        }
        place += bytes.len() + 1;
    }
    last
}

/// Whether QEMU says here that a signal of another process than the host's init ends it. The look at the words spares parsing every line of a chatty QEMU.
fn is_signal(bytes: &[u8]) -> bool {
    const WORDS: &[u8] = b": terminating on signal ";
    bytes.len() > WORDS.len()
        && bytes.windows(WORDS.len()).any(|window| window == WORDS)
        && matches!(parse(bytes), Line::Signal { pid, .. } if pid != INIT)
}

/// Where in a block a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the command line, between two arguments.
    Command,
    /// In the command line, within a quoted argument that holds a line break.
    Quoted,
    /// After the command line.
    Body,
}

impl Place {
    /// Where the line after `bytes` stands. libvirt quotes as a shell reads it, and ends every line of a command but the
    /// last with a backslash.
    fn after(self, bytes: &[u8], heed_quotes: bool) -> Self {
        let mut quoted = self == Place::Quoted;
        let mut escaped = false;
        for byte in bytes {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if !quoted => escaped = true,
                b'\'' if heed_quotes => quoted = !quoted,
                _ => {}
            }
        }
        match (quoted, escaped) {
            (true, _) => Place::Quoted,
            (false, true) => Place::Command,
            (false, false) => Place::Body,
        }
    }
}
