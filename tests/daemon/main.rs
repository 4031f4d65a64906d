//! The daemon as its callers use it: its verbs, its figures, its listeners with certificates, and guests that have an agent.

mod guests;
mod sampling;
mod tls;
mod verbs;
