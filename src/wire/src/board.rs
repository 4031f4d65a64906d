//! The board: replies to polls, made once and given to all who ask.
//!
//! ```text
//! Arc<Snapshot>, Arc<Samples> ─update─▶ Arc<Bodies> ─first poll─▶ Body ─next polls─▶ the same bytes
//!                                           │
//!                                           └─ per VM: a fragment, written anew only when that VM or its sample changed
//! ```
//!
//! Taking a new snapshot costs nothing that grows with the number of VMs: a storm of changes between two polls is
//! paid for by the next poll, once, and that joins fragments. A poll copies nothing. New samples change every VM: their
//! fragments are written [ahead](Bodies::write_ahead), beside those that polls still use.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use whydown_core::id::DomainId;
use whydown_core::sample::Samples;
use whydown_core::snapshot::{DomainPublic, Snapshot, Status};
use whydown_core::time::Wall;

use crate::codes::{Code, done, put_status, status_reply};
use crate::profile::{Generation, Profile};
use crate::vm::{Fragment, Moment, Range, put_full};
use crate::write;
use crate::written::Cache;

/// How long a body may be used although `elapsedTime` in it ages. VDSM's samples were up to 15 seconds old.
const BODY_LIFE: Duration = Duration::from_secs(5);

/// A reply that many may be given, plain and packed.
#[derive(Debug)]
pub struct Body {
    /// As it is.
    pub plain: Bytes,
    gzip: OnceLock<Bytes>,
}

impl Body {
    /// From a reply's bytes.
    pub fn new(plain: Bytes) -> Self {
        Self { plain, gzip: OnceLock::new() }
    }

    /// Packed with gzip: made when first asked for, then shared. A megabyte takes some five milliseconds.
    pub fn gzip(&self) -> Bytes {
        self.gzip.get_or_init(|| pack(&self.plain)).clone()
    }

    /// Packed, if somebody has asked for it before.
    pub fn gzip_if_made(&self) -> Option<Bytes> {
        self.gzip.get().cloned()
    }
}

/// The lowest level: stats are so regular that it makes them twenty times smaller, and the next levels cost more
/// than they save.
fn pack(plain: &[u8]) -> Bytes {
    let mut packer =
        flate2::write::GzEncoder::new(Vec::with_capacity(plain.len() / 8), flate2::Compression::fast());
    packer.write_all(plain).and_then(|()| packer.finish()).expect("writing to memory does not fail").into()
}

/// A body and the moment that it shows.
type Shown = (Moment, Arc<Body>);

/// Keeps what was written of each VM.
#[derive(Debug, Clone)]
pub struct Board {
    cache: Arc<Mutex<Cache>>,
    profile: &'static Profile,
}

impl Board {
    /// An empty one, for managers of this generation.
    pub fn new(generation: Generation) -> Self {
        Self { cache: Arc::default(), profile: Profile::of(generation) }
    }

    /// Takes a new picture. Cheap; nothing is written before somebody asks.
    pub fn update(&self, snapshot: &Arc<Snapshot>, samples: &Arc<Samples>) -> Arc<Bodies> {
        let can_tell = |domain: &Arc<DomainPublic>| samples.can_tell(domain);
        let shown = match snapshot.domains.values().all(can_tell) {
            true => Arc::clone(snapshot),
            false => {
                let mut shown = Snapshot::clone(snapshot);
                shown.domains.retain(|_, domain| can_tell(domain));
                Arc::new(shown)
            }
        };
        Arc::new(Bodies {
            snapshot: Arc::clone(snapshot),
            shown,
            samples: Arc::clone(samples),
            profile: self.profile,
            cache: Arc::clone(&self.cache),
            all_stats: Default::default(),
            all_short: OnceLock::new(),
            all_full: Default::default(),
            recovering: OnceLock::new(),
        })
    }
}

