//! The daemon's own life, the host's, and what managers ask.

use std::time::Duration;

use whydown_core::evidence::Fact;
use whydown_core::id::{DomainId, RequestId};
use whydown_core::lifecycle::{Engine, Input, Request, Subject, Wanted};
use whydown_core::time::Wall;

use super::agenda::Due;
use super::link::Session;
use super::{Trace, World, settings};

/// From the loss of power to libvirt of the next boot: no host is faster, and what a boot left is told from what follows by when it
/// was.
const BOOT_TAKES: Duration = Duration::from_secs(10);

impl World {
    /// The daemon starts where its ledger stands. libvirt is reached by [`World::regain_link`].
    pub fn start_daemon(&mut self) {
        if self.engine.is_some() {
            return;
        }
        self.daemon += 1;
        self.commit_due = None;
        self.engine = Some(Engine::recover(settings(&self.hypervisor), self.ledger.begin()));
        self.trace.push(Trace::DaemonBegan(self.now));
        let snapshot = self.snapshot();
        self.invariants.restarted(self.now, snapshot.as_ref(), &self.ledger);
    }

    /// The daemon is killed. What its ledger had not committed is lost, and so is every answer on its way.
    pub fn crash_daemon(&mut self) {
        if self.engine.take().is_none() {
            return;
        }
        self.daemon += 1;
        self.session = Session::None;
        self.deaf_since.get_or_insert(self.now.mono);
        self.ledger.crash();
        self.watched.clear();
        self.trace.push(Trace::DaemonEnded(self.now));
        self.invariants.crashed();
    }

    /// The daemon stops in order: it hears to the end, writes everything, and says until when it listened.
    pub fn stop_daemon(&mut self) {
        if self.engine.is_none() {
            return;
        }
        let listening = self.is_listening();
        let number = self.session.number();
        for due in self.agenda.take(|due| matches!(due, Due::Hear(session, ..) if *session == number)) {
            if let Due::Hear(_, event, _) = due {
                self.tell(Input::Host(event));
            }
        }
        if listening {
            self.ledger.keep(whydown_core::record::Keep::Alive(self.now.wall));
        }
        if matches!(self.disk, crate::ledger::Disk::Works(_)) {
            self.commit();
            if !self.ledger.is_waiting() {
                self.ledger.end();
            }
        }
        self.crash_daemon();
    }

    /// The host loses its power and comes up again, with libvirt and without a daemon.
    pub fn reboot_host(&mut self) {
        self.crash_daemon();
        self.agenda.take(|due| matches!(due, Due::Happens(..) | Due::Report(_)));
        self.hypervisor.loses_power(self.now);
        self.advance(self.now.mono.after(BOOT_TAKES));
        self.hypervisor.boots(self.now);
        self.host_says_down = None;
    }

    /// A manager asks. Without a daemon nobody hears it.
    pub fn ask(&mut self, who: &str, what: Wanted) -> Option<RequestId> {
        self.engine.as_ref()?;
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.invariants.asked(id);
        self.tell(Input::Asked(Request { id, who: who.to_owned(), what }));
        Some(id)
    }

    /// A witness speaks to the daemon, if there is one.
    pub fn witness(&mut self, subject: Subject, fact: Fact) {
        self.tell_as_witness(subject, self.now.wall, fact);
    }

    /// A witness tells of something that happened at this moment.
    pub fn tell_as_witness(&mut self, subject: Subject, at: Wall, fact: Fact) {
        let word = Input::Observed { subject, at, fact };
        if self.witness_delay.is_zero() {
            self.tell(word);
        } else {
            self.at(self.witness_delay, Due::Tell(self.daemon, word));
        }
    }

    /// All faults end: disk, link and daemon are there, answers come at once. Then time passes.
    pub fn heal(&mut self, wait: Duration) {
        self.disk = crate::ledger::Disk::Works(Duration::from_millis(2));
        self.answers = super::Answers::After(Duration::from_millis(3));
        self.break_next_act = None;
        self.event_delay = Duration::ZERO;
        self.witness_delay = Duration::ZERO;
        self.start_daemon();
        self.regain_link();
        self.pass(wait);
    }

    /// Whether libvirt runs this domain now.
    pub fn is_active(&self, domain: DomainId) -> bool {
        self.hypervisor.is_active(domain)
    }
}
