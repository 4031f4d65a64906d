//! What was shown and answered over all rounds, and what of it does not hold.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// A run as it was first shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub uuid: String,
    /// When it began; unknown while it was only asked for.
    pub started: Option<String>,
}

/// An ending as it was first told: its cause may be corrected by later proof, its exit code never.
#[derive(Debug, Clone)]
pub struct Told {
    pub cause: String,
    pub certain: bool,
    pub exit_code: i64,
    pub acknowledged: bool,
}

#[derive(Debug, Default)]
pub struct Book {
    pub runs: BTreeMap<u64, Shown>,
    /// Endings that were shown as being on disk.
    pub endings: BTreeMap<u64, Told>,
    /// Runs whose destroy or acknowledgement was answered as done.
    pub destroyed: BTreeSet<u64>,
    /// What does not hold, with its round.
    pub faults: Vec<String>,
    /// How many pictures were looked at.
    pub pictures: u64,
    /// Where we are, for the reader of a fault.
    pub place: String,
}

impl Book {
    pub fn fault(&mut self, what: String) {
        let fault = format!("{}: {what}", self.place);
        if !self.faults.contains(&fault) {
            eprintln!("FAULT {fault}");
            self.faults.push(fault);
        }
    }

    fn run(&mut self, number: u64, uuid: &Value, started: Option<&Value>) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let now = Shown { uuid: text(uuid), started: started.map(text) };
        let first = self.runs.entry(number).or_insert_with(|| now.clone());
        let before = first.clone();
        first.started = before.started.clone().or(now.started.clone());
        if before.uuid != now.uuid || now.started.is_some() && first.started != now.started {
            self.fault(format!("run {number} was {before:?} and is {now:?}"));
        }
    }

    fn ending(&mut self, ending: &Value) {
        let number = ending["run"].as_u64().unwrap_or_default();
        self.run(number, &ending["domain"], Some(&ending["started"]));
        let now = Told {
            cause: ending["cause"].as_str().unwrap_or_default().to_owned(),
            certain: ending["certainty"] == "certain",
            exit_code: ending["exit_code"].as_i64().unwrap_or(-1),
            acknowledged: !ending["acknowledged_by"].is_null(),
        };
        let first = self.endings.entry(number).or_insert_with(|| now.clone());
        let same = first.exit_code == now.exit_code && (!first.certain || first.cause == now.cause);
        let still = now.acknowledged || !first.acknowledged;
        let before = first.clone();
        first.acknowledged |= now.acknowledged;
        if !same {
            self.fault(format!("the ending of run {number} was {before:?} and is {now:?}"));
        }
        if !still {
            self.fault(format!("run {number} was acknowledged and is not"));
        }
    }

    /// A picture that was asked for after `destroyed` were answered as done.
    pub fn picture(&mut self, picture: &Value, destroyed: &BTreeSet<u64>, comes_back: bool) {
        self.pictures += 1;
        for domain in picture["domains"].as_array().into_iter().flatten() {
            let number = domain["run"].as_u64().unwrap_or_default();
            let launching = domain["status"] == "launching";
            self.run(number, &domain["domain"], Some(&domain["started"]).filter(|_| !launching));
            let down = domain["status"] == "down";
            if destroyed.contains(&number) && (down || !comes_back) {
                self.fault(format!("run {number} was answered as destroyed and is shown again: {domain}"));
            }
            // The told hypervisor ended with the daemon and has undone it: what runs again may end in any way.
            if comes_back && !down {
                self.destroyed.remove(&number);
            }
            if down && domain["durable"] == true {
                self.ending(&domain["ending"]);
            }
        }
    }

    /// Whether every run of this VM that was shown has an ending, or is `current` and has none.
    pub fn holds(&self, uuid: &str, endings: &[Value], current: Option<u64>) -> bool {
        let ended: BTreeSet<u64> = endings.iter().filter_map(|ending| ending["run"].as_u64()).collect();
        let oldest = ended.first().copied().unwrap_or(0);
        let mut its = self.runs.iter().filter(|(number, run)| run.uuid == uuid && **number >= oldest);
        its.all(|(number, _)| ended.contains(number) != (current == Some(*number)))
    }

    /// The newest endings of one VM, newest first; `current` is its run that goes on.
    pub fn history(&mut self, uuid: &str, endings: &[Value], current: Option<u64>) {
        let mut seen = BTreeSet::new();
        for ending in endings {
            let number = ending["run"].as_u64().unwrap_or_default();
            if !seen.insert(number) {
                self.fault(format!("run {number} has two endings"));
            }
            self.ending(ending);
        }
        let oldest = seen.first().copied().unwrap_or(0);
        let its: Vec<u64> =
            self.runs.iter().filter(|(_, run)| run.uuid == uuid).map(|(number, _)| *number).collect();
        for number in its.into_iter().filter(|number| *number >= oldest) {
            match (seen.contains(&number), current == Some(number)) {
                (true, true) => self.fault(format!("run {number} has an ending and goes on")),
                (false, false) => self.fault(format!("run {number} was shown and has no ending")),
                _ => {}
            }
        }
        for ending in endings {
            let number = ending["run"].as_u64().unwrap_or_default();
            if ending["acknowledged_by"].is_null() && self.destroyed.remove(&number) {
                self.fault(format!(
                    "run {number} was answered as destroyed and is not acknowledged: {ending}"
                ));
            }
        }
    }
}
