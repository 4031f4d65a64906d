//! What the caller chooses, and what the caller is told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use whydown_core::hypervisor::{HostEvent, Listing};
use whydown_core::id::DomainId;
use whydown_core::time::Wall;

/// How to reach libvirt and where its files are.
#[derive(Debug, Clone)]
pub struct Settings {
    /// libvirt's address, such as `qemu:///system`.
    pub uri: String,
    /// Seconds between keepalive messages, on connections that have another side; 0 for none.
    pub keepalive_interval_s: i32,
    /// Unanswered keepalive messages after which the link counts as lost.
    pub keepalive_count: u32,
    /// The first wait before connecting again. Waits double up to `reconnect_max`, and vary by up to a half.
    pub reconnect_min: Duration,
    /// The longest wait before connecting again.
    pub reconnect_max: Duration,
    /// Where libvirt keeps `NAME.pid`. `None` derives it from the address where that tells (embedded root, local
    /// system); a session's directory depends on its user's environment and must be given.
    pub run_dir: Option<PathBuf>,
    /// Where libvirt keeps `NAME.log`. `None` derives it as for `run_dir`.
    pub log_dir: Option<PathBuf>,
    /// The wall clock.
    pub clock: fn() -> Wall,
}

impl Settings {
    /// The usual values: keepalive every 5 s, lost after 3 without answer; reconnect after 0.2 s to 10 s.
    pub fn new(uri: impl Into<String>, clock: fn() -> Wall) -> Self {
        Self {
            uri: uri.into(),
            keepalive_interval_s: 5,
            keepalive_count: 3,
            reconnect_min: Duration::from_millis(200),
            reconnect_max: Duration::from_secs(10),
            run_dir: None,
            log_dir: None,
            clock,
        }
    }

    /// How long a dead peer may go unnoticed.
    pub(crate) fn keepalive_blindness(&self) -> Duration {
        let interval = Duration::from_secs(u64::try_from(self.keepalive_interval_s).unwrap_or(0));
        interval.saturating_mul(self.keepalive_count.saturating_add(1))
    }

    /// The directory of the pid files, given or derived.
    pub(crate) fn run_files(&self) -> Option<PathBuf> {
        self.run_dir.clone().or_else(|| derived(&self.uri, "run/qemu", "/run/libvirt/qemu"))
    }

    /// The directory of the logs, given or derived.
    pub(crate) fn log_files(&self) -> Option<PathBuf> {
        self.log_dir.clone().or_else(|| derived(&self.uri, "log/qemu", "/var/log/libvirt/qemu"))
    }

    /// Where a driver inside this process has the folders of its probes; `None` where the driver is elsewhere.
    pub(crate) fn probes(&self) -> Option<PathBuf> {
        self.uri.contains(":///embed").then(|| derived(&self.uri, "lib/qemu", "")).flatten()
    }
}

/// What `told` of [`Hypervisor::start`](crate::Hypervisor::start) is called with.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// Something happened to a domain.
    Event(HostEvent),
    /// A domain is made of something else now: a device was plugged in or out, or a tray was opened or closed. Nothing is
    /// told of what came before [`Told::LinkUp`]: whoever wants to know reads all documents then.
    Devices(DomainId),
    /// Nothing is heard any more. No event of the lost link comes after this.
    LinkLost {
        /// Up to here everything was heard for certain.
        at: Wall,
        /// Why, for a person.
        why: String,
    },
    /// The link is there (again). Events heard while the listing was taken follow it, so that their details are not
    /// lost; where they or later ones could be taken for news against the listing, the domain is in `changing`.
    ///
    /// An event may follow, without being in `changing`, whose effect the listing shows already: libvirt changes a
    /// domain's state shortly before it reports that.
    LinkUp(Listing),
    /// Still not connected.
    StillDown {
        /// Why, for a person.
        why: String,
        /// Attempts since the link was last up.
        attempts: u32,
    },
}

/// A directory that follows from the address, if the host is this one.
fn derived(uri: &str, below_root: &str, system: &str) -> Option<PathBuf> {
    let (scheme, rest) = uri.split_once("://")?;
    // Another host's files are not here: only `qemu:///` and `qemu+unix:///` are local.
    if !matches!(scheme, "qemu" | "qemu+unix") {
        return None;
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    match path {
        "/system" => Some(PathBuf::from(system)),
        "/embed" => {
            let root = query.split('&').find_map(|part| part.strip_prefix("root="))?;
            Some(Path::new(&percent_decoded(root)?).join(below_root))
        }
        _ => None,
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push((digit()? * 16 + digit()?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libvirts_directories_follow_from_the_address_only_where_it_tells() {
        let run = |uri: &str| Settings::new(uri, || Wall(0)).run_files();
        let cases = [
            ("qemu:///embed?root=/tmp/a", Some("/tmp/a/run/qemu")),
            ("qemu:///embed?x=1&root=/tmp/a%20b", Some("/tmp/a b/run/qemu")),
            ("qemu:///embed?root=/tmp/%zz", None),
            ("qemu:///embed", None),
            ("qemu:///system", Some("/run/libvirt/qemu")),
            ("qemu+unix:///system?socket=/x", Some("/run/libvirt/qemu")),
            ("qemu:///session", None),
            ("qemu+ssh://host/system", None),
            ("qemu://host/system", None),
            ("test:///default", None),
            ("", None),
        ];
        for (uri, expected) in cases {
            assert_eq!(run(uri), expected.map(PathBuf::from), "{uri}");
        }
        let settings =
            Settings { run_dir: Some("/r".into()), ..Settings::new("qemu:///session", || Wall(0)) };
        assert_eq!(settings.run_files(), Some("/r".into()));
        assert_eq!(settings.log_files(), None);
        let embed = Settings::new("qemu:///embed?root=/tmp/a", || Wall(0));
        assert_eq!(embed.probes(), Some("/tmp/a/lib/qemu".into()));
        for elsewhere in ["qemu:///system", "qemu:///session", "test:///default"] {
            assert_eq!(Settings::new(elsewhere, || Wall(0)).probes(), None, "{elsewhere}");
        }
        assert_eq!(embed.log_files(), Some("/tmp/a/log/qemu".into()));
    }

    #[test]
    fn a_dead_peer_is_noticed_after_the_interval_and_all_unanswered_messages() {
        let mut settings = Settings::new("qemu:///system", || Wall(0));
        assert_eq!(settings.keepalive_blindness(), Duration::from_secs(20));
        settings.keepalive_interval_s = -1;
        assert_eq!(settings.keepalive_blindness(), Duration::ZERO);
    }
}
