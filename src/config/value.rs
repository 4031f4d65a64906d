//! The types of single values, and how they are read from text.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Which exit reasons a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitReasons {
    /// Numbers up to 8.
    Classic,
    /// Numbers up to 12.
    #[serde(rename = "4.1")]
    V4_1,
    /// Numbers up to 14.
    Full,
}

/// Which generation of managers is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Profile {
    /// What all can read.
    #[serde(rename = "common")]
    Common,
    /// Engine 3.4.
    #[serde(rename = "3.4")]
    V3_4,
    /// Engine 3.5.
    #[serde(rename = "3.5")]
    V3_5,
    /// Engine 3.6.
    #[serde(rename = "3.6")]
    V3_6,
    /// Engine 4.0 and later.
    #[serde(rename = "4.0")]
    V4_0,
}

/// Where the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogTarget {
    /// The journal when started by systemd, else standard error.
    Auto,
    /// The journal.
    Journald,
    /// Standard error.
    Stderr,
}

/// A caller, as far as the answers may differ by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum Client {
    /// Comes from this address.
    Address(IpAddr),
    /// Comes through the Unix socket.
    Unix,
}

impl Client {
    /// The same client with an IPv4 address in IPv6 clothes undressed.
    pub fn canonical(self) -> Self {
        match self {
            Self::Address(address) => Self::Address(address.to_canonical()),
            Self::Unix => Self::Unix,
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        if text.parse::<SocketAddr>().is_ok() {
            return Err("a client's port changes with every connection: leave it out".into());
        }
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self::Address(address).canonical()),
            Err(_) => Err("this is not an IP address".into()),
        }
    }
}

impl TryFrom<String> for Client {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// Permission bits of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SocketMode(u32);

impl SocketMode {
    /// The bits, for `chmod`.
    pub fn bits(self) -> u32 {
        self.0
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let bits = match u32::from_str_radix(text, 8) {
            Ok(bits) if octal => bits,
            _ => return Err("these are not three or four octal digits".into()),
        };
        if bits > 0o777 {
            return Err("a socket has no set-id or sticky bits".into());
        }
        if bits & 0o600 != 0o600 {
            return Err("the owner must be able to read and write".into());
        }
        if bits & 0o002 != 0 {
            return Err("others must not write: whoever can write to the socket can end VMs".into());
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl TryFrom<String> for SocketMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// Something that a domain document may have only by the administrator's word, as it reaches beyond its VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub enum Power {
    /// Elements of other name spaces: QEMU's own arguments above all.
    Commandline,
    /// Devices of the host, given to the VM.
    Hostdev,
    /// Folders of the host, and memory that VMs share.
    Share,
    /// Character devices and interfaces that speak over the host's network or to its sound.
    Host,
    /// Which user QEMU runs as, and which labels its files get.
    Seclabel,
    /// Volumes of libvirt's storage pools.
    Pool,
    /// Images of formats that may name other files.
    Formats,
    /// Elements and kinds that are not known here.
    Unknown,
}

impl Power {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Commandline,
        Self::Hostdev,
        Self::Share,
        Self::Host,
        Self::Seclabel,
        Self::Pool,
        Self::Formats,
        Self::Unknown,
    ];

    /// Its name in the configuration.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Commandline => "commandline",
            Self::Hostdev => "hostdev",
            Self::Share => "share",
            Self::Host => "host",
            Self::Seclabel => "seclabel",
            Self::Pool => "pool",
            Self::Formats => "formats",
            Self::Unknown => "unknown",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|power| power.word() == text).ok_or_else(|| "there is no such word".into())
    }
}

impl TryFrom<String> for Power {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// A user of this host, by name or number.
pub(super) fn parse_user(text: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$');
    // The kernel's own "no user" is the last of the 32 bits.
    let is_a_number = text.strip_prefix('-').unwrap_or(text).bytes().all(|byte| byte.is_ascii_digit());
    match text.len() {
        0 => Err("this is empty".into()),
        _ if is_a_number && text.parse().is_ok_and(|uid: u32| uid < u32::MAX) => Ok(()),
        _ if is_a_number => Err(format!("users have the numbers 0 to {}", u32::MAX - 1)),
        1..=32 if text.bytes().all(plain) => Ok(()),
        1..=32 => Err("this is neither a user's name nor a number".into()),
        _ => Err("a user's name has at most 32 bytes".into()),
    }
}

/// An address to listen at. Names are refused: what they mean may change between two starts.
pub(super) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if text.parse::<IpAddr>().is_ok() {
        return Err("the port is missing".into());
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        return Err(format!("this is a name: write 127.0.0.1:{port} or [::1]:{port}"));
    }
    Err("this is not an IP address with a port".into())
}

/// A certificate's name has at most this many bytes that we read.
const HOLDER_BYTES: usize = 256;

/// A name in a certificate, whole: patterns would be a door for whoever chooses names.
pub(super) fn parse_holder(text: &str) -> Result<(), String> {
    if text == "*" {
        return Ok(());
    }
    if text.is_empty() || text.trim() != text {
        return Err("this is empty, or has blanks around it".into());
    }
    if text.len() > HOLDER_BYTES {
        return Err(format!("this has {} bytes, and names have at most {HOLDER_BYTES}", text.len()));
    }
    if text.contains(char::is_control) {
        return Err("a name has no control characters".into());
    }
    if text.contains('*') {
        return Err("names are compared whole, without patterns; \"*\" alone means every certificate".into());
    }
    Ok(())
}

pub(super) fn parse_absolute(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("this is empty".into());
    }
    if text.contains('\0') {
        return Err("a path has no NUL in it".into());
    }
    if text.starts_with('/') { Ok(()) } else { Err("this path is relative".into()) }
}

/// A path that others are compared with as they are written: with `..` in it, it would mean another than it says.
pub(super) fn parse_place(text: &str) -> Result<(), String> {
    parse_absolute(text)?;
    match text.split('/').any(|part| part == "..") {
        true => {
            Err("this has \"..\" in it, and paths are compared as they are written: name the place itself"
                .into())
        }
        false => Ok(()),
    }
}

/// `sun_path` has room for this many bytes and a NUL.
const SOCKET_PATH_BYTES: usize = 107;

pub(super) fn parse_socket_path(text: &str) -> Result<(), String> {
    parse_absolute(text)?;
    if text.len() > SOCKET_PATH_BYTES {
        return Err(format!("this has {} bytes", text.len()));
    }
    if text.ends_with('/') {
        return Err("this names a directory".into());
    }
    Ok(())
}

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A filter parses nearly always: an unknown bare word is taken for the name of a part. A word that is nearly a level
/// was meant as one.
pub(super) fn parse_filter(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("this is empty; \"off\" silences all".into());
    }
    for word in text.split(',').map(str::trim) {
        let lower = word.to_ascii_lowercase();
        if LEVELS.contains(&lower.as_str()) {
            continue;
        }
        if let Some(level) = LEVELS.iter().find(|level| strsim::damerau_levenshtein(level, &lower) == 1) {
            return Err(format!("{word:?} is no level; did you mean \"{level}\"?"));
        }
    }
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(()),
        Err(why) => Err(why.to_string()),
    }
}

const SECONDS_PER_DAY: u64 = 86_400;

pub(super) fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_secs)
}

pub(super) fn millis<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_millis)
}

pub(super) fn days<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(|days| Duration::from_secs(days.saturating_mul(SECONDS_PER_DAY)))
}

pub(super) fn path_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(from)?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}
