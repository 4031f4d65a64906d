//! Bodies of requests: from the first byte to the verb, and to libvirt's document where that is what comes out.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;

use dxr::MethodCall;
use whydown_core::time::Wall;
use whydown_wire::{Call, CallLimits, METHODS, OnHost, Refused, Verb};

use crate::document::check;
use crate::document_file::BadDocument;
use crate::inflate::inflate;
use crate::memory::bounded;
use crate::written::refusal;

/// Small, so that short inputs reach them all.
const LIMITS: CallLimits = CallLimits { bytes: 128 << 10, depth: 64, elements: 8192 };

/// For what we wrote ourselves from something within the limits: every value gets its type, so it is longer and deeper.
const OUR_OWN: CallLimits = CallLimits { bytes: 64 << 20, depth: 120, elements: 1 << 20 };

/// Bytes of memory for a byte of call: `<value/>`, of eight bytes, becomes a value of two hundred while it is read.
const TIMES: usize = 64;

/// The target. What begins as gzip does is unpacked first, as at the edge.
///
/// # Panics
/// When a property does not hold.
pub fn call(bytes: &[u8]) {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return plain(bytes);
    }
    // However small it is packed, it takes no more than the limit.
    let unpacked = bounded(LIMITS.bytes, 4, || inflate(bytes, LIMITS.bytes, &AtomicBool::new(false)));
    if let Ok(unpacked) = unpacked {
        assert!(unpacked.len() <= LIMITS.bytes);
        plain(&unpacked);
    }
}

fn plain(body: &[u8]) {
    let input = body.len().min(LIMITS.bytes);
    let call = match bounded(input, TIMES, || Call::read(body, &LIMITS)) {
        Ok(call) => call,
        Err(bad) => {
            let said = refusal(&bad.reply());
            assert_eq!((said.status, said.message), (None, bad.to_string()));
            return;
        }
    };
    survives_our_own_writer(&call);
    match bounded(input, TIMES, || Verb::parse(&call)) {
        Ok(verb) => documents(verb),
        Err(refused) => names_what_is_wrong(&call, &refused),
    }
}

/// What a manager of ours would send to say the same is read as the same.
fn survives_our_own_writer(call: &Call) {
    let again = MethodCall { name: Cow::Borrowed(&call.method), params: call.params.clone() };
    let Ok(written) = again.to_xml() else { return };
    let read = Call::read(written.as_bytes(), &OUR_OWN).unwrap_or_else(|bad| panic!("{bad}: {written}"));
    // As text, for a NaN is not equal to itself.
    assert_eq!(format!("{read:?}"), format!("{call:?}"), "{written}");
}

fn names_what_is_wrong(call: &Call, refused: &Refused) {
    let said = refusal(&refused.reply());
    assert_eq!(said.status, refused.code().map(|code| code.number()));
    // It is logged too, as one line.
    assert!(!refused.to_string().contains(char::is_control), "{refused:?}");
    let param = match refused {
        Refused::Missing { param } | Refused::Wrong { param, .. } => param,
        Refused::Lacks { param } | Refused::Bad { param, .. } | Refused::Unsupported { param, .. } => {
            param.as_str()
        }
        _ => return,
    };
    assert!(!param.is_empty() && said.message.contains(param), "{param:?}: {}", said.message);
    let served = METHODS.iter().any(|method| method.name == call.method);
    assert!(served, "{} is not served, and yet its {param} is wrong", call.method);
}

/// What libvirt would get is a document about the VM that the manager named.
fn documents(verb: Verb) {
    match verb {
        Verb::CreateClassic(plan) => {
            for kvm in [false, true] {
                let address_on = |network: &str| network.parse().ok();
                let now = Wall::from_millis(1_456_747_200_000);
                let on_host = OnHost { kvm, processors: "0-3", now, address_on: &address_on };
                let xml = match plan.document(&on_host) {
                    Ok(made) => made.xml,
                    Err(refused) => {
                        let said = refused.to_string();
                        let known = ["displayNetwork", "cpuPinning.", "timeOffset"];
                        return assert!(known.iter().any(|known| said.contains(known)), "{said}");
                    }
                };
                match check(&xml, Some(plan.domain)) {
                    Ok(document) => assert_eq!(document.xml, xml, "its UUID stands in it already"),
                    Err(BadDocument::LongName) => {}
                    Err(bad) => panic!("{bad}: {xml}"),
                }
            }
        }
        Verb::Create { vm, xml } => drop(check(&xml, vm)),
        _ => {}
    }
}
