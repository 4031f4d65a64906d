//! whydown's own answer, compared with what was done, column by column.

use serde::Serialize;
use serde_json::Value;

use crate::case::{Case, Certainty, Expect};
use crate::table::Table;

/// How an answer is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The cause, as certain as the evidence allows, in all columns, once, and after a restart too.
    Right,
    /// Another answer that the case lists as honest, not told as certain.
    Honest,
    /// Anything else: a failure of the product.
    Wrong,
    /// The lab itself could not do it.
    Broken,
}

impl Verdict {
    /// The word in tables; what must be seen is in capitals.
    pub fn word(self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Honest => "honest",
            Self::Wrong => "WRONG",
            Self::Broken => "BROKEN",
        }
    }
}

/// What whydown told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The cause's word; empty where nothing is told to have ended.
    pub cause: String,
    /// The certainty's word.
    pub certainty: String,
    /// exitCode.
    pub code: i64,
    /// exitReason in the full range.
    pub reason: i64,
    /// exitReason for managers that know numbers up to 8.
    pub classic: i64,
    /// exitMessage.
    pub message: String,
    /// The row of the decision table.
    pub row: String,
}

/// The answer, its verdict, and everything that is wrong with it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What was told.
    pub told: Told,
    /// How it is judged.
    pub verdict: Verdict,
    /// Each fault in words.
    pub faults: Vec<String>,
    /// Why an honest answer is all that can be had.
    pub honest: Option<&'static str>,
}

/// Compares an ending with what was to be told. `polled` is `[classic, full]` as managers read it, if it is shown as Down.
pub fn judge(case: &Case, expect: &Expect, ending: &Value, polled: Option<&Value>, table: &Table) -> Judged {
    let text = |member: &str| ending[member].as_str().unwrap_or_default().to_owned();
    let mut told = Told {
        cause: text("cause"),
        certainty: text("certainty"),
        code: ending["exit_code"].as_i64().unwrap_or(-1),
        reason: ending["exit_reason"].as_i64().unwrap_or(-1),
        classic: -1,
        message: text("message"),
        row: text("row"),
    };
    let mut faults = Vec::new();
    let mut verdict = Verdict::Right;
    let mut honest = None;
    let certainty = Certainty::from_word(&told.certainty);
    match expect {
        Expect::Ending(cause, least)
            if told.cause == *cause || case.also.iter().any(|also| told.cause == *also) =>
        {
            if certainty.is_none_or(|certainty| certainty < *least) {
                faults.push(format!("told as {} where {} is due", told.certainty, least.word()));
            }
            if certainty > Some(case.most) {
                faults.push(format!("told as {} where {} is the most", told.certainty, case.most.word()));
            }
            let stands_on = ending["because"].to_string();
            for words in case.because.iter().filter(|words| !stands_on.contains(&quoted(words))) {
                faults.push(format!("its because does not say {words:?}"));
            }
            let led_by = ending["led_by"].to_string();
            for words in case.led_by.iter().filter(|words| !led_by.contains(&quoted(words))) {
                faults.push(format!("what led to it does not say {words:?}: {led_by}"));
            }
        }
        Expect::Ending(cause, _) => match case.honest.iter().find(|honest| honest.cause == told.cause) {
            Some(listed) if certainty.is_some_and(|c| c < Certainty::Certain) => {
                verdict = Verdict::Honest;
                honest = Some(listed.because);
            }
            _ => faults.push(format!("it was {cause}")),
        },
        Expect::NoEnding | Expect::Nothing => faults.push("there was no ending".into()),
    }
    columns(case, ending, polled, table, &mut told, &mut faults);
    if !faults.is_empty() {
        verdict = Verdict::Wrong;
    }
    Judged { told, verdict, faults, honest }
}

/// Words as they stand in a JSON text.
fn quoted(words: &str) -> String {
    words.replace('"', "\\\"")
}

/// Holds every column of THE TABLE that is told to the row of the cause that was told.
fn columns(
    case: &Case,
    ending: &Value,
    polled: Option<&Value>,
    table: &Table,
    told: &mut Told,
    faults: &mut Vec<String>,
) {
    let Some(row) = table.row(&told.cause) else {
        faults.push(format!("the cause {:?} is not in the table", told.cause));
        return;
    };
    told.classic = i64::from(row.classic_reason);
    let mut same = |what: &str, found: &Value, wanted: Value| {
        if *found != wanted {
            faults.push(format!("{what} is {found}, not {wanted}"));
        }
    };
    same("exit_code", &ending["exit_code"], row.exit_code.into());
    same("exit_reason", &ending["exit_reason"], row.exit_reason.into());
    same("classic_reason", &ending["classic_reason"], row.classic_reason.into());
    same("sentence", &ending["sentence"], row.sentence.as_str().into());
    same("cause_story", &ending["cause_story"], row.story.as_str().into());
    if row.advice.contains('[') {
        // It says what is in the evidence.
        let said = ending["advice"].as_str().unwrap_or_default();
        let whole = !said.is_empty() && !said.contains(['[', ']', '{', '}', '|']);
        same("whole advice", &whole.into(), true.into());
    } else {
        let said = ending["advice"].as_str().is_some_and(|said| said.starts_with(&row.advice));
        same("the advice of its row", &said.into(), true.into());
    }
    same("exit_status", &ending["exit_status"], row.exit_status.into());
    same("vcs_monitor", &ending["vcs_monitor"], row.vcs_monitor.into());
    same("ocf_monitor", &ending["ocf_monitor"], row.ocf_monitor.into());
    same("vep362", &ending["vep362"], row.vep362.as_str().into());
    same("restart", &ending["restart"], row.restart.as_str().into());
    if row.message.contains("{text}") {
        let words = case.text_in_message.unwrap_or_default();
        if told.message.is_empty() || !told.message.contains(words) {
            same("message", &ending["message"], format!("(with {words:?})").into());
        }
    } else {
        same("message", &ending["message"], row.message.as_str().into());
    }
    if let Some(polled) = polled {
        for (range, reason) in [(0, row.classic_reason), (1, row.exit_reason)] {
            let vm = &polled[range];
            same("status", &vm["status"], "Down".into());
            same("exitCode", &vm["exitCode"], row.exit_code.into());
            same("exitReason", &vm["exitReason"], reason.into());
            same("exitMessage", &vm["exitMessage"], told.message.as_str().into());
            same("exitCause", &vm["exitCause"], row.word.as_str().into());
            same("exitCertainty", &vm["exitCertainty"], told.certainty.as_str().into());
            same("exitReasonExact", &vm["exitReasonExact"], row.exit_reason.to_string().into());
            same("exitRunId", &vm["exitRunId"], ending["run"].to_string().into());
        }
    }
    if ending["because"].as_array().is_none_or(Vec::is_empty) {
        faults.push("a verdict without a because".into());
    }
}
