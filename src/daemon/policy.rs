//! What a domain document may have: nothing that lets its sender run or read anything on this host beyond the VM, but by
//! the administrator's word.
//!
//! libvirt starts QEMU as root's servant: it runs the program that a document names, opens and relabels the files that it
//! names, makes paths of names, and gives QEMU the user that it names. Whoever may act may start VMs, and is not root for
//! that.
//!
//! Everything is held by what is known to be harmless, and not by what is known to harm:
//!
//! - every element in its parent, every attribute and text, by its class ([`table`]): a word or a name makes no path, a
//!   path lies in a folder for what becomes of it, and what is not known is refused;
//! - the kinds of devices, and values that reach beyond the VM ([`kinds`]);
//! - what images themselves name ([`images`]).
//!
//! Kinds that are not known here, of a newer libvirt for instance, are refused until the administrator says otherwise. The
//! document is read with the same strictness as libvirt's reader has, see [`super::document`].

mod address;
mod images;
mod kinds;
mod table;

use std::path::{Component, Path, PathBuf};

use roxmltree::Node;

use self::images::Image;
use self::kinds::{
    ACCESS, ANYWHERE, FORMATS, KINDS, OWN_INTERFACES, PLAIN_FORMATS, PROTOCOLS, RANDOM, UNSAID,
};
use self::table::Class;
use super::document::{BadDocument, domain_of, parse, text_of, undeclared};
use crate::config::{Power, Settings};

/// See the module page.
#[derive(Debug, Clone)]
pub struct Policy {
    emulators: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    read_only: Vec<PathBuf>,
    firmware: Vec<PathBuf>,
    allow: Vec<Power>,
    own: Vec<PathBuf>,
}

/// What a document has and may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{element}: {why}")]
pub struct Forbidden {
    element: String,
    why: String,
}

/// What becomes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// QEMU or libvirt may write it.
    Write,
    /// It is read; libvirt may give it to QEMU's user for that.
    Read,
    /// It is read, and stays whose it is.
    Firmware,
}

/// How deep elements may be; libvirt's own are ten deep.
const DEPTH: usize = 64;

/// Bytes of a value that are shown.
const SHOWN_BYTES: usize = 128;

/// Folders of libvirt's and of ours: what lies in them is for documents only by a setting that names a folder in them.
const GUARDED: &[&str] = &[
    "/etc/libvirt",
    "/etc/whydown",
    "/run/libvirt",
    "/run/whydown",
    "/var/cache/libvirt",
    "/var/lib/libvirt",
    "/var/lib/whydown",
    "/var/log/libvirt",
];

impl Policy {
    /// As configured.
    pub fn new(settings: &Settings) -> Self {
        let create = &settings.create;
        Self {
            emulators: create.emulators.clone(),
            folders: create.folders.clone(),
            read_only: create.read_only.clone(),
            firmware: create.firmware.clone(),
            allow: create.allow.clone(),
            own: vec![settings.state.dir.clone(), settings.socket.path.clone()],
        }
    }

    /// A document as it may be given to libvirt: without its declaration.
    ///
    /// # Errors
    /// [`Forbidden`] if it is not one.
    pub fn undeclared(xml: String) -> Result<String, Forbidden> {
        undeclared(xml).map_err(|bad| unread(&bad))
    }

    /// Whether a document without a declaration may be given to libvirt, but for what its images say: those that are yet
    /// to be looked at, see [`Self::look`].
    ///
    /// # Errors
    /// [`Forbidden`] names the element and the key.
    pub fn check(&self, xml: &str) -> Result<Vec<Image>, Forbidden> {
        let tree = parse(xml).map_err(|bad| unread(&bad))?;
        let domain = domain_of(&tree).map_err(|bad| unread(&bad))?;
        let mut images = Vec::new();
        for node in domain.descendants().filter(Node::is_element) {
            if node.ancestors().take(DEPTH + 1).count() > DEPTH {
                let why = format!("elements are more than {DEPTH} deep");
                return Err(Forbidden { element: "xml".into(), why });
            }
            let of_others = node
                .ancestors()
                .skip(1)
                .any(|above| above.has_tag_name("metadata") && is_in(above, &["domain"]));
            if !of_others {
                self.itself(node).map_err(|why| Forbidden { element: place(node), why })?;
                images.extend(images::named_by(node));
            }
        }
        Ok(if self.allow.contains(&Power::Formats) { Vec::new() } else { images })
    }

