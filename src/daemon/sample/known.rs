//! What is known of each domain from its samples and its document: kept, brought together, and shown.
//!
//! Nothing here waits or asks; time comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use whydown_core::guest::GuestAccount;
use whydown_core::id::{DomainId, RunId};
use whydown_core::sample::{Devices, Sample, Samples, Usage};
use whydown_core::snapshot::{DomainPublic, Snapshot, Status};
use whydown_core::time::{Mono, Now};

use super::rates;

/// Devices are read again after this time: not all that changes shows in an event, as the link of a network card does not.
/// What is plugged in or out does, and disks and network interfaces show in the samples.
const DEVICES_LIFE: Duration = Duration::from_secs(60);

/// A document that could not be read is asked for again after this time.
const DEVICES_AGAIN: Duration = Duration::from_secs(5);

/// How long managers are kept waiting for what the VMs are made of that were found: a monitor that hangs may keep libvirt.
const PATIENCE: Duration = Duration::from_secs(10);

/// Documents read in one go. Each takes a fraction of a millisecond.
pub(super) const DOCUMENTS: usize = 256;

/// One run of a domain.
#[derive(Debug)]
struct Track {
    run: RunId,
    usage: Arc<Usage>,
    /// When it was first seen.
    since: Mono,
    /// When the sample that is shown was taken.
    sampled: Option<Mono>,
    /// When it last took part in sampling; at first, when it was first seen.
    answered: Mono,
    /// When its document was last asked for.
    asked: Option<Mono>,
    /// Whether the last call brought nothing of it.
    missing: bool,
    /// What the samples showed of its devices then.
    shape: Shape,
}

impl Track {
    fn new(run: RunId, now: Now) -> Self {
        let usage = Usage {
            run,
            devices: None,
            fingerprint: None,
            sample: None,
            taken: now.wall,
            rates: None,
            responds: true,
            unreadable: false,
            progress: None,
            guest: None,
        };
        Self {
            run,
            usage: Arc::new(usage),
            since: now.mono,
            sampled: None,
            answered: now.mono,
            asked: None,
            missing: false,
            shape: Shape::default(),
        }
    }

    /// Managers need not wait any more for what it is made of.
    fn give_up(&mut self) {
        if self.usage.devices.is_none() && !self.usage.unreadable {
            Arc::make_mut(&mut self.usage).unreadable = true;
        }
    }
}

/// See the module page.
#[derive(Debug)]
pub(super) struct Known {
    unresponsive_after: Duration,
    tracks: BTreeMap<DomainId, Track>,
    waits: Waits,
}

/// Whether managers are kept waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// libvirt has not told yet what is there.
    ForLibvirt,
    /// What was found then is being read.
    Since(Mono),
    Over,
}

impl Known {
    pub(super) fn new(unresponsive_after: Duration) -> Self {
        Self { unresponsive_after, tracks: BTreeMap::new(), waits: Waits::ForLibvirt }
    }

    /// When managers are answered at the latest, once it is known what is there.
    pub(super) fn waits_until(&self) -> Option<Mono> {
        match self.waits {
            Waits::Since(since) => Some(since.after(PATIENCE)),
            Waits::ForLibvirt | Waits::Over => None,
        }
    }

    /// Notes whether managers still must wait: for what the VMs are made of that were found, and for the endings of those that
    /// had ended.
    pub(super) fn follow_waits(&mut self, snapshot: &Snapshot, now: Mono) {
        let since = match self.waits {
            Waits::Over => return,
            Waits::ForLibvirt if !snapshot.settled => return,
            Waits::ForLibvirt => now,
            Waits::Since(since) => since,
        };
        let is_known = |domain: &DomainPublic| {
            let track = self.tracks.get(&domain.domain).filter(|track| track.run == domain.run);
            let read = track.is_some_and(|track| track.usage.devices.is_some());
            !runs(domain) || (read || domain.made.is_some()) && domain.status != Status::Ending
        };
        let is_over =
            now.since(since) >= PATIENCE || snapshot.domains.values().all(|domain| is_known(domain));
        if is_over {
            // Of some it may be known no more than that they are there.
            self.tracks.values_mut().for_each(Track::give_up);
        }
        self.waits = if is_over { Waits::Over } else { Waits::Since(since) };
    }

