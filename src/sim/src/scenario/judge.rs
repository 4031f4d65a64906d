//! Plays a story and compares what was said with what should have been, and with what must never be.

use std::time::Duration;

use whydown_core::evidence::EvidenceId;
use whydown_core::lifecycle::Reply;
use whydown_core::record::Ending;

use super::words::{self, VM};
use super::{Expected, Scenario, kind_of};
use crate::invariants::word_of;
use crate::world::{Acting, World};

/// How long a world rests after the last step.
const REST: Duration = Duration::from_secs(10);

/// Plays it. Gives everything that differs; nothing if all is as it should be.
pub fn judge(scenario: &Scenario) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut world = World::new();
    world.acting = Acting::Told(Vec::new());
    world.hypervisor.define(VM, "vm", !scenario.transient);
    if scenario.daemon {
        world.start_daemon();
        world.regain_link();
        world.pass(Duration::from_secs(1));
    }
    let mut asked = Vec::new();
    for step in &scenario.steps {
        match words::parse(step) {
            Ok(line) => world.play(&line, &mut asked),
            Err(unknown) => return vec![unknown.to_string()],
        }
    }
    world.pass(REST);
    wrong.extend(world.broken().iter().map(|broken| format!("broken: {broken}")));

    let found: Vec<Expected> = world.ledger.endings().values().map(told).collect();
    if found.len() != scenario.expect.len() {
        wrong.push(format!("{} endings instead of {}: {found:#?}", found.len(), scenario.expect.len()));
    }
    for (wanted, ending) in scenario.expect.iter().zip(&found) {
        let message = &ending.message;
        if !message.contains(&wanted.message) {
            wrong.push(format!("the message is \"{message}\", without \"{}\"", wanted.message));
        }
        if (Expected { message: wanted.message.clone(), ..ending.clone() }) != *wanted {
            wrong.push(format!("said {ending:#?}\ninstead of {wanted:#?}"));
        }
    }

    let public = world.snapshot().and_then(|picture| picture.domains.get(&VM).cloned());
    let status = public.map_or("absent", |public| word_of(public.status));
    if status != scenario.status {
        wrong.push(format!("it is shown as {status} instead of {}", scenario.status));
    }
    for word in scenario.never.iter().filter(|word| world.invariants().was_shown(VM, word)) {
        wrong.push(format!("\"{word}\" was shown"));
    }
    let replies: Vec<String> = asked
        .iter()
        .map(|id| world.replies(*id).iter().map(reply_word).collect::<Vec<_>>().join("+"))
        .collect();
    if replies != scenario.replies {
        wrong.push(format!("the answers are {replies:?} instead of {:?}", scenario.replies));
    }
    wrong
}

/// What was said of an ending, in the words of stories.
fn told(ending: &Ending) -> Expected {
    let kinds = |ids: &[EvidenceId]| {
        let pieces = ids.iter().filter_map(|id| ending.evidence.get(usize::from(*id)));
        pieces.map(|piece| kind_of(&piece.fact).to_owned()).collect()
    };
    Expected {
        row: ending.verdict.row.clone(),
        cause: ending.verdict.cause.word().into(),
        certainty: ending.verdict.certainty.word().into(),
        exit_code: ending.exit_code,
        exit_reason: ending.exit_reason,
        because: kinds(&ending.verdict.because),
        despite: kinds(&ending.verdict.despite),
        message: ending.message.clone(),
    }
}

fn reply_word(reply: &Reply) -> &'static str {
    match reply {
        Reply::Done => "done",
        Reply::DoneUnwritten => "done-unwritten",
        Reply::NoSuchVm => "no-such-vm",
        Reply::Exists => "exists",
        Reply::IsDown => "is-down",
        Reply::Refused(_) | Reply::Moving(_) => "refused",
        Reply::Unavailable(_) => "unavailable",
    }
}
