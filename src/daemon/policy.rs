//! What a domain document may have: nothing that lets its sender run or read anything on this host beyond the VM, but by
//! the administrator's word.
//!
//! libvirt starts QEMU as root's servant: it runs the program that a document names, opens and relabels the files that it
//! names, and gives QEMU the user that it names. Whoever may act may start VMs, and is not root for that.
//!
//! Three things are held, each by what is known to be harmless and not by what is known to harm:
//!
//! - elements: of the domain, of its `<os>` and of its devices, and the kinds of each device;
//! - every attribute and text that is a path of the host, wherever it stands;
//! - labels, users, and elements of other name spaces.
//!
//! Kinds that are not known here, of a newer libvirt for instance, are refused until the administrator says otherwise. The
//! document is read with the same strictness as libvirt's reader has, see [`super::document`].

use std::path::{Component, Path, PathBuf};

use roxmltree::Node;

use super::document::{BadDocument, domain_of, parse, text_of, undeclared};
use crate::config::{Create, Power};

/// See the module page.
#[derive(Debug, Clone)]
pub struct Policy {
    emulators: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    allow: Vec<Power>,
}

/// What a document has and may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{element}: {why}")]
pub struct Forbidden {
    element: String,
    why: String,
}

/// How deep elements may be; libvirt's own are ten deep.
const DEPTH: usize = 64;

/// Bytes of a value that are shown.
const SHOWN_BYTES: usize = 128;

/// Elements of a domain without a right of their own.
const DOMAIN: &[&str] = &[
    "name",
    "uuid",
    "genid",
    "title",
    "description",
    "metadata",
    "memory",
    "maxMemory",
    "currentMemory",
    "memoryBacking",
    "memtune",
    "numatune",
    "blkiotune",
    "vcpu",
    "vcpus",
    "iothreads",
    "iothreadids",
    "defaultiothread",
    "cputune",
    "cpu",
    "resource",
    "sysinfo",
    "os",
    "features",
    "clock",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "on_lockfailure",
    "pm",
    "perf",
    "devices",
    "seclabel",
    "launchSecurity",
    "keywrap",
    "throttlegroups",
];

/// Elements of `<os>`.
const OS: &[&str] = &[
    "type", "firmware", "loader", "nvram", "kernel", "initrd", "cmdline", "dtb", "boot", "bootmenu",
    "smbios", "bios", "acpi", "shim", "varstore",
];

/// Devices whose kinds make no difference here.
const DEVICES: &[&str] = &[
    "emulator",
    "controller",
    "sound",
    "video",
    "memballoon",
    "watchdog",
    "panic",
    "hub",
    "redirfilter",
    "memory",
    "iommu",
    "vsock",
    "crypto",
    "nvram",
    "pstore",
    "lease",
];

/// A device, the attribute that says its kind, the harmless kinds, and what the others that are known take.
type Kinds = (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, Power)]);

/// Devices whose kinds make a difference.
const KINDS: &[Kinds] = &[
    (
        "disk",
        "type",
        &["file", "block", "network", "volume"],
        &[
            ("nvme", Power::Hostdev),
            ("vhostvdpa", Power::Hostdev),
            ("vhostuser", Power::Share),
            ("dir", Power::Share),
        ],
    ),
    (
        "interface",
        "type",
        &["network", "bridge", "direct", "ethernet", "internal", "null", "vds"],
        &[
            ("hostdev", Power::Hostdev),
            ("vdpa", Power::Hostdev),
            ("vhostuser", Power::Share),
            ("user", Power::Host),
            ("server", Power::Host),
            ("client", Power::Host),
            ("mcast", Power::Host),
            ("udp", Power::Host),
        ],
    ),
    ("serial", "type", CHARACTER, CHARACTER_POWERS),
    ("parallel", "type", CHARACTER, CHARACTER_POWERS),
    ("console", "type", CHARACTER, CHARACTER_POWERS),
    ("channel", "type", CHARACTER, CHARACTER_POWERS),
    ("redirdev", "type", CHARACTER, CHARACTER_POWERS),
    (
        "graphics",
        "type",
        &["vnc", "spice", "egl-headless"],
        &[("sdl", Power::Host), ("desktop", Power::Host), ("rdp", Power::Host), ("dbus", Power::Host)],
    ),
    (
        "audio",
        "type",
        &["none", "spice"],
        &[
            ("alsa", Power::Host),
            ("coreaudio", Power::Host),
            ("dbus", Power::Host),
            ("file", Power::Host),
            ("jack", Power::Host),
            ("oss", Power::Host),
            ("pipewire", Power::Host),
            ("pulseaudio", Power::Host),
            ("sdl", Power::Host),
        ],
    ),
    (
        "input",
        "type",
        &["mouse", "tablet", "keyboard"],
        &[("passthrough", Power::Hostdev), ("evdev", Power::Hostdev)],
    ),
    (
        "smartcard",
        "mode",
        &["passthrough"],
        &[("host", Power::Hostdev), ("host-certificates", Power::Hostdev)],
    ),
];

