//! How each client sends, as it was heard on the wire: what it says of itself, and in which forms its values come.

use crate::peers::peer::{Keeps, Peer, Sends};
use crate::peers::relay::Request;

/// Everything in which a client was heard to send otherwise than its table says.
pub fn differences(peer: &Peer) -> Vec<String> {
    let Sends { user_agent, gzip, keeps_alive, text, int, none, .. } = &peer.kind.sends;
    let heard: Vec<_> = peer.relays.iter().flat_map(|relay| relay.heard()).collect();
    let requests: Vec<Request> = heard.iter().flat_map(|connection| connection.requests()).collect();
    let body = |method: &str| {
        let name = format!("<methodName>{method}</methodName>");
        let bodies = requests.iter().map(|request| String::from_utf8_lossy(&request.body));
        bodies.filter(|body| body.contains(&name)).map(|body| compact(&body)).collect::<Vec<_>>()
    };
    let packed = heard.iter().any(|connection| connection.has_gzip());
    let (pings, helps, ids) = (body("ping"), body("system.methodHelp"), body("getVmStats"));
    let checks = [
        (requests.iter().all(|request| request.is_from(user_agent)), "who it says it is"),
        (
            requests.iter().all(|request| request.head.contains("\ncontent-type: text/xml")),
            "its content has another type",
        ),
        (packed == *gzip, "packed answers"),
        (requests.iter().all(|request| request.accepts_gzip() == *gzip), "what it accepts"),
        (
            match keeps_alive {
                Keeps::Yes => heard.len() < requests.len() / 2,
                Keeps::No => heard.len() >= requests.len() / 2,
                Keeps::ByVersion => true,
            },
            "how long it keeps connections",
        ),
        (!pings.is_empty() && pings.iter().all(|body| body.contains(none)), "how it sends no parameters"),
        (helps.iter().any(|body| body.contains(text)), "how it sends a text"),
        (ids.iter().any(|body| body.contains(int)), "how it sends a number"),
    ];
    let first = requests.iter().find(|request| request.head.starts_with("post / ")).map(Request::shape);
    let exact = peer.kind.exact.is_none_or(|exact| first.as_deref() == Some(exact));
    let checks = checks.into_iter().chain([(exact, "its first request")]);
    let wrong = checks.filter(|(holds, _)| !holds).map(|(_, what)| what);
    let example = || {
        let head = requests.first().map(|request| request.head.replace('\r', "")).unwrap_or_default();
        let (help, id) = (helps.first(), ids.iter().find(|body| body.contains(">7<")));
        format!(
            "{} connections, {} requests, packed: {packed}\n{head}\n{:?}\n{help:?}\n{id:?}",
            heard.len(),
            requests.len(),
            pings.first()
        )
    };
    wrong.map(|what| format!("{}: {what}: {}", peer.kind.name, example())).collect()
}

/// Without the blanks that some put between elements.
fn compact(body: &str) -> String {
    body.lines().map(str::trim).collect()
}
