//! A request, read: the method's name and its parameters.

use dxr::{MethodCall, Value};

pub use crate::scan::{BadCall, CallLimits};
use crate::{codes, scan};
use bytes::Bytes;

/// The fault code for a request that is not a call; dxr's own server gives the same.
pub const BAD_CALL_FAULT: i32 = 400;

/// A method call as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The method's name, untrimmed.
    pub method: String,
    /// The parameters, in order.
    pub params: Vec<Value>,
}

impl Call {
    /// Reads a request body. UTF-8 and, where declared, ISO-8859-1.
    ///
    /// # Errors
    /// [`BadCall`] when it is over `limits` or is not an XML-RPC call. Nothing of the request is in the error's text.
    pub fn read(body: &[u8], limits: &CallLimits) -> Result<Self, BadCall> {
        if body.len() > limits.bytes {
            return Err(BadCall::TooLarge(limits.bytes));
        }
        let text = scan::check(scan::decode(body)?, limits)?;
        let call = MethodCall::from_xml(&text).map_err(|_| BadCall::Invalid)?;
        Ok(Self { method: call.name.into_owned(), params: call.params })
    }
}

impl BadCall {
    /// The reply to such a request: a fault, for there is no verb whose status could be told.
    pub fn reply(&self) -> Bytes {
        codes::fault(BAD_CALL_FAULT, &self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> Result<Call, BadCall> {
        Call::read(body.as_bytes(), &CallLimits::default())
    }

    fn one(value: &str) -> Result<Value, BadCall> {
        let body = format!(
            "<methodCall><methodName>m</methodName><params><param>{value}</param></params></methodCall>"
        );
        read(&body).map(|mut call| call.params.remove(0))
    }

    fn text(text: &str) -> Value {
        Value::String(text.into())
    }

    #[test]
    fn the_engines_own_bytes_are_read() {
        let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?><methodCall><methodName>list</methodName><params><param>\
                    <value>true</value></param><param><value><array><data><value>a&amp;b</value></data></array></value>\
                    </param></params></methodCall>";
        let call = read(body).unwrap();
        assert_eq!(call.method, "list");
        assert_eq!(call.params, [text("true"), Value::Array(vec![text("a&b")])]);
        let none = read("<methodCall><methodName>ping</methodName><params/></methodCall>").unwrap();
        assert!(none.params.is_empty());
        assert!(read("<methodCall><methodName>ping</methodName></methodCall>\n").unwrap().params.is_empty());
    }

    #[test]
    fn blank_text_without_a_type_is_kept() {
        assert_eq!(one("<value> </value>"), Ok(text(" ")));
        assert_eq!(one("<value>\n\t</value>"), Ok(text("\n\t")));
        assert_eq!(one("<value></value>"), Ok(text("")));
        assert_eq!(one("<value/>"), Ok(text("")));
        assert_eq!(one("<value> x </value>"), Ok(text(" x ")));
        assert_eq!(one("<value> <int>5</int> </value>"), Ok(Value::Integer(5)));
        let list =
            "<value><array><data><value> </value><value>b</value><value>  </value></data></array></value>";
        assert_eq!(one(list), Ok(Value::Array(vec![text(" "), text("b"), text("  ")])));
    }

    #[test]
    fn latin_1_is_read_where_it_is_declared() {
        let head = b"<?xml version='1.0' encoding='iso-8859-1'?><methodCall><methodName>m</methodName><params><param>\
                     <value><string>\xE4</string></value></param></params></methodCall>";
        assert_eq!(Call::read(head, &CallLimits::default()).unwrap().params, [text("ä")]);
        let bare = b"<methodCall><methodName>\xE4</methodName></methodCall>";
        assert_eq!(Call::read(bare, &CallLimits::default()), Err(BadCall::NotInEncoding("UTF-8")));
        let wide = b"<?xml version='1.0' encoding='UTF-16'?><methodCall/>";
        assert_eq!(Call::read(wide, &CallLimits::default()), Err(BadCall::Encoding));
    }

    #[test]
    fn one_byte_order_mark_is_passed_over_and_two_are_not() {
        let call = "<methodCall><methodName>m</methodName><params><param><value>äää</value></param></params></methodCall>";
        assert_eq!(read(&format!("\u{FEFF}{call}")).unwrap().params, [text("äää")]);
        assert_eq!(read(&format!("\u{FEFF}\u{FEFF}{call}")), Err(BadCall::NotACall));
    }

    #[test]
    fn document_types_and_entities_are_refused() {
        let bomb = "<!DOCTYPE x [<!ENTITY a 'b'>]><methodCall><methodName>&a;</methodName></methodCall>";
        assert_eq!(read(bomb), Err(BadCall::DocType));
        assert!(matches!(one("<value>&nbsp;</value>"), Err(BadCall::Entity(_))));
        assert_eq!(one("<value>&#65;&#x42;&lt;</value>"), Ok(text("AB<")));
        assert!(matches!(one("<value>&#0;</value>"), Err(BadCall::Entity(_))));
    }

    #[test]
    fn what_is_not_one_whole_call_is_refused() {
        for body in ["", " ", "hello", "<a/>", "<methodResponse/>", "<methodCall/><methodCall/>"] {
            assert_eq!(read(body), Err(BadCall::NotACall), "{body}");
        }
        for body in [
            "<methodCall>",
            "<methodCall></a>",
            "</methodCall>",
            "<methodCall",
            "<methodCall>&x</methodCall>",
        ] {
            let refused = read(body).unwrap_err();
            assert!(matches!(refused, BadCall::Malformed(_)), "{body}: {refused:?}");
        }
        assert_eq!(read("<methodCall/>"), Err(BadCall::Invalid));
        let trailing = "<methodCall><methodName>m</methodName></methodCall>rest";
        assert_eq!(read(trailing), Err(BadCall::NotACall));
        for value in [
            "<value><int>3000000000</int></value>",
            "<value><float>1</float></value>",
            "<value><int/></value>",
        ] {
            assert_eq!(one(value), Err(BadCall::Invalid), "{value}");
        }
        assert_eq!(one("<value><array><value>lost</value></array></value>"), Err(BadCall::Invalid));
    }

    #[test]
    fn limits_hold_before_the_parser() {
        let limits = CallLimits { bytes: 200, depth: 64, elements: 65_536 };
        assert_eq!(Call::read(&[b' '; 201], &limits), Err(BadCall::TooLarge(200)));
        let deep = |levels| {
            format!(
                "{}<value>x</value>{}",
                "<value><array><data>".repeat(levels),
                "</data></array></value>".repeat(levels)
            )
        };
        assert!(one(&deep(20)).is_ok());
        assert_eq!(one(&deep(21)), Err(BadCall::TooDeep(64)));
        assert_eq!(one(&deep(10_000)), Err(BadCall::TooDeep(64)));
        let wide = format!("<value><array><data>{}</data></array></value>", "<value/>".repeat(70_000));
        assert_eq!(one(&wide), Err(BadCall::TooMany(65_536)));
    }

    #[test]
    fn the_fault_says_what_is_wrong_and_repeats_nothing() {
        let refused = read("<methodCall><methodName>secret</wrong></methodCall>").unwrap_err();
        let reply = String::from_utf8(refused.reply().to_vec()).unwrap();
        assert!(reply.contains("<int>400</int>") && reply.contains("not well-formed at byte"), "{reply}");
        assert!(!reply.contains("secret"));
    }

    proptest! {
        #[test]
        fn no_bytes_bring_the_reader_down(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = Call::read(&body, &CallLimits::default());
        }

        #[test]
        fn no_arrangement_of_tags_brings_the_reader_down(parts in proptest::collection::vec(0usize..18, 0..60)) {
            const PARTS: [&str; 18] = ["<methodCall>", "</methodCall>", "<methodName>", "</methodName>", "<params>",
                "</params>", "<param>", "</param>", "<value>", "</value>", "<struct>", "</struct>", "<member>",
                "<array>", "<data/>", " ", "x&amp;", "<int>7</int>"];
            let body: String = parts.iter().map(|&part| PARTS[part]).collect();
            let _ = read(&body);
        }
    }
}
