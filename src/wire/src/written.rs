//! What was written of each VM, kept until that VM or its sample changed.
//!
//! Whether a fragment still fits is asked by address: the picture of a VM and its sample are replaced when they change,
//! never changed, and each entry holds both, so that their addresses cannot come to mean others. Everything is in the
//! order of ids, as pictures and samples are, so that all of it is found by walking along and not by looking up.

use std::iter::Peekable;
use std::sync::Arc;

use whydown_core::id::DomainId;
use whydown_core::sample::{Samples, Usage};
use whydown_core::snapshot::{DomainPublic, Snapshot};

use crate::profile::Profile;
use crate::vm::Fragment;

/// What was written of a VM, beside the picture and the sample of it that were written.
#[derive(Debug)]
pub(crate) struct Written {
    domain: Arc<DomainPublic>,
    usage: Option<Arc<Usage>>,
    fragment: Arc<Fragment>,
}

impl Written {
    fn new(domain: &Arc<DomainPublic>, usage: Option<&Arc<Usage>>, profile: &'static Profile) -> Self {
        let fragment = Arc::new(Fragment::of(domain, usage.map(Arc::as_ref), profile));
        Self { domain: Arc::clone(domain), usage: usage.cloned(), fragment }
    }

    fn id(&self) -> DomainId {
        self.domain.domain
    }

    fn is_of(&self, domain: &Arc<DomainPublic>, usage: Option<&Arc<Usage>>) -> bool {
        Arc::ptr_eq(&self.domain, domain) && self.usage.as_ref().map(Arc::as_ptr) == usage.map(Arc::as_ptr)
    }
}

/// See the module page.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// By id.
    shown: Vec<Written>,
    ahead: Option<Ahead>,
}

/// What was written of samples that nobody has been shown yet: only where it differs from what is shown.
#[derive(Debug)]
struct Ahead {
    samples: Arc<Samples>,
    /// By id.
    written: Vec<Written>,
}

/// What has to be written, by id.
#[derive(Debug)]
pub(crate) struct Missing(Vec<(Arc<DomainPublic>, Option<Arc<Usage>>)>);

impl Missing {
    /// Writes it. The long part: the cache need not be locked.
    pub(crate) fn write(self, profile: &'static Profile) -> Vec<Written> {
        self.0.iter().map(|(domain, usage)| Written::new(domain, usage.as_ref(), profile)).collect()
    }
}

impl Cache {
    /// The fragments of all VMs. What the picture no longer shows is forgotten.
    pub(crate) fn all(
        &mut self,
        snapshot: &Snapshot,
        samples: &Arc<Samples>,
        profile: &'static Profile,
    ) -> Vec<Arc<Fragment>> {
        let mut shown = std::mem::take(&mut self.shown).into_iter().peekable();
        let ahead = self.ahead.take_if(|ahead| Arc::ptr_eq(&ahead.samples, samples));
        let mut ahead = ahead.map(|ahead| ahead.written).unwrap_or_default().into_iter().peekable();
        let mut usages = samples.domains.iter().peekable();
        self.shown.reserve(snapshot.domains.len());
        for (id, domain) in &snapshot.domains {
            let usage = reach(&mut usages, *id, |usage| *usage.0).map(|(_, usage)| usage);
            let written = reach(&mut shown, *id, Written::id)
                .filter(|written| written.is_of(domain, usage))
                .or_else(|| {
                    reach(&mut ahead, *id, Written::id).filter(|written| written.is_of(domain, usage))
                })
                .unwrap_or_else(|| Written::new(domain, usage, profile));
            self.shown.push(written);
        }
        self.shown.iter().map(|written| Arc::clone(&written.fragment)).collect()
    }

    /// The fragment of one VM.
    pub(crate) fn one(
        &mut self,
        domain: &Arc<DomainPublic>,
        usage: Option<&Arc<Usage>>,
        profile: &'static Profile,
    ) -> Arc<Fragment> {
        let id = domain.domain;
        let place = self.shown.binary_search_by_key(&id, Written::id);
        if let Ok(at) = place
            && self.shown[at].is_of(domain, usage)
        {
            return Arc::clone(&self.shown[at].fragment);
        }
        let ahead = self.ahead.as_ref().and_then(|ahead| {
            let at = ahead.written.binary_search_by_key(&id, Written::id).ok()?;
            Some(&ahead.written[at]).filter(|written| written.is_of(domain, usage))
        });
        if let Some(ahead) = ahead {
            return Arc::clone(&ahead.fragment);
        }
        let written = Written::new(domain, usage, profile);
        let fragment = Arc::clone(&written.fragment);
        match place {
            Ok(at) => self.shown[at] = written,
            Err(at) => self.shown.insert(at, written),
        }
        fragment
    }

    /// What is not written yet of this picture and these samples.
    pub(crate) fn missing(&self, snapshot: &Snapshot, samples: &Samples) -> Missing {
        let mut shown = self.shown.iter().peekable();
        let mut usages = samples.domains.iter().peekable();
        let mut missing = Vec::new();
        for (id, domain) in &snapshot.domains {
            let usage = reach(&mut usages, *id, |usage| *usage.0).map(|(_, usage)| usage);
            let written = reach(&mut shown, *id, |written| written.id());
            if !written.is_some_and(|written| written.is_of(domain, usage)) {
                missing.push((Arc::clone(domain), usage.cloned()));
            }
        }
        Missing(missing)
    }

