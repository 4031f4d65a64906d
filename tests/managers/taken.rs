//! What engines send is read, every version's; what has no effect is named.

use std::collections::BTreeSet;

use whydown_wire::{Call, CallLimits, Verb};

use crate::requests::{REQUESTS, Request};
use crate::table::TABLE;

/// Words for what the table leaves open.
const WORDS: &[(&str, &str)] = &[
    ("vm", "6695eb01-f6a4-4304-89aa-97f2502e193f"),
    ("src", "192.0.2.1"),
    ("dst", "192.0.2.2:54321"),
    ("dstqemu", "198.51.100.2"),
];

fn read(request: &Request) -> (Verb, Vec<String>) {
    let params: String =
        request.params(WORDS, &[]).iter().map(|param| format!("<param>{param}</param>")).collect();
    let body = format!(
        "<methodCall><methodName>{}</methodName><params>{params}</params></methodCall>",
        request.method
    );
    let call =
        Call::read(body.as_bytes(), &CallLimits::default()).unwrap_or_else(|bad| panic!("{bad}: {body}"));
    Verb::read(&call).unwrap_or_else(|refused| panic!("{request:?}: {refused}"))
}

#[test]
fn what_every_engine_sends_is_read() {
    let migrates = crate::requests::of("migrate").flat_map(|request| &request.engines);
    let engines: BTreeSet<&str> = migrates.map(String::as_str).collect();
    assert!(["3.4", "3.5", "3.6", "4.0"].iter().all(|engine| engines.contains(engine)), "{engines:?}");
    for request in REQUESTS.iter() {
        assert!(request.engines.iter().all(|engine| TABLE.engine.contains_key(engine)), "{request:?}");
        read(request);
    }
}

#[test]
fn what_has_no_effect_in_a_migration_is_named() {
    for request in crate::requests::of("migrate") {
        let (_, ignored) = read(request);
        let wanted: &[&str] = if request.what.contains("limits") {
            &["enableGuestEvents", "incomingLimit", "src"]
        } else {
            &["src"]
        };
        assert_eq!(ignored, wanted, "{request:?}");
    }
}