const CHARACTER: &[&str] =
    &["pty", "unix", "file", "pipe", "null", "vc", "spicevmc", "spiceport", "qemu-vdagent"];

const CHARACTER_POWERS: &[(&str, Power)] = &[
    ("dev", Power::Hostdev),
    ("tcp", Power::Host),
    ("udp", Power::Host),
    ("stdio", Power::Host),
    ("nmdm", Power::Host),
    ("dbus", Power::Host),
];

/// What reaches beyond the VM wherever it stands: an element, perhaps an attribute of it, and the values that do; none
/// for any.
const ANYWHERE: &[(&str, &str, &[&str], Power)] = &[
    ("script", "", &[], Power::Commandline),
    ("downscript", "", &[], Power::Commandline),
    ("reservations", "", &[], Power::Hostdev),
    ("disk", "rawio", &["yes"], Power::Hostdev),
    ("disk", "sgio", &["unfiltered"], Power::Hostdev),
    ("smbios", "mode", &["host"], Power::Hostdev),
    ("target", "type", &["guestfwd"], Power::Host),
    ("source", "protocol", &["http", "https", "ftp", "ftps", "tftp", "ssh"], Power::Host),
];

/// Attributes that are paths wherever they stand: a relative one is one in the folder in which QEMU or libvirt runs.
const PATHS: &[&str] =
    &["file", "dir", "path", "socket", "keyfile", "rendernode", "evdev", "template", "xauth"];

/// Elements whose text is a path.
const PATH_TEXTS: &[&str] =
    &["kernel", "initrd", "dtb", "loader", "nvram", "shim", "varstore", "table", "path", "emulator"];

/// Elements whose text is anything.
const FREE_TEXTS: &[&str] =
    &["name", "title", "description", "cmdline", "entry", "serial", "product", "vendor"];

/// Sources of randomness: what a guest reads of them tells nothing.
const RANDOM: &[&str] = &["/dev/random", "/dev/urandom", "/dev/hwrng"];

impl Policy {
    /// As configured.
    pub fn new(settings: &Create) -> Self {
        Self {
            emulators: settings.emulators.clone(),
            folders: settings.folders.clone(),
            allow: settings.allow.clone(),
        }
    }

    /// A document as it may be given to libvirt: without its declaration.
    ///
    /// # Errors
    /// [`Forbidden`] names the element and the key.
    pub fn checked(&self, xml: String) -> Result<String, Forbidden> {
        let xml = undeclared(xml).map_err(|bad| unread(&bad))?;
        self.check(&xml)?;
        Ok(xml)
    }

    /// Whether a document without a declaration may be given to libvirt.
    ///
    /// # Errors
    /// [`Forbidden`] names the element and the key.
    pub fn check(&self, xml: &str) -> Result<(), Forbidden> {
        let tree = parse(xml).map_err(|bad| unread(&bad))?;
        let domain = domain_of(&tree).map_err(|bad| unread(&bad))?;
        for node in domain.descendants().filter(Node::is_element) {
            if node.ancestors().take(DEPTH + 1).count() > DEPTH {
                let why = format!("elements are more than {DEPTH} deep");
                return Err(Forbidden { element: "xml".into(), why });
            }
            let of_others =
                node.ancestors().any(|above| above.has_tag_name("metadata") && is_in(above, &["domain"]));
            if !of_others || is_in(node, &["domain"]) {
                self.itself(node).map_err(|why| Forbidden { element: place(node), why })?;
            }
        }
        Ok(())
    }

    /// Whether a new image may lie there.
    ///
    /// # Errors
    /// [`Forbidden`] names the key.
    pub fn check_image(&self, path: &str) -> Result<(), Forbidden> {
        self.path(path).map_err(|why| Forbidden { element: format!("path {:?}", shown(path)), why })
    }

