//! `--check-config`: what would be in force, or everything that is wrong. Text only; the caller prints it.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::finding::Mistakes;
use super::key::KEYS;
use super::load::{Loaded, Sources, load};
use super::settings::Settings;
use crate::http;

/// `EX_CONFIG` of sysexits: starting again would not help, and the unit does not.
pub const EX_CONFIG: u8 = 78;

/// The outcome of a check.
#[derive(Debug)]
pub enum Report {
    /// The configuration can be used.
    Right(Box<Loaded>),
    /// It cannot.
    Wrong(Mistakes),
}

/// Loads the configuration to tell about it.
pub fn check(sources: &Sources) -> Report {
    match load(sources) {
        Ok(loaded) => Report::Right(Box::new(loaded)),
        Err(mistakes) => Report::Wrong(mistakes),
    }
}

impl Report {
    /// 0 if it can be used, else what the daemon itself ends with then: `EX_CONFIG` of sysexits, 78.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Right(_) => 0,
            Self::Wrong(_) => EX_CONFIG,
        }
    }

    /// For standard output: `configuration is right` and the settings in force as TOML, where a comment tells the origin
    /// of each value that differs from the default; or the mistakes, one a line. Ends with a newline.
    pub fn text(&self) -> String {
        match self {
            Self::Right(loaded) => {
                let opened: String =
                    opened(&loaded.settings).iter().map(|line| format!("# {line}\n")).collect();
                format!("configuration is right\n{opened}{}", in_force(loaded))
            }
            Self::Wrong(mistakes) => format!("{mistakes}\n"),
        }
    }
}

/// Where programs and settings of the host lie.
const SYSTEM: &[&str] = &[
    "/bin",
    "/boot",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/sbin",
    "/sys",
    "/usr",
    "/var/spool/cron",
];

/// Folders that documents may have written, and that lie among the host's own or around them.
pub fn system_folders(settings: &Settings) -> Vec<&Path> {
    let has = |folder: &Path| {
        SYSTEM.iter().map(Path::new).any(|system| folder.starts_with(system) || system.starts_with(folder))
    };
    settings.create.folders.iter().map(PathBuf::as_path).filter(|folder| has(folder)).collect()
}

/// Programs that documents may name without anybody having named them: whole folders of them, around or among the host's own,
/// or around what documents may have written.
pub fn open_emulators(settings: &Settings) -> Vec<&Path> {
    let create = &settings.create;
    let is_folder = |place: &&Path| place.as_os_str().as_encoded_bytes().ends_with(b"/");
    let is_open = |place: &&Path| {
        let written =
            create.folders.iter().any(|written| written.starts_with(place) || place.starts_with(written));
        written || SYSTEM.iter().any(|system| Path::new(system).starts_with(place))
    };
    create.emulators.iter().map(PathBuf::as_path).filter(is_folder).filter(is_open).collect()
}

/// What these settings open and to whom, in sentences; `whydown doctor` tells the same.
pub fn opened(settings: &Settings) -> Vec<String> {
    let list = |all: Vec<String>| all.join(", ");
    let mut lines = Vec::new();
    let mut inside = vec!["root".to_owned(), "the daemon's user and group".to_owned()];
    inside.extend(settings.socket.users.iter().cloned());
    lines.push(format!("{}: {} may act", settings.socket.path.display(), list(inside)));
    if !settings.xmlrpc.listen.is_empty() {
        let at = list(settings.xmlrpc.listen.iter().map(ToString::to_string).collect());
        lines.push(match settings.xmlrpc.plain_may_act {
            true => format!(
                "plain TCP at {at}: everybody who reaches it may act and read everything (xmlrpc.plain_may_act is true)"
            ),
            false => format!(
                "plain TCP at {at}: nobody may act, and everybody who reaches it may read what is no secret \
                 (xmlrpc.plain_may_act is false; it was true in versions before it could be read here)"
            ),
        });
    }
    if !settings.tls.listen.is_empty() {
        let at = list(settings.tls.listen.iter().map(ToString::to_string).collect());
        let actors = match settings.tls.actors.as_slice() {
            [] => "nobody".to_owned(),
            some => list(some.to_vec()),
        };
        lines.push(format!("TLS at {at}: {actors} may act"));
    }
    if !settings.create.allow.is_empty() {
        let words = list(settings.create.allow.iter().map(|power| power.word().to_owned()).collect());
        lines.push(format!("create.allow: whoever may act may have on this host, by a document: {words}"));
    }
    let of_the_system = system_folders(settings);
    if !of_the_system.is_empty() {
        let folders = list(of_the_system.iter().map(|folder| folder.display().to_string()).collect());
        lines.push(format!(
            "create.folders: whoever may act may have programs and settings of this host written, by a document: {folders}"
        ));
    }
    let programs = open_emulators(settings);
    if !programs.is_empty() {
        let folders = list(programs.iter().map(|folder| folder.display().to_string()).collect());
        lines.push(format!(
            "create.emulators: whoever may act may have any program run that lies in these, by a document: {folders}"
        ));
    }
    let nobodys = settings.socket.users.iter().filter(|name| http::uid(name).is_none());
    for name in nobodys {
        lines.push(format!(
            "socket.users: there is no user {name:?} in /etc/passwd, and so nobody who may act by it: give the number"
        ));
    }
    lines
}

fn in_force(loaded: &Loaded) -> String {
    let changes = loaded.changes();
    let libvirt = &loaded.settings.libvirt;
    let mut text = String::new();
    let mut section = "";
    for key in KEYS {
        if key.section != section {
            section = key.section;
            let _ = writeln!(text, "\n[{section}]");
        }
        let full = key.full();
        let _ = write!(text, "{} = {}", key.name, loaded.value(&full));
        let derived = match full.as_str() {
            "libvirt.log_dir" => Some(&libvirt.log_dir),
            "libvirt.run_dir" => Some(&libvirt.run_dir),
            _ => None,
        };
        let _ = match (changes.iter().find(|change| change.key == full), derived) {
            (Some(change), _) => writeln!(text, "  # {}", change.origin),
            (None, Some(Some(dir))) => writeln!(text, "  # from libvirt.uri: {}", dir.display()),
            (None, Some(None)) => writeln!(text, "  # none with this libvirt.uri"),
            (None, None) => writeln!(text),
        };
    }
    text
}
