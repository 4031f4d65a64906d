//! `requests.toml` in types, and as engines write it.

use std::fmt::Write;
use std::sync::LazyLock;

use serde::Deserialize;
use toml::Value;

/// A call as some engines send it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// By which engines.
    pub engines: Vec<String>,
    /// The verb.
    pub method: String,
    /// What it is for.
    pub what: String,
    /// Whether a real daemon is to take it.
    #[serde(default)]
    pub live: bool,
    /// By the name of which parameter it is refused.
    pub refused: Option<String>,
    params: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    request: Vec<Request>,
}

/// All of them.
pub static REQUESTS: LazyLock<Vec<Request>> = LazyLock::new(|| {
    let table: Table = toml::from_str(include_str!("requests.toml")).expect("requests.toml is a table");
    table.request
});

/// Those of a verb.
pub fn of(method: &str) -> impl Iterator<Item = &'static Request> {
    REQUESTS.iter().filter(move |request| request.method == method)
}

impl Request {
    /// Its parameters with their tags, each with these words put in the place of `{word}`, and `more` members of the
    /// first struct.
    pub fn params(&self, words: &[(&str, &str)], more: &[(&str, &str)]) -> Vec<String> {
        let mut params = self.params.clone();
        if let Some(Value::Table(first)) = params.first_mut() {
            first.extend(more.iter().map(|(name, text)| ((*name).to_owned(), Value::String((*text).into()))));
        }
        params.iter().map(|param| written(param, words)).collect()
    }
}

fn written(value: &Value, words: &[(&str, &str)]) -> String {
    let inside = match value {
        Value::String(text) => {
            let with = |text: String, (name, word): &(&str, &str)| text.replace(&format!("{{{name}}}"), word);
            let text = words.iter().fold(text.clone(), with);
            text.replace('&', "&amp;").replace('<', "&lt;")
        }
        Value::Integer(number) => format!("<i4>{number}</i4>"),
        Value::Boolean(truth) => format!("<boolean>{}</boolean>", u8::from(*truth)),
        Value::Array(items) => {
            let items: String = items.iter().map(|item| written(item, words)).collect();
            format!("<array><data>{items}</data></array>")
        }
        Value::Table(members) => {
            let mut inside = String::from("<struct>");
            for (name, value) in members {
                let value = written(value, words);
                let _ = write!(inside, "<member><name>{name}</name>{value}</member>");
            }
            inside + "</struct>"
        }
        other => panic!("engines send no {}", other.type_str()),
    };
    format!("<value>{inside}</value>")
}
