//! What a web page can send, and how it is told from what managers send.
//!
//! Every browser on the host, and every page that it shows, reaches loopback: pages must neither act nor read here.
//!
//! | a page can | and is refused, as |
//! |---|---|
//! | POST by a form or a script | browsers say so: `Origin`, `Referer`, `Sec-…`; a form's content types are no XML |
//! | GET from elsewhere (image, script, frame, fetch) | `Sec-Fetch-Site` is not `same-origin` or `none`; `Origin` is another |
//! | give its own name our address (DNS rebinding) | `Host` is the page's name, and no name of loopback |
//!
//! What is refused here is answered before its body is read. No answer ever allows another origin to read it.

use std::net::IpAddr;

use hyper::header::{self, HeaderName};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, StatusCode, Uri};

/// What the name in `Host` must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllowedHosts {
    /// A name or an address of loopback, with any port.
    Loopback,
    /// The same to read; a call may give any name, as managers call by names of their own.
    LoopbackToRead,
    /// The same, or what clients of unix sockets put there: anything that no page can have as its name.
    Socket,
    /// Anything: whoever is there has shown a certificate, or was let in by name of a setting.
    Any,
}

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CrossOrigin {
    pub status: StatusCode,
    pub why: String,
}

/// Names of headers that browsers alone send with what a page asks for. `Sec-` is kept from pages and so are they from
/// it: a script cannot take them away.
const BROWSERS: &[HeaderName] =
    &[header::ORIGIN, header::REFERER, header::UPGRADE_INSECURE_REQUESTS, header::DNT];

/// What the names of the others begin with.
const BROWSERS_PREFIXES: &[&str] = &["sec-", "access-control-request-"];

const SITE: &str = "sec-fetch-site";

/// Whether a call may be served.
pub(super) fn check_call(hosts: AllowedHosts, uri: &Uri, headers: &HeaderMap) -> Result<(), CrossOrigin> {
    if hosts != AllowedHosts::LoopbackToRead {
        check_host(hosts, uri, headers)?;
    }
    if let Some(name) = headers.keys().find(|name| is_browsers(name)) {
        return forbidden(format!("calls of web pages are not served: this one has the header {name}"));
    }
    content_type(headers)
}

/// Whether something may be read.
pub(super) fn check_read(hosts: AllowedHosts, uri: &Uri, headers: &HeaderMap) -> Result<(), CrossOrigin> {
    check_host(hosts, uri, headers)?;
    for site in headers.get_all(SITE) {
        if !matches!(site.as_bytes(), b"same-origin" | b"none") {
            return forbidden("web pages from elsewhere may not read: Sec-Fetch-Site says so".into());
        }
    }
    for origin in headers.get_all(header::ORIGIN) {
        let own = headers.get(header::HOST).map(|host| [b"//", host.as_bytes()].concat());
        if !own.is_some_and(|own| origin.as_bytes().ends_with(&own)) {
            return forbidden("web pages from elsewhere may not read: Origin is another".into());
        }
    }
    Ok(())
}

fn forbidden(why: String) -> Result<(), CrossOrigin> {
    Err(CrossOrigin { status: StatusCode::FORBIDDEN, why })
}

fn check_host(hosts: AllowedHosts, uri: &Uri, headers: &HeaderMap) -> Result<(), CrossOrigin> {
    match strange_host(hosts, uri, headers) {
        None => Ok(()),
        Some(name) => forbidden(format!(
            "the header Host names {name:?}, which is no name of loopback; web pages may not come in under names of \
             their own"
        )),
    }
}

