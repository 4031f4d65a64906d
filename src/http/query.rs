//! The parameters of a question in a path. One that is not known, or is there twice, is refused by name: whoever misspells
//! `limit` is not to be told something else than was asked.

use hyper::Uri;
use whydown_core::evidence::tame;

/// Of one question. Each is known there, and is there once.
#[derive(Debug, Clone)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Of what stands behind the question mark; `known` are those that the path takes.
    ///
    /// # Errors
    /// A sentence with the name of the one that is wrong.
    pub fn read(uri: &Uri, known: &[&str]) -> Result<Self, String> {
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        let mut read: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()).into_owned() {
            let shown: String = tame(&name).chars().take(64).collect();
            if !known.contains(&name.as_str()) {
                let known = match known {
                    [] => "none".to_owned(),
                    some => some.join(", "),
                };
                return Err(format!("{shown:?} is no parameter of {path}, which has: {known}"));
            }
            if read.iter().any(|(before, _)| *before == name) {
                return Err(format!("{shown:?} is there twice"));
            }
            read.push((name, value));
        }
        Ok(Self(read))
    }

    /// The value of one, where it is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_or_there_twice_is_refused_by_name() {
        let read = |path: &str, query: &str| {
            let known: &[&str] = match path {
                "/v1/history" => &["vm", "since", "limit", "after"],
                "/v1/why" => &["vm"],
                _ => &[],
            };
            Query::read(&format!("{path}{query}").parse().unwrap(), known)
        };
        let asked = read("/v1/history", "?vm=a%20b&limit=5").unwrap();
        assert_eq!((asked.get("vm"), asked.get("limit"), asked.get("after")), (Some("a b"), Some("5"), None));
        assert!(read("/v1/watch", "").unwrap().get("vm").is_none());
        for (path, query, said) in [
            (
                "/v1/history",
                "?limti=5",
                "\"limti\" is no parameter of /v1/history, which has: vm, since, limit, after",
            ),
            ("/v1/history", "?limit=5&vm=x&limit=5", "\"limit\" is there twice"),
            ("/v1/why", "?since=x", "\"since\" is no parameter of /v1/why, which has: vm"),
            ("/v1/domains", "?vm=x", "\"vm\" is no parameter of /v1/domains, which has: none"),
            ("/v1/history", "?vm", ""),
        ] {
            assert_eq!(read(path, query).err().unwrap_or_default(), said, "{query}");
        }
    }
}
