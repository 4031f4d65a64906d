//! The main job on a real libvirtd: real guests, each ended in its own way, each told rightly, also after restarts.

mod arrivals;
mod asked;
mod daemon;
mod failed;
mod hypervisor;
mod itself;
mod known;
mod live;
mod manager;
mod probes;
mod returns;
mod states;
mod torn;
mod trouble;
mod unheard;
mod unheard_runs;
