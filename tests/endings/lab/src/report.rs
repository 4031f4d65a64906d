//! What came out: a table for people, JSON for programs, a page for the documentation.

use std::fmt::Write;

use serde::Serialize;

use crate::case::Expect;
use crate::cases::NOT_COVERED;
use crate::judge::Said;
use crate::judge::ours::{Told, Verdict};
use crate::trial::Trial;

/// One VM on one stage.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The case's name.
    pub case: String,
    /// What was done.
    pub what: String,
    /// `persistent` or `transient`.
    pub kind: &'static str,
    /// `destination`, or nothing.
    pub side: &'static str,
    /// What was to be told.
    pub expected: String,
    /// The least certainty.
    pub least: &'static str,
    /// What whydown told.
    pub told: Told,
    /// How that is judged.
    pub verdict: Verdict,
    /// What is wrong.
    pub faults: Vec<String>,
    /// Why an honest answer is all that can be had.
    pub honest: Option<String>,
    /// VDSM's rules on the same events.
    pub vdsm: Said,
    /// Nova's.
    pub nova: Said,
    /// Masakari's.
    pub masakari: Said,
    /// The events of the action, as the lab's own ear heard them.
    pub events: Vec<String>,
    /// From its start to the last comparison.
    pub seconds: f64,
}

/// In the place of an ending where none is told.
const LIVES: &str = "no ending";

impl Row {
    /// An empty one.
    pub fn of(trial: &Trial, expect: &Expect) -> Self {
        let (expected, least) = match expect {
            Expect::Ending(cause, least) => {
                let others = trial.case.also.iter().filter(|also| *also != cause);
                let also: String = others.map(|also| format!(" or {also}")).collect();
                (format!("{cause}{also}"), least.word())
            }
            Expect::NoEnding => (LIVES.into(), ""),
            Expect::Nothing => ("nothing is known".into(), ""),
        };
        let unsaid = Said::words("-");
        Self {
            case: trial.case.name.clone(),
            what: trial.case.what.clone(),
            kind: trial.kind.word(),
            side: "",
            expected,
            least,
            told: Told::default(),
            verdict: Verdict::Broken,
            faults: Vec::new(),
            honest: None,
            vdsm: unsaid.clone(),
            nova: unsaid.clone(),
            masakari: unsaid,
            events: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Marks it as wrong.
    pub fn wrong(&mut self, fault: String) {
        self.verdict = Verdict::Wrong;
        self.faults.push(fault);
    }

    /// The case with its kind and side.
    pub fn label(&self) -> String {
        let side = if self.side.is_empty() { String::new() } else { format!(" ({})", self.side) };
        format!("{}{side}", self.case)
    }

    fn told_cause(&self) -> &str {
        match self.told.cause.as_str() {
            "" if self.verdict == Verdict::Broken => "-",
            "" => &self.expected,
            cause => cause,
        }
    }

    fn told_exit(&self) -> String {
        match self.told.cause.as_str() {
            "" => String::new(),
            _ if self.told.classic == self.told.reason => format!("{}/{}", self.told.code, self.told.reason),
            _ => format!("{}/{} ({})", self.told.code, self.told.reason, self.told.classic),
        }
    }
}

fn said(said: &Said) -> String {
    match said.exit {
        Some((code, reason)) => format!("{code}/{reason} {}", said.words),
        None => said.words.clone(),
    }
}

/// All rows.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order of the cases.
    pub rows: Vec<Row>,
    /// Altogether.
    pub seconds: f64,
}

impl Report {
    /// How many have this verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.rows.iter().filter(|row| row.verdict == verdict).count()
    }

    /// Whether the product told the truth everywhere, as far as it could be tried.
    pub fn is_well(&self) -> bool {
        !self.rows.is_empty() && self.count(Verdict::Wrong) == 0 && self.count(Verdict::Broken) == 0
    }

    /// Of the endings, how many a VDSM on the same events tells as well, and how many of these with another exit code,
    /// or another reason.
    fn vdsm_differs(&self) -> (usize, usize, usize, usize) {
        let endings: Vec<_> = self.rows.iter().filter(|row| !row.told.cause.is_empty()).collect();
        let both: Vec<_> = endings
            .iter()
            .filter_map(|row| Some(((row.told.code, row.told.reason), row.vdsm.exit?)))
            .map(|(ours, (code, reason))| (ours, (i64::from(code), i64::from(reason))))
            .collect();
        let code = both.iter().filter(|(ours, theirs)| ours.0 != theirs.0).count();
        let reason = both.iter().filter(|(ours, theirs)| ours != theirs).count();
        (endings.len(), both.len(), code, reason)
    }

