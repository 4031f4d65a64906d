//! libvirt's connection URI, and what follows from it: where the embedded driver lives, where logs and process ids are.
//!
//! The rules are libvirt's own. What libvirt would refuse later is refused here, with a reason.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Why a text is no connection URI for us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// It has no `DRIVER://`.
    #[error("this has no DRIVER:// at its beginning")]
    NoScheme,
    /// Blanks, control characters, letters beyond ASCII or the like.
    #[error("{0:?} does not belong in a URI; write it as %XX")]
    Character(char),
    /// A host.
    #[error("{0:?} names a host; whydown follows the libvirt of its own host")]
    Host(String),
    /// The QEMU driver has no such path.
    #[error("the QEMU driver has /system, /session and /embed?root=DIR, and no {0:?}")]
    Path(String),
    /// The embedded driver without a root.
    #[error("the embedded driver needs its directory: qemu:///embed?root=DIR")]
    NoRoot,
    /// The embedded driver over a connection.
    #[error("the embedded driver is not connected to, so it has no transport: qemu:///embed?root=DIR")]
    Transport,
    /// The root is relative.
    #[error("the embedded driver's root {0:?} is relative")]
    RelativeRoot(PathBuf),
}

/// A libvirt connection URI that we can follow.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct ConnectUri {
    text: String,
    /// Where libvirt's daemon may answer; empty until it is found, as that depends on the user's variables.
    sockets: Vec<PathBuf>,
}

impl ConnectUri {
    /// Checks the text.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let parts = Parts::split(text)?;
        if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(*c)) {
            return Err(UriError::Character(bad));
        }
        if !parts.authority.is_empty() {
            return Err(UriError::Host(parts.authority.to_owned()));
        }
        if parts.driver() == "qemu" {
            match parts.path {
                "/system" | "/session" => {}
                "/embed" if parts.scheme != "qemu" => return Err(UriError::Transport),
                "/embed" => {
                    let root = parts.root().ok_or(UriError::NoRoot)?;
                    if !root.is_absolute() {
                        return Err(UriError::RelativeRoot(root));
                    }
                }
                other => return Err(UriError::Path(other.to_owned())),
            }
        }
        Ok(Self { text: text.to_owned(), sockets: Vec::new() })
    }

    /// The text, for libvirt.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the driver is in this process, and ends with it: the embedded one, and libvirt's test driver.
    pub fn driver_is_inside(&self) -> bool {
        let test =
            Parts::split(&self.text).is_ok_and(|parts| parts.scheme == "test" && parts.authority.is_empty());
        test || self.embed_root().is_some()
    }

    /// The root of the embedded driver, if it is that.
    pub fn embed_root(&self) -> Option<PathBuf> {
        embed_root(&self.text)
    }

    /// Where the driver writes QEMU's logs. Nothing for drivers without QEMU.
    ///
    /// # Errors
    /// The names of the variables that are missing, for the user's own driver.
    pub(super) fn log_dir(&self, home: &Home) -> Result<Option<PathBuf>, &'static str> {
        Ok(match self.place() {
            Place::System => Some(PathBuf::from("/var/log/libvirt/qemu")),
            Place::Session => Some(home.cache()?.join("libvirt/qemu/log")),
            Place::Embed(root) => Some(root.join("log/qemu")),
            Place::None => None,
        })
    }

    /// Where the driver writes process ids. Nothing for drivers without QEMU.
    ///
    /// # Errors
    /// The names of the variables that are missing, for the user's own driver.
    pub(super) fn run_dir(&self, home: &Home) -> Result<Option<PathBuf>, &'static str> {
        Ok(match self.place() {
            Place::System => Some(PathBuf::from("/run/libvirt/qemu")),
            Place::Session => Some(home.run()?.join("libvirt/qemu/run")),
            Place::Embed(root) => Some(root.join("run/qemu")),
            Place::None => None,
        })
    }

    /// The sockets on which libvirt may answer, the likeliest first. Nothing for drivers that are in this process.
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// Finds the sockets. Nothing comes of it for the user's own driver without the variables that say where it is, which
    /// the directories need as well.
    pub(super) fn find_sockets(&mut self, home: &Home) {
        self.sockets = self.sockets_of(home).unwrap_or_default();
    }

    fn sockets_of(&self, home: &Home) -> Result<Vec<PathBuf>, &'static str> {
        const NAMES: [&str; 2] = ["libvirt/virtqemud-sock", "libvirt/libvirt-sock"];
        let Ok(parts) = Parts::split(&self.text) else { return Ok(Vec::new()) };
        if let Some(socket) = parts.parameter("socket") {
            return Ok(vec![socket]);
        }
        let below = |folders: &[PathBuf]| {
            let all = folders.iter().flat_map(|folder| NAMES.iter().map(|name| folder.join(name)));
            all.collect()
        };
        Ok(match self.place() {
            Place::System => below(&["/run".into(), "/var/run".into()]),
            Place::Session => below(&[home.run()?]),
            Place::Embed(_) | Place::None => Vec::new(),
        })
    }

    fn place(&self) -> Place {
        let Ok(parts) = Parts::split(&self.text) else { return Place::None };
        match (parts.driver(), parts.path) {
            ("qemu", "/system") => Place::System,
            ("qemu", "/session") => Place::Session,
            ("qemu", "/embed") => parts.root().map_or(Place::None, Place::Embed),
            _ => Place::None,
        }
    }
}

