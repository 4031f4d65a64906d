//! The system calls that send a signal, by the audit's numbers of architectures.

/// Where a call has what matters, and what the kernel makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    /// The argument with the signal.
    pub(super) signal_at: &'static str,
    /// The code that the kernel gives to it: `SI_USER`, `SI_TKILL` or `SI_QUEUE`.
    pub(super) code: i32,
    /// Whether its first argument may name a group of processes.
    pub(super) to_many: bool,
}

/// `kill`, `tkill`, `tgkill`, `rt_sigqueueinfo`, `rt_tgsigqueueinfo`, `pidfd_send_signal`.
const CALLS: [Call; 6] = [
    Call { signal_at: "a1", code: 0, to_many: true },
    Call { signal_at: "a1", code: -6, to_many: false },
    Call { signal_at: "a2", code: -6, to_many: false },
    Call { signal_at: "a1", code: -1, to_many: false },
    Call { signal_at: "a2", code: -1, to_many: false },
    Call { signal_at: "a1", code: 0, to_many: false },
];

/// Their numbers: x86_64, i386, aarch64, s390x, ppc64le.
const NUMBERS: [(u32, [u32; 6]); 5] = [
    (0xc000_003e, [62, 200, 234, 129, 297, 424]),
    (0x4000_0003, [37, 238, 270, 178, 335, 424]),
    (0xc000_00b7, [129, 130, 131, 138, 240, 424]),
    (0x8000_0016, [37, 237, 241, 178, 330, 424]),
    (0xc000_0015, [37, 208, 250, 177, 322, 424]),
];

/// All numbers, of all architectures.
pub(super) fn numbers() -> impl Iterator<Item = u32> {
    NUMBERS.into_iter().flat_map(|(_, numbers)| numbers)
}

/// The call of this number, if it sends a signal.
pub(super) fn call(arch: u32, number: u32) -> Option<Call> {
    let (_, numbers) = NUMBERS.iter().find(|(known, _)| *known == arch)?;
    let place = numbers.iter().position(|known| *known == number)?;
    Some(CALLS[place])
}
