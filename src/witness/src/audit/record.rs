//! One record of the kernel's audit, as far as it tells of a signal or of an end.
//!
//! ```text
//! 1300 audit(1700000000.123:77): arch=c000003e syscall=62 success=yes exit=0 a0=1e61 a1=9 … pid=7778 auid=1000 uid=0 …
//!      comm="kill" exe="/usr/bin/kill" subj=unconfined key="x"
//! 1318 audit(1700000000.123:77): opid=7777 oauid=-1 ouid=107 oses=-1 obj=unconfined ocomm="qemu-system-x86"
//! 1701 audit(1700000000.456:78): auid=… uid=… gid=… ses=… subj=… pid=7777 comm="CPU 0/KVM" exe="/usr/bin/qemu" sig=11 res=1
//! 2500 audit(1700000000.789:80): pid=700 uid=0 auid=… ses=… subj=… msg='virt=qemu op=start reason=booted vm="a" uuid=…
//!      vm-pid=-1 exe="/usr/sbin/libvirtd" hostname=? addr=? terminal=? res=failed'
//! 1326 audit(1700000000.789:79): auid=… … pid=7777 comm="x" exe="/x" sig=31 arch=c000003e syscall=59 compat=0 ip=… code=0x80000000
//! ```
//!
//! Names and paths are their owners' choice. The kernel writes one in quotes only where no byte of it is a space, a quote or
//! no ASCII, and all others in hexadecimal, so that no name makes a field. A security label is not written like that: what
//! stands before it is read from the left, and what stands behind it from the right.

use whydown_core::evidence::{StartedFor, tame};
use whydown_core::id::DomainId;

use super::call::{Call, call};

/// `AUDIT_SYSCALL`
pub(super) const SYSCALL: u16 = 1300;
/// `AUDIT_CONFIG_CHANGE`
pub(super) const CONFIG_CHANGE: u16 = 1305;
/// `AUDIT_OBJ_PID`
pub(super) const OBJ_PID: u16 = 1318;
/// `AUDIT_SECCOMP`
pub(super) const SECCOMP: u16 = 1326;
/// `AUDIT_EVENT_LISTENER`: that it comes is all that it says.
pub(super) const EVENT_LISTENER: u16 = 1335;
/// `AUDIT_ANOM_ABEND`
pub(super) const ANOM_ABEND: u16 = 1701;

/// `AUDIT_VIRT_CONTROL`: libvirt's own record.
pub(super) const VIRT_CONTROL: u16 = 2500;

/// All that matter here; the kernel keeps the others from us.
pub(super) const KINDS: [u16; 7] =
    [SYSCALL, CONFIG_CHANGE, OBJ_PID, SECCOMP, EVENT_LISTENER, ANOM_ABEND, VIRT_CONTROL];

/// `SECCOMP_RET_KILL_PROCESS`. To kill one thread ends a process only if it has no other; then an end is recorded as well.
const KILL_PROCESS: u64 = 0x8000_0000;

/// Signals that a process sends to end another or itself, as the trace of signals has them; no others are read.
const DEADLY: [i32; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 15, 24, 25, 31];

/// The kernel's `(uid_t)-1`.
const UNSET: u32 = u32::MAX;

/// Bytes of a path, the longest of all names.
const NAME_BYTES: usize = 4096;

/// What the records of one event have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Milliseconds since 1970.
    pub(super) millis: u64,
    /// Its number since the host booted.
    pub(super) serial: u64,
}

/// A process that sends a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sending {
    pub(super) signal: i32,
    /// The kernel's code for such calls.
    pub(super) code: i32,
    /// To a group of processes, or to all; those that it may not signal are recorded as well.
    pub(super) many: bool,
    pub(super) pid: u32,
    pub(super) uid: u32,
    pub(super) euid: u32,
    pub(super) login: Option<u32>,
    /// The name of its thread; empty where it cannot be read.
    pub(super) name: String,
    /// The file of its program; empty where the kernel does not know it.
    pub(super) exe: String,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// A signal is sent; who gets it stands in the records of the same event that follow.
    Sending(Sending),
    /// A process that a system call was about.
    Target { pid: u32, uid: u32, name: String },
    /// A signal ends a process, and its memory is to be dumped.
    Ended { pid: u32, name: String, exe: String, signal: i32 },
    /// A system call that the process itself had forbidden ends it.
    Forbidden { pid: u32, name: String, exe: String, signal: i32, arch: u32, call: u32 },
    /// Somebody switches the audit on (or locks it), or off.
    Switched { on: bool },
    /// The process with this number says that it could not start this domain.
    NotStarted { pid: u32, domain: DomainId, name: String, started_for: Option<StartedFor> },
}

