//! Every key of the configuration, declared once: what it means, its default, what it may be set to, its flag, and the
//! field that the program reads.
//!
//! ```text
//! /// What it means, for the administrator.
//! "name" = DEFAULT, RULE, flag("long", "VALUE", "its help") => field: Type, read "the function that reads it";
//! ```
//!
//! From this come the settings below, the lowest layer, `systemd/whydown.toml` and `docs/reference/configuration.md`
//! (`tests/fix.sh` writes both), the variables of the environment, the flags, and what `--check-config` prints.
//! A value of these types has passed every check: nobody downstream looks at a limit again.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::key::{declare, flag, number};
use super::rule::{Form, Rule};
use super::uri::ConnectUri;
use super::value::{Client, ExitReasons, LogTarget, Power, Profile, SocketMode};

declare! {
    /// The connection to libvirt.
    libvirt: Libvirt {
        /// libvirt's name for the driver to follow.
        /// "qemu:///system" is the host's libvirtd or virtqemud, "qemu:///session" the one of the user.
        /// "qemu:///embed?root=DIR" runs libvirt's QEMU driver inside whydownd, with all its files under DIR; with the unit it
        /// needs the drop-in whydown-embed.conf, where the consequences stand.
        /// A host name is refused: whydown reads the logs and processes of this host, and would mistake them for the other's.
        "uri" = "qemu:///system",
            Rule::Text(Form::Uri),
            flag("connect", "URI", "Follow this libvirt")
            => uri: ConnectUri;

        /// How often an idle connection is probed.
        /// A libvirtd that hangs is noticed after keepalive_interval_s x (keepalive_count + 1).
        /// The embedded driver has no connection to lose, and does without.
        "keepalive_interval_s" = 5,
            number(1, 3_600, "seconds")
            => keepalive_interval: Duration, read "super::value::seconds";

        /// How many probes may stay without answer before the connection counts as lost.
        "keepalive_count" = 3, number(1, 100, "probes") => keepalive_count: u32;

        /// The pause before the first attempt to connect again. It doubles with each failure.
        "reconnect_min_ms" = 200, number(10, 60_000, "milliseconds") => reconnect_min: Duration, read "super::value::millis";

        /// The longest pause between two attempts to connect again; not below reconnect_min_ms.
        /// What ends while the link is down is decided from traces, so a long pause costs certainty.
        "reconnect_max_ms" = 5000,
            number(10, 600_000, "milliseconds")
            => reconnect_max: Duration, read "super::value::millis";

        /// Where QEMU's logs are: DIR/NAME.log for the domain NAME.
        /// Empty: derived from the URI (/var/log/libvirt/qemu for the system's driver).
        "log_dir" = "", Rule::Text(Form::PathOrEmpty) => log_dir: Option<PathBuf>, read "super::value::path_or_none";

        /// Where libvirt keeps the process ids of running domains: DIR/NAME.pid for the domain NAME.
        /// Empty: derived from the URI (/run/libvirt/qemu for the system's driver).
        "run_dir" = "", Rule::Text(Form::PathOrEmpty) => run_dir: Option<PathBuf>, read "super::value::path_or_none";

        /// The file in which libvirt's daemon writes its errors: log_outputs of libvirtd.conf or virtqemud.conf, where it names one.
        /// There stands why it refused a start by another client. Empty: systemd's journal, where there is one.
        "daemon_log" = "", Rule::Text(Form::PathOrEmpty) => daemon_log: Option<PathBuf>, read "super::value::path_or_none";
    }

    /// What whydown keeps between its own starts.
    state: State {
        /// The directory of the ledger. Only one whydownd may use it.
        /// The unit lets the daemon write below /var/lib/whydown only: for another directory add ReadWritePaths= to it.
        "dir" = "/var/lib/whydown",
            Rule::Text(Form::Path),
            flag("state-dir", "DIR", "Keep the ledger here")
            => dir: PathBuf;
    }

    /// How long the ledger remembers. A limit removes the oldest first. A run that goes on, and an ending that is still told
    /// as unacknowledged, stay with their evidence whatever these say. Ages are counted in time that whydown was running:
    /// no clock that is set, and no host that is off, makes anything older.
    ledger: Ledger {
        /// How long an ending is remembered.
        "endings_max_age_days" = 365, number(1, 36_500, "days") => endings_max_age: Duration, read "super::value::days";

        /// How many endings are remembered.
        "endings_max_count" = 100000, number(1, 10_000_000, "endings") => endings_max_count: u64;

        /// How long the evidence of an ending is remembered. The ending itself stays when its evidence is gone.
        "evidence_max_age_days" = 90, number(1, 36_500, "days") => evidence_max_age: Duration, read "super::value::days";

        /// How many pieces of evidence are remembered.
        "evidence_max_count" = 500000,
            number(1, 100_000_000, "pieces of evidence")
            => evidence_max_count: u64;

        /// How many changes wait in memory while the disk refuses them; every 4 KiB of text in a change count as one more.
        /// Past that evidence is dropped, and at four times this everything.
        "memory_max_ops" = 20000, number(100, 1_000_000, "changes") => memory_max_ops: usize;
    }

    /// VMs that are Down and that no manager has acknowledged (in VDSM's protocol: destroyed) yet.
    /// VDSM reports them for ever. Where no manager ever acknowledges, every answer would grow without end, so they leave
    /// the answers some day. The ledger still has them, and the command line still shows them. Their age is counted in time
    /// that whydown was running, too.
    unacknowledged: Unacknowledged {
        /// How long a Down VM stays in the answers without an acknowledgement: long enough for a manager that is being
        /// replaced.
        "max_age_days" = 30, number(1, 36_500, "days") => max_age: Duration, read "super::value::days";

        /// How many Down VMs stay in the answers without an acknowledgement: far above what one host runs, and small enough
        /// for a manager to read at every poll. The oldest leaves first.
        "max_count" = 1000, number(1, 100_000, "endings") => max_count: usize;
    }

    /// How an ending is decided.
    deciding: Deciding {
        /// How long an ending waits for late evidence, such as the kernel's line about an out-of-memory kill.
        /// An ending that nothing could change any more does not wait.
        "settle_ms" = 300, number(0, 10_000, "milliseconds") => settle: Duration, read "super::value::millis";

        /// How long an ending by a snapshot waits for the start that may follow, before libvirt is asked whether it left the domain off
        /// or is at a revert: while that loads the memory, however long it takes, the ending waits on. Not below settle_ms.
        "settle_snapshot_ms" = 5000,
            number(0, 30_000, "milliseconds")
            => settle_snapshot: Duration, read "super::value::millis";

        /// How often the ledger notes that whydown is listening. After a crash of whydown or of the host, the gap in its
        /// hearing is known this closely.
        "heartbeat_s" = 30, number(1, 3_600, "seconds") => heartbeat: Duration, read "super::value::seconds";
    }

    /// Where witnesses listen, beside libvirt.
    witness: Witness {
        /// Where the kernel's tracefs is mounted, through which it tells who sent the signal that ended a QEMU. whydown traces in
        /// an instance of its own there, which nobody else's tracing sees. It does not mount it.
        /// Empty: signals are not traced; who sent a SIGKILL is then not known, and what it ended is told as probable.
        "tracefs" = "/sys/kernel/tracing",
            Rule::Text(Form::PathOrEmpty)
            => tracefs: Option<PathBuf>, read "super::value::path_or_none";

        /// Whether the kernel's audit is listened to, where it can be: it tells of crashes, of what QEMU's sandbox forbids, and,
        /// where a rule of the administrator's asks for it, who sent a signal and as which user they once logged in.
        /// whydown listens beside the audit's own daemon; it sets no rules, and switches nothing on or off.
        "audit" = true, Rule::Flag => audit: bool;
    }

    /// What running VMs use: processor time, memory, disks and network, and what they are made of.
    sampling: Sampling {
        /// Whether VMs are sampled. Without it managers get no figures, no devices and no word of VMs that do not respond;
        /// endings are told all the same.
        "enabled" = true, Rule::Flag => enabled: bool;

        /// How often. One call asks about all VMs, and QEMU takes some three milliseconds a VM to answer it.
        /// Rates are those of the time between two samples.
        "interval_s" = 5, number(1, 300, "seconds") => interval: Duration, read "super::value::seconds";

        /// After how long without a sample a VM is said not to respond (monitorResponse -1). The original waited 60.
        /// Well above interval_s, or a busy moment looks like silence.
        "unresponsive_after_s" = 60,
            number(2, 3_600, "seconds")
            => unresponsive_after: Duration, read "super::value::seconds";

        /// How often a guest is asked for its name, addresses, users and file systems, if QEMU's guest agent runs in it.
        /// 0 asks no guest. A guest that does not answer is asked more seldom; what it told is dropped after three intervals.
        /// While it is being asked, libvirt waits for its agent five seconds at most, whoever asks; otherwise without a bound,
        /// whatever another client of libvirt had set.
        "guest_interval_s" = 30, number(0, 3_600, "seconds") => guest_interval: Duration, read "super::value::seconds";
    }

    /// XML-RPC over TCP, as VDSM spoke it.
    xmlrpc: XmlRpc {
        /// Where to listen. An empty list listens nowhere; port 0 takes any free port.
        /// The text is not encrypted and callers are not authenticated. They may read what is no secret: names, UUIDs and states
        /// of VMs, their causes and exit codes, and how the host does. For more there are the Unix socket, tls.listen, and
        /// plain_may_act. Beyond loopback it is refused unless insecure_listen_anywhere is set.
        "listen" = ["127.0.0.1:54321"],
            Rule::List(Form::Listen, 16),
            flag("listen", "ADDR:PORT", "Listen here for XML-RPC; may be given several times")
            => listen: Vec<SocketAddr>;

        /// Allow addresses beyond loopback in listen. Whoever reaches them may read what callers of listen may; with
        /// plain_may_act everything, and end VMs.
        "insecure_listen_anywhere" = false, Rule::Flag => insecure_listen_anywhere: bool;

        /// Whether callers at these addresses may act, and read everything.
        /// True opens all VMs of this host to whoever reaches these addresses, every user and every container of this host for
        /// loopback: to create, change and end them, and to read who asked for what, what QEMU logged and what guests told.
        /// Calls are then answered under any name in the header Host.
        "plain_may_act" = false, Rule::Flag => plain_may_act: bool;

        /// Which exit reasons the callers get. "classic" gives numbers up to 8, which every manager knows; "4.1" gives numbers
        /// up to 12, which oVirt 4.1 knows; "full" gives numbers up to 14, which newer managers know.
        "exit_reasons" = "classic", Rule::Word(&["classic", "4.1", "full"]) => exit_reasons: ExitReasons;

        /// Clients that get the full exit reasons while exit_reasons is not "full": their addresses, or "unix" for all that
        /// come through the Unix socket.
        "full_for" = [], Rule::List(Form::Client, 256) => full_for: Vec<Client>;

        /// Which generation of managers the figures of running VMs are written for: the engine's version. "common" is what all
        /// of them can read. The endings are the same for all.
        "profile" = "common", Rule::Word(&["common", "3.4", "3.5", "3.6", "4.0"]) => profile: Profile;

        /// How many connections may be open at once, at each address and at the Unix socket. When all are taken, a newcomer gets
        /// one of the peer that has the most, or is closed if that is its own. A manager keeps two.
        "max_connections" = 256, number(1, 10_000, "connections") => max_connections: usize;

        /// The largest request body. The largest real requests carry a domain's XML.
        "max_request_bytes" = 1048576, number(4_096, 16_777_216, "bytes") => max_request_bytes: usize;

        /// How long a client may take to send the headers of a request. With TLS, the handshake may take as long again.
        "header_timeout_s" = 10, number(1, 3_600, "seconds") => header_timeout: Duration, read "super::value::seconds";

        /// How long a client may take to send the body of a request.
        "body_timeout_s" = 30, number(1, 3_600, "seconds") => body_timeout: Duration, read "super::value::seconds";

        /// How long a connection may stay open without a request. VDSM closes after 60.
        "idle_timeout_s" = 60, number(1, 86_400, "seconds") => idle_timeout: Duration, read "super::value::seconds";

        /// How long a client may read nothing of its answer.
        "write_timeout_s" = 60, number(1, 3_600, "seconds") => write_timeout: Duration, read "super::value::seconds";
    }

    /// XML-RPC with TLS: the same as [xmlrpc], whose limits hold here too, for callers beyond this host.
    /// A caller must show a certificate of the authority in ca. The protocol is TLS 1.2 or 1.3. Managers as old as oVirt 3.6
    /// speak TLS 1.0 at most and cannot connect; a TLS proxy that still speaks it may stand between.
    /// The three files are read at the start and again on SIGHUP ("systemctl reload whydown"), at no other time. New
    /// connections then use the new files, and open ones go on. Files that cannot be used are told in the log and by
    /// "whydown health", and those read before stay in use.
    tls: Tls {
        /// Where to listen, such as "0.0.0.0:54321", VDSM's own port, or "[::]:54321" for IPv6 and IPv4 both. An empty list
        /// listens nowhere. A port that xmlrpc.listen has cannot be here too: set xmlrpc.listen = [] to give VDSM's port to TLS.
        "listen" = [], Rule::List(Form::Listen, 16) => listen: Vec<SocketAddr>;

        /// The host's certificate in PEM, and behind it those between it and the authority, if there are any.
        "certificate" = "/etc/pki/vdsm/certs/vdsmcert.pem", Rule::Text(Form::Path) => certificate: PathBuf;

        /// The private key of the certificate, in PEM and without a password.
        "key" = "/etc/pki/vdsm/keys/vdsmkey.pem", Rule::Text(Form::Path) => key: PathBuf;

        /// The authorities, in PEM, whose certificates callers may show. No other authority of this host counts.
        "ca" = "/etc/pki/vdsm/certs/cacert.pem", Rule::Text(Form::Path) => ca: PathBuf;

        /// Who may read, by a name in the caller's certificate: the common name of its subject, or a DNS name or URI among its
        /// alternative names. Names are compared whole; letter case makes no difference.
        /// Empty: every certificate of the authority may read.
        "readers" = [], Rule::List(Form::Holder, 256) => readers: Vec<String>;

        /// Who may act, by the same names: create, shutdown and destroy. Whoever may act may read too.
        /// Empty: nobody may act through TLS. Every host has a certificate of the same authority, so name the manager here
        /// rather than all; "*" is what VDSM did.
        "actors" = [], Rule::List(Form::Holder, 256) => actors: Vec<String>;
    }

    /// The Unix socket for this host's own tools.
    socket: Socket {
        /// Where it is. A directory other than /run/whydown needs ReadWritePaths= in the unit.
        "path" = "/run/whydown/whydown.sock",
            Rule::Text(Form::SocketPath),
            flag("socket", "PATH", "Make the Unix socket here")
            => path: PathBuf;

        /// Its permissions. Whoever may write to it can end VMs, so it is never open to others; see users.
        /// The unit runs with the group whydown: its members may use the socket.
        "mode" = "0660", Rule::Text(Form::Mode) => mode: SocketMode;

        /// Users who may act through the socket besides root, the daemon's own user and its group, such as a TLS proxy's.
        /// If any are named here, the socket's file lets everybody connect. What callers may then do goes by the user that the
        /// kernel names, and whoever is not among these may do what callers of xmlrpc.listen may.
        /// Names are looked up in /etc/passwd when the daemon starts. For a user who is not there, give the number.
        "users" = [], Rule::List(Form::User, 64) => users: Vec<String>;
    }

    /// What the documents may have with which VMs are started, migrated, and snapshots taken. A document can have QEMU, or
    /// libvirt as root, run programs and read and write files of this host; whoever may act may have only as much of that as
    /// stands here. It holds for every caller, and for VMs that are started through whydown.
    create: Create {
        /// Programs that a document may name as its <emulator>. One that ends in "/" stands for everything below it.
        /// A document that names none gets libvirt's own choice.
        "emulators" = ["/usr/bin/kvm", "/usr/bin/qemu-kvm", "/usr/bin/qemu-system-aarch64", "/usr/bin/qemu-system-ppc64", "/usr/bin/qemu-system-riscv64", "/usr/bin/qemu-system-s390x", "/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"],
            Rule::List(Form::Place, 64)
            => emulators: Vec<PathBuf>;

        /// Where the files and devices lie that documents may name to be written: images, sockets, logs of serial lines, NVRAM,
        /// disks of the host. Whoever may act may have QEMU read and write everything in them, and libvirt make and remove
        /// sockets. For images elsewhere, or for disks of the host such as /dev/mapper, write the whole list anew.
        /// Libvirt's own folders (/var/lib/libvirt, /run/libvirt and others) and whydown's are not opened by their own names, nor by
        /// a folder around them: name one in them.
        "folders" = ["/rhev/data-center", "/run/ovirt-vmconsole-console", "/run/vdsm", "/var/lib/libvirt/images", "/var/lib/libvirt/qemu/channels", "/var/lib/libvirt/qemu/nvram", "/var/run/ovirt-vmconsole-console", "/var/run/vdsm"],
            Rule::List(Form::Place, 256)
            => folders: Vec<PathBuf>;

        /// Where that lies besides which documents may have read and not written: compact discs, kernels, images below others.
        /// libvirt gives such files to QEMU's user, so name no folder of the system.
        "read_only" = [], Rule::List(Form::Place, 256) => read_only: Vec<PathBuf>;

        /// Where firmware lies, and what NVRAM is copied from. It is only read, and keeps its owner.
        "firmware" = ["/usr/share/AAVMF", "/usr/share/OVMF", "/usr/share/edk2", "/usr/share/edk2-ovmf", "/usr/share/qemu", "/usr/share/seabios"],
            Rule::List(Form::Place, 256)
            => firmware: Vec<PathBuf>;

        /// What documents may have besides.
        /// "commandline": elements of other name spaces, such as <qemu:commandline>: any argument of QEMU.
        /// "hostdev": devices of the host (PCI, USB, SCSI, mediated ones), raw access to disks, TPMs, smartcards, input.
        /// "share": folders of the host, memory shared between VMs, and memory in files.
        /// "host": what speaks over the host's own network or changes it, disks that are services of this host, screens that
        /// others reach without a password, screens and sound of the host.
        /// "seclabel": the user and the labels that QEMU and its files get; QEMU may then run as root.
        /// "pool": volumes of libvirt's storage pools, wherever these lie.
        /// "formats": images of other formats than raw, LUKS and qcow2, such as VMDK, and images that whydown cannot read to see
        /// what they name. QEMU opens every file that such an image names, and may write it.
        /// "unknown": elements, attributes and kinds that this version does not know.
        "allow" = [], Rule::List(Form::Power, 16) => allow: Vec<Power>;
    }

    /// What whydown says of itself.
    log: Log {
        /// How much: a level (off, error, warn, info, debug, trace), or levels by part such as "info,whydown=debug".
        "filter" = "info", Rule::Text(Form::Filter), flag("log", "FILTER", "Log this much") => filter: String;

        /// Where to: "auto" is the journal when started by systemd, and standard error otherwise.
        "target" = "auto", Rule::Word(&["auto", "journald", "stderr"]) => target: LogTarget;
    }
}

impl XmlRpc {
    /// Which exit reasons this client gets. An IPv4 address is the same client when it comes over IPv6.
    pub fn exit_reasons_for(&self, client: Client) -> ExitReasons {
        if self.full_for.contains(&client.canonical()) { ExitReasons::Full } else { self.exit_reasons }
    }
}
