//! Records of the kernel's audit, with programs in them that mean to deceive.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| whydown_fuzz::audit(bytes));

#[cfg(not(fuzzing))]
fn main() {
    whydown_fuzz::replay(whydown_fuzz::audit);
}
