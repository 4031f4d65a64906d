//! A case: one known way to end a VM (or not to end it), as data with one small action.

use anyhow::Result;
use whydown_lab::{Guest, LinuxGuest};

use crate::scene::Scene;

/// How libvirt holds the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Defined; it stays when it is off.
    Persistent,
    /// Created; it is gone when it is off.
    Transient,
}

impl Kind {
    /// The word in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Persistent => "persistent",
            Self::Transient => "transient",
        }
    }
}

/// Both kinds.
pub const BOTH: &[Kind] = &[Kind::Persistent, Kind::Transient];
/// Only persistent, where libvirt refuses the rest or it would be the same.
pub const PERSISTENT: &[Kind] = &[Kind::Persistent];
/// Only transient.
pub const TRANSIENT: &[Kind] = &[Kind::Transient];

/// Where a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Venue {
    /// One libvirtd and one whydownd, with other cases at the same time.
    Shared,
    /// The same, and nobody else uses its small disk meanwhile.
    Disk,
    /// One of each, with few cases at the same time: guests are whole Linux machines, slow to boot.
    Linux,
    /// One of each, and whydownd hears from the kernel who sends signals.
    Traced,
    /// Two of each: the VM may move.
    Pair,
    /// Something else is away while the VM ends; cases of the same absence run together.
    Away(Away),
}

/// What is not there while VMs end, and how it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Away {
    /// whydownd is stopped before and started after.
    Daemon,
    /// libvirtd is stopped before and started after.
    Libvirtd,
    /// Both.
    Both,
    /// whydownd is killed as soon as libvirt reports the first word of the end.
    KilledAtOnce,
    /// libvirtd is restarted before, under a whydownd that stays connected.
    Restarted,
    /// whydownd is stopped before, and started after the VM was started again.
    StartedAgain,
    /// Power cut: whydownd, libvirtd and QEMU die at once, and the next boot begins.
    PowerCut,
    /// The host's service manager stops whydownd and libvirtd in order, then ends the rest; the next boot follows.
    Boot,
    /// libvirtd is restarted under a whydownd that stays connected, and starts what should run when it does.
    Autostarts,
    /// libvirtd stands still while the VM ends; when it goes on, another client destroys the VM.
    Hung,
    /// As `Hung`, for so long that its link is given up.
    HungForLong,
    /// As `Boot`, but the host's service manager says that it is stopping, and whydownd hears the ends.
    Announced,
}

impl Away {
    /// The word in the names of cases.
    pub fn word(self) -> &'static str {
        match self {
            Self::Daemon => "whydownd-away",
            Self::Libvirtd => "libvirtd-away",
            Self::Both => "both-away",
            Self::KilledAtOnce => "whydownd-killed-at-once",
            Self::Restarted => "libvirtd-restarted",
            Self::StartedAgain => "started-again",
            Self::Autostarts => "libvirtd-autostarts",
            Self::Hung => "libvirtd-hung",
            Self::HungForLong => "libvirtd-hung-for-long",
            Self::PowerCut => "power-cut",
            Self::Boot => "host-stops",
            Self::Announced => "host-stops-announced",
        }
    }
}

/// How far the VM is when the action begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It runs, listens on its serial line, and whydown shows it Up.
    Up,
    /// It is defined where the kind is persistent, and not started.
    Off,
}

/// How certain an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    /// It says that it cannot know.
    Unknown,
    /// It says what is likely.
    Probable,
    /// It stakes its word.
    Certain,
}

impl Certainty {
    /// From the word on the wire.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Unknown, Self::Probable, Self::Certain].into_iter().find(|c| c.word() == word)
    }

    /// The word on the wire.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Probable => "probable",
            Self::Certain => "certain",
        }
    }
}

/// What must be told.
#[derive(Clone, Debug)]
pub enum Expect {
    /// An ending with this cause, at least this certain.
    Ending(&'static str, Certainty),
    /// No ending: the VM lives on, in the same run, until the lab destroys it. Then that is told, and nothing else.
    NoEnding,
    /// Nothing at all: no run ever began.
    Nothing,
}

/// An answer that is not the whole truth and does not claim to be.
#[derive(Clone, Debug)]
pub struct Honest {
    /// The broader cause.
    pub cause: &'static str,
    /// Why no evidence of the true one can exist.
    pub because: &'static str,
}

/// What a manager asks of whydown in the course of the case. A VDSM in its place would have been asked the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// Nothing.
    #[default]
    Nothing,
    /// The start alone.
    Create,
    /// A shutdown by the power button.
    Shutdown,
    /// To destroy it.
    Destroy,
    /// To save it.
    Save,
    /// To migrate it.
    Migrate,
}

