//! What libvirt says that its emulator can do on this host, read from its documents: machine types, processor models, and
//! whether KVM is used.
//!
//! What a document does not say is absent, never guessed.

use std::collections::BTreeSet;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// Bytes of one name at most; libvirt's own are far shorter.
const NAME: usize = 128;

/// What the capabilities document says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Abilities {
    /// Machine types, sorted.
    pub machines: Vec<String>,
    /// Who made the host's processor, in libvirt's word: `Intel`, `AMD`.
    pub vendor: Option<String>,
    /// Whether libvirt runs VMs with KVM here; `None` where its driver is not for QEMU.
    pub kvm: Option<bool>,
}

impl Abilities {
    /// From the document of `virConnectGetCapabilities`.
    pub fn read(capabilities: &str) -> Self {
        let (mut machines, mut domains) = (BTreeSet::new(), BTreeSet::new());
        let mut vendor = None;
        walk(capabilities, |path, start, text| match path {
            [.., "machine"] => machines.extend(text.map(str::to_owned)),
            ["capabilities", "host", "cpu", "vendor"] => vendor = text.map(str::to_owned),
            ["capabilities", "guest", "arch", "domain"] => domains.extend(attribute(start, "type")),
            _ => {}
        });
        let kvm = domains.contains("qemu").then(|| domains.contains("kvm"));
        Self { machines: machines.into_iter().collect(), vendor, kvm }
    }
}

/// The processor models that can be had here, as the document of `virConnectGetDomainCapabilities` says, sorted.
///
/// Of those whose maker is told only the host's own count: VDSM compared makers as well, and dropped models without one.
/// Older libvirts (before 8.9) tell no maker; all that can be had count then.
pub fn models(domain_capabilities: &str, host_vendor: Option<&str>) -> Vec<String> {
    let mut models = BTreeSet::new();
    walk(domain_capabilities, |path, start, text| {
        let ["domainCapabilities", "cpu", "mode", "model"] = path else { return };
        let usable = attribute(start, "usable").is_some_and(|word| word == "yes");
        let fits = attribute(start, "vendor")
            .is_none_or(|vendor| vendor != "unknown" && host_vendor.is_none_or(|host| host == vendor));
        if let Some(name) = text.filter(|name| usable && fits && is_one_word(name)) {
            models.insert(name.to_owned());
        }
    });
    models.into_iter().collect()
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    let value =
        start.try_get_attribute(name).ok()??.normalized_value(XmlVersion::Explicit1_0).ok()?.into_owned();
    Some(value).filter(|value| value.len() <= NAME)
}

/// Managers get models in one text, with commas between them.
fn is_one_word(name: &str) -> bool {
    !name.contains(|letter: char| letter == ',' || letter.is_whitespace() || letter.is_control())
}

/// Hands out each element with its path and, at its end, the text right before that. A document that breaks off gives
/// what came before.
fn walk(document: &str, mut seen: impl FnMut(&[&str], &BytesStart<'_>, Option<&str>)) {
    let mut reader = Reader::from_str(document);
    let mut open: Vec<(String, BytesStart<'_>)> = Vec::new();
    let mut last: Option<String> = None;
    let mut tell = |open: &[(String, BytesStart<'_>)], text: Option<&str>| {
        let path: Vec<&str> = open.iter().map(|(name, _)| name.as_str()).collect();
        if let Some((_, start)) = open.last() {
            seen(&path, start, text);
        }
    };
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => {
                open.push((start.name().as_ref().to_owned(), start));
                last = None;
            }
            Ok(Event::Empty(start)) => {
                open.push((start.name().as_ref().to_owned(), start));
                tell(&open, None);
                open.pop();
            }
            Ok(Event::Text(text)) => {
                let text = text.xml10_content().trim().to_owned();
                last = Some(text).filter(|text| !text.is_empty() && text.len() <= NAME);
            }
            Ok(Event::End(_)) => {
                tell(&open, last.take().as_deref());
                open.pop();
            }
            Ok(Event::Eof) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "<capabilities><host><uuid>x</uuid><cpu><arch>x86_64</arch><model>EPYC</model><vendor>AMD</vendor>\
        <feature name='svm'/></cpu></host><guest><os_type>hvm</os_type><arch name='x86_64'><wordsize>64</wordsize>\
        <machine maxCpus='255' canonical='pc-i440fx-7.2'>pc</machine><machine maxCpus='255'> pc-i440fx-2.1 </machine>\
        <domain type='qemu'/><domain type='kvm'><machine maxCpus='288'>pc-q35-7.2</machine></domain></arch></guest>\
        </capabilities>";

    #[test]
    fn machine_types_the_maker_and_kvm_are_read() {
        let read = Abilities::read(HOST);
        assert_eq!(read.machines, ["pc", "pc-i440fx-2.1", "pc-q35-7.2"]);
        assert_eq!((read.vendor.as_deref(), read.kvm), (Some("AMD"), Some(true)));
        let without = HOST.replace("<domain type='kvm'>", "<domain type='other'>");
        assert_eq!(Abilities::read(&without).kvm, Some(false));
        // What is no driver for QEMU says nothing of KVM, and what breaks off gives what came before.
        assert_eq!(Abilities::read(&HOST.replace("qemu", "test")).kvm, None);
        assert_eq!(Abilities::read(&HOST[..HOST.find(" pc-i440fx-2.1").unwrap()]).machines, ["pc"]);
        assert_eq!(Abilities::read("no XML"), Abilities::default());
    }

    /// As libvirt 9.0 tells them, with and without makers; before 8.9 there were none.
    fn document(makers: bool) -> String {
        let models = [
            ("no", "AMD", "Opteron_G5"),
            ("yes", "AMD", "Opteron_G3"),
            ("yes", "AMD", "Opteron_G2"),
            ("yes", "Intel", "Nehalem"),
            ("yes", "unknown", "kvm64"),
            ("unknown", "AMD", "EPYC"),
            ("yes", "AMD", "two,words"),
        ];
        let model = |(usable, vendor, name): (&str, &str, &str)| {
            let vendor = if makers { format!(" vendor='{vendor}'") } else { String::new() };
            format!("<model usable='{usable}'{vendor}>{name}</model>")
        };
        let models: String = models.into_iter().map(model).collect();
        format!(
            "<domainCapabilities><cpu><mode name='host-model' supported='yes'><model fallback='forbid'>EPYC-Rome</model>\
             <vendor>AMD</vendor></mode><mode name='custom' supported='yes'>{models}</mode></cpu></domainCapabilities>"
        )
    }

    #[test]
    fn models_are_those_that_libvirt_calls_usable_and_that_are_of_the_hosts_maker() {
        assert_eq!(models(&document(true), Some("AMD")), ["Opteron_G2", "Opteron_G3"]);
        assert_eq!(models(&document(true), Some("Intel")), ["Nehalem"]);
        assert_eq!(models(&document(true), None), ["Nehalem", "Opteron_G2", "Opteron_G3"]);
        assert_eq!(models(&document(false), Some("AMD")), ["Nehalem", "Opteron_G2", "Opteron_G3", "kvm64"]);
        assert_eq!(models("", Some("AMD")), Vec::<String>::new());
    }
}