/// Reads a record of this kind; `None` for what tells nothing here.
pub(super) fn parse(kind: u16, text: &str) -> Option<(Stamp, Record)> {
    let (stamp, said) = stamp(text)?;
    let record = match kind {
        SYSCALL => Record::Sending(sending(said)?),
        OBJ_PID => {
            let (before, name) = said.rsplit_once(" ocomm=")?;
            Record::Target {
                pid: number(field(before, "opid")?)?,
                uid: number(field(before, "ouid")?)?,
                name: name_of(first_word(name)),
            }
        }
        ANOM_ABEND | SECCOMP => ending(kind, said)?,
        CONFIG_CHANGE => {
            // What was refused is recorded like what was done.
            let said = said.strip_prefix("op=set ")?.strip_suffix(" res=1")?;
            Record::Switched { on: field(said, "audit_enabled")? != "0" }
        }
        VIRT_CONTROL => {
            // Who sends it stands before its own words, in which a name cannot make a field.
            let (before, said) = said.split_once(" msg='")?;
            // Of a VM that should go back to a snapshot events tell.
            let started_for = match field(said, "reason")? {
                "booted" => None,
                "restored" => Some(StartedFor::Restore),
                "migrated" => Some(StartedFor::Migration),
                _ => return None,
            };
            let failed =
                field(said, "op")? == "start" && field(said.trim_end_matches('\''), "res")? == "failed";
            Record::NotStarted {
                pid: number(field(before, "pid")?).filter(|_| failed)?,
                domain: field(said, "uuid")?.parse().ok()?,
                name: name_of(field(said, "vm")?),
                started_for,
            }
        }
        _ => return None,
    };
    Some((stamp, record))
}

/// `audit(1700000000.123:77): …`
fn stamp(text: &str) -> Option<(Stamp, &str)> {
    let (stamp, said) = text.strip_prefix("audit(")?.split_once("): ")?;
    let (time, serial) = stamp.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    let millis: u64 = millis.parse().ok().filter(|_| millis.len() == 3)?;
    let millis = seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(millis)?;
    Some((Stamp { millis, serial: serial.parse().ok()? }, said))
}

/// Looks at the number of the call first: on hosts that record much, most calls are none of ours.
fn sending(said: &str) -> Option<Sending> {
    let arch = u32::from_str_radix(field(said, "arch")?, 16).ok()?;
    let Call { signal_at, code, to_many } = call(arch, number(field(said, "syscall")?)?)?;
    let argument = |name: &str| Some(u64::from_str_radix(field(said, name)?, 16).ok()? as u32 as i32);
    let signal = argument(signal_at)?;
    if !DEADLY.contains(&signal) || field(said, "success")? != "yes" {
        return None;
    }
    Some(Sending {
        signal,
        code,
        many: to_many && argument("a0")? <= 0,
        pid: number(field(said, "pid")?)?,
        uid: number(field(said, "uid")?)?,
        euid: number(field(said, "euid")?)?,
        login: number(field(said, "auid")?).filter(|login| *login != UNSET),
        name: field(said, "comm").map(name_of).unwrap_or_default(),
        exe: field(said, "exe").map(name_of).unwrap_or_default(),
    })
}

/// Behind the label stand the process, its names and the signal, none with a space in it.
fn ending(kind: u16, said: &str) -> Option<Record> {
    let (_, said) = said.rsplit_once(" pid=")?;
    let pid = number(first_word(said))?;
    let (name, exe) = (name_of(field(said, "comm")?), name_of(field(said, "exe")?));
    let signal = field(said, "sig")?.parse().ok()?;
    if kind == ANOM_ABEND {
        return Some(Record::Ended { pid, name, exe, signal });
    }
    let arch = u32::from_str_radix(field(said, "arch")?, 16).ok()?;
    let action = u64::from_str_radix(field(said, "code")?.strip_prefix("0x")?, 16).ok()?;
    let call = number(field(said, "syscall")?)?;
    (action == KILL_PROCESS).then_some(Record::Forbidden { pid, name, exe, signal, arch, call })
}

/// The first field of this name.
fn field<'a>(said: &'a str, name: &str) -> Option<&'a str> {
    said.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

fn first_word(said: &str) -> &str {
    said.split(' ').next().unwrap_or_default()
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// A name as its owner wrote it, made harmless; empty where there is none. A file that was replaced since is marked by
/// the kernel, and is the same program.
fn name_of(text: &str) -> String {
    const REPLACED: &str = " (deleted)";
    let name = match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) => plain.to_owned(),
        None => String::from_utf8_lossy(&hexadecimal(text).unwrap_or_default()).into_owned(),
    };
    tame(name.strip_suffix(REPLACED).unwrap_or(&name))
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 2 * NAME_BYTES {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16);
    digits.chunks(2).map(|pair| Some((value(pair[0])? * 16 + value(pair[1])?) as u8)).collect()
}
