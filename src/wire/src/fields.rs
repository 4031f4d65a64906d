//! The members of a manager's struct, each read once and by name; what nobody has read is refused by name.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use dxr::Value;

use crate::refused::{Refused, shown};
use crate::verb::NO_MEMBERS;

/// Entries of any one list in a request.
const LIST_MOST: usize = 256;

/// The parameters of a call that have no effect here, and asked for something: their names, without the numbers of lists.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ignored {
    names: Rc<RefCell<BTreeSet<String>>>,
    /// All that was looked for, whether it was there or not.
    #[cfg(test)]
    pub(crate) asked: Rc<RefCell<BTreeSet<String>>>,
}

impl Ignored {
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.borrow().iter().cloned().collect()
    }
}

/// A struct while it is being read.
pub(crate) struct Fields<'a> {
    method: &'static str,
    ignored: Ignored,
    /// What stands before a member's name where it is told: empty, or `devices[0].`.
    path: String,
    members: &'a BTreeMap<String, Value>,
    read: RefCell<BTreeSet<&'a str>>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(method: &'static str, members: &'a BTreeMap<String, Value>, ignored: Ignored) -> Self {
        Self { method, ignored, path: String::new(), members, read: RefCell::default() }
    }

    fn inside(&self, name: &str, members: &'a BTreeMap<String, Value>) -> Self {
        let path = format!("{}{name}.", self.path);
        Self { method: self.method, ignored: self.ignored.clone(), path, members, read: RefCell::default() }
    }

    /// The member, unless it is missing or nil. It counts as read.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        #[cfg(test)]
        self.ignored.asked.borrow_mut().insert(plain(&self.place(name)));
        let (name, value) = self.members.get_key_value(name)?;
        self.read.borrow_mut().insert(name);
        Some(value).filter(|value| !matches!(value, Value::Nil))
    }

    /// Where a member stands. Some names are the manager's own.
    fn place(&self, name: &str) -> String {
        format!("{}{}", self.path, shown(name))
    }

    pub(crate) fn missing(&self, name: &str) -> Refused {
        Refused::Lacks { param: self.place(name) }
    }

    pub(crate) fn bad(&self, name: &str, wanted: &str) -> Refused {
        Refused::Bad { method: self.method, param: self.place(name), wanted: wanted.into() }
    }

    pub(crate) fn unsupported(&self, name: &str) -> Refused {
        Refused::Unsupported { method: self.method, param: self.place(name) }
    }

    /// Text, or a number or truth as its text; `None` if it is missing or empty.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, Refused> {
        let text = match self.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Integer(number)) => number.to_string(),
            Some(Value::Long(number)) => number.to_string(),
            Some(Value::Boolean(truth)) => truth.to_string(),
            Some(_) => return Err(self.bad(name, "text")),
        };
        let plain = text.len() <= 4096 && !text.chars().any(char::is_control);
        if !plain {
            return Err(self.bad(name, "a line of at most 4096 bytes"));
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Text that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<String, Refused> {
        self.text(name)?.ok_or_else(|| self.missing(name))
    }

    /// One of these words, or nothing.
    pub(crate) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Refused> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        let wanted = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
        found.map(Some).ok_or_else(|| self.bad(name, &format!("one of {}", wanted())))
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Refused> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let read: Option<u32> = text.parse().ok();
        read.map(|number| Some(u64::from(number)))
            .ok_or_else(|| self.bad(name, "a whole number from 0 to 4294967295"))
    }

    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, Refused> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Some(true)),
            "false" | "0" | "no" | "off" => Ok(Some(false)),
            _ => Err(self.bad(name, "true or false")),
        }
    }

    /// A struct in it, read by `read` to its last member; nothing if it is missing.
    pub(crate) fn structure<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Fields<'a>) -> Result<T, Refused>,
    ) -> Result<Option<T>, Refused> {
        let members = match self.get(name) {
            None => return Ok(None),
            Some(Value::Struct(members)) => members,
            Some(Value::Array(items)) if items.is_empty() => &NO_MEMBERS,
            Some(Value::String(text)) if text.is_empty() => return Ok(None),
            Some(_) => return Err(self.bad(name, "a struct")),
        };
        let inside = self.inside(name, members);
        let value = read(&inside)?;
        inside.finish()?;
        Ok(Some(value))
    }

    /// A list of structs in it, each read to its last member.
    pub(crate) fn structures<T>(
        &self,
        name: &str,
        mut read: impl FnMut(usize, &Fields<'a>) -> Result<T, Refused>,
    ) -> Result<Vec<T>, Refused> {
        let items = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(items)) if items.len() <= LIST_MOST => items,
            Some(_) => return Err(self.bad(name, "an array of at most 256 structs")),
        };
        let read_one = |(index, item): (usize, &'a Value)| {
            let path = format!("{name}[{index}]");
            let Value::Struct(members) = item else { return Err(self.bad(&path, "a struct")) };
            let inside = self.inside(&path, members);
            let value = read(index, &inside)?;
            inside.finish()?;
            Ok(value)
        };
        items.iter().enumerate().map(read_one).collect()
    }

    /// Every member as text.
    pub(crate) fn texts(&self) -> Result<Vec<(&'a str, String)>, Refused> {
        let names = self.members.keys().map(String::as_str);
        names
            .filter_map(|name| self.text(name).map(|text| text.map(|text| (name, text))).transpose())
            .collect()
    }

    /// These have no effect here, as they had none in the original. What they asked for is noted.
    pub(crate) fn ignore(&self, names: &[&str]) {
        for name in names {
            if self.get(name).is_some_and(asks) {
                self.note(name);
            }
        }
    }

    /// All that begin so have no effect here; they are noted under one name.
    pub(crate) fn ignore_all(&self, prefix: &str) {
        let names: Vec<&str> = self.members.keys().map(String::as_str).collect();
        let found = names.into_iter().filter(|name| name.starts_with(prefix));
        if found.filter(|name| self.get(name).is_some()).count() > 0 {
            self.note(&format!("{prefix}*"));
        }
    }

    /// Whether the member is there, if only as empty text.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// None of what nobody has read has an effect, whatever it is called.
    pub(crate) fn ignore_others(&self) {
        let mut read = self.read.borrow_mut();
        let left = self.members.iter().filter(|(name, value)| read.insert(name.as_str()) && asks(value));
        left.for_each(|(name, _)| self.note(name));
    }

    /// This has no effect here, whatever it asks for.
    pub(crate) fn note(&self, name: &str) {
        self.ignored.names.borrow_mut().insert(plain(&self.place(name)));
    }

    /// These say what the manager calls the thing; they are neither an order nor passed over.
    pub(crate) fn skip(&self, names: &[&str]) {
        for name in names {
            self.get(name);
        }
    }

    /// Refuses these, unless they ask for nothing.
    pub(crate) fn refuse(&self, names: &[&str]) -> Result<(), Refused> {
        let found = names.iter().find(|name| self.get(name).is_some_and(asks));
        found.map_or(Ok(()), |name| Err(self.unsupported(name)))
    }

    /// Refuses what nobody has read, unless it asks for nothing: managers send many members that do not.
    pub(crate) fn finish(&self) -> Result<(), Refused> {
        let read = self.read.borrow();
        let left = self.members.iter().find(|(name, value)| !read.contains(name.as_str()) && asks(value));
        left.map_or(Ok(()), |(name, _)| Err(self.unsupported(name)))
    }
}

/// A place without the numbers of lists.
fn plain(place: &str) -> String {
    let mut plain = String::with_capacity(place.len());
    let mut inside = false;
    for letter in place.chars() {
        inside |= letter == '[';
        if !inside {
            plain.push(letter);
        }
        inside &= letter != ']';
    }
    plain
}

fn asks(value: &Value) -> bool {
    match value {
        Value::Nil | Value::Boolean(false) | Value::Integer(0) | Value::Long(0) => false,
        Value::String(text) => !matches!(text.trim().to_ascii_lowercase().as_str(), "" | "false" | "0"),
        Value::Array(items) => !items.is_empty(),
        Value::Struct(members) => members.values().any(asks),
        _ => true,
    }
}
