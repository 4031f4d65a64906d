//! The daemon as a manager beyond the host meets it: with certificates, by Python's own client.

mod activation;
mod manager;
mod proxy;
