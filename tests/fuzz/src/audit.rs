//! Records of the kernel's audit: what programs and their names may make of them.

// The witness's own files; what only the rest of the witness uses is unused here.
#[path = "../../../src/witness/src/audit/call.rs"]
#[allow(dead_code)]
mod call;
#[path = "../../../src/witness/src/audit/event.rs"]
#[allow(dead_code)]
mod event;
#[path = "../../../src/witness/src/audit/record.rs"]
#[allow(dead_code)]
mod record;

use whydown_core::evidence::tame;

use self::event::{Event, Events};
use self::record::{ANOM_ABEND, KINDS, OBJ_PID, Record, SECCOMP, SYSCALL, Sending, parse};
use crate::memory::bounded;

/// Bytes of memory for a byte of records: each line has names of its own.
const TIMES: usize = 64;

/// The target: as lines, each a kind and its text; then as the name and the path of a program that means to deceive.
///
/// # Panics
/// When a property does not hold.
pub fn audit(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    bounded(text.len(), TIMES, || {
        let mut events = Events::default();
        for line in text.lines() {
            let Some((kind, said)) = line.split_once(' ') else { continue };
            let Some((stamp, record)) = kind.parse().ok().and_then(|kind| parse(kind, said)) else {
                continue;
            };
            if let Some(Event::Sent { from, name, .. }) = events.take(stamp, record) {
                assert!(tame(&name) == name && tame(&from.exe) == from.exe && tame(&from.name) == from.name);
            }
        }
    });
    for kind in KINDS {
        let _ = parse(kind, &text);
    }
    deceive(&written(bytes));
}

/// As the kernel writes a name that is not its own.
fn written(name: &[u8]) -> String {
    if name.iter().all(|byte| (0x21..0x7f).contains(byte) && *byte != b'"') {
        return format!("\"{}\"", String::from_utf8_lossy(name));
    }
    name.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Whatever its name, a program is its own process, and has sent its own signal.
fn deceive(name: &str) {
    let stamp = "audit(1700000000.123:77):";
    let call = format!(
        "{stamp} arch=c000003e syscall=62 success=yes exit=0 a0=7 a1=9 a2=0 a3=0 items=0 ppid=1 pid=5 auid=1000 uid=1 \
         gid=0 euid=2 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=3 comm={name} exe={name} subj=unconfined key={name}"
    );
    let Some((sent, Record::Sending(sending))) = parse(SYSCALL, &call) else { panic!("{call}") };
    let Sending { signal, many, pid, uid, euid, login, .. } = sending;
    assert_eq!((signal, many, pid, uid, euid, login), (9, false, 5, 1, 2, Some(1000)), "{call}");
    let target = format!("{stamp} opid=7 oauid=-1 ouid=107 oses=-1 obj=unconfined ocomm={name}");
    let Some((to, Record::Target { pid: 7, uid: 107, .. })) = parse(OBJ_PID, &target) else {
        panic!("{target}")
    };
    assert_eq!(sent, to);
    let of_it =
        format!("{stamp} auid=1 uid=1 gid=1 ses=1 subj=a label (b) pid=6 comm={name} exe={name} sig=31");
    let abend = format!("{of_it} res=1");
    let ended = matches!(parse(ANOM_ABEND, &abend), Some((_, Record::Ended { pid: 6, signal: 31, .. })));
    assert!(ended, "{abend}");
    let forbidden = format!("{of_it} arch=c000003e syscall=59 compat=0 ip=0x7f code=0x80000000");
    let told = matches!(
        parse(SECCOMP, &forbidden),
        Some((_, Record::Forbidden { pid: 6, signal: 31, call: 59, arch: 0xc000_003e, .. }))
    );
    assert!(told, "{forbidden}");
}
