//! The verbs of running VMs on a real libvirtd: each does what it says, and what cannot be done is refused by name.

mod classic;
mod devices;
mod list;
mod migrate;
mod refused;
mod running;
mod save;

use whydown_lab::host::Host;
use whydown_lab::{Guest, Result, xmlrpc_client};

/// What Python's client prints of an expression on `server`.
fn ask(host: &Host, expression: &str) -> Result<String> {
    Ok(xmlrpc_client(host.daemon.port()?, &format!("print({expression})"))?.trim().to_owned())
}

/// The status that an old manager polls.
fn polled(host: &Host, guest: &Guest, member: &str) -> Result<String> {
    // The whole answer, where it shows no VM.
    let of = format!("(lambda said: said['statsList'][0].get('{member}') if 'statsList' in said else said)");
    ask(host, &format!("{of}(server.getVmStats('{}'))", guest.uuid_text()))
}

/// `create` with the guest's document.
fn create(host: &Host, guest: &Guest) -> Result<i64> {
    let document = guest.write_xml()?;
    host.call(&format!(
        "create({{'vmId': '{}', 'xml': open('{}').read()}})",
        guest.uuid_text(),
        document.display()
    ))
}
