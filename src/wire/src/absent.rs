//! The verbs of VDSM that are not served here, each with the status that a manager gets: `proto-schemas/verbs-absent.txt`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::codes::Code;

const TABLE: &str = include_str!("../../../proto-schemas/verbs-absent.txt");

static ABSENT: LazyLock<BTreeMap<&'static str, Code>> = LazyLock::new(|| {
    let mut code = Code::NotImplemented;
    let mut absent = BTreeMap::new();
    for line in TABLE.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("code ").and_then(|rest| rest.split(' ').next()) {
            Some(number) => {
                let known = Code::ALL.iter().find(|code| code.number().to_string() == number);
                code = *known.expect("a test holds the table to the known codes");
            }
            None => {
                absent.insert(line, code);
            }
        }
    }
    absent
});

/// The names of all absent verbs, sorted, with what each is answered.
pub fn absent_verbs() -> impl Iterator<Item = (&'static str, Code)> {
    ABSENT.iter().map(|(name, code)| (*name, *code))
}

pub(crate) fn absent(name: &str) -> Option<(&'static str, Code)> {
    ABSENT.get_key_value(name).map(|(name, code)| (*name, *code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::METHODS;

    #[test]
    fn absent_verbs_are_named_once_and_are_not_served() {
        let lines: Vec<_> = TABLE
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#') && !line.starts_with("code "))
            .collect();
        assert_eq!(lines.len(), ABSENT.len(), "a name stands twice");
        assert!(lines.iter().all(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')));
        for method in &METHODS {
            assert_eq!(absent(method.name), None, "{}", method.name);
        }
    }

    #[test]
    fn the_code_above_a_name_is_its_own() {
        assert_eq!(absent("getStoragePoolInfo"), Some(("getStoragePoolInfo", Code::NotImplemented)));
        assert_eq!(absent("desktopLogin"), Some(("desktopLogin", Code::AgentSilent)));
        assert_eq!(absent("nonsense"), None);
    }
}
