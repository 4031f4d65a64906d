//! whydown on a whole host: Debian's systemd as its first process, libvirtd, libvirt-guests and systemd-machined as its
//! services, whydown installed by its manual, real guests; and the host goes down in every way that hosts do.
//! Then, on the machine itself, what a host tells of signals and of memory ([`signals`]).

mod before;
mod down;
mod service;
mod sessions;
mod signals;
mod sources;
mod starts;
mod world;
