//! An engine that reads replies, by `engines.toml` and nothing else.
//!
//! It never forgives what its version did not forgive: either the whole reply is lost, or each value that it could not
//! take is named. A host that is fit for it gives it nothing to complain of.

use std::collections::BTreeMap;

use crate::managers::table::{Above, Cost, Form, Member, TABLE};
use crate::managers::xmlrpc::{self, Value};

type Members = BTreeMap<String, Value>;

/// A VM as the engine has it after the reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub status: String,
    pub exit: Option<Exit>,
}

/// How it went down, to this engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub code: i64,
    /// -1 where the engine has none.
    pub reason: i64,
    pub message: String,
}

/// What a reply gave.
#[derive(Debug, Default, PartialEq)]
pub struct Taken {
    pub vms: BTreeMap<String, Seen>,
    /// Values that were lost; empty for a host that is fit.
    pub lost: Vec<String>,
}

/// Names, and how many devices with an address, by id.
pub type Described = BTreeMap<String, (String, usize)>;

/// An engine with what it remembers of one host.
#[derive(Debug)]
pub struct Reader {
    pub version: &'static str,
    last: BTreeMap<String, f64>,
}

impl Reader {
    pub fn new(version: &'static str) -> Self {
        Self { version, last: BTreeMap::new() }
    }

    /// Every engine.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.engine.keys().map(|version| Self::new(version))
    }

    /// A reply of `getAllVmStats` or `getVmStats`.
    ///
    /// # Errors
    /// Why all VMs of the host are lost.
    pub fn stats(&mut self, body: &str) -> Result<Taken, String> {
        let mut taken = Taken::default();
        for vm in self.entries(body, "statsList", &mut taken.lost)? {
            self.check("vm", &vm, &mut taken.lost)?;
            let status = match vm.get("status") {
                Some(Value::Text(status)) => status.clone(),
                _ => "Down".into(),
            };
            let of_its_kind = if status == "Down" { "down" } else { "running" };
            self.check(of_its_kind, &vm, &mut taken.lost)?;
            let id = text(&vm, "vmId");
            if self.is_stale(&id, &vm, &mut taken.lost) {
                continue;
            }
            let exit = match status.as_str() {
                "Down" => match self.exit(&id, &vm, &mut taken.lost)? {
                    None => continue,
                    exit => exit,
                },
                _ => None,
            };
            taken.vms.insert(id, Seen { status, exit });
        }
        Ok(taken)
    }

    /// `None` where the VM then looks as if it were not reported.
    fn exit(&self, id: &str, vm: &Members, lost: &mut Vec<String>) -> Result<Option<Exit>, String> {
        let engine = &TABLE.engine[self.version];
        let code = number(vm, "exitCode").unwrap_or(0);
        let message = text(vm, "exitMessage");
        let sent = number(vm, "exitReason");
        let reason = match (engine.highest, sent) {
            (None, _) | (_, None) => -1,
            (Some(highest), Some(known @ 0..)) if known <= highest => known,
            (Some(_), Some(unknown)) => match engine.above.expect("the table is whole") {
                Above::Batch => return Err(format!("VM {id}: exitReason {unknown} ends the batch")),
                Above::Unreported => {
                    lost.push(format!("VM {id}: unreported because of exitReason {unknown}"));
                    return Ok(None);
                }
                Above::Null => {
                    lost.push(format!("VM {id}: exitReason {unknown} is stored as nothing"));
                    0
                }
                Above::Unknown => {
                    lost.push(format!("VM {id}: exitReason {unknown} is Unknown"));
                    -1
                }
            },
        };
        Ok(Some(Exit { code, reason, message }))
    }

    /// A reply of `list()`: statuses by id.
    ///
    /// # Errors
    /// Why it is lost.
    pub fn list(&mut self, body: &str) -> Result<(BTreeMap<String, String>, Vec<String>), String> {
        let mut lost = Vec::new();
        let mut found = BTreeMap::new();
        for vm in self.entries(body, "vmList", &mut lost)? {
            self.check("listed", &vm, &mut lost)?;
            if !self.is_stale(&text(&vm, "vmId"), &vm, &mut lost) {
                found.insert(text(&vm, "vmId"), text(&vm, "status"));
            }
        }
        Ok((found, lost))
    }

    /// A reply of `list("true", [ids])`.
    ///
    /// # Errors
    /// Why it is lost.
    pub fn described(&self, body: &str) -> Result<(Described, Vec<String>), String> {
        let mut lost = Vec::new();
        let mut found = BTreeMap::new();
        for vm in self.entries(body, "vmList", &mut lost)? {
            self.check("described", &vm, &mut lost)?;
            let Some(Value::Array(devices)) = vm.get("devices") else { return Err("devices".into()) };
            let addressed = |device: &&Value| matches!(device, Value::Struct(d) if d.contains_key("address"));
            let count = devices.iter().filter(addressed).count();
            found.insert(text(&vm, "vmId"), (text(&vm, "vmName"), count));
        }
        Ok((found, lost))
    }

    /// A reply of a host verb, whose struct stands in `engines.toml` by this name.
    ///
    /// # Errors
    /// Why it is lost.
    pub fn host(&self, name: &str, body: &str) -> Result<Vec<String>, String> {
        let mut lost = Vec::new();
        let reply = self.envelope(body, &mut lost)?;
        let Some(Value::Struct(told)) = reply.get("info") else { return Err("info is missing".into()) };
        self.check(name, told, &mut lost)?;
        Ok(lost)
    }

    fn envelope(&self, body: &str, lost: &mut Vec<String>) -> Result<Members, String> {
        let Value::Struct(reply) = xmlrpc::read(body)? else { return Err("the reply is no struct".into()) };
        let Some(Value::Struct(status)) = reply.get("status") else { return Err("status is missing".into()) };
        self.check("reply-status", status, lost)?;
        match number(status, "code") {
            Some(0) => Ok(reply),
            code => Err(format!("status {code:?}: {}", text(status, "message"))),
        }
    }

    fn entries(&self, body: &str, list: &str, lost: &mut Vec<String>) -> Result<Vec<Members>, String> {
        let mut reply = self.envelope(body, lost)?;
        let Some(Value::Array(items)) = reply.remove(list) else { return Err(format!("{list} is missing")) };
        let of = |item| match item {
            Value::Struct(members) => Ok(members),
            other => Err(format!("{} in {list}", other.tag())),
        };
        items.into_iter().map(of).collect()
    }

    /// A VM whose time goes back is left out. One without a time counts as -1.
    fn is_stale(&mut self, id: &str, vm: &Members, lost: &mut Vec<String>) -> bool {
        if !TABLE.structs["vm"]["statusTime"].is_read_by(self.version) {
            return false;
        }
        let time = match vm.get("statusTime") {
            Some(Value::Text(text)) => text.parse().unwrap_or(-1.0),
            Some(Value::Double(time)) => *time,
            _ => -1.0,
        };
        let last = *self.last.get(id).unwrap_or(&-1.0);
        if time < last {
            lost.push(format!("VM {id}: stale, {time} after {last}"));
            return true;
        }
        self.last.insert(id.into(), time);
        false
    }

    /// A struct against its rows.
    fn check(&self, name: &str, members: &Members, lost: &mut Vec<String>) -> Result<(), String> {
        let mut count = |cost: Cost, what: String| match cost {
            Cost::Reply => Err(what),
            Cost::Value => {
                lost.push(what);
                Ok(())
            }
        };
        let mut inside = Vec::new();
        for (key, row) in TABLE.structs[name].iter().filter(|(_, row)| row.is_read_by(self.version)) {
            let Some(value) = members.get(key) else {
                if let Some(cost) = row.absent {
                    count(cost, format!("{name}.{key} is missing"))?;
                }
                continue;
            };
            if !row.takes(value.tag(), self.version) {
                count(row.tag.expect("has tags"), format!("{name}.{key} is {value:?}"))?;
            } else if !fits(row, value) {
                count(row.text.expect("has a form"), format!("{name}.{key} is {value:?}"))?;
            } else if let Some(of) = &row.of {
                inside.push((of.as_str(), value));
            }
        }
        inside.into_iter().try_for_each(|(of, value)| self.check_inside(of, value, lost))
    }

    fn check_inside(&self, of: &str, value: &Value, lost: &mut Vec<String>) -> Result<(), String> {
        let name = of.trim_matches(['{', '}', '[', ']']);
        let mut check = |value: &Value| match value {
            // Fewer mean that there is no balloon.
            Value::Struct(members) if name == "balloon" && members.len() < 4 => Ok(()),
            Value::Struct(members) => self.check(name, members, lost),
            other => Err(format!("a {} as {name}", other.tag())),
        };
        match value {
            Value::Struct(members) if of.starts_with('{') => members.values().try_for_each(check),
            Value::Array(items) => items.iter().try_for_each(check),
            itself => check(itself),
        }
    }
}

