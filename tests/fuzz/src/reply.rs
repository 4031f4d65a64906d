//! Bodies of replies, as a manager reads them from a host that may be broken or an impostor.

use std::collections::BTreeMap;

use dxr::{MethodResponse, Value};

use crate::memory::bounded;
use crate::read::{BadReply, Reading, read_all_vm_stats};

/// Bytes of memory for a byte of reply.
const TIMES: usize = 64;

/// Bytes of an error's text. It is printed and logged, so a host cannot swell it.
const TROUBLE_BYTES: usize = 4 << 10;

/// The target.
///
/// # Panics
/// When a property does not hold.
pub fn reply(bytes: &[u8]) {
    let Ok(body) = std::str::from_utf8(bytes) else { return };
    match bounded(body.len(), TIMES, || read_all_vm_stats(body)) {
        Ok(reading) => {
            short(reading.broken.iter().map(ToString::to_string));
            every_vm_is_told(body, &reading);
        }
        Err(bad) => short([bad.to_string()]),
    }
}

fn short(troubles: impl IntoIterator<Item = String>) {
    for trouble in troubles {
        assert!(trouble.len() <= TROUBLE_BYTES, "{} bytes of trouble", trouble.len());
        assert!(!trouble.contains(char::is_control), "{trouble:?}");
    }
}

/// None is lost: not from a good reply, nor when others in it are broken.
fn every_vm_is_told(body: &str, reading: &Reading) {
    let value = MethodResponse::from_xml(body).expect("it was read before").value;
    let Value::Struct(mut members) = value else { panic!("no struct was read as a reply") };
    let Some(Value::Array(list)) = members.remove("statsList") else { panic!("no list was read as a reply") };
    assert_eq!(reading.vms.len() + reading.broken.len(), list.len());
    for vm in &reading.vms {
        assert_eq!(vm.exit.is_some(), vm.status == "Down", "{vm:?}");
    }
    let one_by_one = list.iter().map(|entry| read_list(vec![entry.clone()]));
    let Ok(one_by_one) = one_by_one.collect::<Result<Vec<_>, _>>() else { return };
    let alone = one_by_one.iter().flat_map(|reading| &reading.vms);
    assert!(alone.eq(&reading.vms), "the entries alone say something else");
    let broken = || Value::Struct(BTreeMap::from([("status".to_owned(), Value::Boolean(true))]));
    let among = [vec![broken(), Value::Integer(3)], list, vec![broken()]].concat();
    let read = read_list(among).expect("broken entries do not spoil the reply");
    assert_eq!(read.vms, reading.vms);
    assert_eq!(read.broken.len(), reading.broken.len() + 3);
}

/// A good reply with these entries, written and read.
fn read_list(list: Vec<Value>) -> Result<Reading, BadReply> {
    let code = BTreeMap::from([("code".to_owned(), Value::Integer(0))]);
    let reply = BTreeMap::from([
        ("status".to_owned(), Value::Struct(code)),
        ("statsList".to_owned(), Value::Array(list)),
    ]);
    let written = MethodResponse { value: Value::Struct(reply) }.to_xml();
    read_all_vm_stats(&written.map_err(|error| BadReply::NotXmlRpc(error.to_string()))?)
}
