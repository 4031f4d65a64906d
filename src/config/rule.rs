//! What a key may be set to. A rule judges one value from one place; it knows nothing of other keys.

use std::fmt;

use config::ValueKind;

use super::finding::{Wrong, shorten};
use super::uri::ConnectUri;
use super::value::{
    Client, Power, SocketMode, parse_absolute, parse_filter, parse_holder, parse_listen, parse_place,
    parse_socket_path, parse_user,
};

/// A value as it was found, with its place. Elements of lists have places of their own.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    /// Where, for a person.
    pub(super) place: String,
    /// As it was written.
    pub(super) shown: String,
    /// What.
    pub(super) kind: RawKind,
}

/// What a value was found to be.
#[derive(Debug, Clone)]
pub(super) enum RawKind {
    /// Text.
    Text(String),
    /// A whole number. Beyond 64 bits the nearest end of the range stands for it, which no rule allows.
    Number(i64),
    /// True or false.
    Flag(bool),
    /// A list.
    List(Vec<Raw>),
    /// Something that no key takes, by name.
    Other(&'static str),
}

impl Raw {
    /// The name of its type.
    pub(super) fn kind_name(&self) -> &'static str {
        self.kind.name()
    }
}

impl RawKind {
    fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "a whole number",
            Self::Flag(_) => "true or false",
            Self::List(_) => "a list",
            Self::Other(name) => name,
        }
    }
}

/// What a key may be set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// A whole number within bounds.
    Number {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
        /// What is counted, in the plural.
        unit: &'static str,
    },
    /// True or false.
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text of this form.
    Text(Form),
    /// A list of different texts of this form, and how many at most.
    List(Form, usize),
}

/// The form of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A connection URI.
    Uri,
    /// An absolute path.
    Path,
    /// An absolute path that is compared as it is written.
    Place,
    /// An absolute path or nothing.
    PathOrEmpty,
    /// A path that fits into a socket address.
    SocketPath,
    /// Permissions of a socket.
    Mode,
    /// A tracing filter.
    Filter,
    /// An address to listen at.
    Listen,
    /// A caller.
    Client,
    /// Whose certificate.
    Holder,
    /// A user of this host.
    User,
    /// Something that documents may have.
    Power,
}

impl Form {
    /// The text in its one written form, or what is wrong with it.
    fn check(self, text: &str) -> Result<String, String> {
        let plain = |checked: Result<(), String>| checked.map(|()| text.to_owned());
        match self {
            Self::Uri => ConnectUri::parse(text).map(|uri| uri.to_string()).map_err(|why| why.to_string()),
            Self::PathOrEmpty if text.is_empty() => Ok(String::new()),
            Self::Path | Self::PathOrEmpty => plain(parse_absolute(text)),
            Self::Place => plain(parse_place(text)),
            Self::SocketPath => plain(parse_socket_path(text)),
            Self::Mode => SocketMode::parse(text).map(|mode| mode.to_string()),
            Self::Filter => plain(parse_filter(text)),
            Self::Listen => parse_listen(text).map(|address| address.to_string()),
            Self::Holder => plain(parse_holder(text)),
            Self::User => plain(parse_user(text)),
            Self::Power => Power::parse(text).map(|power| power.word().to_owned()),
            Self::Client => Client::parse(text).map(|client| match client {
                Client::Address(address) => address.to_string(),
                Client::Unix => "unix".to_owned(),
            }),
        }
    }
}

impl Rule {
    /// The value to merge, or everything that is wrong with it: place and mistake.
    pub(super) fn check(self, raw: &Raw) -> Result<ValueKind, Vec<(String, Wrong)>> {
        match (self, &raw.kind) {
            (Self::Number { min, max, .. }, RawKind::Number(number)) => {
                if (min..=max).contains(number) {
                    Ok(ValueKind::I64(*number))
                } else {
                    Err(self
                        .refuse(raw, if *number < min { "this is too little" } else { "this is too much" }))
                }
            }
            (Self::Flag, RawKind::Flag(flag)) => Ok(ValueKind::Boolean(*flag)),
            (Self::Word(words), RawKind::Text(text)) => {
                if words.contains(&text.as_str()) {
                    Ok(ValueKind::String(text.clone()))
                } else {
                    Err(self.refuse(raw, "there is no such choice"))
                }
            }
            (Self::Text(form), RawKind::Text(text)) => {
                form.check(text).map(ValueKind::String).map_err(|why| self.refuse(raw, &why))
            }
            (Self::List(form, most), RawKind::List(elements)) => self.check_list(form, most, raw, elements),
            (_, found) => {
                let (found, allowed) = (found.name(), self.to_string());
                Err(vec![(raw.place.clone(), Wrong::Type { shown: shorten(&raw.shown), found, allowed })])
            }
        }
    }

