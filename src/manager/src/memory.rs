//! What was told of each host: kept by whoever is told, so that nothing is told twice, over restarts too.
//!
//! It grows with the VMs that hosts report and shrinks when they are gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::fleet::News;
use crate::read::Exit;

/// What was told, by host and VM. Write it down with serde, and give it to the next fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// By the host's URL, as in the fleet's targets.
    pub hosts: BTreeMap<String, BTreeMap<String, Told>>,
}

/// What was told of a VM last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Its status.
    pub status: String,
    /// Its ending, if it was told as Down.
    pub exit: Option<Exit>,
}

impl Memory {
    /// Takes note that this was told of a host.
    pub fn note(&mut self, host: &str, news: &News) {
        match news {
            News::Status { vm, status } => self.put(host, vm, status, None),
            News::Ended { vm, exit } => self.put(host, vm, "Down", Some(exit.clone())),
            News::Gone { vm } => {
                if let Some(vms) = self.hosts.get_mut(host) {
                    vms.remove(vm);
                }
            }
            News::Answers { .. } | News::Silent { .. } | News::Stale { .. } | News::Broken { .. } => {}
        }
    }

    /// Whether this ending of the VM was told.
    pub fn knows(&self, host: &str, vm: &str, exit: &Exit) -> bool {
        let told = self.hosts.get(host).and_then(|vms| vms.get(vm));
        told.and_then(|told| told.exit.as_ref()).is_some_and(|told| told.is_the_ending(exit))
    }

    fn put(&mut self, host: &str, vm: &str, status: &str, exit: Option<Exit>) {
        let vms = self.hosts.entry(host.to_owned()).or_default();
        vms.insert(vm.to_owned(), Told { status: status.to_owned(), exit });
    }
}
