//! Which of the host's processors each of a VM's may use.

use std::collections::BTreeSet;

use super::document::{Element, element};
use crate::fields::Fields;
use crate::refused::Refused;

/// No host has a processor of this number; libvirt knows fewer.
const PROCESSORS: u32 = 8192;

/// What is asked of one of a VM's processors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pin {
    /// Which one: its name in `cpuPinning`.
    pub vcpu: String,
    /// The host's, as they were named.
    named: String,
    cpus: BTreeSet<u32>,
}

impl Pin {
    pub(super) fn element(&self) -> Element {
        element("vcpupin").with("vcpu", &self.vcpu).with("cpuset", &self.named)
    }

    /// Whether the host has them all. `present` is the kernel's list.
    pub(super) fn is_within(&self, present: &str) -> bool {
        numbers(present).is_none_or(|present| self.cpus.is_subset(&present))
    }
}

/// Those of `cpuPinning`, for a VM of at most so many processors. What is said of others libvirt passes over, and so did the
/// original.
pub(super) fn read(fields: &Fields<'_>, most: u64) -> Result<Vec<Pin>, Refused> {
    let pins = fields.structure("cpuPinning", |pinning| {
        let mut pins = Vec::new();
        for (vcpu, named) in pinning.texts()? {
            let number: u64 =
                vcpu.parse().map_err(|_| pinning.bad(vcpu, "named by the number of a processor"))?;
            let cpus = numbers(&named).filter(|cpus| !cpus.is_empty());
            let cpus = cpus.ok_or_else(|| pinning.bad(vcpu, "processors of the host, such as 0-3,^2"))?;
            if number < most {
                pins.push(Pin { vcpu: number.to_string(), named, cpus });
            } else {
                pinning.note(vcpu);
            }
        }
        Ok(pins)
    })?;
    Ok(pins.unwrap_or_default())
}

/// The numbers in a list as the kernel and libvirt write it: single ones and ranges, and with `^` those that are none of them
/// after all.
fn numbers(list: &str) -> Option<BTreeSet<u32>> {
    let number = |text: &str| text.trim().parse().ok().filter(|number| *number < PROCESSORS);
    let mut found = BTreeSet::new();
    for part in list.split(',') {
        if let Some(out) = part.trim().strip_prefix('^') {
            found.remove(&number(out)?);
        } else if let Some((first, last)) = part.split_once('-') {
            let (first, last) = (number(first)?, number(last)?);
            found.extend(Some(first..=last).filter(|range| !range.is_empty())?);
        } else {
            found.insert(number(part)?);
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read_as_libvirt_writes_them() {
        let of = |list: &str| numbers(list).map(|found| found.into_iter().collect::<Vec<_>>());
        assert_eq!(of("0-3,^2, 7\n"), Some(vec![0, 1, 3, 7]));
        assert_eq!(of("5"), Some(vec![5]));
        for odd in ["", "x", "3-1", "0-", "-1", "0-8192", "^x", "1,,2", "4294967296"] {
            assert_eq!(of(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_host_has_them_all_or_not() {
        let pin = |named: &str| Pin { vcpu: "0".into(), named: named.into(), cpus: numbers(named).unwrap() };
        assert!(pin("0-1").is_within("0-1\n") && pin("5").is_within("0,4-7"));
        assert!(!pin("0-2").is_within("0-1\n") && !pin("2").is_within("0-1,3"));
        assert!(pin("7").is_within(""), "what the kernel does not say nobody knows");
    }
}
