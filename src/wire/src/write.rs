//! The writer of replies: one buffer, and only the types that every manager can read.
//!
//! What cannot be written through it cannot break a reply: there is no `i8`, no `nil` and no date, a double is finite,
//! and there is no character that XML 1.0 cannot carry. A number that may pass 32 bits is text, as VDSM made it.

use std::fmt::{Display, Write as _};

/// Declaration and opening of every successful reply. VDSM wrote this declaration; Tcl's client insists on one.
const OPEN: &str = "<?xml version='1.0'?>\n<methodResponse><params><param>";
const CLOSE: &str = "</param></params></methodResponse>\n";

/// A reply's bytes, being written.
#[derive(Debug, Default)]
pub(crate) struct Xml {
    buffer: String,
}

impl Xml {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { buffer: String::with_capacity(bytes) }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.buffer.into_bytes()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.buffer
    }

    /// A value on its own, in the place where it stands.
    pub(crate) fn value(&mut self) -> Slot<'_> {
        Slot { out: &mut self.buffer }
    }

    /// Members without the struct around them, to be put into one later with [`Members::prepared`].
    pub(crate) fn members(&mut self) -> Members<'_> {
        Members { out: &mut self.buffer }
    }
}

/// A whole successful reply with the one value that `fill` writes.
pub(crate) fn reply(capacity: usize, fill: impl FnOnce(Slot<'_>)) -> Vec<u8> {
    let mut xml = Xml::with_capacity(capacity + OPEN.len() + CLOSE.len());
    xml.buffer.push_str(OPEN);
    fill(xml.value());
    xml.buffer.push_str(CLOSE);
    xml.into_bytes()
}

/// A whole fault. Readers want exactly these two members, in this order.
pub(crate) fn fault_reply(code: i32, text: &str) -> Vec<u8> {
    let mut xml = Xml::with_capacity(256 + text.len());
    xml.buffer.push_str("<?xml version='1.0'?>\n<methodResponse><fault>");
    xml.value().structure(|s| {
        s.int("faultCode", code);
        s.text("faultString", text);
    });
    xml.buffer.push_str("</fault></methodResponse>\n");
    xml.into_bytes()
}

/// The place of exactly one value; writing it uses it up.
pub(crate) struct Slot<'a> {
    out: &'a mut String,
}

impl Slot<'_> {
    pub(crate) fn text(self, text: &str) {
        self.out.push_str("<value><string>");
        escape(self.out, text);
        self.out.push_str("</string></value>");
    }

    /// A number or date as text, which needs no escaping.
    pub(crate) fn number_text(self, number: impl Display) {
        let _ = write!(self.out, "<value><string>{number}</string></value>");
    }

    pub(crate) fn int(self, number: i32) {
        let _ = write!(self.out, "<value><int>{number}</int></value>");
    }

    /// Only for what VDSM sent as one: older managers lose it, or more. Java's reader does not know "NaN".
    pub(crate) fn double(self, number: f64) {
        let number = if number.is_finite() { number } else { 0.0 };
        let _ = write!(self.out, "<value><double>{number:.3}</double></value>");
    }

    pub(crate) fn boolean(self, truth: bool) {
        self.out.push_str(if truth {
            "<value><boolean>1</boolean></value>"
        } else {
            "<value><boolean>0</boolean></value>"
        });
    }

    pub(crate) fn structure(self, fill: impl FnOnce(&mut Members<'_>)) {
        self.out.push_str("<value><struct>");
        fill(&mut Members { out: self.out });
        self.out.push_str("</struct></value>");
    }

    pub(crate) fn array(self, fill: impl FnOnce(&mut Items<'_>)) {
        self.out.push_str("<value><array><data>");
        fill(&mut Items { out: self.out });
        self.out.push_str("</data></array></value>");
    }

    pub(crate) fn texts<T: AsRef<str>>(self, texts: impl IntoIterator<Item = T>) {
        self.array(|items| texts.into_iter().for_each(|text| items.item().text(text.as_ref())));
    }
}

/// The members of a struct. A name must not be used twice: managers refuse the reply.
pub(crate) struct Members<'a> {
    out: &'a mut String,
}

