//! Bodies of replies, as hosts and impostors give them.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| whydown_fuzz::reply(bytes));

#[cfg(not(fuzzing))]
fn main() {
    whydown_fuzz::replay(whydown_fuzz::reply);
}
