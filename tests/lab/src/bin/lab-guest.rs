//! `lab-guest DIRECTORY NAME [linux|liar]`: one guest, small or with Linux, under a libvirtd of its own, to try things on.
//!
//! Prints where everything is and holds it until its input ends; then all is gone.

use std::error::Error;
use std::io::{Read, Write};
use std::time::Duration;

use whydown_lab::{Agent, Guest, Libvirtd, LinuxGuest};

const LIMIT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: lab-guest DIRECTORY NAME [linux|liar]".into());
    };
    std::fs::create_dir_all(&directory)?;
    let directory = std::fs::canonicalize(directory)?;
    let libvirtd = Libvirtd::start(directory.join("libvirt"), "lab-guest")?;
    // The line is free again as soon as the guest is known to be up.
    let agent = arguments.next().map(|kind| if kind == "liar" { Agent::Liar } else { Agent::Real });
    let guest = if let Some(agent) = agent {
        let linux = LinuxGuest::new(&directory, &name)?.agent(agent);
        libvirtd.create(&linux)?;
        drop(linux.console(LIMIT)?);
        Guest::clone(&linux)
    } else {
        let guest = Guest::new(&directory, &name)?;
        libvirtd.create(&guest)?;
        drop(guest.serial(LIMIT)?);
        guest
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "uri {}", libvirtd.uri())?;
    writeln!(out, "serial {}", guest.serial_path().display())?;
    writeln!(out, "log {}", libvirtd.domain_log_path(&name).display())?;
    writeln!(out, "pid {}", libvirtd.qemu(&name)?.pid())?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