    fn check_list(
        self,
        form: Form,
        most: usize,
        raw: &Raw,
        elements: &[Raw],
    ) -> Result<ValueKind, Vec<(String, Wrong)>> {
        if elements.len() > most {
            return Err(self.refuse(raw, &format!("these are {} entries", elements.len())));
        }
        let mut wrong = Vec::new();
        let mut good: Vec<String> = Vec::new();
        for element in elements {
            let RawKind::Text(text) = &element.kind else {
                let (found, allowed) = (element.kind.name(), self.to_string());
                let shown = shorten(&element.shown);
                wrong.push((element.place.clone(), Wrong::Type { shown, found, allowed }));
                continue;
            };
            match form.check(text) {
                Ok(text) if good.contains(&text) => wrong.extend(self.refuse(element, "this is there twice")),
                Ok(text) => good.push(text),
                Err(why) => wrong.extend(self.refuse(element, &why)),
            }
        }
        if wrong.is_empty() {
            Ok(ValueKind::Array(
                good.into_iter().map(|text| config::Value::new(Some(&raw.place), text)).collect(),
            ))
        } else {
            Err(wrong)
        }
    }

    fn refuse(self, raw: &Raw, why: &str) -> Vec<(String, Wrong)> {
        let wrong =
            Wrong::Value { shown: shorten(&raw.shown), why: why.to_owned(), allowed: self.to_string() };
        vec![(raw.place.clone(), wrong)]
    }

    /// Reads the text of a variable or a flag. What does not fit stays text, for [`Rule::check`] to refuse.
    pub(super) fn read(self, place: &str, text: &str) -> Raw {
        let kind = match self {
            Self::Number { .. } => {
                text.parse().map_or_else(|_| RawKind::Text(text.to_owned()), RawKind::Number)
            }
            Self::Flag => text.parse().map_or_else(|_| RawKind::Text(text.to_owned()), RawKind::Flag),
            Self::List(..) if text.trim().is_empty() => RawKind::List(Vec::new()),
            Self::List(..) => RawKind::List(
                text.split(',').map(|element| Self::Text(Form::Path).read(place, element.trim())).collect(),
            ),
            Self::Word(_) | Self::Text(_) => RawKind::Text(text.to_owned()),
        };
        Raw { place: place.to_owned(), shown: format!("{text:?}"), kind }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number { min, max, unit } => write!(f, "{min} to {max} {unit}"),
            Self::Flag => f.write_str("true or false"),
            Self::Word(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                f.write_str(&quoted.join(" or "))
            }
            Self::Text(form) => f.write_str(match form {
                Form::Uri => {
                    "a libvirt URI without a host; with \"qemu:///embed\", root is there and an absolute path"
                }
                Form::Path => "an absolute path",
                Form::Place => "an absolute path without \"..\"",
                Form::PathOrEmpty => "an absolute path, or \"\"",
                Form::SocketPath => "an absolute path of at most 107 bytes",
                Form::Mode => {
                    "an octal number in quotes with \"6\" or \"7\" for the owner and no write for others, such as \
                     \"0660\" or \"0600\""
                }
                Form::Filter => "a tracing filter",
                Form::Listen => "an IP address with port",
                Form::Client => "an IP address without port, or \"unix\"",
                Form::Holder => "a name as certificates carry it, or \"*\" for all",
                Form::User => "a user's name or number",
                Form::Power => "a word",
            }),
            Self::List(Form::Listen, most) => write!(
                f,
                "up to {most} different IP addresses with port, such as \"127.0.0.1:54321\" or \"[::1]:54321\""
            ),
            Self::List(Form::Client, most) => {
                write!(f, "up to {most} different IP addresses without port, or \"unix\"")
            }
            Self::List(Form::Holder, most) => {
                write!(f, "up to {most} different names as certificates carry them, or \"*\" for all")
            }
            Self::List(Form::Path, most) => write!(f, "up to {most} different absolute paths"),
            Self::List(Form::Place, most) => {
                write!(f, "up to {most} different absolute paths without \"..\"")
            }
            Self::List(Form::User, most) => write!(f, "up to {most} different names or numbers of users"),
            Self::List(Form::Power, _) => {
                let words: Vec<_> = Power::ALL.iter().map(|power| format!("{:?}", power.word())).collect();
                write!(f, "any of {}", words.join(", "))
            }
            Self::List(form, most) => write!(f, "up to {most} times {}", Self::Text(*form)),
        }
    }
}
