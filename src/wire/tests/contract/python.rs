//! Python's `xmlrpc.client` reads every reply, and reads the same as dxr.

use std::io::Write as _;
use std::process::{Command, Stdio};

use dxr::Value;
use serde_json::{Value as Json, json};

use crate::samples::{read, replies};
use whydown_wire::{BadCall, Code, Refused, status_reply};

/// Reads replies from its input, each behind a line with its length, and prints one line of JSON for each.
const SCRIPT: &str = r#"
import json, sys, xmlrpc.client
while line := sys.stdin.buffer.readline():
    body = sys.stdin.buffer.read(int(line))
    try:
        (value,), method = xmlrpc.client.loads(body)
        print(json.dumps({"value": value}))
    except xmlrpc.client.Fault as fault:
        print(json.dumps({"fault": [fault.faultCode, fault.faultString]}))
"#;

fn python(bodies: &[Vec<u8>]) -> Vec<Json> {
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("python3 cannot be run ({error}): install it with `apt-get install python3`")
        });
    let mut input = child.stdin.take().unwrap();
    let sent = bodies.to_vec();
    let writer = std::thread::spawn(move || {
        for body in &sent {
            writeln!(input, "{}", body.len()).unwrap();
            input.write_all(body).unwrap();
        }
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "python3 could not read a reply; its traceback is above");
    let lines = String::from_utf8(output.stdout).unwrap();
    let read: Vec<Json> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(read.len(), bodies.len());
    read
}

fn as_json(value: &Value) -> Json {
    match value {
        Value::Integer(number) => json!(number),
        Value::Boolean(truth) => json!(truth),
        Value::Double(number) => json!(number),
        Value::String(text) => json!(text),
        Value::Struct(members) => {
            members.iter().map(|(name, value)| (name.clone(), as_json(value))).collect()
        }
        Value::Array(items) => items.iter().map(as_json).collect(),
        other => panic!("not a type of ours: {other:?}"),
    }
}

#[test]
fn pythons_client_reads_every_reply_as_dxr_does() {
    let mut bodies: Vec<Vec<u8>> = replies().into_iter().map(|(_, body)| body).collect();
    bodies.extend(Code::ALL.iter().map(|&code| status_reply(code, "").to_vec()));
    bodies.push(status_reply(Code::Unexpected, "<&>\"' ]]> \r\n\t ä 😀 \0").to_vec());
    for (body, python) in bodies.iter().zip(python(&bodies)) {
        assert_eq!(python["value"], as_json(&read(body)));
    }
}

#[test]
fn pythons_client_reads_faults() {
    let unknown = Refused::UnknownMethod("x".into()).reply().to_vec();
    let bad = BadCall::NotACall.reply().to_vec();
    let faults = python(&[unknown, bad]);
    assert_eq!(faults[0]["fault"], json!([1, "<type 'exceptions.Exception'>:method \"x\" is not supported"]));
    assert_eq!(faults[1]["fault"], json!([400, "not a method call"]));
}