impl Members<'_> {
    /// A member whose value `fill` writes.
    pub(crate) fn member(&mut self, name: &str, fill: impl FnOnce(Slot<'_>)) {
        self.out.push_str("<member><name>");
        escape(self.out, name);
        self.out.push_str("</name>");
        fill(Slot { out: self.out });
        self.out.push_str("</member>\n");
    }

    pub(crate) fn text(&mut self, name: &str, text: &str) {
        self.member(name, |slot| slot.text(text));
    }

    pub(crate) fn number_text(&mut self, name: &str, number: impl Display) {
        self.member(name, |slot| slot.number_text(number));
    }

    pub(crate) fn int(&mut self, name: &str, number: i32) {
        self.member(name, |slot| slot.int(number));
    }

    pub(crate) fn double(&mut self, name: &str, number: f64) {
        self.member(name, |slot| slot.double(number));
    }

    pub(crate) fn boolean(&mut self, name: &str, truth: bool) {
        self.member(name, |slot| slot.boolean(truth));
    }

    pub(crate) fn structure(&mut self, name: &str, fill: impl FnOnce(&mut Members<'_>)) {
        self.member(name, |slot| slot.structure(fill));
    }

    pub(crate) fn array(&mut self, name: &str, fill: impl FnOnce(&mut Items<'_>)) {
        self.member(name, |slot| slot.array(fill));
    }

    pub(crate) fn texts<T: AsRef<str>>(&mut self, name: &str, texts: impl IntoIterator<Item = T>) {
        self.member(name, |slot| slot.texts(texts));
    }

    /// Members that this writer made earlier.
    pub(crate) fn prepared(&mut self, members: &str) {
        self.out.push_str(members);
    }
}

/// The items of an array.
pub(crate) struct Items<'a> {
    out: &'a mut String,
}

impl Items<'_> {
    pub(crate) fn item(&mut self) -> Slot<'_> {
        Slot { out: self.out }
    }
}

/// Writes `text` so that every reader gets it back: markup as references, CR as a reference (else readers make it LF),
/// and U+FFFD for what XML 1.0 cannot carry in any form. One such character would cost a manager the whole reply.
fn escape(out: &mut String, text: &str) {
    let mut written = 0;
    for (at, c) in text.char_indices() {
        let instead = match c {
            '<' => "&lt;",
            '>' => "&gt;",
            '&' => "&amp;",
            '\r' => "&#13;",
            '\t' | '\n' => continue,
            '\0'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}' => "\u{FFFD}",
            _ => continue,
        };
        out.push_str(&text[written..at]);
        out.push_str(instead);
        written = at + c.len_utf8();
    }
    out.push_str(&text[written..]);
}

/// What a reader of `escape`'s work gets: the text with U+FFFD for what XML cannot carry.
#[cfg(test)]
pub(crate) fn as_read(text: &str) -> String {
    let lost =
        |c: char| (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{FFFE}' | '\u{FFFF}');
    text.chars().map(|c| if lost(c) { '\u{FFFD}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        escape(&mut out, text);
        out
    }

    #[test]
    fn markup_and_carriage_returns_become_references() {
        assert_eq!(escaped("a<b>&c]]>\r\n\t\"'"), "a&lt;b&gt;&amp;c]]&gt;&#13;\n\t\"'");
    }

    #[test]
    fn what_xml_cannot_carry_is_replaced() {
        assert_eq!(escaped("a\0b\u{1b}c\u{fffe}d\u{ffff}"), "a\u{fffd}b\u{fffd}c\u{fffd}d\u{fffd}");
        assert_eq!(escaped("\u{7f}\u{85}\u{1F600}"), "\u{7f}\u{85}\u{1F600}");
    }

    /// Any characters at all; proptest's own strings hold no control characters.
    fn wild() -> impl Strategy<Value = String> {
        proptest::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter)
    }

    proptest! {
        #[test]
        fn any_text_comes_back_from_an_independent_reader(name in wild(), text in wild()) {
            // An empty name is written well, but dxr refuses to read one.
            let name = format!("n{name}");
            let body = reply(0, |slot| slot.structure(|s| {
                s.text(&name, &text);
                s.texts("nested ", [&text]);
            }));
            let body = String::from_utf8(body).unwrap();
            let dxr::Value::Struct(read) = dxr::MethodResponse::from_xml(&body).unwrap().value else {
                panic!("not a struct");
            };
            prop_assert_eq!(&read[&as_read(&name)], &dxr::Value::String(as_read(&text)));
            let nested = dxr::Value::Array(vec![dxr::Value::String(as_read(&text))]);
            prop_assert_eq!(&read["nested "], &nested);
        }
    }
}
