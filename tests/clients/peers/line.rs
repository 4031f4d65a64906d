//! What is asked of a client and what it read, as text: one call and one reply a line, so that any language can.
//!
//! A call is `URL TAB METHOD TAB tokens`, a reply `value TAB tokens`, `fault TAB tokens` (code and text) or
//! `error TAB tokens` (the client's own words). Tokens have a letter for the type:
//!
//! ```text
//! i7        int               s...      text, with \\ \t \n \r for what would break the line
//! b1  b0    boolean           [ ... ]   array of what stands between
//! d1.5      double            { ... }   struct: an s token with the name, then the member
//! n         nothing, where a client reads something else as that
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A value as far as XML-RPC has types.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Nothing,
    Int(i64),
    Boolean(bool),
    Double(String),
    Text(String),
    Array(Vec<Value>),
    Struct(BTreeMap<String, Value>),
}

/// What a client made of the answer to a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Value(Value),
    Fault(i64, String),
    /// The client could not send the call or not read the answer; its own words.
    Error(String),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Boolean(truth)
    }
}

/// A struct of these members.
pub fn members<const N: usize>(members: [(&str, Value); N]) -> Value {
    Value::Struct(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// An array of these.
pub fn array<const N: usize>(items: [Value; N]) -> Value {
    Value::Array(items.into())
}

impl Value {
    /// A member of a struct, by its path: `statsList.0.status`.
    pub fn at(&self, path: &str) -> Option<&Value> {
        path.split('.').try_fold(self, |value, step| match value {
            Self::Struct(members) => members.get(step),
            Self::Array(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// The text at a path.
    pub fn text(&self, path: &str) -> Option<&str> {
        match self.at(path)? {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// With every text passed through `change`.
    pub fn map_texts(self, change: &impl Fn(String) -> String) -> Self {
        match self {
            Self::Text(text) => Self::Text(change(text)),
            Self::Array(items) => Self::Array(items.into_iter().map(|item| item.map_texts(change)).collect()),
            Self::Struct(members) => {
                Self::Struct(members.into_iter().map(|(name, v)| (name, v.map_texts(change))).collect())
            }
            other => other,
        }
    }

    fn write(&self, line: &mut String) {
        let told = match self {
            Self::Nothing => write!(line, "\tn"),
            Self::Int(number) => write!(line, "\ti{number}"),
            Self::Boolean(truth) => write!(line, "\tb{}", u8::from(*truth)),
            Self::Double(number) => write!(line, "\td{number}"),
            Self::Text(text) => write!(line, "\t{}", escaped(text)),
            Self::Array(items) => {
                line.push_str("\t[");
                items.iter().for_each(|item| item.write(line));
                write!(line, "\t]")
            }
            Self::Struct(members) => {
                line.push_str("\t{");
                for (name, value) in members {
                    line.push('\t');
                    line.push_str(&escaped(name));
                    value.write(line);
                }
                write!(line, "\t}}")
            }
        };
        told.expect("a String takes everything");
    }

    /// Reads the value that begins with `token`.
    fn read(token: &str, tokens: &mut dyn Iterator<Item = &str>) -> Result<Self, String> {
        let number = || token[1..].parse().map_err(|_| format!("no number: {token}"));
        match token.as_bytes().first() {
            Some(b'n') => Ok(Self::Nothing),
            Some(b'i') => Ok(Self::Int(number()?)),
            Some(b'b') => Ok(Self::Boolean(number()? == 1)),
            Some(b'd') => Ok(Self::Double(token[1..].to_owned())),
            Some(b's') => Ok(Self::Text(plain(&token[1..]))),
            Some(b'[') => {
                let mut items = Vec::new();
                loop {
                    match tokens.next().ok_or("an array without an end")? {
                        "]" => return Ok(Self::Array(items)),
                        token => items.push(Self::read(token, tokens)?),
                    }
                }
            }
            Some(b'{') => {
                let mut members = BTreeMap::new();
                loop {
                    let name = tokens.next().ok_or("a struct without an end")?;
                    let Some(name) = name.strip_prefix('s') else { return Ok(Self::Struct(members)) };
                    let token = tokens.next().ok_or("a name without a member")?;
                    members.insert(plain(name), Self::read(token, tokens)?);
                }
            }
            _ => Err(format!("no token: {token}")),
        }
    }
}

/// The line of a call.
pub fn call_line(url: &str, method: &str, arguments: &[Value]) -> String {
    let mut line = format!("{url}\t{method}");
    arguments.iter().for_each(|argument| argument.write(&mut line));
    line
}

/// The reply that a line holds.
///
/// # Errors
///
/// What is wrong with the line.
pub fn read_reply(line: &str) -> Result<Reply, String> {
    let mut tokens = line.split('\t');
    let kind = tokens.next().unwrap_or_default();
    let mut values = Vec::new();
    while let Some(token) = tokens.next() {
        values.push(Value::read(token, &mut tokens)?);
    }
    let mut values = values.into_iter();
    match (kind, values.next(), values.next(), values.next()) {
        ("value", Some(value), None, None) => Ok(Reply::Value(value)),
        ("fault", Some(Value::Int(code)), Some(Value::Text(text)), None) => Ok(Reply::Fault(code, text)),
        ("error", Some(Value::Text(words)), None, None) => Ok(Reply::Error(words)),
        _ => Err(format!("no reply: {line}")),
    }
}

fn plain(token: &str) -> String {
    let mut letters = token.chars();
    let mut text = String::new();
    while let Some(letter) = letters.next() {
        text.push(match letter {
            '\\' => match letters.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                other => other.unwrap_or('\\'),
            },
            other => other,
        });
    }
    text
}

fn escaped(text: &str) -> String {
    let mut token = String::from("s");
    for letter in text.chars() {
        match letter {
            '\\' => token.push_str("\\\\"),
            '\t' => token.push_str("\\t"),
            '\n' => token.push_str("\\n"),
            '\r' => token.push_str("\\r"),
            other => token.push(other),
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let value = members([
            ("a\tb", array([1.into(), true.into(), "\\n\n".into(), Value::Nothing])),
            ("", array([])),
            ("s", members([("}", "]".into())])),
        ]);
        let line = call_line("value", "", std::slice::from_ref(&value)).replacen("\t\t", "\t", 1);
        assert_eq!(read_reply(&line), Ok(Reply::Value(value)));
        assert_eq!(read_reply("fault\ti1\tsno"), Ok(Reply::Fault(1, "no".into())));
        for broken in
            ["", "value", "value\t[", "value\t{\tsa", "value\ti1\ti2", "value\tx", "value\tione", "fault\ti1"]
        {
            assert!(read_reply(broken).is_err(), "{broken}");
        }
    }
}
