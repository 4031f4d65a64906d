//! The JSON side, asked badly: what `docs/reference/http.md` promises of trouble.

use crate::attacker::{get, post, xml};
use crate::host::{Host, LIMITS, LISTENERS, VM};

#[test]
fn bad_questions_get_the_status_and_the_form_that_the_page_promises() {
    let host = Host::start(LIMITS);
    let long = "x".repeat(8_000);
    let json = [
        (format!("/v1/why?vm={VM}"), 200),
        ("/v1/why".into(), 400),
        ("/v1/why?vm=".into(), 404),
        ("/v1/why?vm=%00%ff%1b[2J".into(), 404),
        (format!("/v1/why?vm={long}"), 404),
        ("/v1/why?vm=' OR 1=1 --".replace(' ', "%20"), 404),
        ("/v1/why?vm=nobody&vm=test".into(), 400),
        ("/v1/history?limit=0".into(), 200),
        ("/v1/history?limit=10001".into(), 200),
        ("/v1/history?limit=18446744073709551615".into(), 200),
        ("/v1/history?limit=18446744073709551616".into(), 400),
        ("/v1/history?limit=-1".into(), 400),
        ("/v1/history?limit=".into(), 400),
        ("/v1/history?after=1.1".into(), 200),
        ("/v1/history?after=-9223372036854775808.18446744073709551615".into(), 200),
        ("/v1/history?after=".into(), 400),
        ("/v1/history?after=first".into(), 400),
        ("/v1/history?since=yesterday".into(), 400),
        ("/v1/history?since=-009999-01-01T00:00:00Z".into(), 400),
        ("/v1/history?since=0000-01-01T00:00:00Z".into(), 200),
        ("/v1/history?since=9999-12-30T00:00:00Z".into(), 200),
        ("/v1/history?since=99999-01-01T00:00:00Z".into(), 400),
        (format!("/v1/history?{}", "&=&%&".repeat(1_000)), 400),
        ("/v1/history?limti=5".into(), 400),
        ("/v1/history?limit=5&limit=6".into(), 400),
        ("/v1/nothing?limit=5".into(), 404),
        ("/v1/".into(), 404),
        ("/v1/../v1/domains".into(), 404),
        ("/v1/domains/".into(), 404),
        ("/v1/domains?anything=goes".into(), 400),
        ("/v1/health".into(), 200),
    ];
    host.under_attack(|host| {
        for listener in LISTENERS {
            let mut asker = host.connect(listener);
            for (path, status) in &json {
                let answer = asker.ask(get(path));
                assert_eq!(answer.status, *status, "{listener:?} {path}: {}", answer.text());
                assert!(answer.head.contains("application/json"), "{listener:?} {path}: {}", answer.head);
                let read: serde_json::Value = serde_json::from_str(answer.text()).expect("it is JSON");
                assert_eq!(read["error"].is_string(), *status != 200, "{listener:?} {path}: {read}");
            }
            // What is no question at all, or changes something, gets plain text.
            for (request, status) in [
                ("POST /v1/domains HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
                ("DELETE /v1/why?vm=test HTTP/1.1\r\n\r\n", 405),
                ("PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 405),
                ("GET / HTTP/1.1\r\n\r\n", 405),
                ("GET /RPC2 HTTP/1.1\r\n\r\n", 405),
                ("GET /etc/passwd HTTP/1.1\r\n\r\n", 404),
                ("POST /?x HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
                ("GET /v2/domains HTTP/1.1\r\n\r\n", 404),
            ] {
                let answer = asker.ask(request);
                assert_eq!(answer.status, status, "{listener:?} {request:?}");
                assert!(answer.head.contains("text/plain"), "{listener:?} {request:?}: {}", answer.head);
            }
            assert_eq!(asker.ask(post(xml("ping", ""))).code(), 0, "the connection has borne all of it");
        }
    });
}
