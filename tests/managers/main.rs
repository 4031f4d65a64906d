//! Managers of every age against this host: engines that read as strictly as they did, and our own manager's side
//! against hosts of every age.

mod table;
mod xmlrpc;

mod reader;

mod every;
mod refused;

mod accepts;
mod call;
mod host_facts;
mod live;

#[allow(dead_code, reason = "the tests of verbs need the rest")]
mod requests;
mod taken;

mod old_host;
mod ours;

mod matrix;

#[path = "../tidy/generated.rs"]
#[allow(dead_code, reason = "the other tests need the rest")]
mod generated;

#[path = "../../src/wire/tests/contract/samples.rs"]
#[allow(dead_code, reason = "the wire's own tests need the rest")]
mod samples;
