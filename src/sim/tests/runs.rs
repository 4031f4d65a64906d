//! Runs that began and ended while nobody listened: any few of them in a row, under other names and with other domains of
//! the same name between, whoever was away. Each is told once, with a cause of its own, also after further restarts.

use std::time::Duration;

use whydown_core::cause::Cause;
use whydown_core::hypervisor::StartDetail;
use whydown_core::id::DomainId;
use whydown_core::record::Ending;
use whydown_sim::step::domain;
use whydown_sim::ways::{self, Way};
use whydown_sim::world::{Loss, World};

/// How a run of the walk ends; `None` is a start that fails.
type End = Option<Way>;

const ENDS: [End; 8] = [
    Some(Way::GuestPoweroff),
    Some(Way::OutsideDestroy),
    Some(Way::Killed),
    Some(Way::Terminated),
    Some(Way::ManagedSave),
    Some(Way::MigratedAway),
    Some(Way::GuestPanic),
    None,
];

/// What may be told of it.
fn true_causes(end: End) -> &'static [Cause] {
    match end {
        // The start of a VM that was saved restores it.
        None => &[Cause::StartFailed, Cause::StartFailedSilent, Cause::RestoreFailed],
        Some(Way::GuestPoweroff) => &[Cause::GuestPoweroff],
        Some(Way::OutsideDestroy) => &[Cause::OutsideDestroyed],
        Some(Way::Killed) => &[Cause::ProcessLost, Cause::ProcessKilled],
        Some(Way::Terminated) => &[Cause::ProcessTerminated],
        // Whether libvirt keeps an image is seen of the last one only.
        Some(Way::ManagedSave) => &[Cause::ManagedSaved, Cause::SavedToFile],
        Some(Way::MigratedAway) => &[Cause::MigratedAway],
        // Its log holds less than its name says.
        _ => &[Cause::GuestPanic, Cause::ProcessLost, Cause::UnknownEnded, Cause::UnknownVanished],
    }
}

/// What happens to the domain between its runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Nothing,
    /// It gets another name.
    Renamed,
    /// It is undefined, and another domain gets its name; then again.
    Replaced,
    /// It is transient: libvirt forgets it.
    Forgotten,
}

const BETWEEN: [Between; 4] = [Between::Nothing, Between::Renamed, Between::Replaced, Between::Forgotten];

/// Who is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Away {
    Crashed,
    Stopped,
    Link,
    /// The daemon, and libvirtd is started anew at the end.
    Both,
}

const AWAY: [Away; 4] = [Away::Crashed, Away::Stopped, Away::Link, Away::Both];

/// One walk.
#[derive(Debug, Clone, Copy)]
struct Walk<'a> {
    ends: &'a [End],
    between: Between,
    away: Away,
    /// Whether the first run is up, and known, when the absence begins.
    known: bool,
    /// Whether a last one is up when it ends.
    up_again: bool,
    /// What the clock is set by between any two runs, in milliseconds.
    clock: i64,
}

const SECOND: Duration = Duration::from_secs(1);

impl Walk<'_> {
    fn which(&self, place: usize) -> DomainId {
        match self.between {
            Between::Replaced => domain((place % 2) as u8),
            _ => domain(0),
        }
    }

    fn begin(&self, world: &mut World, place: usize) {
        let id = self.which(place);
        let name = match self.between {
            Between::Renamed => format!("vm-{place}"),
            _ => "vm".to_owned(),
        };
        if self.between == Between::Replaced && place > 0 {
            world.hypervisor.domains.remove(&self.which(place - 1));
        }
        world.hypervisor.define(id, &name, self.between != Between::Forgotten);
        if let Some(domain) = world.hypervisor.domains.get_mut(&id) {
            domain.name = name;
        }
        let fails = self.ends.get(place) == Some(&None);
        world.happens(id, if fails { ways::start_that_fails() } else { ways::start(StartDetail::Booted) });
        world.pass(SECOND);
    }

    fn leave(&self, world: &mut World) {
        match self.away {
            Away::Crashed | Away::Both => world.crash_daemon(),
            Away::Stopped => world.stop_daemon(),
            Away::Link => world.lose_link(Loss::Cut),
        }
    }

    fn come_back(&self, world: &mut World) {
        if self.away == Away::Both {
            world.lose_link(Loss::Libvirtd);
            world.pass(SECOND);
        }
        world.heal(60 * SECOND);
    }

    fn walk(&self) -> World {
        let mut world = World::new();
        world.start_daemon();
        world.regain_link();
        world.pass(60 * SECOND);
        if !self.known {
            self.leave(&mut world);
            world.pass(SECOND);
        }
        for (place, end) in self.ends.iter().enumerate() {
            self.begin(&mut world, place);
            if place == 0 && self.known {
                world.pass(60 * SECOND);
                self.leave(&mut world);
                world.pass(SECOND);
            }
            if let Some(way) = end {
                assert!(world.befall(self.which(place), *way), "{self:?}");
            }
            world.pass(5 * SECOND);
            if place + 1 < self.ends.len() || self.up_again {
                world.jump(self.clock);
            }
        }
        if self.up_again {
            self.begin(&mut world, self.ends.len());
            world.pass(5 * SECOND);
        }
        self.come_back(&mut world);
        for _ in 0..2 {
            world.crash_daemon();
            world.heal(SECOND);
        }
        world
    }

    /// What is wrong with what was told.
    fn wrong(&self) -> Vec<String> {
        let world = self.walk();
        let mut wrong = world.wrong_at_rest();
        for id in [domain(0), domain(1)] {
            let told: Vec<&Ending> = world.ledger.endings().values().filter(|e| e.domain == id).collect();
            let due = self.ends.iter().enumerate().filter(|(place, _)| self.which(*place) == id);
            let due: Vec<End> = due.map(|(_, end)| *end).collect();
            let fits = told.len() == due.len()
                && told.iter().zip(&due).all(|(e, end)| true_causes(*end).contains(&e.verdict.cause));
            if !fits {
                let told: Vec<_> =
                    told.iter().map(|e| (&e.verdict.row, e.verdict.cause, e.started)).collect();
                wrong.push(format!("of {due:?} was told {told:?}"));
            }
        }
        wrong
    }
}

