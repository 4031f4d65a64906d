//! What honest clients send, in all its forms.

use super::*;
use std::io::{Read, Write};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(plain).unwrap();
    packer.finish().unwrap()
}

fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut plain).unwrap();
    plain
}

#[tokio::test]
async fn a_call_is_answered_on_both_paths_and_the_connection_is_kept() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    for path in ["/", "/RPC2", "http://h/RPC2"] {
        client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, "hello"), "{path}");
        assert_eq!(response.header("content-type"), Some("text/xml"));
        assert_eq!(response.header("server"), Some("whydown"));
        assert_eq!(response.header("connection"), None);
    }
    server.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let server = Server::plain().await;
    for (line, status, allow) in [
        ("POST /RPC2/ HTTP/1.1", 404, None),
        ("POST /?x HTTP/1.1", 404, None),
        ("GET /v1 HTTP/1.1", 404, None),
        ("GET / HTTP/1.1", 405, Some("POST")),
        ("PUT /RPC2 HTTP/1.1", 405, Some("POST")),
        ("OPTIONS / HTTP/1.1", 405, Some("POST")),
        ("POST /v1/vms HTTP/1.1", 405, Some("GET,HEAD")),
        ("OPTIONS /v1/vms HTTP/1.1", 405, Some("GET,HEAD")),
        ("POST /v1/nothing HTTP/1.1", 404, None),
        ("GET /v1/nothing HTTP/1.1", 404, None),
        ("GET /v1/vms/ HTTP/1.1", 404, None),
        ("GET /v1/vms HTTP/1.1", 200, None),
    ] {
        let response = server.ask(format!("{line}\r\nHost: h\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!((response.status, response.header("allow")), (status, allow), "{line}");
    }
    assert_eq!(server.ask(get("/x")).await.text(), "No such page");
    let nothing = "{\"error\":\"there is nothing at this path\"}";
    assert_eq!(server.ask(get("/v1/nothing")).await.text(), nothing);
    assert_eq!(server.ask(get("/v1/vms?wait=1&a=%20")).await.text(), "/v1/vms wait=1&a=%20");
    server.stop().await;
}

#[tokio::test]
async fn a_handler_is_asked_for_by_no_page_of_another_and_gets_its_body_within_the_limits() {
    let limits = Limits { max_body_bytes: 1000, ..Limits::default() };
    let server = Server::start(Echo::default(), limits).await;
    let ask = async |path: &str, more: &str| {
        server.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{more}\r\n\r\n")).await
    };
    for path in ["/v1/vms", "/v1/body", "/v1/long"] {
        let refused = ask(path, "Sec-Fetch-Site: cross-site\r\n").await;
        assert_eq!(refused.status, 403, "{path}");
        assert_eq!(ask(path, "Content-Length: 1001\r\n").await.status, 413, "{path}");
    }
    let given = server.ask("GET /v1/body HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody").await;
    assert_eq!((given.status, given.text()), (200, "body"));
    for response in [ask("/v1/vms", "").await, ask("/v1/nothing", "").await, ask("/nothing", "").await] {
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("cross-origin-resource-policy"), Some("same-origin"));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_head_is_that_of_the_answer_and_nothing_behind_it() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    for path in ["/v1/long", "/v1/long", "/v1/nothing"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        let head = client.head().await;
        assert_eq!(head.contains(&LONG.to_string()), path == "/v1/long", "{head}");
    }
    client.send(post("still there")).await;
    assert_eq!(client.response().await.text(), "still there");
    server.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    let all: String = (0..20).map(|number| post(&format!("call {number}"))).collect();
    client.send(all).await;
    for number in 0..20 {
        assert_eq!(client.response().await.text(), format!("call {number}"));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_may_come_byte_by_byte() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    for byte in format!("\r\n{}", post("slowly")).bytes() {
        client.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await.text(), "slowly");
    server.stop().await;
}

#[tokio::test]
async fn http_1_0_is_answered_and_closed_unless_it_asks_to_be_kept() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi").await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "hi"));
    assert!(client.is_closed().await);

    let mut client = server.connect().await;
    for _ in 0..2 {
        client.send("POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi").await;
        let response = client.response().await;
        assert_eq!(response.text(), "hi");
        assert!(response.header("connection").unwrap().eq_ignore_ascii_case("keep-alive"));
    }
    server.stop().await;
}

#[tokio::test]
async fn connection_close_is_honoured_and_said() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi").await;
    let response = client.response().await;
    assert!(response.header("connection").unwrap().eq_ignore_ascii_case("close"));
    assert!(client.is_closed().await);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_expects_100_is_told_to_continue() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 100"));
    client.send("body").await;
    assert_eq!(client.response().await.text(), "body");
    server.stop().await;
}

