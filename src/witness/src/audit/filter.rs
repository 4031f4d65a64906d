//! What the kernel's packet filter lets through, as a program for it: records of our kinds, and of system calls only those
//! that send signals. On hosts that record much, nearly all records are of other calls, and they wake nobody.
//!
//! The filter only spares work. What it cannot judge, such as a record that is written in another way, it lets through.
//!
//! ```text
//! 0           16     22          37         )  +3    +8        +17      +25
//! │ nlmsghdr  │audit(│1700000000.123:│77     ): arch= c000003e syscall= 62 success=…
//! ```

use super::call::numbers;
use super::record::{KINDS, SYSCALL};

/// One instruction of a classic filter: code, jumps if true and if false, and its number.
pub(super) type Instruction = (u16, u8, u8, u32);

const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_WORD_AT_X: u16 = 0x40; // BPF_LD | BPF_W | BPF_IND
const SET_X: u16 = 0x01; // BPF_LDX | BPF_W | BPF_IMM
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Where the bracket behind the serial may be: seconds of ten digits until 2286, and a serial of one to ten.
const BRACKETS: std::ops::RangeInclusive<u32> = 38..=47;

/// From the bracket to the end of `syscall=`, where architectures have eight digits, and to the call's number.
const KEY_END: u32 = 21;
const NUMBER: u32 = 25;

/// The program.
pub(super) fn program() -> Vec<Instruction> {
    let others: Vec<u16> = KINDS.into_iter().filter(|kind| *kind != SYSCALL).collect();
    let calls = calls();
    let brackets = BRACKETS.count();
    // Where each part begins.
    let scan = 1 + others.len() + 1;
    let found = scan + 2 * brackets + 1;
    let check = found + 2 * brackets;
    let drop = check + 3 + calls.len();
    let accept = drop + 1;

    // The filter reads as networks write, and the kernel writes a kind as the host does.
    let kind = |kind: u16| u32::from(kind.to_be());
    let mut program = vec![(LOAD_HALF, 0, 0, 4)];
    let jump = |program: &Vec<Instruction>, to: usize| (to - program.len() - 1) as u8;
    for other in others {
        program.push((EQUAL, jump(&program, accept), 0, kind(other)));
    }
    program.push((EQUAL, 0, jump(&program, drop), kind(SYSCALL)));
    for (place, at) in BRACKETS.enumerate() {
        program.push((LOAD_BYTE, 0, 0, at));
        program.push((EQUAL, jump(&program, found + 2 * place), 0, u32::from(b')')));
    }
    program.push((JUMP, 0, 0, u32::from(jump(&program, accept))));
    for at in BRACKETS {
        program.push((SET_X, 0, 0, at));
        program.push((JUMP, 0, 0, u32::from(jump(&program, check))));
    }
    program.push((LOAD_WORD_AT_X, 0, 0, KEY_END));
    program.push((EQUAL, 0, jump(&program, accept), u32::from_be_bytes(*b"all=")));
    program.push((LOAD_WORD_AT_X, 0, 0, NUMBER));
    for call in calls {
        program.push((EQUAL, jump(&program, accept), 0, u32::from_be_bytes(call)));
    }
    program.push((RETURN, 0, 0, 0));
    program.push((RETURN, 0, 0, u32::MAX));
    program
}

/// The first four bytes from a call's number on, where the call was made and has an outcome. Of all architectures: which
/// it is was not looked at.
fn calls() -> Vec<[u8; 4]> {
    let mut all: Vec<[u8; 4]> = numbers()
        .filter_map(|number| {
            let text = format!("{number} success=");
            text.as_bytes().first_chunk().copied()
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernel runs it: whether the packet passes.
    fn passes(packet: &[u8]) -> bool {
        let program = program();
        let (mut a, mut x, mut at) = (0u32, 0u32, 0usize);
        let load = |from: usize, length: usize| -> Option<u32> {
            let bytes = packet.get(from..from + length)?;
            Some(bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
        };
        loop {
            let (code, yes, no, k) = program[at];
            at += 1;
            let loaded = match code {
                LOAD_BYTE => load(k as usize, 1),
                LOAD_HALF => load(k as usize, 2),
                LOAD_WORD_AT_X => load((k + x) as usize, 4),
                SET_X => {
                    x = k;
                    continue;
                }
                JUMP => {
                    at += k as usize;
                    continue;
                }
                EQUAL => {
                    at += usize::from(if a == k { yes } else { no });
                    continue;
                }
                RETURN => return k > 0,
                other => panic!("{other:#x}"),
            };
            // Beyond the packet's end the kernel drops it.
            let Some(loaded) = loaded else { return false };
            a = loaded;
        }
    }

    fn packet(kind: u16, text: &str) -> Vec<u8> {
        let mut packet = u32::try_from(16 + text.len()).unwrap().to_ne_bytes().to_vec();
        packet.extend(kind.to_ne_bytes());
        packet.extend([0; 10]);
        packet.extend(text.as_bytes());
        packet
    }

    #[test]
    fn what_was_recorded_passes_and_other_calls_do_not() {
        let mut calls = 0;
        for line in include_str!("records.txt").lines().filter(|line| !line.starts_with('#')) {
            let (kind, text) = line.split_once(' ').unwrap();
            let kind = kind.parse().unwrap();
            assert!(passes(&packet(kind, text)), "{line}");
            if kind == SYSCALL && text.contains("success=yes") {
                calls += 1;
                for other in ["59", "1", "257", "620"] {
                    let number = if text.contains("syscall=62 ") { "62" } else { "424" };
                    let number = if text.contains("syscall=234 ") { "234" } else { number };
                    let changed = text.replace(&format!("syscall={number} "), &format!("syscall={other} "));
                    assert_ne!(changed, text);
                    assert!(!passes(&packet(SYSCALL, &changed)), "{changed}");
                }
            }
        }
        assert!(calls > 4, "{calls}");
        for kind in [1112, 1302, 1307, 1309, 1320, 1327] {
            assert!(!passes(&packet(kind, "audit(1795279679.468:10): a=b")), "{kind}");
        }
    }

    #[test]
    fn a_serial_of_any_length_is_passed_over_and_what_is_written_otherwise_is_let_through() {
        let record =
            |serial: &str, rest: &str| packet(SYSCALL, &format!("audit(1700000000.123:{serial}): {rest}"));
        let kill = "arch=c000003e syscall=62 success=yes exit=0 a0=1";
        let other = "arch=c000003e syscall=59 success=yes exit=0 a0=1";
        for digits in 1..=10 {
            let serial = "1234567890".get(..digits).unwrap();
            assert!(passes(&record(serial, kill)), "{serial}");
            assert!(!passes(&record(serial, other)), "{serial}");
        }
        assert!(passes(&record("12345678901", other)), "no such serial");
        assert!(passes(&record("7", "arch=28 syscall=37 success=yes exit=0 a0=1 a1=9")), "few digits");
    }
}
