//! Whether a new connection speaks HTTP at all.
//!
//! Engines from 3.5 on, and virt-who, try STOMP on the same port first, and go on to XML-RPC when the connection is cut.
//! Sooner is better: engines try three times. Whoever speaks TLS or anything else here is cut without an answer too.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Methods that get an answer, if only 405.
const METHODS: [&[u8]; 8] =
    [b"POST ", b"GET ", b"HEAD ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE "];

enum Guess {
    Http,
    Other,
    /// Too few bytes to tell.
    Open,
}

fn guess(bytes: &[u8]) -> Guess {
    // An empty line before a request is allowed: some clients send one after a body.
    let bytes = match bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')) {
        Some(start) if start <= 4 => &bytes[start..],
        None if bytes.len() <= 4 => return Guess::Open,
        _ => return Guess::Other,
    };
    if METHODS.iter().any(|method| bytes.starts_with(method)) {
        Guess::Http
    } else if METHODS.iter().any(|method| method.starts_with(bytes)) {
        Guess::Open
    } else {
        Guess::Other
    }
}

/// Reads until it is clear. Gives back what was read, or `None` if this is not HTTP or nothing came.
///
/// # Errors
/// Those of the stream.
pub(super) async fn read_http_start(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Bytes>> {
    let mut read = BytesMut::with_capacity(4096);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(None);
        }
        match guess(&read) {
            Guess::Http => return Ok(Some(read.freeze())),
            Guess::Other => return Ok(None),
            Guess::Open => {}
        }
    }
}
