//! Says once of each parameter that it has no effect here: managers send the same ones with each call.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::http::{Peer, noise};

/// Names that are remembered. Managers send some dozens; more are somebody's own, and are not said.
const REMEMBERED: usize = 256;

/// See the module page.
#[derive(Debug, Default)]
pub struct Ignored(Mutex<BTreeSet<String>>);

impl Ignored {
    /// Says those that were not said before. The names are a peer's words, fit for a log.
    pub fn say(&self, peer: &Peer, method: &str, names: &[String]) {
        if names.is_empty() {
            return;
        }
        let new = self.new_of(method, names);
        if !new.is_empty() && noise::may_say(peer.share()) {
            let names = new.join(", ");
            tracing::info!(%peer, "{method}: without effect here, as in VDSM, and not said again: {names}");
        }
    }

    fn new_of<'a>(&self, method: &str, names: &'a [String]) -> Vec<&'a str> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = |name: &&String| said.len() < REMEMBERED && said.insert(format!("{method} {name}"));
        names.iter().filter(|name| is_new(name)).map(String::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_is_said_once_for_its_method_and_strangers_words_end_somewhere() {
        let ignored = Ignored::default();
        let names = ["src".to_owned(), "enableGuestEvents".to_owned()];
        assert_eq!(ignored.new_of("migrate", &names), ["src", "enableGuestEvents"]);
        assert!(ignored.new_of("migrate", &names).is_empty());
        assert_eq!(ignored.new_of("create", &names[..1]), ["src"]);
        let many: Vec<String> = (0..10 * REMEMBERED).map(|n| n.to_string()).collect();
        assert_eq!(ignored.new_of("migrate", &many).len(), REMEMBERED - 3);
        assert!(ignored.new_of("migrate", &["new".to_owned()]).is_empty());
    }
}
