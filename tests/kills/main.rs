//! The daemon, libvirtd or both are killed at random moments, on a disk that is fast and on one that is slow, while VMs are
//! started, end and are destroyed: what was answered as done stays done, every run that was shown has one ending, no number
//! is given twice, and every cause is one that the ending allows.
//!
//! `tests/kills.sh ROUNDS [SEED]` runs as many rounds as wanted.

mod book;
mod client;
mod dice;
mod qemu;
mod slow;
mod told;

use dice::Dice;

/// Rounds without `KILLS_ROUNDS`.
const ROUNDS: u64 = 50;

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
fn whatever_is_killed_what_was_answered_stays_done_and_every_run_has_one_ending() -> whydown_lab::Result<()> {
    let dice = Dice::new(number("KILLS_SEED"));
    let rounds = number("KILLS_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("KILLS_SEED={} KILLS_ROUNDS={rounds}", dice.seed());
    // Most rounds are the cheap ones of libvirt's test driver; each of QEMU's takes some seconds.
    let real = rounds.div_ceil(2);
    let mut faults = qemu::rounds(real, &mut dice.clone())?;
    faults.extend(told::rounds(rounds - real, &mut dice.clone())?);
    assert!(faults.is_empty(), "{} faults, KILLS_SEED={}:\n{}", faults.len(), dice.seed(), faults.join("\n"));
    Ok(())
}
