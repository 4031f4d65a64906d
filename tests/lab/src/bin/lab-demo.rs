//! `lab-demo [--keep]`: real guests, each ended in its own way, and what whydown tells of it.
//!
//! Runs `whydownd` and `whydown` from the folder of this program, on libvirt's QEMU driver inside the daemon itself.
//! Everything lies in one temporary folder. With `--keep` all goes on until its input ends.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use whydown_lab::{
    EmbedRoot, Error, Guest, Launch, Signal, Whydownd, lab_dir, run, wait_until, xmlrpc_client,
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Demo {
    daemon: Whydownd,
    whydown: PathBuf,
}

impl Demo {
    fn say(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "\n--- {text}");
    }

    fn whydown(&self, arguments: &[&str]) -> Result<(), Error> {
        let mut command = Command::new(&self.whydown);
        command.arg("--socket").arg(self.daemon.socket_path()).args(arguments);
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "$ whydown {}", arguments.join(" "));
        let done = run(&mut command, PATIENCE)?;
        let _ = out.write_all(&done.stdout);
        Ok(())
    }

    fn ask(&self, code: &str) -> Result<String, Error> {
        xmlrpc_client(self.daemon.port()?, code)
    }

    fn create(&self, guest: &Guest) -> Result<(), Error> {
        let document = guest.write_xml()?;
        let code = format!(
            "import sys\nr = server.create({{'vmId': '{}', 'xml': open('{}').read()}})\nassert r['status']['code'] == 0, r",
            guest.uuid_text(),
            document.display()
        );
        self.ask(&code).map(drop)
    }

    fn is_down(&self, guest: &Guest) -> bool {
        let code = format!("print(server.getVmStats('{}')['statsList'][0]['status'])", guest.uuid_text());
        self.ask(&code).is_ok_and(|status| status.trim() == "Down")
    }

    fn wait_down(&self, guest: &Guest) {
        wait_until(&format!("{} is down", guest.name()), PATIENCE, || self.is_down(guest));
    }
}

fn main() -> Result<(), Error> {
    let keep = std::env::args().skip(1).any(|argument| argument == "--keep");
    let programs =
        std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf)).unwrap_or_default();
    let folder = lab_dir()?;
    let root = EmbedRoot::new(folder.path().join("e"))?;
    let launch = Launch::new(programs.join("whydownd"), folder.path().join("d"), &root.uri());
    let mut demo = Demo { daemon: Whydownd::start(launch)?, whydown: programs.join("whydown") };
    demo.say(&format!("whydownd runs on {}", root.uri()));

    let guests = folder.path().join("g");
    std::fs::create_dir_all(&guests).map_err(|source| Error::Io { what: "make a folder".into(), source })?;
    let guest = |name: &str| Guest::new(&guests, name);
    let (web, db, mail, app, cache) =
        (guest("web")?, guest("db")?, guest("mail")?, guest("app")?, guest("cache")?);
    let broken = guest("broken")?.image(guests.join("no-such-disk.img"));
    demo.say("five guests are started through XML-RPC, and one that cannot start");
    for guest in [&web, &db, &mail, &app, &cache, &broken] {
        demo.create(guest)?;
    }
    let mut lines = Vec::new();
    for guest in [&web, &db, &mail, &app, &cache] {
        lines.push(guest.serial(PATIENCE)?);
    }
    demo.wait_down(&broken);
    demo.whydown(&["list"])?;

    demo.say("web powers itself off; db's process is killed; mail panics; app is shut down and cache destroyed by a manager");
    lines[0].power_off()?;
    root.qemu("db")?.signal(Signal::KILL)?;
    lines[2].panic()?;
    demo.ask(&format!("print(server.shutdown('{}', '0', '')['status'])", app.uuid_text()))?;
    demo.ask(&format!("print(server.destroy('{}')['status'])", cache.uuid_text()))?;
    for guest in [&web, &db, &mail, &app] {
        demo.wait_down(guest);
    }
    demo.whydown(&["list"])?;
    demo.whydown(&["why", "db"])?;

    demo.say("the daemon is killed and started again: the answers are still there");
    demo.daemon.kill_9()?;
    demo.daemon.start_again()?;
    demo.whydown(&["history"])?;
    demo.say("and this is what a manager reads, with Python's xmlrpc.client");
    let shown = demo.ask(
        "import pprint\nfor vm in server.getAllVmStats()['statsList']:\n    pprint.pprint({k: vm[k] for k in vm if k in ('vmId', 'vmName', 'status', 'exitCode', 'exitMessage', 'exitReason', 'exitCause', 'exitCertainty')})",
    )?;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", shown.trim_end());
    if keep {
        let _ = writeln!(
            out,
            "\nIt goes on. XML-RPC: http://127.0.0.1:{}/   whydown --socket {} list\nEnd it with Ctrl-D.",
            demo.daemon.port()?,
            demo.daemon.socket_path().display()
        );
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
    drop(out);
    drop(demo);
    drop(root);
    Ok(())
}
