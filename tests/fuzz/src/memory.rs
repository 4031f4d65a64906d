//! How much memory a reader takes, counted by the allocator.

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What every reader may take however short its input: tables that are made once, and small things.
const FLOOR_BYTES: usize = 256 << 10;

/// Runs `read` and holds it to so many bytes for each byte of its input, at any moment. Only where nothing else runs in
/// the process.
///
/// # Panics
/// When it takes more.
pub fn bounded<T>(input: usize, times: usize, read: impl FnOnce() -> T) -> T {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let value = read();
    let taken = MEMORY.peak_usage().saturating_sub(before);
    assert!(taken <= FLOOR_BYTES + input * times, "{taken} bytes of memory for {input} bytes of input");
    value
}
