//! The look at a request before its parser sees it: size, shape and depth are bounded here, and what an XML-RPC call
//! has no use for (document types, entities, a second root) is refused.
//!
//! It also mends one thing in passing: the engine sends text without `<string>`, and the parser loses such a text
//! when it is all blanks. Those are given the tag that they lack.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::Event;

/// The most that is read of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// Bytes of the body. The largest honest call is a `create` with a domain document.
    pub bytes: usize,
    /// XML elements inside each other; an array or struct in a call takes three of them. The parser's own bound is 128.
    pub depth: usize,
    /// XML elements in all. A list of 5,000 VMs by id takes 10,003.
    pub elements: usize,
}

impl Default for CallLimits {
    fn default() -> Self {
        Self { bytes: 2 << 20, depth: 64, elements: 65_536 }
    }
}

/// Why a request is not a call. The text never repeats the request: it may hold a password, or be meant to swell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCall {
    /// Too many bytes.
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
    /// Elements too deep inside each other.
    #[error("the request nests elements deeper than {0}")]
    TooDeep(usize),
    /// Too many elements.
    #[error("the request has more than {0} elements")]
    TooMany(usize),
    /// Bytes that do not fit the declared encoding.
    #[error("the request is not {0}")]
    NotInEncoding(&'static str),
    /// An encoding that is not read.
    #[error("the request's encoding is not supported: use UTF-8")]
    Encoding,
    /// A document type, which is where entities and bombs come from.
    #[error("a document type is not accepted")]
    DocType,
    /// A reference to anything but a character or one of XML's own five entities.
    #[error("an unknown entity at byte {0}")]
    Entity(u64),
    /// Not well-formed.
    #[error("not well-formed at byte {0}")]
    Malformed(u64),
    /// Well-formed, but the document is not one `methodCall`.
    #[error("not a method call")]
    NotACall,
    /// A method call that the parser refused, such as an `<int>` beyond 32 bits or an unknown type.
    #[error("a value or member of the call is not valid XML-RPC")]
    Invalid,
}

/// Reads the bytes as text, by the encoding that the document declares.
pub(crate) fn decode(body: &[u8]) -> Result<Cow<'_, str>, BadCall> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    let declared = declared_encoding(body).map(|name| name.to_ascii_lowercase());
    match declared.as_deref() {
        None | Some("utf-8" | "utf8" | "us-ascii" | "ascii") => {
            std::str::from_utf8(body).map(Cow::Borrowed).map_err(|_| BadCall::NotInEncoding("UTF-8"))
        }
        Some("iso-8859-1" | "latin-1" | "latin1") => Ok(body.iter().map(|&byte| byte as char).collect()),
        Some(_) => Err(BadCall::Encoding),
    }
}

/// The encoding in the XML declaration, if there is one in the first bytes.
fn declared_encoding(body: &[u8]) -> Option<&str> {
    let head = &body[..body.len().min(200)];
    let end = head.windows(2).position(|pair| pair == b"?>")?;
    let declaration = std::str::from_utf8(&head[..end]).ok()?.trim_start().strip_prefix("<?xml")?;
    let after = declaration.split_once("encoding")?.1.trim_start().strip_prefix('=')?.trim_start();
    let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    after[1..].split_once(quote).map(|(name, _)| name)
}

/// An element that stands open.
struct Open {
    tag: Tag,
    /// Where its content begins.
    content: usize,
    /// Whether it holds another element.
    has_child: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Value,
    Array,
    Other,
}

/// Checks the text against `limits` and gives it back fit for the parser.
pub(crate) fn check<'a>(text: Cow<'a, str>, limits: &CallLimits) -> Result<Cow<'a, str>, BadCall> {
    let blanks = walk(&text, limits)?;
    if blanks.is_empty() {
        return Ok(text);
    }
    let mut mended = String::with_capacity(text.len() + blanks.len() * "<string></string>".len());
    let mut copied = 0;
    for (start, end) in blanks {
        mended.push_str(&text[copied..start]);
        mended.push_str("<string>");
        mended.push_str(&text[start..end]);
        mended.push_str("</string>");
        copied = end;
    }
    mended.push_str(&text[copied..]);
    Ok(Cow::Owned(mended))
}

/// Walks the document once; gives the places of untyped values that are nothing but blanks.
fn walk(text: &str, limits: &CallLimits) -> Result<Vec<(usize, usize)>, BadCall> {
    // The one mark that may stand at the start is gone by now. The reader would pass over another without counting it.
    if text.starts_with('\u{FEFF}') {
        return Err(BadCall::NotACall);
    }
    let mut reader = Reader::from_str(text);
    let mut open: Vec<Open> = Vec::new();
    let mut blanks = Vec::new();
    let (mut elements, mut roots) = (0usize, 0usize);
    loop {
        let before = reader.buffer_position() as usize;
        let event = reader.read_event().map_err(|_| BadCall::Malformed(reader.error_position()))?;
        let starts = matches!(event, Event::Start(_));
        match event {
            Event::Start(start) | Event::Empty(start) => {
                elements += 1;
                if elements > limits.elements {
                    return Err(BadCall::TooMany(limits.elements));
                }
                if open.len() >= limits.depth {
                    return Err(BadCall::TooDeep(limits.depth));
                }
                let name = start.name();
                let tag = match name.as_ref() {
                    "value" => Tag::Value,
                    "array" => Tag::Array,
                    _ => Tag::Other,
                };
                match open.last_mut() {
                    // The parser would take an array whose `data` is missing for an empty one.
                    Some(parent) if parent.tag == Tag::Array && tag == Tag::Value => {
                        return Err(BadCall::Invalid);
                    }
                    Some(parent) => parent.has_child = true,
                    None if roots > 0 || name.as_ref() != "methodCall" => return Err(BadCall::NotACall),
                    None => roots += 1,
                }
                if starts {
                    open.push(Open { tag, content: reader.buffer_position() as usize, has_child: false });
                }
            }
            Event::End(_) => {
                let Some(ended) = open.pop() else { return Err(BadCall::Malformed(before as u64)) };
                let content = &text[ended.content..before];
                if ended.tag == Tag::Value && !ended.has_child && !content.is_empty() && is_blank(content) {
                    blanks.push((ended.content, before));
                }
            }
            Event::Text(_) | Event::CData(_) if open.is_empty() => {
                if !is_blank(&text[before..reader.buffer_position() as usize]) {
                    return Err(BadCall::NotACall);
                }
            }
            Event::GeneralRef(name) => {
                let known = matches!(&*name, "lt" | "gt" | "amp" | "quot" | "apos");
                let character = || matches!(name.resolve_char_ref(), Ok(Some(_)));
                if open.is_empty() || !(known || character()) {
                    return Err(BadCall::Entity(before as u64));
                }
            }
            Event::DocType(_) => return Err(BadCall::DocType),
            Event::Eof if !open.is_empty() => return Err(BadCall::Malformed(before as u64)),
            Event::Eof if roots == 0 => return Err(BadCall::NotACall),
            Event::Eof => return Ok(blanks),
            Event::Text(_) | Event::CData(_) | Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

fn is_blank(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}
