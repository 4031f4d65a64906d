//! HTTP over the daemon's unix socket: one request a connection.

use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::told::Trouble;

/// The daemon answers from memory, and history from disk; longer means that it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of one line of a stream, and of one answer, at most.
const MOST: usize = 256 * 1024 * 1024;

/// How often a daemon without room is asked again, and after how many seconds at most.
const AGAIN: u32 = 10;
const AGAIN_MOST_S: u64 = 5;

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers at the socket.
    #[error("the daemon cannot be reached at {} (is whydownd running? see --socket)", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The socket is not for this user.
    #[error(
        "this user may not use the daemon's socket {}: that takes the group `whydown`, or a place in `socket.users` \
         of the daemon's configuration",
        path.display()
    )]
    Forbidden {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The daemon stops.
    #[error("the daemon is stopping")]
    Stopping,
    /// HTTP broke off.
    #[error("the connection to the daemon broke off")]
    Broken(#[from] hyper::Error),
    /// It took too long.
    #[error("the daemon did not answer within {} s", PATIENCE.as_secs())]
    Slow,
    /// The answer is longer than anything sensible.
    #[error("the daemon's answer is too long")]
    TooLong,
    /// It said no.
    #[error("{error}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        error: String,
        /// After how many seconds it wants to be asked again, if it says so: it has no room now.
        again_s: Option<u64>,
    },
}

/// The daemon, as seen through its socket.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The body of a successful answer.
    pub async fn get(&self, target: &str) -> Result<Bytes, ClientError> {
        let whole = async {
            let response = self.ask(target).await?;
            let (status, again_s) = (response.status(), again_s(&response));
            let body = http_body_util::Limited::new(response.into_body(), MOST)
                .collect()
                .await
                .map_err(|_| ClientError::TooLong)?
                .to_bytes();
            if status.is_success() { Ok(body) } else { Err(refusal(status.as_u16(), again_s, &body)) }
        };
        tokio::time::timeout(PATIENCE, whole).await.unwrap_or(Err(ClientError::Slow))
    }

    /// The same; a daemon that has no room now is asked again some times.
    pub async fn get_patiently(&self, target: &str) -> Result<Bytes, ClientError> {
        let mut left = AGAIN;
        loop {
            match self.get(target).await {
                Err(ClientError::Refused { again_s: Some(seconds), .. }) if left > 0 => {
                    left -= 1;
                    tokio::time::sleep(Duration::from_secs(seconds.clamp(1, AGAIN_MOST_S))).await;
                }
                other => return other,
            }
        }
    }

    /// The lines of an answer that goes on.
    pub async fn lines(&self, target: &str) -> Result<Lines, ClientError> {
        let response =
            tokio::time::timeout(PATIENCE, self.ask(target)).await.unwrap_or(Err(ClientError::Slow))?;
        let status = response.status();
        if !status.is_success() {
            let again_s = again_s(&response);
            let body = response.into_body().collect().await?.to_bytes();
            return Err(refusal(status.as_u16(), again_s, &body));
        }
        Ok(Lines { body: response.into_body(), buffer: BytesMut::new() })
    }

    async fn ask(&self, target: &str) -> Result<Response<Incoming>, ClientError> {
        let unreachable = |source: std::io::Error| {
            let path = self.socket.clone();
            match source.kind() {
                std::io::ErrorKind::PermissionDenied => ClientError::Forbidden { path, source },
                _ => ClientError::Unreachable { path, source },
            }
        };
        let stream = tokio::net::UnixStream::connect(&self.socket).await.map_err(unreachable)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(target)
            .header("Host", "localhost")
            .body(Empty::<Bytes>::new())
            .expect("the target is made here, and its query is encoded");
        Ok(sender.send_request(request).await?)
    }
}

fn again_s(response: &Response<Incoming>) -> Option<u64> {
    response.headers().get("Retry-After")?.to_str().ok()?.parse().ok()
}

fn refusal(status: u16, again_s: Option<u64>, body: &[u8]) -> ClientError {
    let error = match serde_json::from_slice::<Trouble>(body) {
        Ok(trouble) => trouble.error,
        Err(_) => format!("the daemon answers with HTTP status {status}"),
    };
    ClientError::Refused { status, error, again_s }
}

/// A stream of lines.
pub struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    /// The next line without its end; `None` at the end of the stream.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1).freeze();
                return Ok(Some(line.slice(..end)));
            }
            if self.buffer.len() > MOST {
                return Err(ClientError::TooLong);
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