/// The replies that one snapshot gives. Before the first listing, and while what it showed is still being read, they all are
/// [`Code::Recovering`]. A VM that comes later is told when it is known what it is made of, as [`Samples::can_tell`] says.
///
/// While the link to libvirt is lost, what was last known is told, and after
/// [`SILENT_AFTER`](crate::SILENT_AFTER) running VMs are said not to respond (`monitorResponse` -1).
#[derive(Debug)]
pub struct Bodies {
    snapshot: Arc<Snapshot>,
    /// Without those of which managers cannot be told yet.
    shown: Arc<Snapshot>,
    samples: Arc<Samples>,
    profile: &'static Profile,
    cache: Arc<Mutex<Cache>>,
    /// By range.
    all_stats: [Mutex<Option<Shown>>; Range::ALL.len()],
    all_short: OnceLock<Arc<Body>>,
    /// By range.
    all_full: [OnceLock<Arc<Body>>; Range::ALL.len()],
    recovering: OnceLock<Arc<Body>>,
}

/// How many VMs there are, as `getVdsStats` counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VmCounts {
    /// All, Down ones too.
    pub all: usize,
    /// Those that are Up.
    pub active: usize,
    /// Those that migrate in or out.
    pub migrating: usize,
}

impl Bodies {
    /// The picture, with the VMs of which managers cannot be told yet: what they are made of is still being read.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// The reply to every verb about VMs while the first listing is not yet there, else `None`.
    pub fn recovering(&self) -> Option<Arc<Body>> {
        let make = || Arc::new(Body::new(status_reply(Code::Recovering, "")));
        (!self.snapshot.settled || self.samples.awaited)
            .then(|| Arc::clone(self.recovering.get_or_init(make)))
    }

