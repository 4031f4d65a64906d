//! What a client may take of this room's time and memory.

use std::time::Duration;

/// The bounds of one listener. Each listener has its own, so that a flood from the network leaves the local socket free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the first moment of a connection with TLS to the end of its handshake. VDSM gave ten seconds.
    pub handshake_timeout: Duration,
    /// From the first moment of a connection (with TLS: the end of its handshake), or from the first byte of a later request, to the end of its header.
    /// VDSM gave ten seconds for the first bytes.
    pub header_timeout: Duration,
    /// From the end of the header to the end of the body.
    pub body_timeout: Duration,
    /// Between two requests. VDSM gave 60 seconds; managers keep connections and must not be surprised sooner.
    pub idle_timeout: Duration,
    /// How long a client may read nothing of its answer before it is given up.
    pub write_timeout: Duration,
    /// Connections at a time. Engines keep two to a host. One more is closed as soon as it comes.
    pub max_connections: usize,
    /// Bytes of a request's header; more is answered by 431. At least 8,192.
    pub max_header_bytes: usize,
    /// Bytes of a request's body, unpacked too; more is answered by 413. The longest honest request is a `create`.
    pub max_body_bytes: usize,
    /// How long requests under way may go on after the shutdown began.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            max_connections: 512,
            max_header_bytes: 16 << 10,
            max_body_bytes: 2 << 20,
            drain_timeout: Duration::from_secs(10),
        }
    }
}
