//! Bodies that are whole HTTP and anything but an honest call.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::attacker::{Attacker, param, post, post_with, xml};
use crate::host::{Host, LIMITS, LISTENERS, Listener, REQUEST_BYTES, VM};

/// What is said to it.
#[derive(Debug, Clone, Copy)]
enum Said {
    /// A fault 400: not a call that can be read.
    NotACall,
    /// A fault 1: no such method.
    NoMethod,
    /// An XML-RPC status.
    Status(i32),
    /// An HTTP status.
    Http(u16),
}

use Said::{Http, NoMethod, NotACall, Status};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(bytes).expect("memory can be written");
    packer.finish().expect("memory can be written")
}

fn utf16(text: &str) -> Vec<u8> {
    let mark = [0xFF, 0xFE];
    mark.into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

fn declared(encoding: &str, rest: &[u8]) -> Vec<u8> {
    [format!("<?xml version='1.0' encoding='{encoding}'?>").as_bytes(), rest].concat()
}

fn call(value: &str) -> Vec<u8> {
    xml("getVmStats", &param(value)).into_bytes()
}

fn nested(levels: usize) -> Vec<u8> {
    let (open, close) = ("<value><array><data>", "</data></array></value>");
    xml("list", &format!("<param>{}{}</param>", open.repeat(levels), close.repeat(levels))).into_bytes()
}

/// Headers, body, and what is said to it.
fn cases() -> Vec<(&'static str, Vec<u8>, Said)> {
    let ping = xml("ping", "");
    let laughs = "<!DOCTYPE l [<!ENTITY a 'haha'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;&b;&b;'>]>\
                  <methodCall><methodName>&c;</methodName></methodCall>";
    let external = "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><methodCall><methodName>&e;</methodName></methodCall>";
    let member =
        |name: &str, value: &str| format!("<member><name>{name}</name><value>{value}</value></member>");
    let create = |members: &str| xml("create", &param(&format!("<struct>{members}</struct>"))).into_bytes();
    let mut cases = vec![
        ("", Vec::new(), NotACall),
        ("", b"\0".repeat(1000), NotACall),
        ("", vec![b'<'; REQUEST_BYTES], NotACall),
        ("", nested(5_000), NotACall),
        ("", nested(100_000), Http(413)),
        ("", laughs.into(), NotACall),
        ("", external.into(), NotACall),
        ("", b"<!DOCTYPE methodCall><methodCall><methodName>ping</methodName></methodCall>".into(), NotACall),
        ("", call("&undefined;"), NotACall),
        ("", call("&#0;"), NotACall),
        // Encodings: ours, the one more that is read, and those that are not.
        ("", [b"\xEF\xBB\xBF", ping.as_bytes()].concat(), Status(0)),
        ("", declared("ISO-8859-1", b"<methodCall><methodName>getVmStats</methodName><params><param><value>\xE4</value></param></params></methodCall>"), Status(1)),
        ("", utf16(&ping), NotACall),
        ("", utf16(&ping.replace("version='1.0'", "version='1.0' encoding='UTF-16'")), NotACall),
        ("", declared("UTF-7", b"<methodCall><methodName>ping</methodName></methodCall>"), NotACall),
        ("", declared("EBCDIC-CP-US", b"<methodCall><methodName>ping</methodName></methodCall>"), NotACall),
        ("", call("\u{e4}").into_iter().filter(|&byte| byte != 0xC3).collect(), NotACall),
        ("", xml("ping\0", "").into(), NoMethod),
        ("", xml(&"x".repeat(200_000), "").into(), NoMethod),
        // Values.
        ("", call("<base64>!!!</base64>"), NotACall),
        ("", call(&format!("<base64>{}</base64>", "QUJD".repeat(60_000))), Status(16)),
        ("", call("<int>2147483648</int>"), NotACall),
        ("", call("<i8>99999999999999999999</i8>"), NotACall),
        ("", call("<double>1e999999999</double>"), Status(16)),
        ("", call("<dateTime.iso8601>99999999T99:99:99</dateTime.iso8601>"), NotACall),
        ("", call("<float>1</float>"), NotACall),
        ("", call(&"\u{1F600}".repeat(50_000)), Status(1)),
        ("", xml("list", &format!("<param><value><array><data>{}</data></array></value></param>", "<value/>".repeat(30_000))).into(), Status(16)),
        ("", xml("ping", &param("x").repeat(5_000)).into(), Status(16)),
        ("", create(&(member("vmId", VM) + &member("vmId", "x"))), Status(11)),
        ("", create(&(member("vmId", "x") + &member("vmId", VM))), Status(11)),
        ("", create(&member("memSize", &"9".repeat(100_000)).repeat(2)), Status(11)),
        ("", create(&(0..4000).map(|n| member(&format!("m{n}"), "x")).collect::<String>()), Status(11)),
        ("", create(&member("xml", &"&lt;a>".repeat(30_000))), Status(9)),
        ("", create(&member("xml", "&lt;!DOCTYPE d [&lt;!ENTITY a 'b'>]>&lt;domain>&lt;name>&amp;a;&lt;/name>&lt;/domain>")), Status(9)),
        // Packed.
        ("Content-Encoding: gzip\r\n", gzip(ping.as_bytes()), Status(0)),
        ("Content-Encoding: gzip\r\n", gzip(&vec![b' '; 20 << 20]), Http(413)),
        ("Content-Encoding: gzip\r\n", gzip(&vec![b' '; REQUEST_BYTES + 1]), Http(413)),
        ("Content-Encoding: gzip\r\n", gzip(&gzip(&vec![b' '; 1 << 20])), NotACall),
        ("Content-Encoding: gzip\r\n", gzip(b"").repeat(REQUEST_BYTES / 20), Http(400)),
        ("Content-Encoding: gzip\r\n", [gzip(ping.as_bytes()), gzip(b"")].concat(), Http(400)),
        ("Content-Encoding: gzip\r\n", gzip(ping.as_bytes())[..40].to_vec(), Http(400)),
        ("Content-Encoding: gzip\r\n", ping.clone().into(), Http(400)),
        ("Content-Encoding: gzip\r\n", Vec::new(), Http(400)),
        ("Content-Encoding: gzip, gzip\r\n", gzip(&gzip(ping.as_bytes())), Http(501)),
        ("Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n", gzip(&gzip(ping.as_bytes())), Http(501)),
        ("Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", gzip(ping.as_bytes()), Http(501)),
        ("Content-Encoding: br\r\n", ping.clone().into(), Http(501)),
    ];
    cases.extend((1..ping.len()).step_by(7).map(|cut| ("", ping.as_bytes()[..cut].to_vec(), NotACall)));
    cases
}

#[test]
fn no_body_does_more_than_an_honest_refusal_costs() {
    let host = Host::start(LIMITS);
    let cases = cases();
    host.under_attack(|host| {
        for listener in LISTENERS {
            for (headers, body, said) in &cases {
                let start = String::from_utf8_lossy(&body[..body.len().min(300)]);
                let mut attacker = host.connect(listener);
                let _ = attacker.send(post_with(headers, body));
                let Some(answer) = attacker.response() else {
                    // Closed while it was sent: the reset may overtake the answer.
                    assert!(body.len() > REQUEST_BYTES, "{listener:?}: no answer to {headers}{start}");
                    continue;
                };
                let as_said = match *said {
                    NotACall => answer.status == 200 && answer.code() == -400,
                    NoMethod => answer.status == 200 && answer.code() == -1,
                    Status(code) => answer.status == 200 && answer.code() == code,
                    Http(status) => answer.status == status && answer.head.contains("text/plain"),
                };
                let answer_text = String::from_utf8_lossy(&answer.body);
                assert!(
                    as_said,
                    "{listener:?}: {headers}{start}\nnot {said:?}: {} {answer_text}",
                    answer.status
                );
                assert!(answer.body.len() < 8192, "{listener:?}: {} bytes for {start}", answer.body.len());
            }
        }
    });
    // One connection bears all of them that are calls within its limits, one after another.
    let mut one = host.connect(LISTENERS[0]);
    for (headers, body, said) in cases.iter().filter(|(_, _, said)| !matches!(said, Http(413))) {
        let answer = one.ask(post_with(headers, body));
        assert_eq!(answer.status == 200, !matches!(said, Http(_)));
    }
}

#[test]
fn calls_of_clients_that_are_gone_do_not_pile_up() {
    let host = Host::start(LIMITS);
    let start = xml("ping", "");
    let (before, after) = start.split_at(start.len() - "</params></methodCall>".len());
    let filled = (REQUEST_BYTES - start.len()) / param("a").len();
    let large = format!("{before}{}{after}", param("a").repeat(filled));
    let packed = post_with("Content-Encoding: gzip\r\n", gzip(large.as_bytes()));
    assert!(packed.len() < 2048, "{} bytes", packed.len());
    host.under_attack(|host| {
        for number in 0..2000 {
            let listener = if number % 3 == 0 { Listener::Unix } else { Listener::Plain };
            let mut attacker = Attacker::raw(host, listener).expect("the backlog is long enough");
            let _ = attacker.send(&packed);
            // What it asked for has had a moment to begin.
            if number % 8 == 0 {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    });
}

#[test]
fn what_was_refused_makes_no_line_of_its_own_in_the_log() {
    let host = Host::start(LIMITS);
    let forged = "x\n2026-01-01T00:00:00Z  INFO all is well\u{1b}[2J";
    assert_eq!(host.connect(LISTENERS[0]).ask(post(xml(forged, ""))).code(), -1);
    whydown_lab::wait_until("the refusal is logged", crate::attacker::PATIENCE, || {
        host.log().contains("is not supported")
    });
    let log = host.log();
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")), "{log}");
    assert!(!log.contains("\u{1b}[2J"), "{log}");
}