    /// The reply to `getAllVmStats` at `now`, shared by all who ask within some seconds.
    pub fn all_vm_stats(&self, range: Range, now: Wall) -> Arc<Body> {
        if let Some(recovering) = self.recovering() {
            return recovering;
        }
        let moment = Moment::of(&self.snapshot, now);
        let mut kept = self.all_stats[range as usize].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, body)) = &*kept {
            let age = now.since(made.now).max(made.now.since(now));
            if age < BODY_LIFE && made.silent == moment.silent {
                return Arc::clone(body);
            }
        }
        let fragments = self.fragments();
        let size = fragments.iter().map(|fragment| fragment.size()).sum();
        let plain = write::reply(size, |slot| {
            slot.structure(|s| {
                put_status(s, Code::Done, "");
                s.array("statsList", |items| {
                    for fragment in &fragments {
                        items.item().structure(|s| fragment.put_stats(s, range, moment));
                    }
                });
            });
        });
        let body = Arc::new(Body::new(plain.into()));
        *kept = Some((moment, Arc::clone(&body)));
        body
    }

    /// The reply to `getVmStats` at `now`; [`Code::NoSuchVm`] if it is not there.
    pub fn vm_stats(&self, vm: DomainId, range: Range, now: Wall) -> Bytes {
        if let Some(recovering) = self.recovering() {
            return recovering.plain.clone();
        }
        let Some(domain) = self.shown.domains.get(&vm) else { return status_reply(Code::NoSuchVm, "") };
        let moment = Moment::of(&self.snapshot, now);
        let fragment = self.fragment_of(&mut self.lock_cache(), domain);
        write::reply(fragment.size() + 256, |slot| {
            slot.structure(|s| {
                put_status(s, Code::Done, "");
                s.array("statsList", |items| {
                    items.item().structure(|s| fragment.put_stats(s, range, moment))
                });
            });
        })
        .into()
    }

    /// The reply to `list`. `vms` limits it to these; unknown ones are left out in silence.
    pub fn list(&self, full: bool, vms: Option<&[DomainId]>, range: Range) -> Arc<Body> {
        if let Some(recovering) = self.recovering() {
            return recovering;
        }
        match (full, vms) {
            (false, None) => Arc::clone(self.all_short.get_or_init(|| self.write_short(self.fragments()))),
            (false, Some(_)) => {
                let mut cache = self.lock_cache();
                let fragments = self.chosen(vms).map(|domain| self.fragment_of(&mut cache, domain)).collect();
                drop(cache);
                self.write_short(fragments)
            }
            (true, None) => {
                Arc::clone(self.all_full[range as usize].get_or_init(|| self.write_full(None, range)))
            }
            (true, Some(_)) => self.write_full(vms, range),
        }
    }

    fn write_full(&self, vms: Option<&[DomainId]>, range: Range) -> Arc<Body> {
        self.write_list(1024 * vms.map_or(self.shown.domains.len(), <[_]>::len), |items| {
            for domain in self.chosen(vms) {
                let usage = self.samples.domains.get(&domain.domain).map(Arc::as_ref);
                items.item().structure(|s| put_full(s, domain, usage, range, self.profile));
            }
        })
    }

    /// The VM alone, in its full form, as `setNumberOfCpus` shows it when it is done.
    pub fn the_vm(&self, vm: DomainId, range: Range) -> Bytes {
        let Some(domain) = self.snapshot.domains.get(&vm) else { return done() };
        let usage = self.samples.domains.get(&vm).map(Arc::as_ref);
        write::reply(2048, |slot| {
            slot.structure(|s| {
                put_status(s, Code::Done, "");
                s.structure("vmList", |s| put_full(s, domain, usage, range, self.profile));
            });
        })
        .into()
    }

    /// How many VMs there are.
    pub fn counts(&self) -> VmCounts {
        let mut counts = VmCounts { all: self.shown.domains.len(), ..VmCounts::default() };
        for domain in self.shown.domains.values().filter(|domain| domain.ending.is_none()) {
            match domain.status {
                Status::Up => counts.active += 1,
                Status::MigrationSource | Status::MigrationDestination => counts.migrating += 1,
                _ => {}
            }
        }
        counts
    }

    fn write_short(&self, fragments: Vec<Arc<Fragment>>) -> Arc<Body> {
        self.write_list(256 * fragments.len(), |items| {
            for fragment in &fragments {
                items.item().structure(|s| fragment.put_short(s));
            }
        })
    }

    fn write_list(&self, size: usize, fill: impl FnOnce(&mut write::Items<'_>)) -> Arc<Body> {
        let plain = write::reply(256 + size, |slot| {
            slot.structure(|s| {
                put_status(s, Code::Done, "");
                s.array("vmList", fill);
            });
        });
        Arc::new(Body::new(plain.into()))
    }

    /// The VMs asked for, each once, in the order of their ids.
    fn chosen<'a>(
        &'a self,
        vms: Option<&'a [DomainId]>,
    ) -> Box<dyn Iterator<Item = &'a Arc<DomainPublic>> + 'a> {
        match vms {
            None => Box::new(self.shown.domains.values()),
            Some(ids) => {
                let ids: BTreeSet<&DomainId> = ids.iter().collect();
                Box::new(ids.into_iter().filter_map(|id| self.shown.domains.get(id)))
            }
        }
    }

    fn fragments(&self) -> Vec<Arc<Fragment>> {
        self.lock_cache().all(&self.shown, &self.samples, self.profile)
    }

    /// Writes what changed before anybody asks, so that the first poll does not wait for all of it. Polls of the
    /// replies that are shown until then neither wait for this nor lose what is written of them.
    pub fn write_ahead(&self) {
        let missing = self.lock_cache().missing(&self.shown, &self.samples);
        let written = missing.write(self.profile);
        self.lock_cache().put_ahead(&self.samples, written);
    }

    fn fragment_of(&self, cache: &mut Cache, domain: &Arc<DomainPublic>) -> Arc<Fragment> {
        cache.one(domain, self.samples.domains.get(&domain.domain), self.profile)
    }

    fn lock_cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