    /// Follows the snapshot: a new run starts from nothing, a domain that is gone is forgotten. What was known of a run
    /// that ended stays until it is forgotten, as managers ask for it.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, now: Now) {
        self.tracks
            .retain(|id, track| snapshot.domains.get(id).is_some_and(|domain| domain.run == track.run));
        for domain in snapshot.domains.values().filter(|domain| runs(domain)) {
            self.tracks.entry(domain.domain).or_insert_with(|| Track::new(domain.run, now));
        }
    }

    /// Those that run by this snapshot, and have since before `began`, and are not in what a call brought that began
    /// then, for the second time in a row: of one that has just ended libvirt's word may still be on its way.
    pub(super) fn missed(
        &mut self,
        snapshot: &Snapshot,
        samples: &[(DomainId, Sample)],
        began: Now,
    ) -> Vec<DomainId> {
        let found: BTreeSet<DomainId> = samples.iter().map(|(id, _)| *id).collect();
        let missed = self.tracks.iter_mut().filter_map(|(id, track)| {
            let shown = snapshot.domains.get(id).filter(|domain| runs(domain) && domain.run == track.run);
            let missing = !found.contains(id)
                && track.answered < began.mono
                && shown.is_some_and(|domain| domain.status != Status::Launching);
            let before = std::mem::replace(&mut track.missing, missing);
            (before && missing).then_some(*id)
        });
        missed.collect()
    }

    /// Takes what a sampling call brought that began at `began`.
    pub(super) fn take(&mut self, samples: Vec<(DomainId, Sample)>, began: Now) {
        for (id, sample) in samples {
            let Some(track) = self.tracks.get_mut(&id) else { continue };
            // Calls may come back in another order than they began.
            if !sample.answered || track.sampled.is_some_and(|last| last >= began.mono) {
                continue;
            }
            track.answered = track.answered.max(began.mono);
            if sample.cpu.is_none() && sample.vcpus.is_none() && sample.disks.is_empty() {
                // A driver that measures nothing.
                continue;
            }
            let shape = shape(&sample);
            if shape != track.shape {
                track.shape = shape;
                track.asked = None;
            }
            let rates = match (&track.usage.sample, track.sampled) {
                (Some(old), Some(at)) => rates::between(old, &sample, began.mono.since(at)),
                _ => None,
            };
            let usage = Arc::make_mut(&mut track.usage);
            (usage.sample, usage.taken, usage.rates) = (Some(sample), began.wall, rates);
            track.sampled = Some(began.mono);
        }
    }

    /// Notes who has been silent for too long, and who speaks again, and whose document is not waited for any more.
    pub(super) fn judge(&mut self, now: Mono) {
        for track in self.tracks.values_mut() {
            let responds = now.since(track.answered) < self.unresponsive_after;
            if track.usage.responds != responds {
                Arc::make_mut(&mut track.usage).responds = responds;
            }
            if now.since(track.since) >= PATIENCE {
                track.give_up();
            }
        }
    }

    /// Notes how far each is that moves or is being saved.
    pub(super) fn follow_works(&mut self, progress: impl Fn(DomainId, RunId) -> Option<u8>) {
        for (id, track) in &mut self.tracks {
            let progress = progress(*id, track.run);
            if track.usage.progress != progress {
                Arc::make_mut(&mut track.usage).progress = progress;
            }
        }
    }

    /// Something may have changed in what this domain is made of.
    pub(super) fn ask_again(&mut self, id: DomainId) {
        if let Some(track) = self.tracks.get_mut(&id) {
            track.asked = None;
        }
    }

    /// Whose documents should be read now, the most urgent first; they count as asked.
    pub(super) fn wanted(&mut self, snapshot: &Snapshot, now: Mono) -> Vec<(DomainId, RunId)> {
        let old = |asked: Option<Mono>| asked.is_none_or(|asked| now.since(asked) >= DEVICES_LIFE);
        let due = self.tracks.iter().filter(|(id, track)| {
            old(track.asked) && snapshot.domains.get(id).is_some_and(|domain| runs(domain))
        });
        let mut wanted: Vec<_> = due.map(|(id, track)| (track.asked, *id, track.run)).collect();
        wanted.sort_unstable();
        wanted.truncate(DOCUMENTS);
        for (_, id, _) in &wanted {
            self.tracks.entry(*id).and_modify(|track| track.asked = Some(now));
        }
        wanted.into_iter().map(|(_, id, run)| (id, run)).collect()
    }

    /// A document could not be read, as when the link was only just there.
    pub(super) fn unread(&mut self, id: DomainId, run: RunId, now: Mono) {
        if let Some(track) = self.tracks.get_mut(&id).filter(|track| track.run == run) {
            let early = DEVICES_LIFE.saturating_sub(DEVICES_AGAIN).as_nanos();
            track.asked = Some(Mono(now.0.saturating_sub(u64::try_from(early).unwrap_or(u64::MAX))));
        }
    }

    /// Takes what a document says, and gives it if it is still of interest. Whether it is news is the engine's to say, which
    /// hears of readings by others as well. What was known stays when it could not be read.
    pub(super) fn learn(&mut self, id: DomainId, run: RunId, devices: Devices) -> Option<Arc<Devices>> {
        let track = self.tracks.get_mut(&id).filter(|track| track.run == run)?;
        if let Some(known) = track.usage.devices.as_ref().filter(|known| ***known == devices) {
            return Some(Arc::clone(known));
        }
        let devices = Arc::new(devices);
        let usage = Arc::make_mut(&mut track.usage);
        usage.fingerprint = Some(devices.fingerprint());
        usage.devices = Some(Arc::clone(&devices));
        Some(devices)
    }

    /// Whose agent is connected.
    pub(super) fn agents(&self, snapshot: &Snapshot) -> BTreeMap<DomainId, RunId> {
        let connected = self.tracks.iter().filter(|(id, track)| {
            track.usage.devices.as_ref().is_some_and(|devices| devices.agent)
                && snapshot.domains.get(id).is_some_and(|domain| runs(domain))
        });
        connected.map(|(id, track)| (*id, track.run)).collect()
    }

    /// Takes what a guest told of itself.
    pub(super) fn told(&mut self, id: DomainId, run: RunId, account: GuestAccount) {
        let Some(track) = self.tracks.get_mut(&id).filter(|track| track.run == run) else { return };
        let account = Some(account).filter(|account| !account.is_empty());
        if track.usage.guest.as_deref() != account.as_ref() {
            Arc::make_mut(&mut track.usage).guest = account.map(Arc::new);
        }
    }

    /// Forgets what those guests told of whom that is no longer believed.
    pub(super) fn forget_guests(&mut self, believed: impl Fn(DomainId, RunId) -> bool) {
        for (id, track) in &mut self.tracks {
            if track.usage.guest.is_some() && !believed(*id, track.run) {
                Arc::make_mut(&mut track.usage).guest = None;
            }
        }
    }

    /// The picture. Domains of which nothing changed are the same ones as before.
    pub(super) fn samples(&self) -> Samples {
        let domains = self.tracks.iter().map(|(id, track)| (*id, Arc::clone(&track.usage))).collect();
        Samples { domains, awaited: self.waits != Waits::Over, reads_documents: true }
    }
}

