//! A real whydownd under attack: over TCP, TLS and its unix socket, by clients that are broken, greedy, slow, many, or
//! no clients at all.
//!
//! Of every attack three things must hold: each attacker is answered or closed within the configured limits; the memory
//! of the daemon stays within a bound that follows from them; and honest managers, one at each listener, have their polls
//! answered all the while.

mod attacker;
mod host;

mod names;

mod bodies;
mod browser;
mod crowd;
mod framing;
mod ledger;
mod listeners;
mod questions;
mod reads;
mod sizes;
mod slow;
mod strangers;
