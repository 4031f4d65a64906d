//! Bodies of requests, as managers and strangers send them.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| whydown_fuzz::call(bytes));

#[cfg(not(fuzzing))]
fn main() {
    whydown_fuzz::replay(whydown_fuzz::call);
}
