//! Managers of every age against this host: engines that read as strictly as they did, and our own manager's side
//! against hosts of every age.

mod table;
mod xmlrpc;

mod reader;

mod every;
mod refused;

mod accepts;
mod host_facts;
mod live;

mod taken;

mod old_host;
mod ours;

mod matrix;

#[path = "../../../src/wire/tests/contract/samples.rs"]
#[allow(dead_code, reason = "the wire's own tests need the rest")]
mod samples;