    /// In two sentences.
    pub fn summary(&self) -> String {
        let of = |verdict| self.count(verdict);
        format!(
            "{} rows: {} right, {} honest, {} wrong, {} broken, in {:.0} s.",
            self.rows.len(),
            of(Verdict::Right),
            of(Verdict::Honest),
            of(Verdict::Wrong),
            of(Verdict::Broken),
            self.seconds
        )
    }

    /// For a terminal.
    pub fn table(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_header([
            "CASE",
            "KIND",
            "EXPECTED",
            "TOLD",
            "CERTAINTY",
            "EXIT",
            "VERDICT",
            "S",
            "VDSM",
            "NOVA",
            "MASAKARI",
        ]);
        for row in &self.rows {
            table.add_row([
                row.label(),
                row.kind.into(),
                row.expected.clone(),
                row.told_cause().into(),
                row.told.certainty.clone(),
                row.told_exit(),
                row.verdict.word().into(),
                format!("{:.1}", row.seconds),
                said(&row.vdsm),
                said(&row.nova),
                said(&row.masakari),
            ]);
        }
        let mut text = format!("{table}\n");
        for row in self.rows.iter().filter(|row| !row.faults.is_empty()) {
            let _ = write!(text, "\n{} {} {}:", row.verdict.word(), row.label(), row.kind);
            for fault in &row.faults {
                let _ = write!(text, "\n  {fault}");
            }
            let _ = writeln!(text, "\n  events: {}", row.events.join("; "));
        }
        let _ = writeln!(text, "\n{}", self.summary());
        text
    }

    /// The page of the documentation. It holds nothing that differs from run to run.
    pub fn markdown(&self) -> String {
        let (endings, both, code, reason) = self.vdsm_differs();
        let mut page = format!(
            "# Every ending, on real VMs\n\n\
             <!-- Generated by `tests/endings-lab.sh --full --markdown docs/reference/endings.md`. -->\n\n\
             Each row is a real guest under a real libvirtd, ended in one way, with a whydownd beside it.\n\
             whydown's answer is compared with what was done: cause, certainty, every column of [the table](causes.md) \
             as told by `whydown why`, by history and by XML-RPC in both ranges; it must stand once in history, and be \
             the same after a restart of whydownd.\n\
             A VM that is to live on is destroyed afterwards, and nothing but that may be told of it.\n\n\
             Beside it stands what others would have said of the same events, by their own rules: VDSM's newest, and \
             what Nova and Masakari make of libvirt's events.\n\n\
             {} rows: {} right, {} honest, {} wrong.\n\
             Of {endings} endings a VDSM on the same events would have told {both}; of these {code} with another exit code, and {reason} with another code or reason.\n\n\
             *Exit* is exitCode/exitReason, with the reason for old managers in brackets where it differs.\n\
             *P* is a persistent domain, *T* a transient one.\n",
            self.rows.len(),
            self.count(Verdict::Right),
            self.count(Verdict::Honest),
            self.count(Verdict::Wrong) + self.count(Verdict::Broken),
        );
        page.push_str(
            "\n| case | what is done | | told | certainty | exit | row | verdict | VDSM | Nova | Masakari |\n\
             |---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let kind = if row.kind == "persistent" { "P" } else { "T" };
            let cause = match row.told.cause.as_str() {
                "" => row.told_cause().to_owned(),
                cause => format!("[`{cause}`](causes.md#{cause})"),
            };
            let side = if row.side.is_empty() { "" } else { " (on the destination)" };
            let _ = writeln!(
                page,
                "| `{}` | {}{side} | {kind} | {cause} | {} | {} | {} | {} | {} | {} | {} |",
                row.case,
                row.what,
                row.told.certainty,
                row.told_exit(),
                row.told.row,
                row.verdict.word(),
                said(&row.vdsm),
                said(&row.nova),
                said(&row.masakari),
            );
        }
        let honest: Vec<_> = self.rows.iter().filter(|row| row.verdict == Verdict::Honest).collect();
        if !honest.is_empty() {
            page.push_str("\n## Honest, and not the whole truth\n\n");
            for row in honest {
                let why = row.honest.as_deref().unwrap_or_default();
                let _ = writeln!(page, "- `{}` is told as `{}`: {why}.", row.case, row.told.cause);
            }
        }
        page.push_str("\n## Not covered\n\n");
        for (what, needs) in NOT_COVERED {
            let _ = writeln!(page, "- {what}: needs {needs}.");
        }
        page.push_str(&crate::elsewhere::section());
        page
    }
}
