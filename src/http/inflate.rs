//! Packed requests. A small packed body may hold an endless one, so unpacking stops at the limit; and one that holds nothing
//! may take long to find that out, so it takes one member and no more, and looks whether anybody still waits.

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use flate2::bufread::GzDecoder;

/// Bytes that are unpacked before it is looked whether somebody waits.
const PIECE: usize = 4 << 10;

/// Why a packed body cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InflateError {
    /// It is larger than the limit.
    TooLarge,
    /// It is not gzip, cut, or more than one member.
    Broken,
}

/// The packed bytes, a piece at a time, while somebody waits.
struct Pieces<'a> {
    rest: &'a [u8],
    left: &'a AtomicBool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left.load(Ordering::Relaxed) {
            return Err(io::Error::other("the client has gone"));
        }
        Ok(&self.rest[..self.rest.len().min(PIECE)])
    }

    fn consume(&mut self, count: usize) {
        self.rest = &self.rest[count..];
    }
}

/// Unpacks gzip of one member, up to `limit` bytes, until `left` is true.
pub(super) fn inflate(packed: &[u8], limit: usize, left: &AtomicBool) -> Result<Bytes, InflateError> {
    let mut plain = Vec::new();
    let mut member = GzDecoder::new(Pieces { rest: packed, left });
    (&mut member).take(limit as u64 + 1).read_to_end(&mut plain).map_err(|_| InflateError::Broken)?;
    if plain.len() > limit {
        return Err(InflateError::TooLarge);
    }
    if !member.into_inner().rest.is_empty() {
        return Err(InflateError::Broken);
    }
    // No more than it has: the room for more may be as much again.
    Ok(plain.into_boxed_slice().into())
}
