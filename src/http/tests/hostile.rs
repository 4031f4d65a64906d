//! Clients that are slow, greedy, broken or many.

use super::*;
use std::io::Write;

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_silent_client_and_a_slow_header_are_closed_without_an_answer() {
    let limits = Limits { header_timeout: SHORT, ..Limits::default() };
    let server = Server::start(Echo::default(), limits).await;
    for start in ["", "PO", "POST / HTTP/1.1\r\nHos"] {
        let mut client = server.connect().await;
        client.send(start).await;
        assert!(client.is_closed().await, "{start:?}");
    }
    // A byte now and then does not help.
    let mut client = server.connect().await;
    let drip = async {
        for byte in "POST / HTTP/1.1\r\nX: ".bytes().chain(std::iter::repeat(b'x')) {
            if client.stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    patiently(drip).await;
    server.stop().await;
}

#[tokio::test]
async fn a_slow_second_header_is_closed_too() {
    let limits = Limits { header_timeout: SHORT, ..Limits::default() };
    let server = Server::start(Echo::default(), limits).await;
    let mut client = server.connect().await;
    client.send(post("one")).await;
    assert_eq!(client.response().await.text(), "one");
    client.send("POST / HT").await;
    assert!(client.is_closed().await);
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_but_not_before_its_time() {
    let limits = Limits { header_timeout: SHORT, idle_timeout: Duration::from_secs(2), ..Limits::default() };
    let server = Server::start(Echo::default(), limits).await;
    let mut client = server.connect().await;
    for body in ["one", "two"] {
        client.send(post(body)).await;
        assert_eq!(client.response().await.text(), body);
        // Longer than a header may take, shorter than a connection may idle.
        tokio::time::sleep(SHORT * 3).await;
    }
    assert!(client.is_closed().await);
    server.stop().await;
}

#[tokio::test]
async fn a_slow_body_is_answered_408_and_closed() {
    let limits = Limits { body_timeout: SHORT, ..Limits::default() };
    let server = Server::start(Echo::default(), limits).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!(client.response().await.status, 408);
    assert!(client.is_closed().await);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let shared = Arc::new(Body::new(vec![b'x'; 64 << 20].into()));
    let limits = Limits { write_timeout: SHORT, ..Limits::default() };
    let server = Server::start(Echo { shared: Some(Arc::clone(&shared)), ..Echo::default() }, limits).await;
    let mut client = server.connect().await;
    client.send(post("shared")).await;
    let head = client.head().await;
    assert!(head.contains("67108864"), "{head}");
    // Neither side moves until the server gives up and lets go of its copy.
    until(|| shared.plain.is_unique()).await;
    let mut read = client.read.len();
    while client.more().await {
        read += std::mem::take(&mut client.read).len();
    }
    assert!(read < 64 << 20, "all {read} bytes came");
    server.stop().await;
}

#[tokio::test]
async fn too_large_a_body_is_413_however_it_comes() {
    let limits = Limits { max_body_bytes: 1000, ..Limits::default() };
    let server = Server::start(Echo::default(), limits).await;
    assert_eq!(server.ask(post(&"x".repeat(1000))).await.status, 200);
    let announced = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n";
    assert_eq!(server.ask(announced).await.status, 413);
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    let chunked =
        format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(3));
    assert_eq!(server.ask(chunked).await.status, 413);
    let huge = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(server.ask(huge).await.status, 413);
    server.stop().await;
}

#[tokio::test]
async fn a_packed_bomb_is_413_and_unpacked_no_further_than_the_limit() {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..100 {
        packer.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 200_000);
    let server = Server::plain().await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        bomb.len()
    );
    assert_eq!(server.ask([head.as_bytes(), &bomb].concat()).await.status, 413);
    assert_eq!(server.ask(post("still there")).await.text(), "still there");
    server.stop().await;
}

#[tokio::test]
async fn too_long_a_header_is_431() {
    let server = Server::plain().await;
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(server.ask(head).await.status, 431);
    let many = format!("POST / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(200));
    assert_eq!(server.ask(many).await.status, 431);
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_http_is_closed_at_once_without_an_answer() {
    // Far longer than the test is patient: only a quick close passes.
    let limits = Limits { header_timeout: Duration::from_secs(600), ..Limits::default() };
    let server = Server::start(Echo::default(), limits).await;
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"CONNECT\naccept-version:1.2\n\n\0",
        b"SEND\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\0\0",
        b"post / HTTP/1.1\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let mut client = server.connect().await;
        client.send(garbage).await;
        assert!(client.is_closed().await, "{garbage:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn broken_http_is_400_or_closed_and_hurts_nobody_else() {
    let server = Server::plain().await;
    let mut honest = server.connect().await;
    for broken in [
        "POST / HTTP/9.9\r\n\r\n",
        "POST / HTTP/1.1\r\nno colon\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let mut client = server.connect().await;
        client.send(broken).await;
        client.stream.shutdown().await.unwrap();
        while client.more().await {}
        let answer = String::from_utf8_lossy(&client.read);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{broken:?}: {answer}");
    }
    honest.send(post("well")).await;
    assert_eq!(honest.response().await.text(), "well");
    server.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_places_come_free_again() {
    let limits = Limits { max_connections: 10, ..Limits::default() };
    let server = Server::start(Echo::default(), limits).await;
    let mut kept = Vec::new();
    for number in 0..10 {
        let mut client = server.connect().await;
        client.send(post(&number.to_string())).await;
        assert_eq!(client.response().await.text(), number.to_string());
        kept.push(client);
    }
    let refused = (0..1000).map(async |_| server.connect().await.is_closed().await);
    for refused in refused {
        assert!(refused.await);
    }
    for client in &mut kept {
        client.send(post("here")).await;
        assert_eq!(client.response().await.text(), "here");
    }
    drop(kept.pop());
    let place = async {
        loop {
            let mut client = server.connect().await;
            if client.stream.write_all(post("in").as_bytes()).await.is_ok() && client.more().await {
                return;
            }
        }
    };
    patiently(place).await;
    server.stop().await;
}

#[tokio::test]
async fn a_panic_in_the_service_costs_one_answer() {
    let server = Server::plain().await;
    let mut client = server.connect().await;
    for asked in [get("/v1/panic"), post("panic")] {
        client.send(asked).await;
        assert_eq!(client.response().await.status, 500);
    }
    client.send(post("still there")).await;
    assert_eq!(client.response().await.text(), "still there");
    server.stop().await;
}

#[tokio::test]
async fn a_call_that_has_begun_goes_on_when_its_client_has_hung_up_and_no_other_does() {
    let service = Echo::default();
    let (begun, ended, go_on) = (service.begun.clone(), service.ended.clone(), service.go_on.clone());
    let given_up = service.given_up.clone();
    let server = Server::start(service, Limits::default()).await;
    for (round, asked) in [get("/v1/wait"), post("wait")].into_iter().enumerate() {
        let mut client = server.connect().await;
        client.send(asked).await;
        until(|| begun.load(Ordering::SeqCst) == round + 1).await;
        drop(client);
        until(|| given_up.load(Ordering::SeqCst) == round + 1).await;
    }
    // Also where the client sends and is gone: what needs to wait for nothing is done.
    for round in 0..20 {
        let mut client = server.connect().await;
        client.send(post("begin")).await;
        drop(client);
        until(|| begun.load(Ordering::SeqCst) == round + 3).await;
    }
    server.stop().await;
    go_on.notify_waiters();
    until(|| ended.load(Ordering::SeqCst) == 20).await;
    assert_eq!(given_up.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn requests_that_wait_fill_a_peers_part_and_its_next_is_503() {
    let service = Echo::default();
    let begun = service.begun.clone();
    let server = Server::start(service, Limits { max_body_bytes: 32 << 20, ..Limits::default() }).await;
    let large = |word: &[u8; 4], bytes: usize| {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {bytes}\r\n\r\n");
        [head.as_bytes(), word, &vec![b' '; bytes - 4]].concat()
    };
    let mut first = server.connect().await;
    first.send(large(b"wait", 20 << 20)).await;
    until(|| begun.load(Ordering::SeqCst) == 1).await;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&[b' '; 1 << 20]).unwrap();
    let packed = packer.finish().unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    );
    for more in [large(b"more", 64 << 10), [head.as_bytes(), &packed].concat()] {
        let refused = server.ask(&more).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert_eq!(server.ask(post("small")).await.text(), "small");
    }
    drop(first);
    patiently(async { while server.ask(large(b"more", 64 << 10).as_slice()).await.status == 503 {} }).await;
    server.stop().await;
}
