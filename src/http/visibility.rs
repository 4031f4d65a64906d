//! What is no secret: what everybody at plain TCP may be told.
//!
//! Every user of a host sees its QEMU processes with their arguments, and so the VMs' names, UUIDs and processes;
//! and what runs and what does not. To that are added the states, the causes and the exit codes, in words of ours. Left out
//! are words of others: what libvirt, QEMU, the kernel and guests said, who asked for what; what was measured; and the
//! devices, whose images, addresses and ways into the host stand in the arguments only of some.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use whydown_core::record::Ending;
use whydown_core::sample::{Devices, Samples};
use whydown_core::snapshot::{DomainPublic, Snapshot};
use whydown_wire::{Board, Bodies, Generation, HostFacts};

use crate::daemon::engine::Published;
use crate::told;

/// How much somebody may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Everything.
    Full,
    /// What is no secret: see the module page.
    Public,
}

/// An ending without words of others.
fn public_ending(ending: &Ending) -> Ending {
    let mut plain = Ending { evidence: Vec::new(), acknowledged: None, ..ending.clone() };
    let earlier = plain.earlier.iter_mut().map(|earlier| {
        (earlier.facts, earlier.changed) = (0, Vec::new());
        (&mut earlier.verdict, &mut earlier.message)
    });
    for (verdict, message) in earlier.chain([(&mut plain.verdict, &mut plain.message)]) {
        verdict.because.clear();
        verdict.despite.clear();
        let row = verdict.cause.row();
        if row.message.contains('{') {
            *message = row.sentence.to_owned();
        }
    }
    plain
}

/// An ending, as far as somebody may be told.
pub fn told_ending(ending: &Ending, visibility: Visibility) -> told::Ending {
    match visibility {
        Visibility::Full => told::Ending::of(ending),
        Visibility::Public => told::Ending::of(&public_ending(ending)),
    }
}

/// The machine itself, without what it is made of: images, addresses and what of the host they lead to.
fn public_devices(made: &Devices) -> Devices {
    Devices {
        kvm: made.kvm,
        acpi: made.acpi,
        machine: made.machine.clone(),
        memory_kib: made.memory_kib,
        vcpus: made.vcpus,
        clock_offset_s: made.clock_offset_s,
        boot: made.boot.clone(),
        ..Devices::default()
    }
}

/// A VM, as far as somebody may be told.
pub fn seen(domain: Arc<DomainPublic>, visibility: Visibility) -> Arc<DomainPublic> {
    let nothing_said = domain.ending.is_none() && domain.paused_by.is_none() && domain.made.is_none();
    if nothing_said || visibility == Visibility::Full {
        return domain;
    }
    let ending = domain.ending.as_deref().map(|ending| Arc::new(public_ending(ending)));
    let made = domain.made.as_deref().map(|made| Arc::new(public_devices(made)));
    Arc::new(DomainPublic { ending, paused_by: None, made, ..(*domain).clone() })
}

/// A snapshot without words of others.
fn public_snapshot(snapshot: &Snapshot) -> Snapshot {
    let seen = |domain: &Arc<DomainPublic>| seen(Arc::clone(domain), Visibility::Public);
    let domains: BTreeMap<_, _> = snapshot.domains.iter().map(|(id, domain)| (*id, seen(domain))).collect();
    Snapshot { domains, ..snapshot.clone() }
}

/// What is known of the host, as far as somebody may be told: the kernel shows its UUID to root alone.
pub fn public_host(facts: Arc<HostFacts>, visibility: Visibility) -> Arc<HostFacts> {
    match visibility {
        Visibility::Full => facts,
        Visibility::Public => Arc::new(HostFacts { uuid: None, ..(*facts).clone() }),
    }
}

/// The replies to polls for those who may not be told everything, made anew when somebody asks and the snapshot has
/// changed.
pub struct PublicReplies {
    board: Board,
    last: Mutex<Option<(Arc<Snapshot>, Arc<Bodies>)>>,
}

impl PublicReplies {
    /// For managers of this generation.
    pub fn new(generation: Generation) -> Self {
        Self { board: Board::new(generation), last: Mutex::default() }
    }

    /// As much of this snapshot as everybody may be told, with the replies that it gives.
    pub fn published(&self, snapshot: &Arc<Snapshot>) -> Published {
        let bodies = self.bodies(snapshot);
        Published { snapshot: Arc::clone(bodies.snapshot()), bodies }
    }

    fn bodies(&self, snapshot: &Arc<Snapshot>) -> Arc<Bodies> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, bodies)) = &*last
            && Arc::ptr_eq(of, snapshot)
        {
            return Arc::clone(bodies);
        }
        let bodies = self.board.update(&Arc::new(public_snapshot(snapshot)), &Arc::new(Samples::default()));
        *last = Some((Arc::clone(snapshot), Arc::clone(&bodies)));
        bodies
    }
}

#[cfg(test)]
mod tests {
    use whydown_core::sample::{Disk, Graphics, Nic, Part};

    use super::*;

    #[test]
    fn the_machine_is_told_to_everybody_and_its_devices_are_not() {
        let made = Devices {
            kvm: true,
            machine: "pc".into(),
            memory_kib: 2048,
            vcpus: 2,
            memory_min_kib: 1024,
            graphics: vec![Graphics::default()],
            nics: vec![Nic::default()],
            disks: vec![Disk::default()],
            parts: vec![Part::default()],
            agent: true,
            ..Devices::default()
        };
        let told =
            Devices { kvm: true, machine: "pc".into(), memory_kib: 2048, vcpus: 2, ..Devices::default() };
        assert_eq!(public_devices(&made), told);
    }
}