#[tokio::test]
async fn chunked_and_packed_requests_are_read() {
    let server = Server::plain().await;
    let chunked =
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    assert_eq!(server.ask(chunked).await.text(), "abcdefg");
    let packed = gzip("packed".as_bytes());
    for name in ["gzip", "X-GZIP"] {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: {name}\r\nContent-Length: {}\r\n\r\n",
            packed.len()
        );
        assert_eq!(server.ask([head.as_bytes(), &packed].concat()).await.text(), "packed");
    }
    let other = "POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(server.ask(other).await.status, 501);
    let broken = "POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nxyz";
    assert_eq!(server.ask(broken).await.status, 400);
    server.stop().await;
}

#[tokio::test]
async fn long_answers_are_packed_for_those_who_can_unpack_them() {
    let server = Server::plain().await;
    let long = "x".repeat(1401);
    let ask = async |body: &str, accept: &str| {
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: {accept}\r\nContent-Length: {length}\r\n\r\n"
        );
        server.ask(head + body).await
    };
    for accept in ["gzip", "deflate, GZIP;q=0.5", "identity;q=0, x-gzip"] {
        let response = ask(&long, accept).await;
        assert_eq!(response.header("content-encoding"), Some("gzip"), "{accept}");
        assert_eq!(response.header("vary"), Some("Accept-Encoding"));
        assert_eq!(gunzip(&response.body), long.as_bytes());
    }
    for (body, accept) in [(&long[..], "deflate"), (&long, "gzip;q=0"), (&long[1..], "gzip")] {
        let response = ask(body, accept).await;
        assert_eq!((response.header("content-encoding"), response.text()), (None, body), "{accept}");
    }
    let response = server.ask("GET /v1/long HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\n\r\n").await;
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    assert_eq!(gunzip(&response.body), vec![b'x'; LONG]);
    server.stop().await;
}

#[tokio::test]
async fn a_shared_body_is_packed_once_and_sent_whole() {
    let plain: Bytes = (0..2_000_000u32).map(|n| b'a' + (n % 23) as u8).collect::<Vec<_>>().into();
    let shared = Arc::new(Body::new(plain.clone()));
    let service = Echo { shared: Some(Arc::clone(&shared)), ..Echo::default() };
    let server = Server::start(service, Limits::default()).await;
    assert!(server.ask(post("shared")).await.body == plain);
    assert!(shared.gzip_if_made().is_none());
    let packed = "POST / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip\r\nContent-Length: 6\r\n\r\nshared";
    for _ in 0..3 {
        let response = server.ask(packed).await;
        assert!(response.body == shared.gzip_if_made().unwrap());
        assert!(gunzip(&response.body) == plain);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_stream_comes_piece_by_piece_and_ends_with_its_sender() {
    let (send, mut senders) = mpsc::channel(1);
    // A stream is quiet for longer than a connection may idle.
    let limits = Limits { idle_timeout: Duration::from_millis(50), ..Limits::default() };
    let server = Server::start(Echo { stream: Some(send), ..Echo::default() }, limits).await;
    let mut client = server.connect().await;
    client.send(get("/v1/stream")).await;
    let pieces = patiently(senders.recv()).await.unwrap();
    let head = client.head().await;
    assert!(head.contains("application/x-ndjson"), "{head}");
    for piece in ["one\n", "two\n"] {
        tokio::time::sleep(Duration::from_millis(100)).await;
        pieces.send(piece.into()).await.unwrap();
        assert_eq!(client.chunk().await, piece.as_bytes());
    }
    drop(pieces);
    assert!(client.chunk().await.is_empty());
    server.stop().await;
}

#[tokio::test]
async fn the_sender_of_a_stream_learns_that_its_reader_has_gone() {
    let (send, mut senders) = mpsc::channel(1);
    let server = Server::start(Echo { stream: Some(send), ..Echo::default() }, Limits::default()).await;
    let mut client = server.connect().await;
    client.send(get("/v1/stream")).await;
    let pieces = patiently(senders.recv()).await.unwrap();
    client.head().await;
    drop(client);
    patiently(pieces.closed()).await;
    server.stop().await;
}
