//! Domain documents, as managers give them to `create`.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| whydown_fuzz::document(bytes));

#[cfg(not(fuzzing))]
fn main() {
    whydown_fuzz::replay(whydown_fuzz::document);
}
