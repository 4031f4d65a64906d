//! QEMUs that end by themselves while their guests run, in ways that have nothing to do with the guest.

use std::io::{Read, Write};
use std::net::TcpStream;

use whydown_lab::Result;

use whydown_lab::host::{Host, says, told};

fn monitor(host: &Host, name: &str, command: &str) -> Result<std::process::Output> {
    host.libvirtd.try_virsh(&["qemu-monitor-command", name, "--hmp", command])
}

#[test]
fn what_qemu_does_to_itself_is_told_as_its_own() -> Result<()> {
    let host = Host::start("itself")?;
    let ways = [
        ("aborts", "abort", told("qemu-crashed", 1, 2), "killed by signal 6"),
        ("terms", "sigraise 15", told("process-terminated", 1, 11), ": QEMU itself"),
    ];
    for (name, command, wanted, words) in ways {
        let guest = host.guest(name)?;
        let _line = host.up(&guest)?;
        let disk = "/machine/peripheral/virtio-disk0/virtio-backend";
        // libvirt's monitor breaks while it waits for the answer.
        let _ = monitor(&host, name, &format!("qemu-io -d {disk} \"{command}\""))?;
        let ending = host.ending(&guest);
        // On a busy host its monitor breaks before it has said that a signal ends it, and its log alone tells.
        let unsaid = ending["cause"] == "unknown-ended" && name == "terms";
        if !unsaid {
            host.check(&guest, &wanted, "probable")?;
        }
        let where_said = if unsaid { "evidence" } else { "because" };
        assert!(says(&ending[where_said], words), "{ending:#}");
        assert_eq!(ending["led_by"].as_array().map(Vec::len), Some(0), "{ending:#}");
    }
    Ok(())
}

/// QEMU says why it goes, and goes with status 0.
#[test]
fn a_qemu_that_a_debugger_ends_is_told_with_its_words() -> Result<()> {
    let host = Host::start("debugger")?;
    let guest = host.guest("gdb")?;
    let _line = host.up(&guest)?;
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("an address").port()
    };
    let _ = monitor(&host, "gdb", &format!("gdbserver tcp:127.0.0.1:{port}"))?;
    let mut gdb = TcpStream::connect(("127.0.0.1", port)).expect("QEMU listens");
    gdb.write_all(b"+$k#6b").expect("sent");
    let _ = gdb.read(&mut [0; 64]);
    let ending = host.check(&guest, &told("monitor-quit", 1, 11), "probable")?;
    assert!(says(&ending["because"], "Terminated via GDBstub"), "{ending:#}");
    assert!(
        ending["advice"].as_str().is_some_and(|said| said.contains("Terminated via GDBstub")),
        "{ending:#}"
    );
    Ok(())
}
