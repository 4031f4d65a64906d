//! Kinds of devices, and values, that make a difference.

use crate::config::Power;

/// A device, the attribute that says its kind, the harmless kinds, and what the others that are known take. Where libvirt's
/// own choice, without the attribute, is not harmless, it stands among these as [`UNSAID`].
pub(super) type Kinds =
    (&'static str, &'static str, &'static [&'static str], &'static [(&'static str, Power)]);

/// A kind that is not said.
pub(super) const UNSAID: &str = "";

/// Devices whose kinds make a difference.
pub(super) const KINDS: &[Kinds] = &[
    (
        "disk",
        "type",
        &["file", "block", "network"],
        &[
            ("volume", Power::Pool),
            ("nvme", Power::Hostdev),
            ("vhostvdpa", Power::Hostdev),
            ("vhostuser", Power::Share),
            ("dir", Power::Share),
        ],
    ),
    (
        "interface",
        "type",
        &["network", "bridge", "direct"],
        &[
            // It is the host's network by QEMU's own hand, as "user".
            (UNSAID, Power::Host),
            ("internal", Power::Host),
            // libvirt 9.0 dies of it.
            ("null", Power::Unknown),
            ("ethernet", Power::Host),
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
pub(super) const ANYWHERE: &[(&str, &str, &[&str], Power)] = &[
    ("script", "", &[], Power::Commandline),
    ("downscript", "", &[], Power::Commandline),
    ("reservations", "", &[], Power::Hostdev),
    ("disk", "rawio", &["yes"], Power::Hostdev),
    ("disk", "sgio", &["unfiltered"], Power::Hostdev),
    ("smbios", "mode", &["host"], Power::Hostdev),
    ("target", "type", &["guestfwd"], Power::Host),
    ("source", "protocol", &["http", "https", "ftp", "ftps", "tftp", "ssh"], Power::Host),
    ("source", "mode", &["passthrough"], Power::Host),
];

/// Elements of which this attribute says how memory is shared: anything but "private" needs "share".
pub(super) const ACCESS: &[(&str, &str)] = &[("access", "mode"), ("cell", "memAccess"), ("memory", "access")];

/// Elements and attributes that say an image's format.
pub(super) const FORMATS: &[(&str, &str)] = &[
    ("driver", "type"),
    ("format", "type"),
    ("mirror", "format"),
    ("loader", "format"),
    ("nvram", "format"),
    ("nvram", "templateFormat"),
];

/// Formats that name no other file, and the one whose header is read here.
pub(super) const PLAIN_FORMATS: &[&str] = &["raw", "qcow2", "luks"];

/// Protocols of disks, and whether one without a host's name means a service of this host.
pub(super) const PROTOCOLS: &[(&str, bool)] = &[
    ("rbd", false),
    ("nbd", true),
    ("iscsi", true),
    ("gluster", true),
    ("sheepdog", true),
    ("vxhs", true),
    ("nfs", true),
];

/// How libvirt names interfaces of its own choice.
pub(super) const OWN_INTERFACES: &[&str] = &["vnet", "macvtap", "macvlan"];

/// Sources of randomness: what a guest reads of them tells nothing.
pub(super) const RANDOM: &[&str] = &["/dev/random", "/dev/urandom", "/dev/hwrng"];
