//! XML-RPC as engines' client library reads it: what it does not know loses the whole reply.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::Event;

/// A value, with the type that stood on the wire.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Int(i32),
    Boolean(bool),
    Double(f64),
    Text(String),
    Struct(BTreeMap<String, Value>),
    Array(Vec<Value>),
}

impl Value {
    /// The text that it is, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The type's name on the wire.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::Int(_) => "int",
            Self::Boolean(_) => "boolean",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Struct(_) => "struct",
            Self::Array(_) => "array",
        }
    }
}

/// Reads a reply's one value.
///
/// # Errors
/// What a client of that age would refuse.
pub fn read(body: &str) -> Result<Value, String> {
    if let Some(odd) = body
        .chars()
        .find(|c| matches!(c, '\0'..'\t' | '\u{b}' | '\u{c}' | '\u{e}'..' ' | '\u{fffe}' | '\u{ffff}'))
    {
        return Err(format!("the character {odd:?} is not legal in XML"));
    }
    let mut reader = Parser { reader: Reader::from_str(body), ahead: None };
    for wanted in ["methodResponse", "params", "param"] {
        reader.open(wanted)?;
    }
    reader.open("value")?;
    let value = reader.value()?;
    for wanted in ["param", "params", "methodResponse"] {
        reader.close(wanted)?;
    }
    Ok(value)
}

struct Parser<'a> {
    reader: Reader<&'a [u8]>,
    ahead: Option<Piece>,
}

#[derive(Debug, PartialEq)]
enum Piece {
    Open(String),
    Close(String),
    Text(String),
    End,
}

impl Parser<'_> {
    /// The next piece; neighbouring texts are one.
    fn next(&mut self) -> Result<Piece, String> {
        if let Some(piece) = self.ahead.take() {
            return Ok(piece);
        }
        let mut text = String::new();
        let next = loop {
            let name = |name: quick_xml::name::QName| name.as_ref().to_owned();
            match self.reader.read_event().map_err(|error| error.to_string())? {
                Event::Decl(_) | Event::Comment(_) => {}
                Event::Start(tag) => break Piece::Open(name(tag.name())),
                Event::Empty(tag) => {
                    let name = name(tag.name());
                    if !text.is_empty() {
                        return Err(format!("text before <{name}/>"));
                    }
                    self.ahead = Some(Piece::Close(name.clone()));
                    return Ok(Piece::Open(name));
                }
                Event::End(tag) => break Piece::Close(name(tag.name())),
                Event::Text(part) => text.push_str(&part.xml10_content()),
                Event::GeneralRef(part) => {
                    let name = part.into_inner();
                    text.push_str(match name.as_ref() {
                        "amp" => "&",
                        "lt" => "<",
                        "gt" => ">",
                        "quot" => "\"",
                        "apos" => "'",
                        "#13" => "\r",
                        other => return Err(format!("the reference &{other};")),
                    });
                }
                Event::Eof => break Piece::End,
                other => return Err(format!("{other:?} in a reply")),
            }
        };
        if text.is_empty() {
            return Ok(next);
        }
        self.ahead = Some(next);
        Ok(Piece::Text(text))
    }

    /// The next piece that is not space between tags.
    fn tag(&mut self) -> Result<Piece, String> {
        loop {
            match self.next()? {
                Piece::Text(space) if space.trim().is_empty() => {}
                other => return Ok(other),
            }
        }
    }

    fn open(&mut self, wanted: &str) -> Result<(), String> {
        match self.tag()? {
            Piece::Open(name) if name == wanted => Ok(()),
            other => Err(format!("{other:?} instead of <{wanted}>")),
        }
    }

    fn close(&mut self, wanted: &str) -> Result<(), String> {
        match self.tag()? {
            Piece::Close(name) if name == wanted => Ok(()),
            other => Err(format!("{other:?} instead of </{wanted}>")),
        }
    }

    /// Text up to the end of its element.
    fn text(&mut self, until: &str) -> Result<String, String> {
        let text = match self.next()? {
            Piece::Text(text) => text,
            Piece::Close(name) if name == until => return Ok(String::new()),
            other => return Err(format!("{other:?} in <{until}>")),
        };
        match self.next()? {
            Piece::Close(name) if name == until => Ok(text),
            other => Err(format!("{other:?} in <{until}>")),
        }
    }

    /// Behind `<value>`, up to and with `</value>`.
    fn value(&mut self) -> Result<Value, String> {
        let mut text = String::new();
        let name = loop {
            match self.next()? {
                Piece::Text(untagged) => text = untagged,
                Piece::Close(name) if name == "value" => return Ok(Value::Text(text)),
                Piece::Open(name) if text.trim().is_empty() => break name,
                other => return Err(format!("{other:?} in <value>")),
            }
        };
        let value = match name.as_str() {
            "int" | "i4" => {
                let text = self.text(&name)?;
                Value::Int(text.trim().parse().map_err(|_| format!("{text:?} is no integer of 32 bits"))?)
            }
            "boolean" => match self.text(&name)?.trim() {
                "0" => Value::Boolean(false),
                "1" => Value::Boolean(true),
                other => return Err(format!("{other:?} is no boolean")),
            },
            "double" => {
                let text = self.text(&name)?;
                let number = text.trim().parse().ok().filter(|number: &f64| number.is_finite());
                Value::Double(number.ok_or_else(|| format!("{text:?} is no double"))?)
            }
            "string" => Value::Text(self.text(&name)?),
            "struct" => self.members()?,
            "array" => self.items()?,
            other => return Err(format!("the type <{other}>")),
        };
        self.close("value")?;
        Ok(value)
    }

    fn members(&mut self) -> Result<Value, String> {
        let mut members = BTreeMap::new();
        loop {
            match self.tag()? {
                Piece::Close(name) if name == "struct" => return Ok(Value::Struct(members)),
                Piece::Open(name) if name == "member" => {}
                other => return Err(format!("{other:?} in <struct>")),
            }
            self.open("name")?;
            let name = self.text("name")?;
            self.open("value")?;
            let value = self.value()?;
            self.close("member")?;
            if members.insert(name.clone(), value).is_some() {
                return Err(format!("the member {name} twice"));
            }
        }
    }

    fn items(&mut self) -> Result<Value, String> {
        self.open("data")?;
        let mut items = Vec::new();
        loop {
            match self.tag()? {
                Piece::Open(name) if name == "value" => items.push(self.value()?),
                Piece::Close(name) if name == "data" => break,
                other => return Err(format!("{other:?} in <data>")),
            }
        }
        self.close("array")?;
        Ok(Value::Array(items))
    }
}
