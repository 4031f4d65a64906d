//! The link to libvirt: sessions, what they hear, what they lose, and listings.

use std::collections::BTreeSet;
use std::time::Duration;

use whydown_core::hypervisor::{Happening, HostEvent, Listing, Process, Server};
use whydown_core::id::DomainId;
use whydown_core::lifecycle::Input;
use whydown_core::time::{Mono, Now, Wall};

use super::agenda::Due;
use super::{Answers, World};

/// The pid of libvirtd, whichever it is: what tells one from the next is when it began.
const LIBVIRTD: u32 = 4_000_000;

/// What becomes of a link, and of libvirtd with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Only the connection breaks; what libvirt had sent is still heard.
    Drained,
    /// Only the connection breaks; what was on its way is lost.
    Cut,
    /// libvirtd is gone.
    Libvirtd,
}

/// One life of the link.
#[derive(Debug)]
pub(super) enum Session {
    /// Not connected.
    None,
    /// Connected since then; the listing is being taken, and events wait for it.
    Listing(u32, Now, Vec<HostEvent>),
    /// Connected and listening.
    Live(u32),
}

impl Session {
    pub(super) fn number(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Listing(number, ..) | Self::Live(number) => *number,
        }
    }
}

impl World {
    /// Whether the daemon is connected and listening.
    pub fn is_listening(&self) -> bool {
        matches!(self.session, Session::Live(_))
    }

    /// libvirt reports. Without a session nobody hears it.
    pub(super) fn report(&mut self, mut event: HostEvent) {
        event.at = self.now.wall;
        match &mut self.session {
            Session::None => {}
            Session::Listing(_, _, waiting) => waiting.push(event),
            Session::Live(number) => {
                let number = *number;
                let at = self.now.mono.after(self.event_delay).max(self.hear_last);
                self.hear_last = at;
                self.agenda.add(at, Due::Hear(number, event, self.now.mono));
            }
        }
    }

    /// The link breaks.
    pub fn lose_link(&mut self, loss: Loss) {
        if loss == Loss::Libvirtd {
            self.libvirtd_goes();
        }
        if matches!(self.session, Session::None) {
            return;
        }
        let number = self.session.number();
        let was_live = self.is_listening();
        let on_the_way = self.agenda.take(|due| matches!(due, Due::Hear(session, ..) if *session == number));
        let mut until = self.now;
        if loss == Loss::Drained {
            for due in on_the_way {
                if let Due::Hear(_, event, _) = due {
                    self.tell(Input::Host(event));
                }
            }
        } else if let Some(Due::Hear(_, event, heard)) = on_the_way.first() {
            // Up to just before the first lost event everything was heard.
            until = Now { mono: *heard, wall: event.at };
        }
        self.session = Session::None;
        if was_live && self.engine.is_some() {
            self.deaf_since.get_or_insert(until.mono);
            self.tell(Input::LinkLost { at: until.wall });
        }
    }

    /// A new session registers; from now on its events wait for the listing. Without libvirtd or daemon nothing happens.
    pub fn begin_session(&mut self) {
        if self.engine.is_none() || !matches!(self.session, Session::None) {
            return;
        }
        if !self.hypervisor.up {
            self.libvirtd_returns();
        }
        self.sessions += 1;
        self.session = Session::Listing(self.sessions, self.now, Vec::new());
    }

    /// The listing is taken and told, and what had waited for it behind it.
    pub fn finish_session(&mut self) {
        let Session::Listing(number, began, waiting) = &mut self.session else { return };
        let (number, began, waiting) = (*number, *began, std::mem::take(waiting));
        self.session = Session::Live(number);
        let changing: BTreeSet<DomainId> =
            waiting.iter().filter(|event| changes_state(&event.what)).map(|event| event.domain.id).collect();
        let changing = changing.into_iter().collect();
        let long_ago = Now { mono: Mono::default(), wall: Wall(i64::MIN) };
        let since = self.hypervisor.up_since.unwrap_or(long_ago);
        let start_ticks = since.mono.since(Mono::default()).as_millis() as u64;
        let process = Process { pid: LIBVIRTD, start_ticks };
        let server = Some(Server { process, since: since.wall });
        let listing = Listing { domains: self.hypervisor.views(), changing, heard_from: began.wall, server };
        if let Some(since) = self.deaf_since.take() {
            self.deaf.push((since, began.mono));
        }
        self.hear_last = self.now.mono;
        let readable = matches!(self.answers, Answers::After(_));
        self.logs_were_unread |= !readable;
        self.tell(Input::Past(if readable { self.hypervisor.logs(self.now) } else { Vec::new() }));
        self.tell(Input::LinkUp(listing));
        for event in waiting {
            self.agenda.add(self.now.mono, Due::Hear(number, event, self.now.mono));
        }
    }

    /// The link comes back at once.
    pub fn regain_link(&mut self) {
        self.begin_session();
        self.finish_session();
    }

    fn libvirtd_goes(&mut self) {
        self.hypervisor.up = false;
        // What it had begun it cannot finish; what it had not yet reported it never will.
        self.agenda.take(|due| matches!(due, Due::Report(_)));
    }

    fn libvirtd_returns(&mut self) {
        self.hypervisor.up = true;
        self.hypervisor.up_since = Some(self.now);
        self.hypervisor.forget_reasons();
        let ids: Vec<DomainId> = self.hypervisor.domains.keys().copied().collect();
        for id in ids {
            let Some(domain) = self.hypervisor.domains.get_mut(&id) else { continue };
            for (after, act) in std::mem::take(&mut domain.on_return) {
                if after == 0 {
                    self.happen(id, act);
                } else {
                    self.at(Duration::from_millis(after), Due::Happens(id, act));
                }
            }
        }
    }
}

/// As the real link decides it.
fn changes_state(what: &Happening) -> bool {
    matches!(
        what,
        Happening::Defined
            | Happening::Undefined { .. }
            | Happening::Started(_)
            | Happening::Suspended(_)
            | Happening::Resumed(_)
            | Happening::Stopped(_)
            | Happening::ShutdownBegan(_)
            | Happening::PmSuspended(_)
            | Happening::GuestCrashed(_)
    )
}