    /// Whether libvirt may be told to connect there. Its addresses can name a program to be run, and keys to be read.
    ///
    /// # Errors
    /// [`Forbidden`] names the key.
    pub fn check_destination(&self, uri: &str) -> Result<(), Forbidden> {
        let plain =
            ["qemu://", "qemu+tls://", "qemu+tcp://", "qemu+ssh://"].iter().find_map(|s| uri.strip_prefix(s));
        let host = plain.and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let name = host.rsplit('@').next().unwrap_or_default();
        let harmless = |part: &str| {
            !part.starts_with('-')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b))
        };
        if !name.is_empty() && host.split('@').all(harmless) && !uri.contains(['?', '#']) {
            return Ok(());
        }
        self.needs(Power::Commandline)
            .map_err(|why| Forbidden { element: format!("dst {:?}", shown(uri)), why })
    }

    /// Whether a VM's memory may be sent there.
    ///
    /// # Errors
    /// [`Forbidden`] names the key.
    pub fn check_memory(&self, uri: &str) -> Result<(), Forbidden> {
        if uri.starts_with("tcp:") || uri.starts_with("rdma:") {
            return Ok(());
        }
        let path = uri.strip_prefix("unix://").or_else(|| uri.strip_prefix("unix:"));
        let checked = match path {
            Some(path) => self.path(path),
            None => self.needs(Power::Unknown),
        };
        checked.map_err(|why| Forbidden { element: format!("dstqemu {:?}", shown(uri)), why })
    }

    fn needs(&self, power: Power) -> Result<(), String> {
        if self.allow.contains(&power) {
            return Ok(());
        }
        Err(format!("this needs {:?} in create.allow", power.word()))
    }

    fn itself(&self, node: Node<'_, '_>) -> Result<(), String> {
        let name = node.tag_name().name();
        if node.tag_name().namespace().is_some() || node.attributes().any(|a| a.namespace().is_some()) {
            self.needs(Power::Commandline)?;
        }
        self.known(node, name)?;
        for (element, attribute, values, power) in ANYWHERE {
            let value = node.attribute(*attribute);
            let bears = attribute.is_empty() || value.is_some_and(|value| values.contains(&value));
            if name == *element && bears {
                self.needs(*power)?;
            }
        }
        if name == "seclabel" {
            self.label(node)?;
        }
        self.paths(node, name)
    }

    /// Whether the element is one that may stand there.
    fn known(&self, node: Node<'_, '_>, name: &str) -> Result<(), String> {
        if is_in(node, &["domain"]) && !DOMAIN.contains(&name) {
            // A program of the host that starts the guest.
            let runs = name.starts_with("bootloader");
            return self.needs(if runs { Power::Commandline } else { Power::Unknown });
        }
        if is_in(node, &["domain", "os"]) && !OS.contains(&name) {
            return self.needs(if name.starts_with("init") { Power::Commandline } else { Power::Unknown });
        }
        if is_in(node, &["domain", "devices"]) {
            return self.device(node, name);
        }
        match name {
            // Links of a chain of images are disks again.
            "backingStore" | "mirror" if node.has_attribute("type") => self.kind(node, "disk"),
            "backend" if is_in(node, &["domain", "devices", "rng"]) => match node.attribute("model") {
                Some("egd") => self.needs(Power::Host),
                Some("random" | "builtin") => Ok(()),
                _ => self.needs(Power::Unknown),
            },
            "backend" if is_in(node, &["domain", "devices", "tpm"]) => match node.attribute("type") {
                Some("emulator") => Ok(()),
                Some("passthrough" | "external") => self.needs(Power::Hostdev),
                _ => self.needs(Power::Unknown),
            },
            _ => Ok(()),
        }
    }

    fn device(&self, node: Node<'_, '_>, name: &str) -> Result<(), String> {
        match name {
            "hostdev" => self.needs(Power::Hostdev),
            "filesystem" | "shmem" => self.needs(Power::Share),
            "memory" if matches!(node.attribute("model"), Some("nvdimm" | "virtio-pmem")) => {
                self.needs(Power::Share)
            }
            "tpm" | "rng" => Ok(()),
            _ if KINDS.iter().any(|(device, ..)| *device == name) => {
                self.kind(node, name)?;
                // Its own kind says where a smartcard's words go.
                if name == "smartcard" { self.kind(node, "channel") } else { Ok(()) }
            }
            _ if DEVICES.contains(&name) => Ok(()),
            _ => self.needs(Power::Unknown),
        }
    }

    /// Whether the kind of an element is one that this device may have.
    fn kind(&self, node: Node<'_, '_>, device: &str) -> Result<(), String> {
        let Some((_, attribute, harmless, powers)) = KINDS.iter().find(|(name, ..)| *name == device) else {
            return Ok(());
        };
        // libvirt's own choice is always a harmless one.
        let Some(kind) = node.attribute(*attribute) else { return Ok(()) };
        if harmless.contains(&kind) {
            return Ok(());
        }
        let known = powers.iter().find(|(name, _)| *name == kind);
        self.needs(known.map_or(Power::Unknown, |(_, power)| *power))
    }

    /// libvirt chooses users and labels itself, or leaves a file alone; a document chooses none.
    fn label(&self, node: Node<'_, '_>) -> Result<(), String> {
        let chosen = node.children().any(|child| child.is_element());
        let of_the_vm = is_in(node, &["domain"]);
        let kind = node.attribute("type");
        if chosen || (of_the_vm && !matches!(kind, None | Some("dynamic"))) || kind == Some("static") {
            return self.needs(Power::Seclabel);
        }
        Ok(())
    }

    /// Every path in it.
    fn paths(&self, node: Node<'_, '_>, name: &str) -> Result<(), String> {
        let is_disk_dev = name == "source" && node.ancestors().any(|above| above.has_tag_name("disk"));
        for attribute in node.attributes() {
            let (key, value) = (attribute.name(), attribute.value());
            let is_path = PATHS.contains(&key) || (key == "dev" && is_disk_dev);
            if (is_path && !value.is_empty()) || value.trim_start().starts_with('/') {
                self.path(value).map_err(|why| format!("{key}={:?}: {why}", shown(value)))?;
            }
        }
        let whole = PATH_TEXTS.contains(&name) || (name == "backend" && node.has_attribute("model"));
        let text = if whole { text_of(node) } else { own_text(node) };
        let text = text.trim();
        let named = |why| format!("{:?}: {why}", shown(text));
        match name {
            _ if text.is_empty() => Ok(()),
            "emulator" => self.emulator(text).map_err(named),
            "backend" if RANDOM.contains(&text) => Ok(()),
            "partition" if is_in(node, &["domain", "resource"]) && is_below(text, Path::new("/machine")) => {
                Ok(())
            }
            _ if FREE_TEXTS.contains(&name) => Ok(()),
            _ if whole || text.starts_with('/') => self.path(text).map_err(named),
            _ => Ok(()),
        }
    }

    fn emulator(&self, path: &str) -> Result<(), String> {
        let fits = |allowed: &PathBuf| {
            let folder = allowed.as_os_str().as_encoded_bytes().ends_with(b"/");
            if folder { is_below(path, allowed) } else { Path::new(path) == allowed.as_path() }
        };
        if self.emulators.iter().any(fits) {
            Ok(())
        } else {
            Err("this program is not in create.emulators".into())
        }
    }

    fn path(&self, path: &str) -> Result<(), String> {
        if self.folders.iter().any(|folder| is_below(path, folder)) {
            return Ok(());
        }
        Err(match path.starts_with('/') {
            true => "this lies in none of create.folders".into(),
            false => "a path is absolute, and lies in one of create.folders".into(),
        })
    }
}

