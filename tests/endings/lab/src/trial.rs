//! One case on one kind of domain: brought up, acted upon, and everything that is told of it compared.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use whydown_lab::{Guest, LinuxGuest, empty_qcow2};

use crate::case::{Away, Begin, Case, Certainty, Expect, Kind, Make, Venue};
use crate::host::{Host, PATIENCE};
use crate::judge::ours::{Judged, Told, Verdict, judge};
use crate::judge::{Given, masakari, nova, vdsm};
use crate::report::Row;
use crate::scene::Scene;
use crate::table::Table;

/// What the lab itself does to a VM that was to live on, and what must be told of that.
const LAST: Expect = Expect::Ending("outside-destroyed", Certainty::Probable);

/// One case and one kind.
#[derive(Clone)]
pub struct Trial {
    /// The case.
    pub case: Case,
    /// The kind.
    pub kind: Kind,
}

impl Trial {
    /// Unique on its stage.
    pub fn name(&self) -> String {
        let letter = if self.kind == Kind::Persistent { 'p' } else { 't' };
        format!("{}-{letter}", self.case.name)
    }

    /// What must be told here.
    pub fn expect(&self) -> Expect {
        (self.case.expect)(self.kind)
    }
}

/// A VM that is ready for its action.
pub struct Ready<'a> {
    /// It.
    pub scene: Scene<'a>,
    /// Its run, where it runs.
    pub run: Option<i64>,
    /// Events before the action.
    pub skip: usize,
    /// When it was begun.
    pub begun: Instant,
}

/// What was told of one VM on one stage, kept for a second look after a restart.
pub struct Kept {
    /// The row of the report.
    pub row: Row,
    guest: Option<Guest>,
    run: Option<i64>,
    ending: Value,
    polled: Option<Value>,
    nothing: bool,
}

/// Brings the VM as far as the case wants it.
pub fn prepare<'a>(trial: &Trial, host: &'a Host, there: Option<&'a Host>) -> Result<Ready<'a>> {
    let begun = Instant::now();
    let (mut guest, linux) = match trial.case.make {
        Make::Small(make) => (make(host.guest(&trial.name())?), None),
        Make::Linux(make) => {
            let linux = make(LinuxGuest::new(host.folder.path(), &trial.name())?);
            (Guest::clone(&linux), Some(linux))
        }
    };
    let disk = match trial.case.venue {
        Venue::Disk => Some(host.libvirtd.full_disk(guest.name())?),
        _ => None,
    };
    write_files(&guest)?;
    if let Some(disk) = &disk {
        guest = guest.image(disk.image());
    }
    let scene = Scene { linux, disk, ..Scene::new(host, there, guest, trial.kind) };
    let mut ready = Ready { scene, run: None, skip: 0, begun };
    let scene = &mut ready.scene;
    if trial.kind == Kind::Persistent {
        host.libvirtd.define(&scene.guest)?;
    }
    if trial.case.begin == Begin::Up {
        scene.start()?;
        scene.wait_up()?;
        scene.process = Some(host.libvirtd.qemu(scene.name())?);
        ready.run = host.run(&scene.guest);
        ensure!(ready.run.is_some(), "whydown shows it Up without a run");
        // The lab's own ear has its own way: what it hears later must be of the action.
        let started = |event: &crate::recorder::RawEvent| event.phrase().starts_with("Started");
        host.recorder.wait(scene.name(), 0, PATIENCE, started)?;
        ready.skip = host.recorder.of(scene.name()).len();
    }
    Ok(ready)
}

/// The ending of the file with a Linux guest's swap.
pub const SWAP: &str = "swap";

/// Files that the guest's document names beside its image.
fn write_files(guest: &Guest) -> Result<()> {
    let xml = guest.xml();
    let beside = |ending: &str| guest.image_path().with_extension(ending);
    if xml.contains(&*beside("qcow2").to_string_lossy()) {
        std::fs::write(beside("qcow2"), empty_qcow2())?;
    }
    if xml.contains(&*beside("rom").to_string_lossy()) {
        std::fs::write(beside("rom"), vec![0x5a; 32 << 20])?;
    }
    for (ending, script) in crate::cases::emulator::SCRIPTS {
        if xml.contains(&*beside(ending).to_string_lossy()) {
            std::fs::write(beside(ending), script)?;
            std::fs::set_permissions(beside(ending), std::fs::Permissions::from_mode(0o755))?;
            if ending == crate::cases::internal::EMULATOR {
                crate::cases::internal::write_library(&beside(ending))?;
            }
        }
    }
    if xml.contains(&*beside(SWAP).to_string_lossy()) {
        std::fs::File::create(beside(SWAP))?.set_len(320 << 20)?;
    }
    Ok(())
}

/// How the others were placed when the VM ended.
#[derive(Clone, Default)]
pub struct Placed {
    /// What was away.
    pub away: Option<Away>,
    /// libvirt's state of it when all were back.
    pub found: Option<String>,
}

