//! What we write, read as a peer would: whatever came in, this must be legal.

use dxr::{FaultResponse, MethodResponse, Value};
use whydown_wire::Code;

/// No refusal says more, whatever was refused: a stranger's text is cut before it is given back.
const REFUSAL_BYTES: usize = 5 << 10;

/// What a refusal says.
#[derive(Debug)]
pub struct Refusal {
    /// The status code; none for a fault.
    pub status: Option<i32>,
    /// The text.
    pub message: String,
}

/// Reads a refusal.
///
/// # Panics
/// When it is none, or some reader would not take it.
pub fn refusal(body: &[u8]) -> Refusal {
    let refusal = read(body);
    assert!(refusal.message.len() <= REFUSAL_BYTES, "{} bytes of refusal", refusal.message.len());
    refusal
}

fn read(body: &[u8]) -> Refusal {
    let text = std::str::from_utf8(body).expect("a reply is UTF-8");
    assert!(text.starts_with("<?xml version='1.0'?>\n<methodResponse>"), "{text}");
    assert!(text.chars().all(is_xml), "characters that XML cannot carry: {text:?}");
    let Ok(reply) = MethodResponse::from_xml(text) else {
        let fault = FaultResponse::from_xml(text).expect("what is no reply is a fault").fault;
        return Refusal { status: None, message: fault.string().to_owned() };
    };
    let Value::Struct(members) = &reply.value else { panic!("no struct: {text}") };
    let (Some(Value::Struct(status)), 1) = (members.get("status"), members.len()) else {
        panic!("not a status alone: {text}")
    };
    let (Some(Value::Integer(code)), Some(Value::String(message)), 2) =
        (status.get("code"), status.get("message"), status.len())
    else {
        panic!("not a code and a message: {text}")
    };
    let known = Code::ALL.iter().any(|known| known.number() == *code);
    assert!(known && *code != 0 && !message.is_empty(), "{text}");
    Refusal { status: Some(*code), message: message.clone() }
}

/// What XML 1.0 has as characters.
pub fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}