/// What the guest is like.
#[derive(Clone, Copy)]
pub enum Make {
    /// A boot sector, with these changes.
    Small(fn(Guest) -> Guest),
    /// A whole Linux with a guest agent, with these changes.
    Linux(fn(LinuxGuest) -> LinuxGuest),
}

/// What a case does.
pub type Act = fn(&mut Scene<'_>) -> Result<()>;

/// One way.
#[derive(Clone)]
pub struct Case {
    /// Unique and stable.
    pub name: String,
    /// What is done, in a sentence without its end.
    pub what: String,
    /// Kinds of domain that it is done to.
    pub kinds: &'static [Kind],
    /// Where.
    pub venue: Venue,
    /// Whether it belongs to the quick selection.
    pub quick: bool,
    /// What the guest must be like.
    pub make: Make,
    /// How far it is before.
    pub begin: Begin,
    /// The action.
    pub act: Act,
    /// What must be told, by kind where that matters.
    pub expect: fn(Kind) -> Expect,
    /// For cases of a pair: what must be told on the destination.
    pub there: Option<fn(Kind) -> Expect>,
    /// Other answers that are as right: which one depends on a moment.
    pub also: Vec<&'static str>,
    /// Whether the ending of the run that follows is meant, and not that of the first.
    pub last_run: bool,
    /// Other answers that are no lies.
    pub honest: Vec<Honest>,
    /// What whydown was asked.
    pub asked: Asked,
    /// Words of libvirt or QEMU that the message must hold.
    pub text_in_message: Option<&'static str>,
    /// Words that the evidence on which the answer stands must hold.
    pub because: Vec<&'static str>,
    /// Words that what is told to have led to it must hold.
    pub led_by: Option<&'static str>,
    /// The most that may be claimed.
    pub most: Certainty,
}

impl Case {
    /// A case on the shared stage for both kinds, with a guest that runs.
    pub fn new(name: &str, what: &str, act: Act, expect: fn(Kind) -> Expect) -> Self {
        Self {
            name: name.into(),
            what: what.into(),
            kinds: BOTH,
            venue: Venue::Shared,
            quick: false,
            make: Make::Small(|guest| guest),
            begin: Begin::Up,
            act,
            expect,
            there: None,
            also: Vec::new(),
            last_run: false,
            honest: Vec::new(),
            asked: Asked::Nothing,
            text_in_message: None,
            because: Vec::new(),
            led_by: None,
            most: Certainty::Certain,
        }
    }

    /// Only for these kinds.
    pub fn only(mut self, kinds: &'static [Kind]) -> Self {
        self.kinds = kinds;
        self
    }

    /// Elsewhere.
    pub fn at(mut self, venue: Venue) -> Self {
        self.venue = venue;
        self
    }

    /// Part of the quick selection.
    pub fn quick(mut self) -> Self {
        self.quick = true;
        self
    }

    /// With another small guest.
    pub fn guest(mut self, make: fn(Guest) -> Guest) -> Self {
        self.make = Make::Small(make);
        self
    }

    /// With a Linux guest, on the stage for these.
    pub fn linux(mut self, make: fn(LinuxGuest) -> LinuxGuest) -> Self {
        self.make = Make::Linux(make);
        self.venue = Venue::Linux;
        self
    }

    /// From a VM that is not started.
    pub fn from_off(mut self) -> Self {
        self.begin = Begin::Off;
        self
    }

    /// With what is told on the destination.
    pub fn there(mut self, expect: fn(Kind) -> Expect) -> Self {
        self.there = Some(expect);
        self
    }

    /// With one more answer that is as right.
    pub fn also(mut self, cause: &'static str) -> Self {
        self.also.push(cause);
        self
    }

    /// With the ending of the second run in question.
    pub fn last_run(mut self) -> Self {
        self.last_run = true;
        self
    }

    /// With one more answer that is no lie.
    pub fn honest(mut self, cause: &'static str, because: &'static str) -> Self {
        self.honest.push(Honest { cause, because });
        self
    }

    /// With what whydown is asked.
    pub fn asked(mut self, asked: Asked) -> Self {
        self.asked = asked;
        self
    }

    /// The answer must stand on evidence with these words.
    pub fn because(mut self, words: &'static str) -> Self {
        self.because.push(words);
        self
    }

    /// What is told to have led to it must hold these words.
    pub fn led_by(mut self, words: &'static str) -> Self {
        self.led_by = Some(words);
        self
    }

    /// The answer must not be told as more certain than this, as the evidence is that of another way too.
    pub fn at_most(mut self, most: Certainty) -> Self {
        self.most = most;
        self
    }

    /// The message must hold these words of libvirt or QEMU.
    pub fn message_has(mut self, words: &'static str) -> Self {
        self.text_in_message = Some(words);
        self
    }
}