fn runs(domain: &DomainPublic) -> bool {
    domain.ending.is_none()
}

/// What a sample shows of what the machine is made of: how many processors, which disks with which media, and which network
/// interfaces.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    vcpus: Option<u32>,
    parts: BTreeSet<(String, String)>,
}

fn shape(sample: &Sample) -> Shape {
    let disks = sample.disks.iter().map(|disk| (disk.target.clone(), disk.path.clone()));
    let nics = sample.nics.iter().map(|nic| (String::new(), nic.name.clone()));
    Shape { vcpus: sample.vcpus, parts: disks.chain(nics).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whydown_core::sample::{CpuTime, DiskCounters};
    use whydown_core::snapshot::Link;
    use whydown_core::time::Wall;

    fn id(number: u8) -> DomainId {
        DomainId::from_bytes([number; 16])
    }

    fn snapshot(runs: &[(u8, u64)]) -> Snapshot {
        let domain = |&(number, run): &(u8, u64)| DomainPublic {
            domain: id(number),
            name: format!("vm{number}"),
            run: RunId(run),
            status: Status::Up,
            started: Wall(0),
            pid: None,
            io_error: None,
            paused_by: None,
            watchdog: None,
            ending: None,
            durable: true,
            status_time: 0,
            made: None,
        };
        let domains = runs.iter().map(|run| (id(run.0), Arc::new(domain(run)))).collect();
        Snapshot { generation: 1, link: Link::Up, settled: true, domains }
    }

    fn at(second: u64) -> Now {
        Now { mono: Mono(second * 1_000_000_000), wall: Wall::from_millis(second as i64 * 1000) }
    }

    fn sample(cpu_s: u64, answered: bool, disk: &str) -> Sample {
        Sample {
            answered,
            cpu: Some(CpuTime { total_ns: cpu_s * 1_000_000_000, user_ns: 0, system_ns: 0 }),
            disks: vec![DiskCounters { target: "vda".into(), path: disk.into(), ..DiskCounters::default() }],
            ..Sample::default()
        }
    }

    fn usage(known: &Known) -> Arc<Usage> {
        Arc::clone(&known.samples().domains[&id(1)])
    }

    fn known() -> (Known, Snapshot) {
        let (mut known, snapshot) = (Known::new(Duration::from_secs(60)), snapshot(&[(1, 1)]));
        known.follow(&snapshot, at(0));
        (known, snapshot)
    }

    #[test]
    fn who_is_not_among_those_that_run_is_missed_but_not_before_its_time() {
        let (mut known, snapshot) = known();
        assert_eq!(known.missed(&snapshot, &[], at(0)), [], "it began with the call");
        assert_eq!(known.missed(&snapshot, &[], at(5)), [], "libvirt's word may be on its way");
        assert_eq!(known.missed(&snapshot, &[], at(10)), [id(1)]);
        assert_eq!(known.missed(&snapshot, &[(id(1), sample(0, false, "/a"))], at(15)), [], "it only hangs");
        assert_eq!(known.missed(&snapshot, &[], at(20)), []);
        let next = super::tests::snapshot(&[(1, 2)]);
        assert_eq!(known.missed(&next, &[], at(5)), [], "another run");
    }

    #[test]
    fn rates_follow_the_monotonic_clock_whatever_happens_to_the_wall_clock() {
        let (mut known, _) = known();
        known.take(vec![(id(1), sample(0, true, "/a"))], at(10));
        assert_eq!(usage(&known).rates, None);
        let stepped = Now { mono: at(20).mono, wall: Wall(0) };
        known.take(vec![(id(1), sample(5, true, "/a"))], stepped);
        assert_eq!(usage(&known).rates.as_ref().map(|rates| rates.cpu_guest), Some(50.0));
        assert_eq!(usage(&known).taken, Wall(0));
    }

    #[test]
    fn a_silent_domain_keeps_its_last_values_and_is_said_not_to_respond_in_time() {
        let (mut known, _) = known();
        known.learn(id(1), RunId(1), Devices::default());
        known.take(vec![(id(1), sample(0, true, "/a"))], at(5));
        known.take(vec![(id(1), sample(1, true, "/a"))], at(10));
        let last = usage(&known);
        known.take(vec![(id(1), sample(9, false, "/a"))], at(15));
        known.judge(at(69).mono);
        assert!(Arc::ptr_eq(&last, &usage(&known)), "nothing is written anew for it");
        known.judge(at(70).mono);
        let silent = usage(&known);
        assert!(!silent.responds && silent.sample == last.sample && silent.rates == last.rates);
        known.take(vec![(id(1), sample(2, true, "/a"))], at(80));
        known.judge(at(80).mono);
        assert!(usage(&known).responds);
    }

    #[test]
    fn a_call_that_comes_back_late_does_not_overwrite_a_newer_one() {
        let (mut known, _) = known();
        known.take(vec![(id(1), sample(5, true, "/a"))], at(20));
        known.take(vec![(id(1), sample(3, true, "/a"))], at(10));
        assert_eq!(usage(&known).sample, Some(sample(5, true, "/a")));
    }

    #[test]
    fn a_new_run_starts_from_nothing_and_a_late_document_of_the_old_one_is_not_its() {
        let (mut known, _) = known();
        known.take(vec![(id(1), sample(5, true, "/a"))], at(5));
        known.learn(id(1), RunId(1), Devices::default());
        known.follow(&snapshot(&[(1, 2)]), at(10));
        assert_eq!((usage(&known).run, &usage(&known).sample), (RunId(2), &None));
        known.learn(id(1), RunId(1), Devices::default());
        assert_eq!(usage(&known).devices, None);
        known.follow(&snapshot(&[]), at(10));
        assert!(known.samples().domains.is_empty());
    }

    #[test]
    fn documents_are_read_when_a_sample_or_an_event_shows_a_change_and_now_and_then() {
        let (mut known, snapshot) = known();
        let asked = |known: &mut Known, second| known.wanted(&snapshot, at(second).mono).len();
        assert_eq!((asked(&mut known, 0), asked(&mut known, 1)), (1, 0));
        known.take(vec![(id(1), sample(1, true, "/a"))], at(1));
        assert_eq!((asked(&mut known, 1), asked(&mut known, 2)), (1, 0), "its disks are now known");
        known.take(vec![(id(1), sample(2, true, "/a"))], at(2));
        assert_eq!(asked(&mut known, 2), 0);
        known.take(vec![(id(1), sample(3, true, "/b"))], at(3));
        assert_eq!(asked(&mut known, 3), 1, "another medium");
        known.take(vec![(id(1), Sample { vcpus: Some(2), ..sample(3, true, "/b") })], at(4));
        assert_eq!(asked(&mut known, 4), 1, "another processor");
        known.ask_again(id(1));
        assert_eq!((asked(&mut known, 4), asked(&mut known, 5)), (1, 0));
        assert_eq!(asked(&mut known, 64), 1);
    }

    #[test]
    fn a_document_that_could_not_be_read_is_asked_for_again_soon() {
        let (mut known, snapshot) = known();
        assert_eq!(known.wanted(&snapshot, at(100).mono).len(), 1);
        known.unread(id(1), RunId(1), at(100).mono);
        assert_eq!(known.wanted(&snapshot, at(104).mono).len(), 0);
        assert_eq!(known.wanted(&snapshot, at(105).mono).len(), 1);
    }

    #[test]
    fn the_fingerprint_changes_with_the_devices_and_the_picture_only_then() {
        let (mut known, _) = known();
        known.learn(id(1), RunId(1), Devices::default());
        let first = usage(&known);
        known.learn(id(1), RunId(1), Devices::default());
        assert!(Arc::ptr_eq(&first, &usage(&known)));
        let disk = whydown_core::sample::Disk { target: "vdb".into(), ..Default::default() };
        known.learn(id(1), RunId(1), Devices { disks: vec![disk], ..Devices::default() });
        assert_ne!(usage(&known).fingerprint, first.fingerprint);
    }

    #[test]
    fn what_a_guest_told_is_of_its_run_and_goes_when_it_is_not_believed() {
        let (mut known, snapshot) = known();
        assert!(known.agents(&snapshot).is_empty());
        known.learn(id(1), RunId(1), Devices { agent: true, ..Devices::default() });
        assert_eq!(known.agents(&snapshot), BTreeMap::from([(id(1), RunId(1))]));
        let account = GuestAccount { host_name: Some("vm".into()), ..GuestAccount::default() };
        known.told(id(1), RunId(2), account.clone());
        assert_eq!(usage(&known).guest, None);
        known.told(id(1), RunId(1), account.clone());
        let first = usage(&known);
        known.told(id(1), RunId(1), account);
        known.forget_guests(|_, _| true);
        assert!(Arc::ptr_eq(&first, &usage(&known)), "nothing is written anew for the same account");
        assert!(first.guest.is_some());
        known.forget_guests(|_, _| false);
        assert_eq!(usage(&known).guest, None);
    }

    #[test]
    fn a_driver_that_measures_nothing_leaves_everything_absent() {
        let (mut known, _) = known();
        known.learn(id(1), RunId(1), Devices::default());
        let before = usage(&known);
        known.take(vec![(id(1), Sample { answered: true, ..Sample::default() })], at(70));
        known.judge(at(80).mono);
        assert!(Arc::ptr_eq(&before, &usage(&known)));
    }
}