fn unread(bad: &BadDocument) -> Forbidden {
    Forbidden { element: "document".into(), why: bad.to_string() }
}

/// Whether a path is a folder or lies in it, as it is written: whoever may write in the folder may lay links there.
fn is_below(path: &str, folder: &Path) -> bool {
    let path = Path::new(path);
    path.is_absolute()
        && path.components().all(|part| part != Component::ParentDir)
        && path.starts_with(folder)
        && path.to_str().is_some_and(|text| !text.contains(['\n', '\r', '\0']))
}

/// Whether these are exactly the elements around it.
fn is_in(node: Node<'_, '_>, path: &[&str]) -> bool {
    let mut above = node.ancestors().skip(1).filter(Node::is_element);
    path.iter().rev().all(|name| above.next().is_some_and(|node| node.tag_name().name() == *name))
        && above.next().is_none()
}

/// The text of the element itself.
fn own_text(node: Node<'_, '_>) -> String {
    node.children().filter(Node::is_text).filter_map(|text| text.text()).collect()
}

/// The element with those around it, such as `<devices><disk><source>`.
fn place(node: Node<'_, '_>) -> String {
    let mut names: Vec<String> = node
        .ancestors()
        .filter(Node::is_element)
        .map(|node| {
            let name = node.tag_name();
            let prefix =
                name.namespace().and_then(|uri| node.lookup_prefix(uri)).filter(|prefix| !prefix.is_empty());
            let prefix = prefix.map(|prefix| format!("{prefix}:")).unwrap_or_default();
            format!("<{}{}>", shown(&prefix), shown(name.name()))
        })
        .collect();
    // Everything is in the domain.
    if names.len() > 1 {
        names.pop();
    }
    names.truncate(4);
    names.reverse();
    names.concat()
}

fn shown(text: &str) -> String {
    let mut end = text.len().min(SHOWN_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
