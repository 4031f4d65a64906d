//! `proto-schemas/verbs.toml` with `profiles.toml` and the code say the same: each member of each reply is in a file with
//! its type, and each member in a file is in some reply.

use std::collections::{BTreeMap, BTreeSet};

use dxr::Value;
use toml::{Table, Value as Toml};

use crate::samples::{NOW, bodies_for, everything, items, members, read, replies};
use whydown_wire::{Generation, METHODS, Range};

fn schema() -> Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto-schemas/verbs.toml");
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

/// The structs of a VM that runs, as `profiles.toml` gives them to a generation.
fn profile(generation: Generation) -> Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto-schemas/profiles.toml");
    let table: Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    let mut structs = Table::new();
    for (section, rows) in table.iter().filter(|(section, _)| *section != "profile") {
        let inner = !matches!(section.as_str(), "vm" | "started" | "sampled");
        let name = if inner { section.as_str() } else { "vm-running" };
        let members = structs.entry(name).or_insert_with(|| Table::new().into()).as_table_mut().unwrap();
        for (member, row) in rows.as_table().unwrap() {
            let word = generation.word();
            let listed = |field: &str| {
                let words = row.get(field).and_then(Toml::as_str);
                words.map(|words| words == "all" || words.split(' ').any(|listed| listed == word))
            };
            if listed("in") == Some(false) {
                continue;
            }
            let kind = if listed("int") == Some(true) { "int" } else { row["type"].as_str().unwrap() };
            // What starts and samples bring is missing before them.
            let always = listed("empty") == Some(true) && !matches!(section.as_str(), "started" | "sampled");
            members.insert(member.clone(), format!("{kind}{}", if always { "" } else { "?" }).into());
        }
    }
    structs
}

struct Checker<'a> {
    structs: &'a Table,
    /// Members that were met, as `struct.member`.
    met: BTreeSet<String>,
    /// Optional members that were missing somewhere.
    missed: BTreeSet<String>,
}

impl Checker<'_> {
    fn check(&mut self, kind: &str, value: &Value) -> Result<(), String> {
        let wrong = || Err(format!("{kind} expected, found {value:?}"));
        if let Some(item) = kind.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let Value::Array(items) = value else { return wrong() };
            return items.iter().try_for_each(|value| self.check(item, value));
        }
        if let Some(item) = kind.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let Value::Struct(members) = value else { return wrong() };
            return members.values().try_for_each(|value| self.check(item, value));
        }
        if kind.contains('|') {
            let tries: Vec<_> = kind.split('|').map(|kind| self.check(kind, value)).collect();
            let fits = tries.iter().filter(|result| result.is_ok()).count();
            return if fits == 1 {
                Ok(())
            } else {
                Err(format!("{fits} of {kind} fit {value:?}: {tries:?}"))
            };
        }
        let fits = match (kind, value) {
            ("text", Value::String(_)) | ("int", Value::Integer(_)) | ("boolean", Value::Boolean(_)) => true,
            ("double", Value::Double(number)) => number.is_finite(),
            ("text:number", Value::String(text)) => text.parse::<i64>().is_ok(),
            ("text:decimal", Value::String(text)) => text.contains('.') && text.parse::<f64>().is_ok(),
            ("text:uuid", Value::String(text)) => {
                text.parse::<whydown_core::id::DomainId>().is_ok_and(|id| id.to_string() == *text)
            }
            (name, Value::Struct(members)) => return self.check_struct(name, members),
            _ => false,
        };
        if fits { Ok(()) } else { wrong() }
    }

    fn check_struct(&mut self, name: &str, members: &BTreeMap<String, Value>) -> Result<(), String> {
        let told = self.structs.get(name).and_then(Toml::as_table).ok_or(format!("no struct {name}"))?;
        self.check_members(name, told, members)
    }

    fn check_members(
        &mut self,
        name: &str,
        told: &Table,
        members: &BTreeMap<String, Value>,
    ) -> Result<(), String> {
        if let Some(unknown) = members.keys().find(|member| !told.contains_key(*member)) {
            return Err(format!("{name}.{unknown} is not in the schema"));
        }
        let (mut met, mut missed) = (Vec::new(), Vec::new());
        for (member, kind) in told {
            let kind = kind.as_str().expect("a type is text");
            match (members.get(member), kind.strip_suffix('?')) {
                (Some(value), optional) => {
                    self.check(optional.unwrap_or(kind), value)
                        .map_err(|error| format!("{name}.{member}: {error}"))?;
                    met.push(format!("{name}.{member}"));
                }
                (None, Some(_)) => missed.push(format!("{name}.{member}")),
                (None, None) => return Err(format!("{name}.{member} is missing")),
            }
        }
        self.met.extend(met);
        self.missed.extend(missed);
        Ok(())
    }
}

