//! `proto-schemas/parameters.toml` and the code say the same: each row is tried, and nothing is read that has no row.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::{Table, Value as Toml};

use whydown_core::time::Wall;

use crate::call::Call;
use crate::classic::OnHost;
use crate::refused::Refused;
use crate::verb::{Verb, read_noting};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    group: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    title: String,
    verb: String,
    #[serde(default)]
    path: String,
    /// Parameters before the struct.
    #[serde(default)]
    before: Vec<Toml>,
    base: Table,
    rows: BTreeMap<String, Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    is: Is,
    r#try: Option<Toml>,
    #[serde(default)]
    with: Table,
    #[serde(rename = "what")]
    _what: String,
    #[serde(default)]
    also: Vec<Row>,
}

impl Row {
    fn cases(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.also)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Is {
    Required,
    Honoured,
    Ignored,
    Label,
    Refused,
}

const EVERY: &str = "create: every device";

fn groups() -> Vec<Group> {
    let file: File = toml::from_str(include_str!("../../../proto-schemas/parameters.toml")).unwrap();
    file.group
}

fn value(toml: &Toml) -> dxr::Value {
    match toml {
        Toml::String(text) => dxr::Value::String(text.clone()),
        Toml::Array(items) => dxr::Value::Array(items.iter().map(value).collect()),
        Toml::Table(members) => {
            dxr::Value::Struct(members.iter().map(|(name, member)| (name.clone(), value(member))).collect())
        }
        other => panic!("no test needs {other:?}"),
    }
}

/// What was done, what was noted as without effect, and which names were looked for.
struct Tried {
    done: Result<String, Refused>,
    ignored: Vec<String>,
    asked: BTreeSet<String>,
}

impl Group {
    fn call(&self, members: &Table) -> Tried {
        let mut params: Vec<_> = self.before.iter().map(value).collect();
        params.push(value(&Toml::Table(members.clone())));
        let (read, asked) = read_noting(&Call { method: self.verb.clone(), params });
        let (verb, ignored) = match read {
            Ok(read) => read,
            Err(refused) => return Tried { done: Err(refused), ignored: Vec::new(), asked },
        };
        let done = match verb {
            Verb::CreateClassic(plan) => {
                let address_on = |_: &str| Some([192, 0, 2, 5].into());
                let now = Wall::from_millis(1_456_747_200_000);
                let made =
                    plan.document(&OnHost { kvm: false, processors: "0-3", now, address_on: &address_on });
                made.map(|made| format!("{}{}", made.xml, if plan.paused { ", paused" } else { "" }))
            }
            other => Ok(format!("{other:?}")),
        };
        Tried { done, ignored, asked }
    }

    /// The struct that the rows are about.
    fn place<'a>(&self, members: &'a mut Table) -> &'a mut Table {
        match self.path.as_str() {
            "" => members,
            path => match &mut members[path] {
                Toml::Array(items) => items[0].as_table_mut().unwrap(),
                inner => inner.as_table_mut().unwrap(),
            },
        }
    }

    /// Where its members stand in a refusal.
    fn prefix(&self) -> String {
        match (self.path.as_str(), self.base.get(&self.path)) {
            ("", _) => String::new(),
            (path, Some(Toml::Array(_))) => format!("{path}[0]."),
            (path, _) => format!("{path}."),
        }
    }

    /// Where a parameter stands in what is told of it.
    fn told(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn base(&self, row: &Row) -> Table {
        let mut base = self.base.clone();
        base.extend(row.with.clone());
        base
    }

    fn trial(&self, name: &str, row: &Row) -> Table {
        let mut trial = self.base(row);
        let place = self.place(&mut trial);
        let mut names: Vec<&str> = name.split('.').collect();
        let last = names.pop().unwrap();
        let inside = names.iter().fold(place, |inside, name| {
            inside.entry(*name).or_insert_with(|| Table::new().into()).as_table_mut().unwrap()
        });
        inside.insert(last.to_owned(), row.r#try.clone().unwrap_or_else(|| "x".into()));
        trial
    }
}

/// Whether a refusal is about this parameter. Its place has the number of the device in it.
fn is_about(refused: &Refused, group: &Group, name: &str) -> bool {
    let place = format!("{}{name}", group.prefix());
    let text = refused.to_string();
    text.split(' ').any(|word| word == place || place.starts_with(&format!("{word}.")))
}

#[test]
fn each_row_is_as_the_table_says() {
    for group in groups() {
        for (name, row) in &group.rows {
            let name = if name == "others" { "somebodysOwn" } else { name };
            for (number, case) in row.cases().enumerate() {
                check(&group, name, case, &format!("{}, {name}, {number}", group.title));
            }
        }
    }
}

fn check(group: &Group, name: &str, row: &Row, at: &str) {
    let before = group.call(&group.base(row)).done.unwrap_or_else(|refused| panic!("{at}: {refused}"));
    if row.is == Is::Required {
        let mut without = group.base(row);
        assert!(group.place(&mut without).remove(name).is_some(), "{at}: the base has it not");
        let refused = group.call(&without).done.expect_err(at);
        assert!(is_about(&refused, group, name), "{at}: {refused}");
        return;
    }
    let tried = group.call(&group.trial(name, row));
    let noted = tried.ignored.contains(&group.told(name));
    match (row.is, tried.done) {
        (Is::Honoured, Ok(done)) => assert!(done != before && !noted, "{at}: {done}"),
        (Is::Ignored, Ok(done)) => assert!(done == before && noted, "{at}: {:?} {done}", tried.ignored),
        (Is::Label, Ok(done)) => assert!(done == before && !noted, "{at}: {done}"),
        (Is::Refused, Err(refused)) => assert!(is_about(&refused, group, name), "{at}: {refused}"),
        (is, done) => panic!("{at} is {is:?}, and yet: {done:?}"),
    }
}

/// Also what is read in one case only, as far as any row's trial leads there.
#[test]
fn nothing_is_read_that_has_no_row() {
    let groups = groups();
    // What every device may have is tried in a device of one kind, which has rows of its own.
    for group in groups.iter().filter(|group| group.title != EVERY) {
        let mut known: BTreeSet<String> = group.rows.keys().cloned().collect();
        if group.path == "devices" {
            let every = groups.iter().find(|group| group.title == EVERY).unwrap();
            known.extend(every.rows.keys().cloned());
        }
        // A struct is read where something in it is.
        let has_row = |name: &str| {
            known.contains(name)
                || known.iter().any(|known| known.starts_with(&format!("{name}.")))
                || ["cpuPinning.", "guestNumaNodes."].iter().any(|of| name.starts_with(of))
        };
        let rows = group.rows.iter().filter(|(name, _)| *name != "others");
        for (name, case) in rows.flat_map(|(name, row)| row.cases().map(move |case| (name, case))) {
            for asked in group.call(&group.trial(name, case)).asked {
                let inner = match group.path.as_str() {
                    "" if ["devices.", "drives.", "nic.", "drive."]
                        .iter()
                        .any(|of| asked.starts_with(of)) =>
                    {
                        continue;
                    }
                    "" => asked.as_str(),
                    path => match asked.strip_prefix(&format!("{path}.")) {
                        Some(inner) => inner,
                        None => continue,
                    },
                };
                assert!(has_row(inner), "{}: {inner} is read and has no row", group.title);
            }
        }
    }
}
