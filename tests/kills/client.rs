//! A manager that may be cut off at any moment, and what it can be sure of.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// Longer than the slowest act.
const PATIENCE: Duration = Duration::from_secs(60);

/// Knows where the daemon's socket is.
#[derive(Clone)]
pub struct Client(PathBuf);

impl Client {
    pub fn new(socket: &Path) -> Self {
        Self(socket.to_owned())
    }

    /// The body of a whole answer; `None` when there was none, or not all of it.
    fn exchange(&self, request: &str) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(&self.0).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let answer = String::from_utf8(answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        let header = |wanted: &str| {
            let lines = head.lines().filter_map(|line| line.split_once(':'));
            lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
        };
        let body = match (header("transfer-encoding"), header("content-length")) {
            (Some("chunked"), _) => unchunked(body)?,
            (_, Some(length)) if length.parse() != Ok(body.len()) => return None,
            _ => body.to_owned(),
        };
        Some((code, body))
    }

    /// A page below `/v1/`.
    pub fn get(&self, target: &str) -> Option<Value> {
        let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let (code, body) = self.exchange(&request)?;
        (code == 200).then(|| serde_json::from_str(&body).ok())?
    }

    /// The code of a verb's whole answer.
    pub fn call(&self, verb: &str, params: &str) -> Option<i64> {
        let body =
            format!("<methodCall><methodName>{verb}</methodName><params>{params}</params></methodCall>");
        let request = format!(
            "POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (_, body) = self.exchange(&request)?;
        let (_, rest) = body.split_once("<name>code</name>")?;
        rest.split_once("<int>")?.1.split_once("</int>")?.0.parse().ok()
    }
}

/// A body in chunks; `None` where the last one is missing.
fn unchunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n")?;
        let length = usize::from_str_radix(length.trim(), 16).ok()?;
        if length == 0 {
            return Some(whole);
        }
        whole += rest.get(..length)?;
        body = rest.get(length..)?.strip_prefix("\r\n")?;
    }
}

/// Text parameters of a verb.
pub fn texts(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("<param><value><string>{text}</string></value></param>")).collect()
}

/// The one parameter of `create`.
pub fn create(uuid: &str, xml: &str) -> String {
    let xml = xml.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let member = |name: &str, text: &str| {
        format!("<member><name>{name}</name><value><string>{text}</string></value></member>")
    };
    format!("<param><value><struct>{}{}</struct></value></param>", member("vmId", uuid), member("xml", &xml))
}