impl Checker<'_> {
    /// Every member was met, and every optional one was missing somewhere.
    fn nothing_is_idle(&self) {
        for (name, told) in self.structs {
            for (member, kind) in told.as_table().unwrap() {
                let path = format!("{name}.{member}");
                assert!(self.met.contains(&path), "{path} is in the schema and never sent");
                let optional = kind.as_str().unwrap().ends_with('?');
                assert!(!optional || self.missed.contains(&path), "{path} is optional and always sent");
            }
        }
    }
}

#[test]
fn each_generation_gets_its_profile_and_nothing_else() {
    for generation in Generation::ALL {
        let structs = profile(generation);
        let mut checker = Checker { structs: &structs, met: BTreeSet::new(), missed: BTreeSet::new() };
        let reply = read(&bodies_for(generation, everything()).all_vm_stats(Range::Classic, NOW).plain);
        for vm in
            items(&members(&reply)["statsList"]).iter().filter(|vm| !members(vm).contains_key("exitCode"))
        {
            let checked = checker.check("vm-running", vm);
            checked.unwrap_or_else(|error| panic!("{}: {error}", generation.word()));
        }
        checker.nothing_is_idle();
    }
}

#[test]
fn replies_and_schema_agree_in_both_directions() {
    let schema = schema();
    let (verbs, mut structs) =
        (schema["verb"].as_table().unwrap(), schema["struct"].as_table().unwrap().clone());
    structs.extend(profile(Generation::Common));
    let structs = &structs;
    let mut checker = Checker { structs, met: BTreeSet::new(), missed: BTreeSet::new() };
    let mut answered = BTreeSet::new();
    for (verb, body) in replies() {
        let told = verbs.get(verb).unwrap_or_else(|| panic!("{verb} is not in the schema"));
        let checked = match (&told["reply"], &read(&body)) {
            (Toml::String(kind), value) => checker.check(kind, value),
            (Toml::Table(told), Value::Struct(members)) => checker.check_members(verb, told, members),
            (told, value) => Err(format!("{told:?} expected, found {value:?}")),
        };
        checked.unwrap_or_else(|error| panic!("{verb}: {error}"));
        answered.insert(verb);
    }
    checker.nothing_is_idle();
    assert!(
        verbs.keys().all(|verb| answered.contains(verb.as_str())),
        "a verb of the schema has no sample reply"
    );
}

#[test]
fn a_reply_that_differs_from_the_schema_is_found() {
    let structs = schema()["struct"].as_table().unwrap().clone();
    let mut checker = Checker { structs: &structs, met: BTreeSet::new(), missed: BTreeSet::new() };
    let good = [("code", Value::Integer(0)), ("message", Value::String("Done".into()))];
    let mut check = |members: &[(&str, Value)]| {
        let members = members.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        checker.check("status", &Value::Struct(members))
    };
    assert_eq!(check(&good), Ok(()));
    assert!(check(&good[..1]).is_err());
    assert!(check(&[good[0].clone(), ("message", Value::Integer(1))]).is_err());
    assert!(check(&[good[0].clone(), good[1].clone(), ("more", Value::Integer(1))]).is_err());
}

#[test]
fn the_table_of_verbs_and_the_schema_agree() {
    let schema = schema();
    let verbs = schema["verb"].as_table().unwrap();
    assert_eq!(
        METHODS.iter().map(|m| m.name.to_owned()).collect::<Vec<_>>(),
        verbs.keys().cloned().collect::<Vec<_>>()
    );
    for method in &METHODS {
        let told: BTreeMap<_, _> = verbs[method.name]["params"].as_table().unwrap().iter().collect();
        assert_eq!(told.len(), method.params.len(), "{}", method.name);
        for param in method.params {
            let kind = format!("{}{}", param.kind, if param.optional { "?" } else { "" });
            assert_eq!(told[&param.name.to_owned()].as_str(), Some(kind.as_str()), "{}", method.name);
        }
        let returns = match &verbs[method.name]["reply"] {
            Toml::Table(_) => "struct",
            Toml::String(kind) if kind.starts_with('[') => "array",
            _ => "string",
        };
        assert_eq!(returns, method.returns, "{}", method.name);
    }
}