fn is_browsers(name: &HeaderName) -> bool {
    BROWSERS.contains(name) || BROWSERS_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

/// Clients say `text/xml`, some `application/xml`, few nothing. A form has none of these.
fn content_type(headers: &HeaderMap) -> Result<(), CrossOrigin> {
    for value in headers.get_all(header::CONTENT_TYPE) {
        let essence = value.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        if !matches!(essence.as_str(), "" | "text/xml" | "application/xml") && !essence.ends_with("+xml") {
            let why =
                format!("a call is text/xml and not {:?}", essence.chars().take(64).collect::<String>());
            return Err(CrossOrigin { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, why });
        }
    }
    Ok(())
}

/// A name in `Host`, or in the request's own line, that must not be there.
fn strange_host(hosts: AllowedHosts, uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let socket = match hosts {
        AllowedHosts::Any => return None,
        AllowedHosts::Socket => true,
        AllowedHosts::Loopback | AllowedHosts::LoopbackToRead => false,
    };
    let named = headers
        .get_all(header::HOST)
        .iter()
        .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    let in_line = uri.authority().map(|authority| authority.as_str().to_owned());
    // Every browser gives one: none at all is an old client.
    let mut all = named.chain(in_line).filter(|name| !name.is_empty());
    all.find(|name| !(is_loopback(name) || (socket && is_no_pages(name))))
        .map(|name| name.chars().take(256).collect())
}

/// `localhost`, an address of 127.0.0.0/8, or `::1`, with or without a port.
fn is_loopback(name: &str) -> bool {
    // Without the part before an `@`, which is no part of a host.
    if name.contains('@') {
        return false;
    }
    let Ok(authority) = name.parse::<Authority>() else { return false };
    if authority.as_str() != authority.host() && authority.port().is_none() {
        return false;
    }
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match (bare, bare.unwrap_or(host).parse::<IpAddr>()) {
        (Some(_), Ok(IpAddr::V6(ip))) => ip.to_canonical().is_loopback(),
        (None, Ok(IpAddr::V4(ip))) => ip.is_loopback(),
        (None, _) => host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case("localhost"),
        _ => false,
    }
}

/// Clients of unix sockets put a word there (`whydown`, `unix`, `_`), or the socket's path. A page has a port there, as it
/// comes through something that forwards one, or a dot, and never the characters of a path.
fn is_no_pages(name: &str) -> bool {
    let of_a_path = |c: char| matches!(c, '/' | '%');
    name.contains(of_a_path) || !name.contains(['.', ':'])
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    type Check = fn(AllowedHosts, &Uri, &HeaderMap) -> Result<(), CrossOrigin>;
    const CALL: Check = check_call;
    const READ: Check = check_read;

    fn asked(
        check: Check,
        hosts: AllowedHosts,
        uri: &str,
        headers: &[(&str, &str)],
    ) -> Result<(), CrossOrigin> {
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            all.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        check(hosts, &uri.parse().unwrap(), &all)
    }

    fn call(headers: &[(&str, &str)]) -> Result<(), CrossOrigin> {
        asked(CALL, AllowedHosts::Any, "/", headers)
    }

    fn read(headers: &[(&str, &str)]) -> Result<(), CrossOrigin> {
        asked(READ, AllowedHosts::Loopback, "/v1/domains", headers)
    }

    #[test]
    fn a_call_with_a_header_that_browsers_alone_send_is_refused_whatever_it_says() {
        for name in [
            "Origin",
            "Referer",
            "Sec-Fetch-Site",
            "sec-fetch-mode",
            "Sec-Fetch-Dest",
            "Sec-Fetch-Storage-Access",
            "Sec-CH-UA",
            "Sec-GPC",
            "DNT",
            "Upgrade-Insecure-Requests",
            "Access-Control-Request-Private-Network",
        ] {
            for value in ["", "null", "none", "same-origin", "http://localhost:54321"] {
                let refused = call(&[("content-type", "text/xml"), (name, value)]).unwrap_err();
                assert_eq!(refused.status, StatusCode::FORBIDDEN);
                assert!(refused.why.contains(&name.to_ascii_lowercase()), "{name}: {}", refused.why);
            }
        }
        let honest = [
            ("user-agent", "Python-xmlrpc/3.11"),
            ("flowid", "1"),
            ("accept", "*/*"),
            ("accept-language", "de"),
        ];
        assert_eq!(call(&honest), Ok(()));
    }

    #[test]
    fn a_call_has_a_content_type_that_no_form_can_send() {
        for good in ["text/xml", "Text/XML; charset=utf-8", "application/xml", "application/soap+xml", ""] {
            assert_eq!(call(&[("content-type", good)]), Ok(()), "{good}");
        }
        for bad in [
            "text/plain",
            "text/plain; charset=text/xml",
            "TEXT/PLAIN",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=text/xml",
            "text/plain, text/xml",
            "application/json",
            "text/xml text/plain",
        ] {
            assert_eq!(
                call(&[("content-type", bad)]).unwrap_err().status,
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "{bad}"
            );
        }
        assert!(call(&[("content-type", "text/xml"), ("content-type", "text/plain")]).is_err());
        assert_eq!(call(&[]), Ok(()), "old clients say nothing");
    }

    #[test]
    fn a_read_from_the_same_page_or_by_hand_is_served_and_from_another_page_not() {
        let host = ("host", "localhost:54321");
        for good in [
            &[host][..],
            &[host, ("sec-fetch-site", "same-origin")],
            &[host, ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")],
            &[host, ("origin", "http://localhost:54321"), ("sec-fetch-site", "same-origin")],
            &[("host", "")],
            &[],
        ] {
            assert_eq!(read(good), Ok(()), "{good:?}");
        }
        for bad in [
            &[host, ("sec-fetch-site", "cross-site")][..],
            &[host, ("sec-fetch-site", "same-site")],
            &[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            &[host, ("sec-fetch-site", "Same-Origin, cross-site")],
            &[host, ("origin", "null")],
            &[host, ("origin", "http://localhost:8080")],
            &[host, ("origin", "http://evil.example")],
            &[("origin", "http://evil.example")],
        ] {
            assert_eq!(read(bad).unwrap_err().status, StatusCode::FORBIDDEN, "{bad:?}");
        }
    }

    #[test]
    fn loopback_has_its_names_and_addresses_and_no_others() {
        let good = [
            "localhost",
            "LocalHost:54321",
            "localhost.",
            "localhost.:80",
            "127.0.0.1",
            "127.0.0.1:1",
            "127.255.3.4:65535",
            "[::1]",
            "[::1]:54321",
            "[::ffff:127.0.0.1]:9",
        ];
        let bad = [
            "evil.example",
            "evil.example:54321",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1.",
            "evil.localhost",
            "localhost:80@evil.example",
            "user@localhost",
            "localhost, evil.example",
            "localhost evil.example",
            "localhost:",
            "localhost:x",
            "localhost/evil.example",
            "localhost#",
            "2130706433.nip.io",
            "128.0.0.1",
            "10.0.0.1:54321",
            "[::2]",
            "[::1",
            "::1",
            "[localhost]",
            "[127.0.0.1]",
            "\u{0}localhost",
        ];
        for name in good {
            assert!(is_loopback(name), "{name}");
            assert!(asked(READ, AllowedHosts::Socket, "/v1/x", &[("host", name)]).is_ok());
        }
        for name in bad {
            assert!(!is_loopback(name), "{name}");
        }
        for (check, path) in [(CALL, "/"), (READ, "/v1/domains")] {
            for name in ["evil.example", "evil.example:54321", "h"] {
                let refused = asked(check, AllowedHosts::Loopback, path, &[("host", name)]).unwrap_err();
                assert!(refused.status == StatusCode::FORBIDDEN && refused.why.contains(name), "{refused:?}");
                assert_eq!(asked(check, AllowedHosts::Any, path, &[("host", name)]), Ok(()));
            }
            let two = [("host", "localhost"), ("host", "evil.example")];
            assert!(asked(check, AllowedHosts::Loopback, path, &two).is_err());
            let line = format!("http://evil.example:1{path}");
            assert!(asked(check, AllowedHosts::Loopback, &line, &[("host", "localhost")]).is_err());
        }
        let by_name = [("host", "host7.example.org:54321")];
        assert_eq!(asked(CALL, AllowedHosts::LoopbackToRead, "/", &by_name), Ok(()));
        assert!(asked(READ, AllowedHosts::LoopbackToRead, "/v1/domains", &by_name).is_err());
    }

    #[test]
    fn clients_of_the_unix_socket_put_anything_there_that_no_page_can_be_called() {
        let ask = |name: &str| asked(READ, AllowedHosts::Socket, "/v1/domains", &[("host", name)]);
        for name in [
            "localhost",
            "localhost:8080",
            "whydown",
            "unix",
            "_",
            "h",
            "%2Frun%2Fwhydown%2Fwhydown.sock",
            "/run/whydown/whydown.sock",
            "2f72756e2f77",
            "",
        ] {
            assert_eq!(ask(name), Ok(()), "{name}");
        }
        for name in ["evil.example", "evil.example:8080", "evil:8080", "10.0.0.1", "[fe80::1]"] {
            assert!(ask(name).is_err(), "{name}");
        }
    }
}
