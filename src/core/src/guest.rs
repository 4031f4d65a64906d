//! What a guest tells of itself through its agent: plain values, beside the snapshot and never in it.
//!
//! All of it is the guest's own word, and nothing here takes part in telling why a domain ended. Whoever fills these
//! bounds and tames what the guest said. What was not told is `None`; an empty list was told to be empty.

use core::net::IpAddr;

use crate::time::Wall;

/// One guest's account of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestAccount {
    /// Its host name, qualified or not as the guest has it.
    pub host_name: Option<String>,
    /// Its operating system.
    pub system: Option<GuestSystem>,
    /// Its time zone.
    pub time_zone: Option<TimeZone>,
    /// Who is logged in.
    pub users: Option<Vec<GuestUser>>,
    /// Its network interfaces.
    pub interfaces: Option<Vec<GuestInterface>>,
    /// Its mounted file systems.
    pub file_systems: Option<Vec<GuestFileSystem>>,
}

impl GuestAccount {
    /// Whether it tells nothing at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An operating system. Texts that were not told are empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestSystem {
    /// A word such as `debian`; `mswindows` for Windows.
    pub id: String,
    /// Such as `Debian GNU/Linux`.
    pub name: String,
    /// With its version, for people.
    pub pretty_name: String,
    /// The version, for people.
    pub version: String,
    /// The version, for programs.
    pub version_id: String,
    /// Which edition it is.
    pub variant: String,
    /// The processor's architecture.
    pub machine: String,
    /// The kernel's release.
    pub kernel_release: String,
    /// The kernel's build.
    pub kernel_version: String,
}

/// A time zone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TimeZone {
    /// Its name, such as `CET`; empty if not told.
    pub name: String,
    /// Seconds that its clocks are ahead of UTC.
    pub offset_s: i32,
}

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestUser {
    /// The name.
    pub name: String,
    /// The domain that knows the user; empty if there is none.
    pub domain: String,
    /// Since when.
    pub since: Option<Wall>,
}

/// A network interface as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestInterface {
    /// The guest's name of it.
    pub name: String,
    /// Its hardware address; empty if it has none.
    pub mac: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GuestFileSystem {
    /// Where it is mounted.
    pub mount: String,
    /// Its kind, such as `ext4`.
    pub kind: String,
    /// Bytes in all.
    pub total: Option<u64>,
    /// Bytes in use.
    pub used: Option<u64>,
}
