//! The daemon is killed while VMs end: before the first event, between the events, before and after the commit.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use whydown_lab::{Guest, Result, Serial, Signal, wait_until};

use whydown_lab::host::{Host, PATIENCE, post};

/// How a guest ends in every round, and what may be told of it. SIGKILL's own trace is heard or lost for ever.
struct Way {
    name: &'static str,
    persistent: bool,
    causes: &'static [&'static str],
}

const WAYS: [Way; 6] = [
    Way { name: "off", persistent: true, causes: &["guest-poweroff"] },
    Way { name: "panicked", persistent: false, causes: &["guest-panic"] },
    Way { name: "destroyed", persistent: true, causes: &["outside-destroyed"] },
    Way { name: "killed", persistent: false, causes: &["process-killed", "process-lost"] },
    Way { name: "termed", persistent: true, causes: &["process-terminated"] },
    Way { name: "asked", persistent: false, causes: &["admin-destroyed"] },
];

const ROUNDS: usize = 6;

/// From before the first event (0 ms) to after the last (libvirt's STOPPED comes some 200 ms after its SHUTDOWN).
const LONGEST_MS: u64 = 300;

#[test]
fn whenever_the_daemon_is_killed_every_run_has_one_ending_and_the_right_one() -> Result<()> {
    let seed = match std::env::var("WHYDOWN_TEST_SEED") {
        Ok(seed) => seed.parse().expect("WHYDOWN_TEST_SEED is a number"),
        Err(_) => RandomState::new().hash_one(0),
    };
    eprintln!("WHYDOWN_TEST_SEED={seed}");
    let mut random = Random(seed);
    let mut host = Host::start("torn")?;
    let guests: Vec<Guest> = WAYS.iter().map(|way| host.guest(way.name)).collect::<Result<_>>()?;
    for round in 0..ROUNDS {
        let mut serials = Vec::new();
        let mut runs = Vec::new();
        for (way, guest) in WAYS.iter().zip(&guests) {
            if host.libvirtd.state(way.name)?.as_deref() == Some("running (booted)") {
                // A destroy that never reached the daemon in the round before.
            } else if way.persistent && round > 0 {
                host.libvirtd.start_domain(way.name)?;
            } else if way.persistent {
                host.libvirtd.define(guest)?;
                host.libvirtd.start_domain(way.name)?;
            } else {
                host.libvirtd.create(guest)?;
            }
            serials.push(guest.serial(PATIENCE)?);
            host.wait_status(guest, "up");
            runs.push(host.run(guest).expect("it runs"));
        }
        let wait_ms = random.up_to(LONGEST_MS);
        let case = format!("seed {seed}, round {round}, killed after {wait_ms} ms");
        end_all(&mut host, &guests, &mut serials, Duration::from_millis(wait_ms))?;
        for way in &WAYS {
            wait_until(&format!("{} is over", way.name), PATIENCE, || over(&host, way));
        }
        host.daemon.start_again()?;
        for ((way, guest), run) in WAYS.iter().zip(&guests).zip(&runs) {
            check(&host, way, guest, *run, &case)?;
            let endings = host.past(guest)?.len();
            assert!(way.name == "asked" || endings == round + 1, "{}: {endings} endings, {case}", way.name);
        }
        let before: Vec<_> = guests.iter().map(|guest| host.past(guest)).collect::<Result<_>>()?;
        host.daemon.restart()?;
        let after: Vec<_> = guests.iter().map(|guest| host.past(guest)).collect::<Result<_>>()?;
        assert_eq!(before, after, "a restart changes nothing: {case}");
    }
    Ok(())
}

/// Ends all guests at one moment, each in its way, and kills the daemon `wait` later.
fn end_all(host: &mut Host, guests: &[Guest], serials: &mut [Serial], wait: Duration) -> Result<()> {
    let qemus: Vec<_> = WAYS.iter().map(|way| host.libvirtd.qemu(way.name)).collect::<Result<_>>()?;
    let asking = host.connect()?;
    let libvirtd = &host.libvirtd;
    std::thread::scope(|scope| {
        let destroyer = scope.spawn(|| libvirtd.destroy("destroyed"));
        scope.spawn(|| post(asking, "", "destroy", &[guests[5].uuid_text()]));
        serials[0].power_off()?;
        serials[1].panic()?;
        qemus[3].signal(Signal::KILL)?;
        qemus[4].signal(Signal::TERM)?;
        // The moment of the kill is what is tried here; nothing waits for it.
        std::thread::sleep(wait);
        host.daemon.kill_9()?;
        destroyer.join().expect("no panic")
    })
}

fn over(host: &Host, way: &Way) -> bool {
    match host.libvirtd.state(way.name) {
        // The one that was asked of the daemon may never have been done.
        Ok(None) => true,
        Ok(Some(state)) => state.starts_with("shut off") || way.name == "asked",
        Err(_) => false,
    }
}

fn check(host: &Host, way: &Way, guest: &Guest, run: i64, case: &str) -> Result<()> {
    if host.libvirtd.state(way.name)?.as_deref() == Some("running (booted)") {
        host.wait_status(guest, "up");
        assert_eq!(host.run(guest), Some(run), "what runs keeps its run: {case}");
        return Ok(());
    }
    wait_until(&format!("the ending of {}, {case}", way.name), PATIENCE, || {
        host.past(guest).is_ok_and(|past| past.first().is_some_and(|ending| ending["run"] == run))
    });
    let past = host.past(guest)?;
    let runs: BTreeSet<i64> = past.iter().map(|ending| ending["run"].as_i64().expect("a number")).collect();
    assert_eq!(runs.len(), past.len(), "one ending a run, {case}: {past:#?}");
    let ending = &past[0];
    let cause = ending["cause"].as_str().expect("a word");
    assert!(way.causes.contains(&cause), "{}: {case}: {ending:#}", way.name);
    assert_ne!(ending["certainty"], "unknown", "{}: {case}: {ending:#}", way.name);
    Ok(())
}

/// Small and repeatable: 64 bits of xorshift.
struct Random(u64);

impl Random {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 |= 1;
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % (most + 1)
    }
}
