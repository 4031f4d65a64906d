//! Runs that began and ended while nobody listened: each has a record of its own, with the cause that is its own.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use whydown_lab::{Guest, Result, Signal, wait_until};

use whydown_lab::host::{Host, PATIENCE, says};

/// How a run ends.
#[derive(Clone, Copy)]
enum Way {
    Off,
    Destroyed,
    Killed,
    Termed,
    Saved,
}

use Way::{Destroyed, Killed, Off, Saved, Termed};

impl Way {
    /// What must be told of it, where its log and its exit are all that is left.
    fn cause(self) -> &'static str {
        match self {
            Self::Off => "guest-poweroff",
            Self::Destroyed => "outside-destroyed",
            Self::Killed => "process-lost",
            Self::Termed => "process-terminated",
            Self::Saved => "managed-saved",
        }
    }
}

/// A domain, what it is called now, and what happens to it.
struct Vm {
    guest: Guest,
    name: String,
    persistent: bool,
    /// Ends of its runs, the oldest first.
    ended: Vec<Way>,
}

impl Vm {
    fn new(host: &Host, name: &str, persistent: bool) -> Result<Self> {
        Ok(Self { guest: host.guest(name)?, name: name.into(), persistent, ended: Vec::new() })
    }

    /// Starts it, behind our back or not.
    fn start(&self, host: &Host) -> Result<()> {
        if self.persistent {
            host.libvirtd.start_domain(&self.name)?;
        } else {
            host.libvirtd.create(&self.guest)?;
        }
        self.guest.serial(PATIENCE).map(drop)
    }

    fn end(&mut self, host: &Host, way: Way) -> Result<()> {
        match way {
            Way::Off => self.guest.serial(PATIENCE)?.power_off()?,
            Way::Destroyed => host.libvirtd.destroy(&self.name)?,
            Way::Killed => host.libvirtd.qemu(&self.name)?.signal(Signal::KILL)?,
            Way::Termed => host.libvirtd.qemu(&self.name)?.signal(Signal::TERM)?,
            Way::Saved => host.libvirtd.virsh(&["managedsave", &self.name]).map(drop)?,
        }
        self.ended.push(way);
        wait_until("it is off", PATIENCE, || {
            host.libvirtd.state(&self.name).is_ok_and(|state| state.is_none_or(|s| s.starts_with("shut off")))
        });
        Ok(())
    }

    /// It is defined under another name; its log of before keeps the old one.
    fn rename(&mut self, host: &Host) -> Result<()> {
        let new = format!("{}-new", self.name);
        host.libvirtd.virsh(&["domrename", &self.name, &new])?;
        self.name = new;
        Ok(())
    }

    /// Every run has one ending with its own cause, in its own place.
    fn check(&self, host: &Host) -> Result<()> {
        wait_until(&format!("all runs of {} are told", self.name), PATIENCE, || {
            host.past(&self.guest).is_ok_and(|past| past.len() >= self.ended.len())
        });
        let told: Vec<String> =
            host.history(&self.guest)?.into_iter().map(|(cause, _)| cause).rev().collect();
        let wanted: Vec<&str> = self.ended.iter().map(|way| way.cause()).collect();
        assert_eq!(told, wanted, "{}: {:#?}", self.name, host.past(&self.guest)?);
        let past = host.past(&self.guest)?;
        let begun: Vec<&str> = past.iter().map(|e| e["started"].as_str().expect("a time")).collect();
        assert!(begun.is_sorted_by(|a, b| a >= b), "newest first: {begun:?}");
        assert!(past.iter().all(|ending| ending["certainty"] != "certain"), "nobody heard them: {past:#?}");
        Ok(())
    }
}

/// The sequences of each test: what is up when the absence begins ends in the first way.
const SEQUENCES: [(&str, &[Way]); 6] = [
    ("off-destroy", &[Off, Destroyed]),
    ("destroy-off", &[Destroyed, Off]),
    ("off-kill", &[Off, Killed]),
    ("kill-term-off", &[Killed, Termed, Off]),
    ("destroy-save", &[Destroyed, Saved]),
    ("four", &[Termed, Off, Destroyed, Killed]),
];

fn persistent_and_transient(host: &Host) -> Result<Vec<(Vm, &'static [Way])>> {
    let mut vms = Vec::new();
    for (name, ways) in SEQUENCES {
        for persistent in [true, false] {
            let saves = ways.iter().any(|way| matches!(way, Way::Saved));
            if persistent || !saves {
                let name = format!("{}{name}", if persistent { "p-" } else { "t-" });
                vms.push((Vm::new(host, &name, persistent)?, ways));
            }
        }
    }
    for (vm, _) in &vms {
        if vm.persistent {
            drop(host.up_persistent(&vm.guest)?);
        } else {
            drop(host.up(&vm.guest)?);
        }
    }
    Ok(vms)
}

