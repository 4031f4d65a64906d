//! Calls over HTTP as engines make them: to `/`, texts without a type, and no parameters as one closed element.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A parameter.
#[derive(Debug, Clone)]
pub enum Param<'a> {
    /// A text.
    Text(&'a str),
    /// A list of texts.
    Texts(&'a [String]),
    /// With its tags already.
    Written(&'a str),
}

/// The reply's body.
///
/// # Panics
/// Where an engine would see a network failure.
pub fn call(port: u16, range: Option<&str>, method: &str, params: &[Param<'_>]) -> String {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the host is there");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    exchange(stream, port, range, method, params)
}

/// The same over a unix socket, which is there in whatever network the host is.
///
/// # Panics
/// As [`call`].
pub fn call_local(socket: &Path, method: &str) -> String {
    call_local_with(socket, method, &[])
}

/// The same with parameters.
///
/// # Panics
/// As [`call`].
pub fn call_local_with(socket: &Path, method: &str, params: &[Param<'_>]) -> String {
    let stream = UnixStream::connect(socket).expect("the host is there");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a limit");
    exchange(stream, 80, None, method, params)
}

fn exchange(
    mut stream: impl Read + Write,
    port: u16,
    range: Option<&str>,
    method: &str,
    params: &[Param<'_>],
) -> String {
    let value = |text: &str| format!("<value>{text}</value>");
    let param = |param: &Param<'_>| match param {
        Param::Text(text) => value(text),
        Param::Written(value) => (*value).to_owned(),
        Param::Texts(texts) => {
            let items: String = texts.iter().map(|text| value(text)).collect();
            format!("<value><array><data>{items}</data></array></value>")
        }
    };
    let params: String = params.iter().map(|p| format!("<param>{}</param>", param(p))).collect();
    let params =
        if params.is_empty() { "<params/>".to_owned() } else { format!("<params>{params}</params>") };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><methodCall><methodName>{method}</methodName>{params}</methodCall>"
    );
    let range = range.map_or_else(String::new, |range| format!("X-Whydown-Exit-Reasons: {range}\r\n"));
    let request = format!(
        "POST / HTTP/1.1\r\nContent-Type: text/xml\r\n\
         User-Agent: Apache XML RPC 3.1.3 (Jakarta Commons httpclient Transport)\r\n\
         Host: 127.0.0.1:{port}\r\nContent-Length: {}\r\n{range}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("it takes the request");
    let mut answer = BufReader::new(stream);
    let mut line = String::new();
    answer.read_line(&mut line).expect("a status line");
    assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
    let mut length = 0;
    loop {
        line.clear();
        answer.read_line(&mut line).expect("a header");
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().expect("a length");
            }
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    answer.read_exact(&mut body).expect("the whole body");
    String::from_utf8(body).expect("replies are UTF-8")
}
