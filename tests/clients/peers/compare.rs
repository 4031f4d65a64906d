//! Whether two clients read the same: every value and its type, but for what time changes and what a language lacks.

use crate::peers::line::{Reply, Value};
use crate::peers::peer::Reads;

/// Members that differ from poll to poll: of these only the type is compared, and whether a text is a number.
const CHANGING: &[&str] = &[
    // Running VMs.
    "elapsedTime",
    "statsAge",
    "cpuUser",
    "cpuSys",
    "cpuUsage",
    "sampleTime",
    "rxRate",
    "txRate",
    "rx",
    "tx",
    "truesize",
    "readOps",
    "writeOps",
    "readBytes",
    "writtenBytes",
    "readRate",
    "writeRate",
    "readLatency",
    "writeLatency",
    "flushLatency",
    // The host.
    "cpuIdle",
    "cpuLoad",
    "dateTime",
    "memUsed",
    "memAvailable",
    "memFree",
    "memCommitted",
    "memShared",
    "swapFree",
    "anonHugePages",
    "ksmPages",
    "ksmCpu",
    "free",
    "cpuSpeed",
];

/// Members that differ from life to life of the same machine. How large the image is into which it writes after a snapshot is
/// known with the next sample, which may come before a client asks or after.
const OF_ONE_LIFE: &[&str] =
    &["statusTime", "pid", "displayPort", "port", "hash", "exitTime", "exitRunId", "apparentsize"];

/// What two replies may differ in.
#[derive(Clone, Copy, Debug)]
pub struct Between<'a> {
    pub reads: &'a Reads,
    /// They are of two lives, not of one.
    pub lives: bool,
}

impl Between<'_> {
    /// All differences, each with its place.
    pub fn differences(&self, wanted: &Reply, got: &Reply) -> Vec<String> {
        let mut found = Vec::new();
        match (wanted, got) {
            (Reply::Value(wanted), Reply::Value(got)) => self.walk("", "", wanted, got, &mut found),
            _ if wanted == got => {}
            _ => found.push(format!("{wanted:?} was read as {got:?}")),
        }
        found
    }

    fn walk(&self, place: &str, name: &str, wanted: &Value, got: &Value, found: &mut Vec<String>) {
        match (wanted, got) {
            (Value::Struct(wanted), Value::Struct(got)) => {
                for name in wanted.keys().chain(got.keys().filter(|name| !wanted.contains_key(*name))) {
                    let place = format!("{place}.{name}");
                    match (wanted.get(name), got.get(name)) {
                        (Some(wanted), Some(got)) => self.walk(&place, name, wanted, got, found),
                        // Some of them are not there before the second sample.
                        _ if self.changes(name) => {}
                        (wanted, got) => found.push(format!("{place}: {wanted:?} was read as {got:?}")),
                    }
                }
            }
            (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
                for (number, (wanted, got)) in wanted.iter().zip(got).enumerate() {
                    self.walk(&format!("{place}.{number}"), name, wanted, got, found);
                }
            }
            (Value::Struct(wanted), Value::Array(got))
                if self.reads.empty_struct_as_array && wanted.is_empty() && got.is_empty() => {}
            (Value::Text(wanted), Value::Text(got))
                if self.reads.decodes_twice && wanted.replace("&amp;", "&") == *got => {}
            (Value::Text(wanted), Value::Nothing)
                if self.reads.empty_text_as_nothing && wanted.is_empty() => {}
            _ if wanted == got || (self.changes(name) && shape(wanted) == shape(got)) => {}
            _ => found.push(format!("{place}: {wanted:?} was read as {got:?}")),
        }
    }

    fn changes(&self, name: &str) -> bool {
        CHANGING.contains(&name) || (self.lives && OF_ONE_LIFE.contains(&name))
    }
}

/// The type of a value, and of a text whether it is a number.
fn shape(value: &Value) -> (&'static str, bool) {
    match value {
        Value::Nothing => ("nothing", false),
        Value::Int(_) => ("int", true),
        Value::Boolean(_) => ("boolean", false),
        // A language with one kind of number cannot tell 7.0 from 7, so neither is told from the other here.
        Value::Double(_) => ("double", true),
        Value::Text(text) => ("text", text.parse::<f64>().is_ok()),
        Value::Array(_) => ("array", false),
        Value::Struct(_) => ("struct", false),
    }
}
