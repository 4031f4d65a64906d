//! What is asked of whydown over HTTP, a file each.

pub(crate) mod history;
pub mod watch;
pub mod xmlrpc;
