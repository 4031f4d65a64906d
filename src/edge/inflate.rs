//! Packed requests. A small packed body may hold an endless one, so unpacking stops at the limit.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

/// Why a packed body cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InflateError {
    /// It is larger than the limit.
    TooLarge,
    /// It is not gzip, or cut.
    Broken,
}

/// Unpacks gzip up to `limit` bytes.
pub(super) fn inflate(packed: &[u8], limit: usize) -> Result<Bytes, InflateError> {
    let mut plain = Vec::new();
    let mut reader = MultiGzDecoder::new(packed).take(limit as u64 + 1);
    reader.read_to_end(&mut plain).map_err(|_| InflateError::Broken)?;
    if plain.len() > limit { Err(InflateError::TooLarge) } else { Ok(plain.into()) }
}
