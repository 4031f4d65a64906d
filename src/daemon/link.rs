//! What libvirt says becomes what the engine is told.

use tracing::{debug, info, warn};
use whydown_core::hypervisor::Happening;
use whydown_core::lifecycle::Input;
use whydown_libvirt::Hypervisor;

use super::absence::Absence;
use super::mailbox::Mailbox;
use super::{clock, sample};
use crate::config::Settings;

/// Follows libvirt from now on.
pub fn listen(settings: &Settings, mailbox: &Mailbox, news: sample::News, past: Absence) -> Hypervisor {
    let told = mailbox.clone();
    let libvirt = &settings.libvirt;
    let wanted = whydown_libvirt::Settings {
        keepalive_interval_s: i32::try_from(libvirt.keepalive_interval.as_secs()).unwrap_or(i32::MAX),
        keepalive_count: libvirt.keepalive_count,
        reconnect_min: libvirt.reconnect_min,
        reconnect_max: libvirt.reconnect_max,
        run_dir: libvirt.run_dir.clone(),
        log_dir: libvirt.log_dir.clone(),
        ..whydown_libvirt::Settings::new(libvirt.uri.as_str(), clock::wall)
    };
    Hypervisor::start(wanted, move |word| match word {
        whydown_libvirt::Told::Event(event) => {
            match event.what {
                Happening::Started(_)
                | Happening::Defined
                | Happening::Rebooted
                | Happening::Agent { .. } => news.of(event.domain.id),
                Happening::Stopped(_) => news.over(event.domain.id),
                _ => {}
            }
            told.post_blocking(Input::Host(event));
        }
        whydown_libvirt::Told::Devices(id) => news.of(id),
        whydown_libvirt::Told::LinkLost { at, why } => {
            warn!("the link to libvirt is lost: {why}");
            past.began(at);
            told.post_blocking(Input::LinkLost { at });
        }
        whydown_libvirt::Told::LinkUp(mut listing) => {
            info!("libvirt is there: {} domains", listing.domains.len());
            // Of what was plugged in and out meanwhile nobody told.
            listing.domains.iter().for_each(|view| news.of(view.domain.id));
            let (logs, server) = past.ends();
            listing.server = server;
            told.post_blocking(Input::Past(logs));
            told.post_blocking(Input::LinkUp(listing));
        }
        whydown_libvirt::Told::StillDown { why, attempts } => {
            // One that is away for days would fill the log: each doubling is told.
            if attempts.is_power_of_two() {
                warn!("libvirt cannot be reached (attempt {attempts}): {why}");
            } else {
                debug!("libvirt cannot be reached (attempt {attempts}): {why}");
            }
        }
    })
}