    /// Whether what these images name may be opened too. It reads them, and so may take as long as their storage does.
    ///
    /// # Errors
    /// [`Forbidden`] names the element and the key.
    pub fn look(&self, images: &[Image]) -> Result<(), Forbidden> {
        images.iter().try_for_each(|image| {
            images::follow(image, |path, usage| self.path(path, usage), || self.needs(Power::Formats))
                .map_err(|why| Forbidden { element: image.element.clone(), why })
        })
    }

    /// That these images could not be looked at in time.
    ///
    /// # Errors
    /// Always.
    pub fn unseen(images: &[Image]) -> Result<(), Forbidden> {
        let element = images.first().map_or_else(|| "document".into(), |image| image.element.clone());
        let why = "what the image's header names could not be read in time: try again, or allow \"formats\" in create.allow";
        Err(Forbidden { element, why: why.into() })
    }

    /// Whether a new image may lie there.
    ///
    /// # Errors
    /// [`Forbidden`] names the key.
    pub fn check_image(&self, path: &str) -> Result<(), Forbidden> {
        self.path(path, Use::Write)
            .map_err(|why| Forbidden { element: format!("path {:?}", shown(path)), why })
    }

    /// Whether libvirt may be told to connect there. Its addresses can name a program to be run, and keys to be read.
    ///
    /// # Errors
    /// [`Forbidden`] names the key.
    pub fn check_destination(&self, uri: &str) -> Result<(), Forbidden> {
        let schemes = ["qemu://", "qemu+tls://", "qemu+tcp://", "qemu+ssh://"];
        let plain = schemes.iter().find_map(|scheme| uri.strip_prefix(scheme));
        if plain.is_some_and(address::is_plain) {
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
        let net = uri.strip_prefix("tcp:").or_else(|| uri.strip_prefix("rdma:"));
        let path = uri.strip_prefix("unix://").or_else(|| uri.strip_prefix("unix:"));
        let checked = match (net, path) {
            (Some(net), _) if address::is_plain(net.strip_prefix("//").unwrap_or(net)) => Ok(()),
            (_, Some(path)) => self.path(path, Use::Write),
            _ => self.needs(Power::Unknown),
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
            // Whoever may have these may have any argument of QEMU's.
            return self.needs(Power::Commandline);
        }
        let parent = node.parent_element().map(|parent| parent.tag_name().name());
        let row = table::row(parent, name);
        match row {
            None => self.needs(Power::Unknown)?,
            Some(row) => row.needs.map_or(Ok(()), |power| self.needs(power))?,
        }
        self.kinds(node, name)?;
        self.values(node, name)?;
        for attribute in node.attributes() {
            let (key, value) = (attribute.name(), attribute.value());
            let class = row.and_then(|row| row.attribute(key));
            self.value(node, class, value).map_err(|why| match class {
                // It may be a secret, misspelt.
                None => format!("attribute {key}: {why}"),
                Some(_) => format!("{key}={:?}: {why}", shown(value)),
            })?;
        }
        let class = row.and_then(table::Row::text);
        // libvirt takes the text of what is within too.
        let text = if class.is_some() { text_of(node) } else { own_text(node) };
        let text = text.trim();
        if text.is_empty() {
            return Ok(());
        }
        self.value(node, class, text).map_err(|why| match class {
            None => format!("its text: {why}"),
            Some(_) => format!("{:?}: {why}", shown(text)),
        })
    }

    /// Whether a value is what its class may be.
    fn value(&self, node: Node<'_, '_>, class: Option<Class>, value: &str) -> Result<(), String> {
        let Some(class) = class else {
            self.needs(Power::Unknown)?;
            let is_path = value.trim_start().starts_with('/') || value.split('/').any(|part| part == "..");
            return if is_path { self.path(value, Use::Write) } else { Ok(()) };
        };
        let name = |fits: bool, more: &str| match fits {
            true => Ok(()),
            false => Err(format!(
                "libvirt makes paths and arguments of names: this has no \"/\"{more}, no tab or line break, and no \".\" in front"
            )),
        };
        match class {
            _ if value.is_empty() => Ok(()),
            Class::Text => Ok(()),
            Class::Name => name(table::is_name(value), ", no \",\""),
            Class::Vm => name(table::is_part(value), ""),
            Class::Word if table::is_word(value.trim()) => Ok(()),
            Class::Zone if table::is_zone(value) => Ok(()),
            Class::List if table::is_list(value) => Ok(()),
            Class::Word | Class::List | Class::Zone => {
                self.value(node, None, value).map_err(|why| format!("this is no plain word: {why}"))
            }
            Class::Write => self.path(value, Use::Write),
            Class::Read => self.path(value, Use::Read),
            Class::Firmware => self.path(value, Use::Firmware),
            Class::Image => self.path(value, use_of(node)),
            Class::Loader => self.path(value, use_of_loader(node)),
            Class::Terminal if is_terminal(value) => Ok(()),
            // Its own terminal is libvirt's to choose: it is not read from here.
            Class::Character if is_terminal(value) && kind_above(node) == Some("pty") => Ok(()),
            Class::Terminal | Class::Character => self.path(value, Use::Write),
            Class::Device if value.contains('/') => self.path(value, Use::Write),
            Class::Device => name(table::is_name(value), ", no \",\""),
            Class::Partition if is_below(value, Path::new("/machine")) => Ok(()),
            Class::Partition => Err("a control group of VMs is /machine, or lies in it".into()),
            Class::Random if RANDOM.contains(&value) => Ok(()),
            Class::Random => self.path(value, Use::Read),
            Class::Emulator => self.emulator(value),
        }
    }

    /// Whether its kind is one that it may have.
    fn kinds(&self, node: Node<'_, '_>, name: &str) -> Result<(), String> {
        if is_in(node, &["domain", "devices"]) {
            self.kind(node, name)?;
            // Its own kind says where a smartcard's words go.
            return if name == "smartcard" { self.kind(node, "channel") } else { Ok(()) };
        }
        match name {
            // Links of a chain of images are disks again.
            "backingStore" | "mirror" | "dataStore" => self.kind(node, "disk"),
            "nvram" if is_in(node, &["domain", "os"]) => self.kind(node, "disk"),
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

    /// Whether the kind of an element is one that this device may have.
    fn kind(&self, node: Node<'_, '_>, device: &str) -> Result<(), String> {
        let Some((_, attribute, harmless, powers)) = KINDS.iter().find(|(name, ..)| *name == device) else {
            return Ok(());
        };
        let kind = node.attribute(*attribute);
        let known = powers.iter().find(|(name, _)| *name == kind.unwrap_or(UNSAID));
        let Some(kind) = kind else {
            return known.map_or(Ok(()), |(_, power)| {
                self.needs(*power).map_err(|why| format!("without {attribute}=: {why}"))
            });
        };
        if harmless.contains(&kind) {
            return Ok(());
        }
        self.needs(known.map_or(Power::Unknown, |(_, power)| *power))
            .map_err(|why| format!("{attribute}={:?}: {why}", shown(kind)))
    }

    /// Values that reach beyond the VM.
    fn values(&self, node: Node<'_, '_>, name: &str) -> Result<(), String> {
        let said = |attribute: &str, power| {
            let value = node.attribute(attribute).unwrap_or_default();
            self.needs(power).map_err(|why| match attribute {
                "" => why,
                _ => format!("{attribute}={:?}: {why}", shown(value)),
            })
        };
        for (element, attribute, values, power) in ANYWHERE {
            let value = node.attribute(*attribute);
            let bears = attribute.is_empty() || value.is_some_and(|value| values.contains(&value));
            if name == *element && bears {
                said(attribute, *power)?;
            }
        }
        let has = |(element, attribute): &&(&str, &str)| *element == name && node.has_attribute(*attribute);
        if let Some((_, attribute)) = ACCESS.iter().find(has)
            && node.attribute(*attribute) != Some("private")
        {
            said(attribute, Power::Share)?;
        }
        for (_, attribute) in FORMATS.iter().filter(has) {
            if !node.attribute(*attribute).is_some_and(|format| PLAIN_FORMATS.contains(&format)) {
                said(attribute, Power::Formats)?;
            }
        }
        match name {
            "seclabel" => self.label(node),
            "memory" if matches!(node.attribute("model"), Some("nvdimm" | "virtio-pmem")) => {
                said("model", Power::Share)
            }
            "source"
                if is_in(node, &["domain", "memoryBacking"]) && node.attribute("type") == Some("file") =>
            {
                said("type", Power::Share)
            }
            "source" if node.has_attribute("protocol") => self.network(node),
            "host" if node.parent_element().is_some_and(|above| above.has_tag_name("source")) => {
                // A socket is judged as a path.
                let is_socket = node.attribute("transport") == Some("unix") && node.has_attribute("socket");
                let here = address::is_here(node.attribute("name").unwrap_or_default());
                if here && !is_socket { said("name", Power::Host) } else { Ok(()) }
            }
            "target" if is_in(node, &["domain", "devices", "interface"]) => {
                let named = node.attribute("dev").unwrap_or_default();
                let of_libvirt = named.is_empty() || OWN_INTERFACES.iter().any(|own| named.starts_with(own));
                if of_libvirt { Ok(()) } else { said("dev", Power::Host) }
            }
            "graphics" => self.screen(node),
            _ => Ok(()),
        }
    }

    /// Whether a disk is a service of this host.
    fn network(&self, source: Node<'_, '_>) -> Result<(), String> {
        let protocol = source.attribute("protocol").unwrap_or_default();
        match PROTOCOLS.iter().find(|(name, _)| *name == protocol) {
            Some((_, is_here)) if *is_here && !source.children().any(|host| host.has_tag_name("host")) => {
                self.needs(Power::Host).map_err(|why| format!("without a <host> it is this one: {why}"))
            }
            Some(_) => Ok(()),
            // These were judged.
            None if matches!(protocol, "http" | "https" | "ftp" | "ftps" | "tftp" | "ssh") => Ok(()),
            None => self.needs(Power::Unknown),
        }
    }

    /// A screen that others than this host reach has a password. By what engines send, nobody comes in before it is set.
    fn screen(&self, node: Node<'_, '_>) -> Result<(), String> {
        let listens = node.children().filter(|child| child.has_tag_name("listen"));
        let beyond = listens
            .map(|listen| (listen.attribute("type") == Some("network"), listen.attribute("address")))
            .chain([(false, node.attribute("listen"))])
            .any(|(network, address)| network || address.is_some_and(|a| !address::is_loopback(a)));
        if beyond && !node.has_attribute("passwd") {
            let without = "it listens beyond this host without passwd=";
            return self.needs(Power::Host).map_err(|why| format!("{without}: {why}"));
        }
        Ok(())
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

    /// Whether a document may have this done with what lies there.
    fn path(&self, path: &str, usage: Use) -> Result<(), String> {
        let (lists, keys): (&[&Vec<PathBuf>], _) = match usage {
            Use::Write => (&[&self.folders], "create.folders"),
            Use::Read => (&[&self.folders, &self.read_only], "create.folders or create.read_only"),
            Use::Firmware => (
                &[&self.folders, &self.read_only, &self.firmware],
                "create.firmware, create.folders or create.read_only",
            ),
        };
        let one = plain(Path::new(path));
        // A folder in it that is named for its sake, and not itself or one around it.
        let guard = GUARDED.iter().map(Path::new).find(|guard| one.starts_with(guard));
        let lies_in = |folder: &PathBuf, guard: &Path| {
            let folder = plain(folder);
            folder.starts_with(guard) && folder != guard
        };
        let opens =
            |folder: &&PathBuf| is_below(path, folder) && guard.is_none_or(|guard| lies_in(folder, guard));
        if self.own.iter().any(|own| one.starts_with(plain(own))) {
            return Err("this is whydown's own".into());
        }
        if lists.iter().copied().flatten().any(|folder| opens(&folder)) {
            return Ok(());
        }
        Err(match path.starts_with('/') {
            true => format!("this lies in no folder of {keys}"),
            false => format!("a path is absolute, and lies in a folder of {keys}"),
        })
    }
}

fn unread(bad: &BadDocument) -> Forbidden {
    Forbidden { element: "document".into(), why: bad.to_string() }
}

/// What becomes of a disk's image: links of its chain, compact discs and what is marked so are only read.
fn use_of(source: Node<'_, '_>) -> Use {
    for above in source.ancestors().skip(1) {
        match above.tag_name().name() {
            "backingStore" => return Use::Read,
            "mirror" | "nvram" => return Use::Write,
            "disk" => {
                let marked = above.children().any(|child| child.has_tag_name("readonly"));
                return if marked || above.attribute("device") == Some("cdrom") {
                    Use::Read
                } else {
                    Use::Write
                };
            }
            _ => {}
        }
    }
    Use::Write
}

/// Firmware in flash is written unless it is said to be read-only.
fn use_of_loader(loader: Node<'_, '_>) -> Use {
    match (loader.attribute("readonly"), loader.attribute("type")) {
        (Some("yes"), _) | (None, None | Some("rom")) => Use::Firmware,
        _ => Use::Write,
    }
}

/// The kind of the device around it.
fn kind_above<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    node.parent_element().and_then(|device| device.attribute("type"))
}

/// Whether it is a terminal such as QEMU makes for itself.
fn is_terminal(path: &str) -> bool {
    path.strip_prefix("/dev/pts/")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// By its one name: `/var/run` is `/run` everywhere.
fn plain(path: &Path) -> PathBuf {
    match path.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => path.components().collect(),
    }
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