impl fmt::Display for ConnectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for ConnectUri {
    type Error = UriError;

    fn try_from(text: String) -> Result<Self, UriError> {
        Self::parse(&text)
    }
}

/// The root directory of `qemu:///embed?root=DIR`, with `%XX` decoded as libvirt does it. `None` for any other URI and
/// for one that libvirt would refuse.
pub fn embed_root(uri: &str) -> Option<PathBuf> {
    let parts = Parts::split(uri).ok()?;
    if parts.scheme != "qemu" || parts.path != "/embed" || !parts.authority.is_empty() {
        return None;
    }
    parts.root().filter(|root| root.is_absolute())
}

/// Where a user's own files are, as the XDG rules have it.
#[derive(Debug, Default)]
pub(super) struct Home {
    /// `HOME`.
    pub(super) home: Option<PathBuf>,
    /// `XDG_CACHE_HOME`.
    pub(super) cache: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub(super) runtime: Option<PathBuf>,
}

impl Home {
    fn cache(&self) -> Result<PathBuf, &'static str> {
        let named = self.cache.as_deref().filter(|dir| dir.is_absolute()).map(Path::to_path_buf);
        let home = || self.home.as_deref().filter(|dir| dir.is_absolute()).map(|home| home.join(".cache"));
        named.or_else(home).ok_or("XDG_CACHE_HOME or HOME")
    }

    /// Without a runtime directory libvirt falls back to the cache.
    fn run(&self) -> Result<PathBuf, &'static str> {
        let named = self.runtime.as_deref().filter(|dir| dir.is_absolute()).map(Path::to_path_buf);
        named.map_or_else(|| self.cache().map_err(|_| "XDG_RUNTIME_DIR, XDG_CACHE_HOME or HOME"), Ok)
    }
}

enum Place {
    System,
    Session,
    Embed(PathBuf),
    None,
}

struct Parts<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, UriError> {
        let (scheme, rest) = text.split_once("://").ok_or(UriError::NoScheme)?;
        let letters = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.chars().all(letters) {
            return Err(UriError::NoScheme);
        }
        let rest = rest.split_once('#').map_or(rest, |(before, _fragment)| before);
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = before.find('/').map_or((before, ""), |at| before.split_at(at));
        Ok(Self { scheme, authority, path, query })
    }

    /// The scheme without a transport, such as `qemu` of `qemu+unix`.
    fn driver(&self) -> &'a str {
        self.scheme.split_once('+').map_or(self.scheme, |(driver, _transport)| driver)
    }

    fn root(&self) -> Option<PathBuf> {
        self.parameter("root")
    }

    /// A path among the parameters. libvirt separates them by `&` or `;` and takes the first of a name.
    fn parameter(&self, name: &str) -> Option<PathBuf> {
        let mut pairs = self.query.split(['&', ';']).filter_map(|pair| pair.split_once('='));
        let value = pairs.find_map(|(known, value)| (known == name).then_some(value))?;
        let bytes: Vec<u8> = percent_encoding::percent_decode_str(value).collect();
        (!bytes.is_empty() && !bytes.contains(&0)).then(|| PathBuf::from(OsString::from_vec(bytes)))
    }
}