#[test]
fn every_run_in_an_absence_is_told_with_its_own_cause_and_once() -> Result<()> {
    let mut host = Host::start("runs")?;
    let mut vms = persistent_and_transient(&host)?;
    let mut idle = Vm::new(&host, "idle", true)?;
    host.libvirtd.define(&idle.guest)?;
    let mut passer_by = Vm::new(&host, "passer-by", false)?;
    let mut back = Vm::new(&host, "back", true)?;
    drop(host.up_persistent(&back.guest)?);
    let first = host.run(&back.guest).expect("it runs");

    host.daemon.terminate()?;
    for (vm, ways) in &mut vms {
        for (place, way) in ways.iter().enumerate() {
            if place > 0 {
                vm.start(&host)?;
            }
            vm.end(&host, *way)?;
        }
    }
    for (vm, way) in [(&mut idle, Destroyed), (&mut passer_by, Off)] {
        vm.start(&host)?;
        vm.end(&host, way)?;
    }
    back.end(&host, Off)?;
    back.start(&host)?;
    back.end(&host, Destroyed)?;
    back.start(&host)?;
    // Twice: what was told is not told again.
    for kill in [false, true] {
        host.daemon.start_again()?;
        for (vm, _) in &vms {
            vm.check(&host)?;
        }
        idle.check(&host)?;
        passer_by.check(&host)?;
        back.check(&host)?;
        host.wait_status(&back.guest, "up");
        assert!(host.run(&back.guest).is_some_and(|run| run > first + 1), "two runs came between");
        if kill {
            host.daemon.kill_9()?;
        } else {
            host.daemon.terminate()?;
        }
    }
    host.daemon.start_again()?;
    for (vm, _) in &vms {
        vm.check(&host)?;
    }
    Ok(())
}

#[test]
fn a_rename_or_another_domain_of_the_same_name_mixes_no_runs() -> Result<()> {
    let mut host = Host::start("renamed")?;
    let mut renamed = Vm::new(&host, "renamed", true)?;
    let mut gone = Vm::new(&host, "same", true)?;
    drop((host.up_persistent(&renamed.guest)?, host.up_persistent(&gone.guest)?));

    host.daemon.terminate()?;
    renamed.end(&host, Off)?;
    renamed.rename(&host)?;
    renamed.start(&host)?;
    renamed.end(&host, Destroyed)?;
    renamed.rename(&host)?;
    renamed.start(&host)?;
    renamed.end(&host, Killed)?;
    gone.end(&host, Destroyed)?;
    host.libvirtd.virsh(&["undefine", "same"])?;
    // Another domain of that name, in the same log.
    let mut other = Vm::new(&host, "same", true)?;
    host.libvirtd.define(&other.guest)?;
    other.start(&host)?;
    other.end(&host, Off)?;
    host.daemon.start_again()?;
    for vm in [&renamed, &gone, &other] {
        vm.check(&host)?;
    }
    Ok(())
}

/// A perfect copy of a start of this VM, and of its end, in the first argument of who sends the signal.
#[test]
fn a_run_that_stands_in_a_senders_name_never_was() -> Result<()> {
    let mut host = Host::start("forged")?;
    let guests = [("open", "evil\n"), ("closed", "evil)\n")];
    let guests = guests.map(|(name, begin)| Ok::<_, whydown_lab::Error>((host.guest(name)?, begin)));
    let guests: Vec<_> = guests.into_iter().collect::<Result<_>>()?;
    for (guest, _) in &guests {
        drop(host.up_persistent(guest)?);
    }
    host.daemon.terminate()?;
    for (guest, begin) in &guests {
        let log = host.libvirtd.directory().join(format!("log/qemu/{}.log", guest.name()));
        let log = std::fs::read_to_string(log).expect("a log");
        let (start, _) = log.split_once("-msg timestamp=on\n").expect("libvirt's command line");
        let end = "2026-11-28 00:00:00.000+0000: shutting down, reason=destroyed\n";
        let name = format!("{begin}{start}-msg timestamp=on\n{end}(");
        let qemu = host.libvirtd.qemu(guest.name())?;
        let script = "import os, sys; os.kill(int(sys.argv[1]), 15); sys.stdin.read()";
        let mut sender = Command::new("/usr/bin/python3")
            .arg0(name)
            .args(["-c", script, &qemu.pid().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("it runs");
        let gone = qemu.wait_gone(PATIENCE);
        drop(sender.stdin.take());
        sender.wait().expect("it ends");
        gone?;
    }
    host.daemon.start_again()?;
    for (guest, _) in &guests {
        host.wait_status(guest, "down");
        let past = host.past(guest)?;
        assert_eq!((past.len(), &past[0]["cause"]), (1, &"process-terminated".into()), "{past:#?}");
        assert!(says(&past[0]["because"], "evil"), "{past:#?}");
    }
    Ok(())
}

#[test]
fn runs_before_a_restart_of_libvirtd_are_told_by_their_logs() -> Result<()> {
    let mut host = Host::start("forgot")?;
    let mut vms = persistent_and_transient(&host)?;
    host.daemon.terminate()?;
    for (vm, ways) in &mut vms {
        for (place, way) in ways.iter().enumerate() {
            if place > 0 {
                vm.start(&host)?;
            }
            vm.end(&host, *way)?;
        }
    }
    host.libvirtd.restart()?;
    host.daemon.start_again()?;
    for (vm, _) in &vms {
        vm.check(&host)?;
    }
    Ok(())
}