/// Looks at everything that is told of it, on both stages.
pub fn check(trial: &Trial, ready: &mut Ready<'_>, placed: &Placed, table: &Table) -> Vec<Kept> {
    let expect = trial.expect();
    let name = ready.scene.name().to_owned();
    let (host, there) = (ready.scene.host, ready.scene.there);
    let mut all = vec![look(trial, &expect, &ready.scene, ready.run, ready.skip, placed, table, ready.begun)];
    if let (Some(there), Some(expect)) = (there, trial.case.there) {
        let expect = expect(trial.kind);
        let scene = Scene::new(there, None, ready.scene.guest.clone(), trial.kind);
        let run = match expect {
            // It may still be on its way in when the action is over.
            Expect::NoEnding => {
                there.wait_status(&scene.guest, "up").ok().and_then(|()| there.run(&scene.guest))
            }
            _ => None,
        };
        let mut kept = look(trial, &expect, &scene, run, 0, &Placed::default(), table, ready.begun);
        kept.row.side = "destination";
        all.push(kept);
    }
    clear(host, &name);
    if let Some(disk) = &ready.scene.disk {
        // The next one writes its image first. The case may have made room itself.
        let _ = disk.make_room();
    }
    if let Some(there) = there {
        clear(there, &name);
    }
    if ready.scene.linux.is_some() {
        // Dozens of megabytes each; without them the next ones are not in want.
        for ending in ["cpio", SWAP] {
            let _ = std::fs::remove_file(ready.scene.guest.image_path().with_extension(ending));
        }
    }
    all
}

/// Ends what still runs; what is left of it on disk goes with the stage.
fn clear(host: &Host, name: &str) {
    // A domain that is off or gone cannot be destroyed; that is what is wanted.
    let _ = host.libvirtd.try_virsh(&["destroy", name]);
}

#[expect(clippy::too_many_arguments, reason = "each is one fact of the trial, and there is one caller")]
fn look(
    trial: &Trial,
    expect: &Expect,
    scene: &Scene<'_>,
    run: Option<i64>,
    skip: usize,
    placed: &Placed,
    table: &Table,
    begun: Instant,
) -> Kept {
    let mut kept = Kept {
        row: Row::of(trial, expect),
        guest: Some(scene.guest.clone()),
        run,
        ending: Value::Null,
        polled: None,
        nothing: matches!(expect, Expect::Nothing),
    };
    match compare(trial, expect, scene, table, &mut kept) {
        Ok((judged, heard)) => {
            kept.row.verdict = judged.verdict;
            kept.row.faults = judged.faults;
            kept.row.honest = judged.honest.map(str::to_owned);
            kept.row.told = judged.told;
            let mut events: Vec<_> = heard.into_iter().skip(skip).collect();
            if trial.case.last_run {
                let first = events.iter().position(|e| matches!(e.lifecycle(), Some(("Stopped", _))));
                events.drain(..first.map_or(0, |first| first + 1));
            }
            others(&mut kept.row, trial, placed, events);
        }
        Err(error) => kept.row.wrong(format!("{error:#}")),
    }
    kept.row.seconds = begun.elapsed().as_secs_f64();
    kept
}

fn others(row: &mut Row, trial: &Trial, placed: &Placed, events: Vec<crate::recorder::RawEvent>) {
    let heard = matches!(placed.away, None | Some(Away::Restarted | Away::Announced));
    let host_stops = placed.away == Some(Away::Announced);
    row.events = events.iter().map(crate::recorder::RawEvent::phrase).collect();
    let given = Given { events, asked: trial.case.asked, heard, found: placed.found.clone(), host_stops };
    row.vdsm = vdsm::says(&given);
    row.nova = nova::says(&given);
    row.masakari = masakari::says(&given);
}

type Compared = (Judged, Vec<crate::recorder::RawEvent>);

fn compare(
    trial: &Trial,
    expect: &Expect,
    scene: &Scene<'_>,
    table: &Table,
    kept: &mut Kept,
) -> Result<Compared> {
    let (host, guest) = (scene.host, &scene.guest);
    let heard = || host.recorder.of(guest.name());
    match expect {
        Expect::Nothing => {
            let mut judged = silent();
            let past = host.past(guest)?;
            if !past.is_empty() || host.shown(guest).is_some() {
                judged.verdict = Verdict::Wrong;
                judged.faults.push(format!("it is known: {past:?}"));
            }
            Ok((judged, heard()))
        }
        Expect::NoEnding => {
            let mut judged = silent();
            let (status, now) = (host.status(guest), host.run(guest));
            if now != kept.run || now.is_none() || status.as_deref() == Some("down") {
                judged.faults.push(format!("it is {status:?} in run {now:?}, and was in run {:?}", kept.run));
            }
            let before = heard();
            // Whatever whydown may still have to tell of the action, it tells before this.
            host.libvirtd.destroy(guest.name())?;
            let last = told_ending(trial, &LAST, scene, table, kept)?;
            judged
                .faults
                .extend(last.faults.into_iter().map(|fault| format!("when it was destroyed: {fault}")));
            if !judged.faults.is_empty() {
                judged.verdict = Verdict::Wrong;
                judged.told = last.told;
            }
            Ok((judged, before))
        }
        Expect::Ending(..) => {
            let judged = told_ending(trial, expect, scene, table, kept)?;
            // The ear and whydown hear the same at their own pace.
            let _ = host.recorder.wait(guest.name(), 0, std::time::Duration::from_secs(2), |event| {
                matches!(event.lifecycle(), Some(("Stopped", _)))
            });
            Ok((judged, heard()))
        }
    }
}