    /// Keeps what was written of samples that will be shown next, in place of what was kept so before.
    pub(crate) fn put_ahead(&mut self, samples: &Arc<Samples>, written: Vec<Written>) {
        self.ahead = Some(Ahead { samples: Arc::clone(samples), written });
    }
}

/// Goes along to the entry of `id`, and takes it if it is there. All that stands before it is left behind.
fn reach<I: Iterator>(
    list: &mut Peekable<I>,
    id: DomainId,
    id_of: impl Fn(&I::Item) -> DomainId,
) -> Option<I::Item> {
    while list.next_if(|entry| id_of(entry) < id).is_some() {}
    list.next_if(|entry| id_of(entry) == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Generation;
    use std::collections::BTreeMap;
    use whydown_core::id::RunId;
    use whydown_core::snapshot::{Link, Status};
    use whydown_core::time::Wall;

    fn id(number: u8) -> DomainId {
        DomainId::from_bytes([number; 16])
    }

    fn domain(number: u8) -> Arc<DomainPublic> {
        Arc::new(DomainPublic {
            domain: id(number),
            name: format!("vm{number}"),
            run: RunId(1),
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
        })
    }

    fn snapshot(domains: &[&Arc<DomainPublic>]) -> Snapshot {
        let domains: BTreeMap<_, _> = domains.iter().map(|one| (one.domain, Arc::clone(one))).collect();
        Snapshot { generation: 1, link: Link::Up, settled: true, domains }
    }

    fn samples(numbers: &[u8]) -> Arc<Samples> {
        let usage = Usage {
            run: RunId(1),
            devices: None,
            fingerprint: None,
            sample: None,
            taken: Wall(0),
            rates: None,
            responds: true,
            unreadable: false,
            progress: None,
            guest: None,
        };
        let domains = numbers.iter().map(|number| (id(*number), Arc::new(usage.clone()))).collect();
        Arc::new(Samples { domains, ..Samples::default() })
    }

    fn profile() -> &'static Profile {
        Profile::of(Generation::default())
    }

    /// Which of the second are the very same as in the first.
    fn same(first: &[Arc<Fragment>], second: &[Arc<Fragment>]) -> Vec<bool> {
        first.iter().zip(second).map(|(a, b)| Arc::ptr_eq(a, b)).collect()
    }

    #[test]
    fn only_what_changed_is_written_anew() {
        let (mut cache, samples) = (Cache::default(), samples(&[1, 3]));
        let vms = [domain(1), domain(2), domain(3)];
        let first = cache.all(&snapshot(&[&vms[0], &vms[1], &vms[2]]), &samples, profile());
        let changed = domain(2);
        let second = cache.all(&snapshot(&[&vms[0], &changed, &vms[2]]), &samples, profile());
        assert_eq!(same(&first, &second), [true, false, true]);
        assert!(Arc::ptr_eq(&second[1], &cache.one(&changed, None, profile())));
        let fewer = cache.all(&snapshot(&[&vms[2]]), &samples, profile());
        assert_eq!((same(&second[2..], &fewer), cache.shown.len()), (vec![true], 1));
    }

    #[test]
    fn what_is_written_ahead_disturbs_nobody_and_is_used_when_its_samples_are_shown() {
        let (mut cache, old, new) = (Cache::default(), samples(&[1, 2]), samples(&[1, 2]));
        let vms = [domain(1), domain(2)];
        let picture = snapshot(&[&vms[0], &vms[1]]);
        let first = cache.all(&picture, &old, profile());
        let ahead = cache.missing(&picture, &new).write(profile());
        let kept: Vec<_> = ahead.iter().map(|written| Arc::clone(&written.fragment)).collect();
        cache.put_ahead(&new, ahead);
        assert_eq!(same(&first, &cache.all(&picture, &old, profile())), [true, true], "still shown");
        assert!(Arc::ptr_eq(&kept[1], &cache.one(&vms[1], new.domains.get(&id(2)), profile())));
        let changed = domain(1);
        let second = cache.all(&snapshot(&[&changed, &vms[1]]), &new, profile());
        assert_eq!(same(&kept, &second), [false, true]);
        assert!(cache.ahead.is_none() && cache.missing(&snapshot(&[&changed, &vms[1]]), &new).0.is_empty());
    }

    #[test]
    fn a_vm_asked_for_alone_finds_its_place() {
        let (mut cache, samples) = (Cache::default(), samples(&[]));
        let vms = [domain(1), domain(2), domain(3)];
        for vm in [&vms[2], &vms[0], &vms[1]] {
            cache.one(vm, None, profile());
        }
        let alone = vms.each_ref().map(|vm| cache.one(vm, None, profile()));
        let all = cache.all(&snapshot(&[&vms[0], &vms[1], &vms[2]]), &samples, profile());
        assert_eq!(same(&alone, &all), [true, true, true]);
    }
}
