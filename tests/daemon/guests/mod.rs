//! Real Linux guests with a guest agent: what they tell of themselves, how they are asked to shut down, and what is made
//! of one that lies.

mod liar;
mod shutdown;
mod told;

use std::time::Duration;

use serde_json::Value;
use whydown_lab::host::Host;
use whydown_lab::{Console, Guest, LinuxGuest, Result, wait_until, xmlrpc_client};

/// A Linux boots in some five seconds, and in a minute where ten others do.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Everything as often as it may be asked, and every silence of an agent in the log.
const QUICK: &str = "[sampling]\ninterval_s = 1\nguest_interval_s = 2\n\
                     [log]\nfilter = 'info,whydown::daemon::sample=debug'\n";

fn start(name: &str) -> Result<Host> {
    Host::start_with(name, QUICK)
}

/// Waits until a guest that was started is ready and whydown shows it Up.
fn up(host: &Host, guest: &LinuxGuest) -> Result<Console> {
    let console = guest.console(PATIENCE)?;
    host.wait_status(guest, "up");
    Ok(console)
}

/// What the daemon answers to a call, as JSON.
fn ask(host: &Host, call: &str) -> Result<Value> {
    let printed =
        xmlrpc_client(host.daemon.port()?, &format!("import json\nprint(json.dumps(server.{call}))"))?;
    Ok(serde_json::from_str(&printed).expect("JSON"))
}

/// What a manager reads of it.
fn stats(host: &Host, guest: &Guest) -> Value {
    let answer = ask(host, &format!("getVmStats('{}')", guest.uuid_text())).expect("an answer");
    answer["statsList"][0].clone()
}

/// Waits until what a manager reads of it is as it should be, and gives that.
fn wait_stats(host: &Host, what: &str, guest: &Guest, condition: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    wait_until(&format!("{}: {what}", guest.name()), PATIENCE, || {
        last = stats(host, guest);
        condition(&last)
    });
    last
}
