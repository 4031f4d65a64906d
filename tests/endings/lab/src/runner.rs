//! Runs trials: those that do not disturb each other at the same time, the rest stage by stage.

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use whydown_lab::Signal;

use crate::case::{Away, Expect, Venue};
use crate::host::{Host, PATIENCE, Programs};
use crate::report::{Report, Row};
use crate::table::Table;
use crate::trial::{Kept, Placed, Ready, Trial, broken, check, check_again, prepare};

/// What to run, and how.
pub struct Plan {
    /// All trials.
    pub trials: Vec<Trial>,
    /// At most so many at once on the shared stage.
    pub jobs: usize,
    /// The programs under test.
    pub programs: Programs,
    /// Called with each row as soon as it is there; it may still change by the second look.
    pub seen: fn(&Row),
}

/// So many Linux machines at once, at most.
const LINUX_JOBS: usize = 2;

/// Runs everything. A trial that the lab cannot do is a broken row; only what concerns all of them is an error.
pub fn run(plan: &Plan) -> Result<Report> {
    let table = Table::read()?;
    let begun = std::time::Instant::now();
    let of = |wanted: &dyn Fn(Venue) -> bool| -> Vec<&Trial> {
        plan.trials.iter().filter(|trial| wanted(trial.case.venue)).collect()
    };
    let shared = of(&|venue| matches!(venue, Venue::Shared | Venue::Disk));
    let traced = of(&|venue| venue == Venue::Traced);
    let linux = of(&|venue| venue == Venue::Linux);
    let pairs = of(&|venue| venue == Venue::Pair);
    let mut aways: Vec<Away> = plan
        .trials
        .iter()
        .filter_map(|trial| if let Venue::Away(away) = trial.case.venue { Some(away) } else { None })
        .collect();
    aways.sort_unstable();
    aways.dedup();
    let mut all = std::thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut all = if pairs.is_empty() { Vec::new() } else { on_pair(plan, &table, &pairs) };
            for away in aways {
                let batch = of(&|venue| venue == Venue::Away(away));
                all.extend(with_away(plan, &table, away, &batch));
            }
            all
        });
        let mut all =
            side_by_side(plan, &table, plan.jobs, &shared, || Host::start("shared", &plan.programs));
        let traces = || Host::start_tracing("traced", &plan.programs);
        all.extend(side_by_side(plan, &table, plan.jobs, &traced, traces));
        all.extend(beside.join().expect("a trial that panics is a bug of the lab"));
        all
    });
    // A Linux takes a whole processor to boot, and must not be late where others are in a hurry.
    let slow = || Host::start("linux", &plan.programs);
    all.extend(side_by_side(plan, &table, plan.jobs.min(LINUX_JOBS), &linux, slow));
    let place =
        |row: &Row| plan.trials.iter().position(|t| t.case.name == row.case && t.kind.word() == row.kind);
    all.sort_by_key(|kept| (place(&kept.row), kept.row.side));
    Ok(Report {
        rows: all.into_iter().map(|kept| kept.row).collect(),
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// All of a batch is broken by the same.
fn all_broken(batch: &[&Trial], error: &anyhow::Error) -> Vec<Kept> {
    batch.iter().map(|trial| broken(trial, error)).collect()
}

fn act(trial: &Trial, ready: &mut Ready<'_>) -> Result<()> {
    (trial.case.act)(&mut ready.scene)
}

/// One trial from its begin to its end, where nothing is away.
fn whole(plan: &Plan, table: &Table, trial: &Trial, host: &Host, there: Option<&Host>) -> Vec<Kept> {
    let done = prepare(trial, host, there).context("bringing it up").and_then(|mut ready| {
        act(trial, &mut ready)?;
        Ok(check(trial, &mut ready, &Placed::default(), table))
    });
    let kept = done.unwrap_or_else(|error| vec![broken(trial, &error)]);
    kept.iter().for_each(|kept| (plan.seen)(&kept.row));
    kept
}

/// A batch of trials on one stage, several at once.
fn side_by_side(
    plan: &Plan,
    table: &Table,
    jobs: usize,
    batch: &[&Trial],
    start: impl Fn() -> Result<Host>,
) -> Vec<Kept> {
    if batch.is_empty() {
        return Vec::new();
    }
    let mut host = match start() {
        Ok(host) => host,
        Err(error) => return all_broken(batch, &error),
    };
    // Those that take long begin first.
    let mut order: Vec<&&Trial> = batch.iter().collect();
    order.sort_by_key(|trial| !trial.case.name.ends_with("for-long"));
    let (next, disk, all) = (AtomicUsize::new(0), Mutex::new(()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, order.len()) {
            scope.spawn(|| {
                while let Some(trial) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let _alone = (trial.case.venue == Venue::Disk)
                        .then(|| disk.lock().unwrap_or_else(PoisonError::into_inner));
                    let kept = whole(plan, table, trial, &host, None);
                    all.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    again(&mut host, &mut all.iter_mut().collect::<Vec<_>>());
    all
}

/// Restarts whydownd and looks again. What the lab cannot do then is a fault of all.
fn again(host: &mut Host, kept: &mut [&mut Kept]) {
    let links = host.links();
    let done = host
        .daemon
        .restart()
        .context("restarting whydownd")
        .and_then(|()| host.wait_link(links))
        .and_then(|()| check_again(host, kept));
    if let Err(error) = done {
        kept.iter_mut().for_each(|kept| kept.row.wrong(format!("the second look: {error:#}")));
    }
}

fn on_pair(plan: &Plan, table: &Table, batch: &[&Trial]) -> Vec<Kept> {
    let hosts = Host::start("here", &plan.programs)
        .and_then(|here| Ok((here, Host::start("there", &plan.programs)?)));
    let (mut here, mut there) = match hosts {
        Ok(hosts) => hosts,
        Err(error) => return all_broken(batch, &error),
    };
    let mut all = Vec::new();
    for trial in batch {
        all.extend(whole(plan, table, trial, &here, Some(&there)));
    }
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = all.iter_mut().partition(|kept| kept.row.side.is_empty());
    again(&mut here, &mut ours);
    again(&mut there, &mut theirs);
    all
}

/// A batch of trials for which the same is away.
fn with_away(plan: &Plan, table: &Table, away: Away, batch: &[&Trial]) -> Vec<Kept> {
    let bootable = matches!(away, Away::PowerCut | Away::Boot | Away::Announced);
    let host = match bootable {
        true => Host::start_bootable(away.word(), &plan.programs),
        false => Host::start(away.word(), &plan.programs),
    };
    let there = match batch.iter().any(|trial| trial.case.there.is_some()) {
        true => Host::start("elsewhere", &plan.programs).map(Some),
        false => Ok(None),
    };
    let (mut host, mut there) = match (host, there) {
        (Ok(host), Ok(there)) => (host, there),
        (Err(error), _) | (_, Err(error)) => return all_broken(batch, &error),
    };
    let mut all = Vec::new();
    let rounds: Vec<&[&Trial]> =
        if away == Away::KilledAtOnce { batch.chunks(1).collect() } else { vec![batch] };
    for round in rounds {
        let kept = round_of(&mut host, there.as_ref(), table, away, round);
        let kept = kept.unwrap_or_else(|error| all_broken(round, &error));
        kept.iter().for_each(|kept| (plan.seen)(&kept.row));
        all.extend(kept);
    }
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = all.iter_mut().partition(|kept| kept.row.side.is_empty());
    again(&mut host, &mut ours);
    if let Some(there) = &mut there {
        again(there, &mut theirs);
    }
    all
}

/// What of a ready VM outlives the borrow of its stage.
struct Parked {
    run: Option<i64>,
    skip: usize,
    begun: std::time::Instant,
    scene: crate::scene::Parked,
}

fn round_of(
    host: &mut Host,
    there: Option<&Host>,
    table: &Table,
    away: Away,
    batch: &[&Trial],
) -> Result<Vec<Kept>> {
    let mut parked = Vec::new();
    for trial in batch {
        let ready = prepare(trial, host, there).with_context(|| format!("bringing {} up", trial.name()))?;
        let Ready { scene, run, skip, begun } = ready;
        parked.push(Parked { run, skip, begun, scene: scene.park() });
    }
    let links = host.links();
    let names: Vec<String> = batch.iter().map(|trial| trial.name()).collect();
    leave(host, away, &names)?;
    let mut acted = Vec::new();
    let mut resume = Vec::new();
    for (trial, parked) in batch.iter().zip(parked) {
        let Parked { run, skip, begun, scene } = parked;
        let mut ready = Ready { scene: scene.unpark(host, there), run, skip, begun };
        let done = match away {
            Away::KilledAtOnce => killed_at_once(trial, &mut ready),
            _ => act(trial, &mut ready),
        };
        acted.push(done);
        let Ready { scene, run, skip, begun } = ready;
        resume.push(Parked { run, skip, begun, scene: scene.park() });
    }
    let hung = matches!(away, Away::Hung | Away::HungForLong);
    if host.libvirtd.pid().is_some() && !hung {
        for ((trial, parked), acted) in batch.iter().zip(&resume).zip(&mut acted) {
            if acted.is_ok() && matches!(trial.expect(), Expect::Ending(..)) {
                *acted = parked.scene.wait_off(host);
            }
        }
    }
    if away == Away::StartedAgain {
        for (parked, acted) in resume.iter_mut().zip(&mut acted).filter(|(_, acted)| acted.is_ok()) {
            *acted = parked.scene.start_again(host);
        }
    }
    come_back(host, away, links, &names)?;
    let mut all = Vec::new();
    for ((trial, parked), acted) in batch.iter().zip(resume).zip(acted) {
        let Parked { run, skip, begun, scene } = parked;
        let mut ready = Ready { scene: scene.unpark(host, there), run, skip, begun };
        let found = host.libvirtd.state(ready.scene.name())?;
        let placed = Placed { away: Some(away), found };
        match acted {
            Ok(()) => all.extend(check(trial, &mut ready, &placed, table)),
            Err(error) => all.push(broken(trial, &error)),
        }
    }
    Ok(all)
}

/// Kills whydownd at libvirt's first word of the end, while the action may still go on.
fn killed_at_once(trial: &Trial, ready: &mut Ready<'_>) -> Result<()> {
    let (host, skip) = (ready.scene.host, ready.skip);
    let name = ready.scene.name().to_owned();
    std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            host.recorder.wait(&name, skip, PATIENCE, |event| event.event == "lifecycle")?;
            Ok(host.daemon.signal(Signal::KILL)?)
        });
        let acted = act(trial, ready);
        let killed: Result<()> = killer.join().expect("it does not panic");
        acted.and(killed)
    })
}

/// What ended this long before a destroy was not ended by it.
const HUNG: Duration = Duration::from_secs(12);

/// Longer than whydown waits for a libvirtd that stands still.
const HUNG_FOR_LONG: Duration = Duration::from_secs(60);

/// Takes away what is to be away from the VMs of these names.
fn leave(host: &mut Host, away: Away, names: &[String]) -> Result<()> {
    match away {
        Away::Hung | Away::HungForLong => host.libvirtd.pause()?,
        Away::Autostarts => {
            for name in names {
                host.libvirtd.virsh(&["autostart", name])?;
            }
            host.libvirtd.stop()?;
            // libvirtd starts them once a boot.
            std::fs::remove_file(host.libvirtd.directory().join("run/qemu/autostarted"))?;
        }
        Away::Daemon | Away::StartedAgain => drop(host.daemon.terminate()?),
        Away::Libvirtd => drop(host.libvirtd.stop()?),
        Away::Both | Away::Boot => {
            host.daemon.terminate()?;
            host.libvirtd.stop()?;
        }
        Away::PowerCut => {
            host.daemon.kill_9()?;
            host.libvirtd.kill_9()?;
        }
        Away::Restarted => {
            let links = host.links();
            host.libvirtd.restart()?;
            host.listen()?;
            host.wait_link(links)?;
        }
        Away::Announced => host.announce_stop()?,
        Away::KilledAtOnce => {}
    }
    Ok(())
}

/// Brings all back.
fn come_back(host: &mut Host, away: Away, links: usize, names: &[String]) -> Result<()> {
    match away {
        Away::Restarted => return Ok(()),
        Away::Hung | Away::HungForLong => {
            pass(if away == Away::Hung { HUNG } else { HUNG_FOR_LONG })?;
            return go_on(host, names);
        }
        Away::KilledAtOnce => drop(host.daemon.wait_end(PATIENCE)?),
        Away::Announced => {
            host.daemon.terminate()?;
            host.libvirtd.stop()?;
        }
        _ => {}
    }
    if matches!(away, Away::PowerCut | Away::Boot | Away::Announced) {
        host.next_boot()?;
    }
    if host.libvirtd.pid().is_none() {
        host.libvirtd.start_again()?;
        host.listen()?;
    }
    host.daemon.start_again()?;
    host.wait_link(links)
}

fn pass(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    let passed = || (Instant::now() >= until).then_some(());
    Ok(whydown_lab::wait_for("the passing of time", time + PATIENCE, passed)?)
}

/// Lets a libvirtd go on that stood still. The first that it hears is that these VMs are to be destroyed.
fn go_on(host: &Host, names: &[String]) -> Result<()> {
    let clients: Vec<_> = names
        .iter()
        .map(|name| {
            let mut client = std::process::Command::new("virsh");
            client.args(["-q", "-c", &host.libvirtd.uri(), "destroy", name]);
            client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        })
        .collect::<std::io::Result<_>>()?;
    // They connect and ask; nobody answers yet.
    pass(Duration::from_secs(1))?;
    host.libvirtd.unpause()?;
    for mut client in clients {
        // Refused where libvirtd has noticed first.
        client.wait()?;
    }
    for name in names {
        whydown_lab::wait_for(&format!("the end of {name}"), PATIENCE, || crate::scene::off(host, name))?;
    }
    let linked = || host.ask("/v1/health").is_some_and(|health| health["link_lost_since"].is_null());
    Ok(whydown_lab::wait_for("whydown's link", PATIENCE, || linked().then_some(()))?)
}
