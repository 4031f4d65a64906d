//! What is shown of a VM that goes on is what libvirt says of it, whatever it went through.

#![allow(clippy::print_stdout, reason = "a test that fails shows its seed and what came before")]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{SystemTime, UNIX_EPOCH};

use whydown_lab::{BootDisk, Guest, OnCrash, Result, WatchdogAction, lab_dir, wait_until, xmlrpc_client};

use whydown_lab::host::{Host, PATIENCE};

/// Bursts of orders; after each it must be quiet and right.
const BURSTS: usize = 8;

/// Clients that give orders at once.
const CLIENTS: usize = 3;

/// Orders of each client in a burst.
const ORDERS: u64 = 3;

/// A sequence of numbers that a seed repeats.
struct Dice(u64);

impl Dice {
    fn of_now() -> Self {
        let given = std::env::var("STATES_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(given.unwrap_or(now.subsec_nanos().into()))
    }

    fn below(&mut self, bound: u64) -> u64 {
        // Knuth's multiplier; the high bits are the good ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What a client does; any outcome is right, as only what becomes of the VM counts.
fn order(host: &Host, guest: &Guest, which: u64) {
    let name = guest.name();
    let virsh = |line: &str| {
        let words: Vec<&str> = line.split(' ').map(|word| if word == "VM" { name } else { word }).collect();
        let _ = host.libvirtd.try_virsh(&words);
    };
    let say = |letter: &[u8]| {
        if let Ok(mut line) = UnixStream::connect(guest.serial_path()) {
            let _ = line.write_all(letter);
        }
    };
    let verb = |verb: &str| {
        let _ = host.call(&format!("{verb}('{}')", guest.uuid_text()));
    };
    match which {
        0 | 1 => virsh("suspend VM"),
        2..=4 => virsh("resume VM"),
        5 | 6 => virsh("reset VM"),
        7 => say(b"r"),
        8 => say(b"w"),
        9 => say(b"c"),
        10 => verb("pause"),
        11 => verb("cont"),
        12 => virsh("shutdown VM --mode acpi"),
        13 => {
            virsh("managedsave VM");
            virsh("start VM");
        }
        14 => {
            let file = host.folder.path().join(format!("{name}.dump")).display().to_string();
            virsh(&format!("dump VM {file} --memory-only"));
        }
        15 => virsh("qemu-monitor-command VM --hmp stop"),
        16 => virsh("qemu-monitor-command VM --hmp system_reset"),
        17 => say(b"d"),
        18 => {
            let file = host.folder.path().join(format!("{name}.saved")).display().to_string();
            virsh(&format!("save VM {file}"));
            virsh(&format!("restore {file} --paused"));
        }
        _ => {
            virsh("destroy VM");
            virsh("start VM --paused");
        }
    }
}

/// libvirt's state and reason, as virsh says it.
fn of_libvirt(host: &Host, guest: &Guest) -> String {
    let said = host.libvirtd.try_virsh(&["domstate", guest.name(), "--reason"]).expect("virsh runs");
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// What a manager must read then: the status, and the pause code.
fn due(state: &str) -> &'static str {
    match state {
        state if state.starts_with("running") => "Up None",
        "paused (I/O error)" => "Paused ENOSPC",
        state if state.starts_with("paused") => "Paused NOERR",
        state if state.starts_with("crashed") || state.starts_with("pmsuspended") => "Paused NOERR",
        state if state.starts_with("in shutdown") => "Powering down None",
        state if state.starts_with("shut off") => "Down None",
        _ => "no state of libvirt",
    }
}

fn read(host: &Host, guest: &Guest) -> String {
    let code = format!(
        "vm = server.getVmStats('{}')['statsList'][0]\nprint(vm['status'], vm.get('pauseCode'))",
        guest.uuid_text()
    );
    xmlrpc_client(host.daemon.port().unwrap_or_default(), &code).unwrap_or_else(|error| error.to_string())
}

/// Waits until what is shown is what libvirt says, before and after it was read.
fn agrees(host: &Host, guest: &Guest) {
    let mut last = (String::new(), String::new());
    wait_until(&format!("{} is shown as libvirt has it", guest.name()), PATIENCE, || {
        let before = of_libvirt(host, guest);
        let shown = read(host, guest);
        let agrees = shown == due(&before) && of_libvirt(host, guest) == before;
        if (before.clone(), shown.clone()) != last {
            println!("{}: libvirt: {before}; shown: {shown}", guest.name());
            last = (before, shown);
        }
        agrees
    });
}

#[test]
fn after_any_orders_of_several_clients_states_and_pause_codes_are_libvirts() -> Result<()> {
    let host = Host::start("states")?;
    let mut dice = Dice::of_now();
    println!("STATES_SEED={}", dice.0);
    let disk = host.libvirtd.full_disk("full")?;
    let guests = [
        host.guest("full")?.boot_disk(BootDisk::Writable("stop")).image(disk.image()),
        host.guest("kept")?.on_crash(OnCrash::Preserve),
        host.guest("dog")?.watchdog(WatchdogAction::Pause).on_crash(OnCrash::Preserve),
    ];
    for guest in &guests {
        host.up_persistent(guest)?.ignore_button()?;
    }
    for burst in 0..BURSTS {
        let mut orders = Vec::new();
        for _ in 0..CLIENTS {
            let of_one: Vec<_> =
                (0..ORDERS).map(|_| (dice.below(guests.len() as u64) as usize, dice.below(20))).collect();
            orders.push(of_one);
        }
        println!("burst {burst}: {orders:?}");
        std::thread::scope(|scope| {
            for client in &orders {
                scope
                    .spawn(|| client.iter().for_each(|(guest, which)| order(&host, &guests[*guest], *which)));
            }
        });
        guests.iter().for_each(|guest| agrees(&host, guest));
        for guest in &guests {
            if of_libvirt(&host, guest).starts_with("shut off") || dice.below(4) == 0 {
                let _ = host.libvirtd.try_virsh(&["destroy", guest.name()]);
                host.libvirtd.start_domain(guest.name())?;
                agrees(&host, guest);
            }
        }
    }
    Ok(())
}

#[test]
fn a_host_whose_vms_have_processes_that_cannot_be_seen_says_so() -> Result<()> {
    // As where libvirt runs in a pid namespace of its own: its numbers are of no process here, or of a foreign one.
    let foreign = lab_dir()?;
    std::fs::write(foreign.path().join("far.pid"), std::process::id().to_string()).expect("written");
    let run_dir = foreign.path().display().to_string();
    let host = Host::start_as("far", "", |launch| launch.environment("WHYDOWN_LIBVIRT__RUN_DIR", &run_dir))?;
    let unseen = |host: &Host| -> Result<bool> {
        let health = host.whydown(&["--json", "health"])?;
        let unavailable = health["unavailable_sources"].as_array().expect("a list");
        let says = |one: &serde_json::Value| {
            one["why"].as_str().is_some_and(|why| why.contains("process of 1 of 1 VMs"))
        };
        Ok(unavailable.iter().any(says))
    };
    assert!(!unseen(&host)?, "nothing runs");
    let guest = host.guest("far")?;
    let _serial = host.up(&guest)?;
    assert!(unseen(&host)?);
    let doctor = whydown_lab::run(
        std::process::Command::new(env!("CARGO_BIN_EXE_whydown"))
            .arg("--socket")
            .arg(host.daemon.socket_path())
            .arg("doctor"),
        PATIENCE,
    );
    let said = format!("{doctor:?}");
    assert!(said.contains("exit-status: the process of 1 of 1 VMs that run cannot be seen"), "{said}");
    Ok(())
}

#[test]
fn a_reset_of_a_paused_vm_and_a_panic_that_is_kept_are_shown_as_libvirt_has_them() -> Result<()> {
    let host = Host::start("kept")?;
    let disk = host.libvirtd.full_disk("full")?;
    let full = host.guest("full")?.boot_disk(BootDisk::Writable("stop")).image(disk.image());
    let kept = host.guest("kept")?.on_crash(OnCrash::Preserve);
    let (mut full_line, mut kept_line) = (host.up_persistent(&full)?, host.up_persistent(&kept)?);
    host.libvirtd.virsh(&["suspend", "kept"])?;
    host.libvirtd.virsh(&["reset", "kept"])?;
    agrees(&host, &kept);
    assert_eq!(read(&host, &kept), "Paused NOERR");
    host.libvirtd.virsh(&["resume", "kept"])?;
    kept_line.answer(PATIENCE)?;
    agrees(&host, &kept);
    kept_line.panic()?;
    host.libvirtd.wait_state("kept", Some("crashed (panicked)"), PATIENCE)?;
    agrees(&host, &kept);

    full_line.write_sector()?;
    host.libvirtd.wait_state("full", Some("paused (I/O error)"), PATIENCE)?;
    host.libvirtd.virsh(&["reset", "full"])?;
    agrees(&host, &full);
    assert_eq!(read(&host, &full), "Paused ENOSPC");
    let told = host.why(&full).expect("it runs");
    let by = told["domain"]["paused_by"].as_str().unwrap_or_default();
    assert!(by.starts_with("an I/O error: enospc"), "{told:#}");
    Ok(())
}