fn silent() -> Judged {
    Judged { told: Told::default(), verdict: Verdict::Right, faults: Vec::new(), honest: None }
}

fn told_ending(
    trial: &Trial,
    expect: &Expect,
    scene: &Scene<'_>,
    table: &Table,
    kept: &mut Kept,
) -> Result<Judged> {
    let (host, guest) = (scene.host, &scene.guest);
    let mut ending = host.wait_ending(guest, kept.run)?;
    if trial.case.last_run {
        let first = kept.run;
        let what = format!("a second ending of {}", guest.name());
        ending = whydown_lab::wait_for(&what, PATIENCE, || {
            host.past(guest).ok()?.into_iter().find(|ending| ending["run"].as_i64() > first)
        })?;
    }
    kept.run = ending["run"].as_i64();
    let why = host.why(guest)?;
    let shown = &why["domain"];
    let mut faults = Vec::new();
    if why["ending"]["run"] == ending["run"] && without_note(&why["ending"]) != without_note(&ending) {
        faults.push(format!("why and history differ: {}", why["ending"]));
    }
    if shown["status"] == "down" && shown["ending"]["run"] == ending["run"] {
        kept.polled = Some(host.polled(&[guest.uuid_text()])?[guest.uuid_text()].take());
    }
    let past = host.past(guest)?;
    let times = past.iter().filter(|other| other["run"] == ending["run"]).count();
    if times != 1 {
        faults.push(format!("it stands {times} times in history"));
    }
    let mut judged = judge(&trial.case, expect, &ending, kept.polled.as_ref(), table);
    kept.ending = without_note(&ending);
    judged.faults.extend(faults);
    if !judged.faults.is_empty() {
        judged.verdict = Verdict::Wrong;
        judged.faults.push(evidence(&ending));
    }
    Ok(judged)
}

/// All evidence in one line, for whoever looks into a wrong answer.
fn evidence(ending: &Value) -> String {
    let pieces = ending["evidence"].as_array().map(Vec::as_slice).unwrap_or_default();
    let words: Vec<_> = pieces.iter().filter_map(|piece| piece["what"].as_str()).collect();
    format!("evidence: {}", words.join("; "))
}

/// An ending without what a manager adds to it.
fn without_note(ending: &Value) -> Value {
    let mut ending = ending.clone();
    if let Some(members) = ending.as_object_mut() {
        members.retain(|name, _| !name.starts_with("acknowledged"));
    }
    ending
}

/// A row for what the lab could not do.
pub fn broken(trial: &Trial, error: &anyhow::Error) -> Kept {
    let mut row = Row::of(trial, &trial.expect());
    row.verdict = Verdict::Broken;
    row.faults.push(format!("{error:#}"));
    Kept { row, guest: None, run: None, ending: Value::Null, polled: None, nothing: false }
}

/// Looks again after a restart of whydownd: each ending must be there once, unchanged, and be polled as before.
pub fn check_again(host: &Host, kept: &mut [&mut Kept]) -> Result<()> {
    let polled: Vec<&str> = kept
        .iter()
        .filter(|kept| kept.polled.is_some())
        .filter_map(|kept| kept.guest.as_ref().map(Guest::uuid_text))
        .collect();
    let polled = host.polled(&polled)?;
    for kept in kept {
        let Some(guest) = &kept.guest else { continue };
        let past = host.past(guest).context("after the restart")?;
        if kept.nothing && !past.is_empty() {
            kept.row.wrong("after the restart it is known".into());
        }
        if kept.ending.is_null() {
            continue;
        }
        let same: Vec<_> = past.iter().filter(|ending| ending["run"].as_i64() == kept.run).collect();
        if same.len() != 1 || without_note(same[0]) != kept.ending {
            kept.row.wrong(format!("after a restart of whydownd history has {same:?}"));
        }
        let exit = |polled: &Value| -> Vec<Value> {
            let members =
                ["status", "exitCode", "exitReason", "exitMessage", "exitCause", "exitCertainty", "exitTime"];
            (0..2).flat_map(|range| members.map(|member| polled[range][member].clone())).collect()
        };
        if let Some(before) = &kept.polled
            && exit(before) != exit(&polled[guest.uuid_text()])
        {
            kept.row.wrong("after a restart of whydownd managers read something else".into());
        }
    }
    Ok(())
}
