//! Every key with its rule. The default file, the settings and this list have the same keys; a test holds them to it.

use super::rule::{Form, Rule};

/// A key and what it may be set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Its section.
    pub(super) section: &'static str,
    /// Its name in the section.
    pub(super) name: &'static str,
    /// What it may be set to.
    pub(super) rule: Rule,
}

const fn key(section: &'static str, name: &'static str, rule: Rule) -> Key {
    Key { section, name, rule }
}

const fn number(min: i64, max: i64, unit: &'static str) -> Rule {
    Rule::Number { min, max, unit }
}

/// All keys, in the order of the default file.
pub(super) const KEYS: &[Key] = &[
    key("libvirt", "uri", Rule::Text(Form::Uri)),
    key("libvirt", "keepalive_interval_s", number(1, 3_600, "seconds")),
    key("libvirt", "keepalive_count", number(1, 100, "probes")),
    key("libvirt", "reconnect_min_ms", number(10, 60_000, "milliseconds")),
    key("libvirt", "reconnect_max_ms", number(10, 600_000, "milliseconds")),
    key("libvirt", "log_dir", Rule::Text(Form::PathOrEmpty)),
    key("libvirt", "run_dir", Rule::Text(Form::PathOrEmpty)),
    key("libvirt", "daemon_log", Rule::Text(Form::PathOrEmpty)),
    key("state", "dir", Rule::Text(Form::Path)),
    key("ledger", "endings_max_age_days", number(1, 36_500, "days")),
    key("ledger", "endings_max_count", number(1, 10_000_000, "endings")),
    key("ledger", "evidence_max_age_days", number(1, 36_500, "days")),
    key("ledger", "evidence_max_count", number(1, 100_000_000, "pieces of evidence")),
    key("ledger", "memory_max_ops", number(100, 1_000_000, "changes")),
    key("unacknowledged", "max_age_days", number(1, 36_500, "days")),
    key("unacknowledged", "max_count", number(1, 100_000, "endings")),
    key("deciding", "settle_ms", number(0, 10_000, "milliseconds")),
    key("deciding", "settle_snapshot_ms", number(0, 30_000, "milliseconds")),
    key("deciding", "heartbeat_s", number(1, 3_600, "seconds")),
    key("witness", "tracefs", Rule::Text(Form::PathOrEmpty)),
    key("witness", "audit", Rule::Flag),
    key("sampling", "enabled", Rule::Flag),
    key("sampling", "interval_s", number(1, 300, "seconds")),
    key("sampling", "unresponsive_after_s", number(2, 3_600, "seconds")),
    key("sampling", "guest_interval_s", number(0, 3_600, "seconds")),
    key("xmlrpc", "listen", Rule::List(Form::Listen, 16)),
    key("xmlrpc", "insecure_listen_anywhere", Rule::Flag),
    key("xmlrpc", "plain_may_act", Rule::Flag),
    key("xmlrpc", "exit_reasons", Rule::Word(&["classic", "4.1", "full"])),
    key("xmlrpc", "full_for", Rule::List(Form::Client, 256)),
    key("xmlrpc", "profile", Rule::Word(&["common", "3.4", "3.5", "3.6", "4.0"])),
    key("xmlrpc", "max_connections", number(1, 10_000, "connections")),
    key("xmlrpc", "max_request_bytes", number(4_096, 16_777_216, "bytes")),
    key("xmlrpc", "header_timeout_s", number(1, 3_600, "seconds")),
    key("xmlrpc", "body_timeout_s", number(1, 3_600, "seconds")),
    key("xmlrpc", "idle_timeout_s", number(1, 86_400, "seconds")),
    key("xmlrpc", "write_timeout_s", number(1, 3_600, "seconds")),
    key("tls", "listen", Rule::List(Form::Listen, 16)),
    key("tls", "certificate", Rule::Text(Form::Path)),
    key("tls", "key", Rule::Text(Form::Path)),
    key("tls", "ca", Rule::Text(Form::Path)),
    key("tls", "readers", Rule::List(Form::Holder, 256)),
    key("tls", "actors", Rule::List(Form::Holder, 256)),
    key("socket", "path", Rule::Text(Form::SocketPath)),
    key("socket", "mode", Rule::Text(Form::Mode)),
    key("socket", "users", Rule::List(Form::User, 64)),
    key("create", "emulators", Rule::List(Form::Place, 64)),
    key("create", "folders", Rule::List(Form::Place, 256)),
    key("create", "read_only", Rule::List(Form::Place, 256)),
    key("create", "firmware", Rule::List(Form::Place, 256)),
    key("create", "allow", Rule::List(Form::Power, 16)),
    key("log", "filter", Rule::Text(Form::Filter)),
    key("log", "target", Rule::Word(&["auto", "journald", "stderr"])),
];

impl Key {
    /// Section and name with a dot between.
    pub(super) fn full(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The environment variable that sets it.
    pub(super) fn variable(&self) -> String {
        format!("{PREFIX}{}__{}", self.section, self.name).to_ascii_uppercase()
    }

    /// The key of this section and name.
    pub(super) fn find(section: &str, name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.section == section && key.name == name)
    }

    /// Whether there is such a section.
    pub(super) fn has_section(section: &str) -> bool {
        KEYS.iter().any(|key| key.section == section)
    }
}

/// What the names of our environment variables begin with.
pub(super) const PREFIX: &str = "WHYDOWN_";

/// Longer names are not compared: nobody types them by mistake, and comparing takes the product of both lengths.
const COMPARED_BYTES: usize = 64;

/// The name that was probably meant, if one is near.
pub(super) fn near(wrong: &str, right: impl Iterator<Item = String>) -> Option<String> {
    if wrong.len() > COMPARED_BYTES {
        return None;
    }
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    right
        .map(|name| (strsim::damerau_levenshtein(&wrong, &name.to_ascii_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len().max(wrong.len()) / 3).clamp(1, 4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