/// Of some failures all that they say would fill the screen.
fn holds<'a>(walks: impl Iterator<Item = Walk<'a>>) {
    let mut wrong = Vec::new();
    let mut walked = 0;
    for walk in walks {
        walked += 1;
        let told = walk.wrong();
        if !told.is_empty() {
            wrong.push(format!("{walk:?}: {told:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {walked} are wrong; the first:\n{}", wrong.len(), wrong[0]);
}

/// All sequences of this length.
fn sequences(length: u32) -> impl Iterator<Item = Vec<End>> {
    (0..ENDS.len().pow(length)).map(move |number| {
        (0..length).map(|place| ENDS[number / ENDS.len().pow(place) % ENDS.len()]).collect()
    })
}

/// A transient domain cannot be saved so that libvirt keeps the image.
fn can_be(ends: &[End], between: Between) -> bool {
    between != Between::Forgotten || !ends.contains(&Some(Way::ManagedSave))
}

fn all_ways_of(length: u32) {
    for ends in sequences(length) {
        let walks = AWAY.iter().flat_map(|away| BETWEEN.iter().map(move |between| (*away, *between)));
        let walks = walks.flat_map(|(away, between)| {
            [(true, false), (false, false), (true, true), (false, true)]
                .map(|(known, up_again)| (away, between, known, up_again))
        });
        let walks = walks.filter(|(_, between, known, _)| {
            // A start that fails is no run that is up when the absence begins.
            can_be(&ends, *between) && !(*known && ends[0].is_none())
        });
        holds(walks.map(|(away, between, known, up_again)| Walk {
            ends: &ends,
            between,
            away,
            known,
            up_again,
            clock: 0,
        }));
    }
}

#[test]
fn one_run_in_an_absence_is_told_once_with_its_own_cause() {
    all_ways_of(1);
}

#[test]
fn two_runs_in_an_absence_are_told_once_each_with_its_own_cause() {
    all_ways_of(2);
}

#[test]
fn three_and_four_runs_in_an_absence_are_told_once_each_with_its_own_cause() {
    // Each sequence with one of the settings; all of them come to all.
    let mut turn = 0;
    for ends in sequences(3).chain(sequences(4)) {
        turn += 7;
        let (known, up_again) = (turn % 3 > 0 && ends[0].is_some(), turn % 2 > 0);
        let (away, between) = (AWAY[turn / 2 % 4], BETWEEN[turn / 8 % 4]);
        if can_be(&ends, between) {
            holds([Walk { ends: &ends, between, away, known, up_again, clock: 0 }].into_iter());
        }
    }
}

#[test]
fn a_clock_that_is_set_between_two_runs_mixes_none_of_a_known_vm() {
    for clock in [-7_200_000, -60_000, -3_000, 3_000, 7_200_000] {
        for ends in sequences(2) {
            let walks = AWAY.iter().filter(|_| ends[0].is_some()).map(|away| Walk {
                ends: &ends,
                between: Between::Nothing,
                away: *away,
                known: true,
                up_again: false,
                clock,
            });
            holds(walks);
        }
    }
}