/// Whether the value has its row's form.
fn fits(row: &Member, value: &Value) -> bool {
    let text = match value {
        Value::Text(text) => text.trim().to_owned(),
        Value::Int(number) => number.to_string(),
        _ => return true,
    };
    if !row.words.is_empty() {
        let plain = |word: &str| word.replace(' ', "").to_lowercase();
        return row.words.iter().any(|word| plain(word) == plain(&text));
    }
    let whole = text.split('.').next().unwrap_or_default();
    match row.form {
        None => true,
        Some(Form::Uuid) => {
            let shape: Vec<usize> = text.split('-').map(str::len).collect();
            shape == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
        }
        Some(Form::Flag) => matches!(text.as_str(), "0" | "1"),
        Some(Form::Number) => text.parse::<i32>().is_ok(),
        Some(Form::Int) => whole.trim_start_matches('+').parse::<i32>().is_ok(),
        Some(Form::Long) => whole.parse::<i64>().is_ok(),
        Some(Form::Decimal) => text.parse::<f64>().is_ok_and(f64::is_finite),
    }
}

fn text(members: &Members, name: &str) -> String {
    match members.get(name) {
        Some(Value::Text(text)) => text.clone(),
        _ => String::new(),
    }
}

fn number(members: &Members, name: &str) -> Option<i64> {
    match members.get(name)? {
        Value::Int(number) => Some(i64::from(*number)),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}
