//! Rules between keys, judged on the merged settings. A pair with a mistake of its own is left out.

use std::collections::BTreeSet;

use super::finding::{Finding, Wrong};
use super::settings::Settings;
use super::uri::Home;

/// Judges what single keys cannot show. `place` tells where the value in force of a key comes from.
pub(super) fn check(
    settings: &Settings,
    bad_keys: &BTreeSet<String>,
    place: impl Fn(&str) -> String,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let good = |keys: &[&str]| !keys.iter().any(|key| bad_keys.contains(*key));

    if good(&["xmlrpc.listen", "xmlrpc.insecure_listen_anywhere"])
        && !settings.xmlrpc.insecure_listen_anywhere
    {
        for address in &settings.xmlrpc.listen {
            if !address.ip().to_canonical().is_loopback() {
                let can = match settings.xmlrpc.plain_may_act {
                    true => "read everything and end VMs, as xmlrpc.plain_may_act is true",
                    false => "read what is no secret",
                };
                let why = format!(
                    "{address} is beyond loopback, where everybody who reaches it can {can}; \
                     if that is meant, set xmlrpc.insecure_listen_anywhere = true"
                );
                findings.push(Finding::of_key(
                    &place("xmlrpc.listen"),
                    "xmlrpc.listen",
                    Wrong::Together(why),
                ));
            }
        }
    }

    if good(&["xmlrpc.listen", "tls.listen"]) {
        findings.extend(same_ports(settings, &place));
    }

    let (libvirt, deciding) = (&settings.libvirt, &settings.deciding);
    let ordered = [
        (
            libvirt.reconnect_min <= libvirt.reconnect_max,
            "libvirt.reconnect_min_ms",
            "libvirt.reconnect_max_ms",
            "the first pause is longer than the longest",
        ),
        (
            deciding.settle <= deciding.settle_snapshot,
            "deciding.settle_ms",
            "deciding.settle_snapshot_ms",
            "an ending by a snapshot waits at least as long as any",
        ),
    ];
    for (holds, lower, upper, why) in ordered {
        if holds || !good(&[lower, upper]) {
            continue;
        }
        // The blame goes to the key that somebody set.
        let (at, key) = match (place(lower), place(upper)) {
            (low, high) if low == "default" && high != "default" => (high, upper),
            (low, _) => (low, lower),
        };
        let wrong = Wrong::Together(format!("{lower} is above {upper}: {why}"));
        findings.push(Finding::of_key(&at, key, wrong));
    }
    findings
}

/// A port speaks TLS or it does not. Two sockets on one port would also be refused by the system, but with fewer words.
fn same_ports(settings: &Settings, place: impl Fn(&str) -> String) -> Vec<Finding> {
    let mut findings = Vec::new();
    for secured in &settings.tls.listen {
        let ip = secured.ip();
        let clash = settings.xmlrpc.listen.iter().find(|plain| {
            let everywhere = ip.is_unspecified() || plain.ip().is_unspecified();
            plain.port() != 0 && plain.port() == secured.port() && (ip == plain.ip() || everywhere)
        });
        if let Some(plain) = clash {
            let why = format!(
                "{secured} has the port of {plain} in xmlrpc.listen, which is without TLS; give one of them another \
                 port, or set xmlrpc.listen = []"
            );
            findings.push(Finding::of_key(&place("tls.listen"), "tls.listen", Wrong::Together(why)));
        }
    }
    findings
}

/// Fills in the directories and sockets that follow from the URI.
pub(super) fn derive(settings: &mut Settings, home: &Home, place: impl Fn(&str) -> String) -> Vec<Finding> {
    let libvirt = &mut settings.libvirt;
    libvirt.uri.find_sockets(home);
    let derived = [
        ("libvirt.log_dir", &mut libvirt.log_dir, libvirt.uri.log_dir(home)),
        ("libvirt.run_dir", &mut libvirt.run_dir, libvirt.uri.run_dir(home)),
    ];
    let mut findings = Vec::new();
    for (key, dir, from_uri) in derived {
        match from_uri {
            _ if dir.is_some() => {}
            Ok(found) => *dir = found,
            Err(missing) => {
                let why =
                    format!("{missing} should be set to derive it for {}, or the key itself", libvirt.uri);
                findings.push(Finding::of_key(&place("libvirt.uri"), key, Wrong::Together(why)));
            }
        }
    }
    findings
}
