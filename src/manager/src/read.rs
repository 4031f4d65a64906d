//! From the body of a `getAllVmStats` reply to VMs.

use std::collections::BTreeMap;

use dxr::{FaultResponse, MethodResponse, Value};

use serde::{Deserialize, Serialize};

use crate::reason::ExitReason;

/// Bytes of a host's own words in an error.
const TROUBLE_BYTES: usize = 512;

/// A VM as its host tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// `vmId`, as sent.
    pub id: String,
    /// `status`, as sent: `Up`, `Down` and others.
    pub status: String,
    /// `statusTime`: rises with every change, on hosts of VDSM 4.17 and later. It has the host's own zero.
    pub status_time: Option<i64>,
    /// There exactly if it is Down.
    pub exit: Option<Exit>,
}

/// How a VM exited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0 normal, 1 error.
    pub code: i64,
    /// For people.
    pub message: String,
    /// Why.
    pub reason: ExitReason,
    /// The finer cause that whydown adds.
    pub cause: Option<String>,
    /// How sure whydown is of it.
    pub certainty: Option<String>,
    /// The number of the run that ended, where whydown is the host.
    pub run: Option<String>,
    /// `statusTime` of the ending, where the host sends it.
    pub status_time: Option<i64>,
}

impl Exit {
    /// Whether both tell of one and the same ending of a VM. By the run's number where the host gives it; else by
    /// everything that the host says. An old host that says nothing but code and message cannot tell two equal
    /// endings apart, unless the VM was seen between them.
    pub fn is_the_ending(&self, other: &Self) -> bool {
        match (&self.run, &other.run) {
            (Some(run), Some(other)) => run == other,
            _ => {
                (self.code, self.reason, &self.message, self.status_time)
                    == (other.code, other.reason, &other.message, other.status_time)
            }
        }
    }
}

/// What a good reply says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// The VMs that could be read.
    pub vms: Vec<Vm>,
    /// The others: they are there, and nothing else is known.
    pub broken: Vec<BadVm>,
}

/// An entry that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("VM {}: {what}", id.as_deref().map_or_else(|| "without an id".to_owned(), shown))]
pub struct BadVm {
    /// Its `vmId`, if that could be read.
    pub id: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// Why a reply says nothing about VMs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReply {
    /// Not XML-RPC.
    #[error("not an XML-RPC reply: {0}")]
    NotXmlRpc(String),
    /// A fault.
    #[error("fault {code}: {text}")]
    Fault {
        /// Its code.
        code: i32,
        /// Its text.
        text: String,
    },
    /// A status that is not 0. 99 is a host that is recovering.
    #[error("status {code}: {message}")]
    Status {
        /// Its code.
        code: i64,
        /// Its text.
        message: String,
    },
    /// Something that every reply has is missing.
    #[error("{0} is missing or has the wrong type")]
    Lacks(&'static str),
}

type Members = BTreeMap<String, Value>;

/// Reads the body of a reply.
///
/// # Errors
/// [`BadReply`]: the reply says nothing about any VM, and none may be called gone because of it.
pub fn read_all_vm_stats(body: &str) -> Result<Reading, BadReply> {
    let value = match MethodResponse::from_xml(body) {
        Ok(response) => response.value,
        // dxr's text repeats the whole body.
        Err(error) => {
            return Err(fault(body).unwrap_or_else(|| BadReply::NotXmlRpc(shown(&error.to_string()))));
        }
    };
    let Value::Struct(reply) = &value else { return Err(BadReply::Lacks("the reply's struct")) };
    let Some(Value::Struct(status)) = reply.get("status") else { return Err(BadReply::Lacks("status")) };
    match integer(status, "code") {
        Some(0) => {}
        Some(code) => {
            return Err(BadReply::Status {
                code,
                message: shown(&text(status, "message").unwrap_or_default()),
            });
        }
        None => return Err(BadReply::Lacks("status.code")),
    }
    let Some(Value::Array(list)) = reply.get("statsList") else { return Err(BadReply::Lacks("statsList")) };
    let mut reading = Reading::default();
    for entry in list {
        match vm(entry) {
            Ok(vm) => reading.vms.push(vm),
            Err(bad) => reading.broken.push(bad),
        }
    }
    Ok(reading)
}

fn fault(body: &str) -> Option<BadReply> {
    let fault = FaultResponse::from_xml(body).ok()?.fault;
    Some(BadReply::Fault { code: fault.code(), text: shown(fault.string()) })
}

fn vm(entry: &Value) -> Result<Vm, BadVm> {
    let bad = |id: Option<&String>, what: &str| BadVm { id: id.cloned(), what: what.into() };
    let Value::Struct(members) = entry else { return Err(bad(None, "its entry is not a struct")) };
    let id = text(members, "vmId").ok_or_else(|| bad(None, "vmId is missing or not a text"))?;
    let status = text(members, "status").ok_or_else(|| bad(Some(&id), "status is missing or not a text"))?;
    let status_time = integer(members, "statusTime").or_else(|| double(members, "statusTime"));
    let exit = match status.as_str() {
        "Down" => {
            let code = integer(members, "exitCode");
            let code = code.ok_or_else(|| bad(Some(&id), "it is Down without an exitCode"))?;
            if members.contains_key("exitReason") && integer(members, "exitReason").is_none() {
                return Err(bad(Some(&id), "exitReason is not a number"));
            }
            Some(Exit {
                code,
                message: text(members, "exitMessage").unwrap_or_default(),
                reason: ExitReason::read(integer(members, "exitReason")),
                cause: text(members, "exitCause"),
                certainty: text(members, "exitCertainty"),
                run: text(members, "exitRunId"),
                status_time,
            })
        }
        _ => None,
    };
    Ok(Vm { id, status, status_time, exit })
}

fn text(members: &Members, name: &str) -> Option<String> {
    match members.get(name)? {
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// A host's text as it stands in an error, which is printed and logged: cut, and on one line.
fn shown(text: &str) -> String {
    let end = (0..=text.len().min(TROUBLE_BYTES)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    let cut = if end < text.len() { "..." } else { "" };
    text[..end].replace(char::is_control, "\u{FFFD}") + cut
}

fn double(members: &Members, name: &str) -> Option<i64> {
    match members.get(name)? {
        // The wire's doubles hold milliseconds exactly.
        Value::Double(number) if number.is_finite() => Some(*number as i64),
        _ => None,
    }
}

/// Hosts sent numbers as numbers and as texts, by version.
fn integer(members: &Members, name: &str) -> Option<i64> {
    match members.get(name)? {
        Value::Integer(number) => Some(i64::from(*number)),
        Value::Long(number) => Some(*number),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}
