//! A stage: a libvirtd of one's own, whydownd beside it, and the lab's own ear.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use whydown_lab::{Guest, Launch, Libvirtd, Whydownd, lab_dir, run, wait_for, xmlrpc_client};

use crate::recorder::Recorder;

/// Longer than anything here takes, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs whydownd in a mount namespace with a `/run` and a boot id of its own: `$1` is the file with the id.
const IN_A_HOST: &str = "#!/bin/sh
exec unshare --mount --propagation private sh -c '
mount -t tmpfs -o mode=755 lab-run /run && mkdir -p /run/systemd/system &&
mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"' BOOT_ID PROGRAM \"$@\"
";

/// Where the programs under test are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The daemon.
    pub whydownd: PathBuf,
    /// The command line.
    pub whydown: PathBuf,
}

impl Programs {
    /// Both in the folder of this program, where Cargo puts all of a workspace.
    pub fn beside_this_one() -> Result<Self> {
        let this = std::env::current_exe().context("the path of this program")?;
        let folder = this.parent().context("a program lies in a folder")?;
        let programs = Self { whydownd: folder.join("whydownd"), whydown: folder.join("whydown") };
        for program in [&programs.whydownd, &programs.whydown] {
            ensure!(program.is_file(), "{} is missing: cargo build --workspace --bins", program.display());
        }
        Ok(programs)
    }
}

/// A stage. Dropped in this order: the daemon before its libvirtd.
pub struct Host {
    /// The daemon under test.
    pub daemon: Whydownd,
    /// Its libvirtd.
    pub libvirtd: Libvirtd,
    /// The lab's own ear.
    pub recorder: Recorder,
    /// Everything lies here.
    pub folder: TempDir,
    programs: Programs,
}

impl Host {
    /// An ordinary one.
    pub fn start(name: &str, programs: &Programs) -> Result<Self> {
        Self::start_with(name, programs, |_| Ok(programs.whydownd.clone()))
    }

    /// One whose whydownd hears from the kernel who sends signals.
    pub fn start_tracing(name: &str, programs: &Programs) -> Result<Self> {
        Self::start_as(name, programs, |_| Ok(programs.whydownd.clone()), Launch::tracefs)
    }

    /// One whose boots the lab decides.
    pub fn start_bootable(name: &str, programs: &Programs) -> Result<Self> {
        Self::start_with(name, programs, |folder| {
            let (id, wrapper) = (folder.join("boot-id"), folder.join("in-a-host"));
            std::fs::copy("/proc/sys/kernel/random/boot_id", &id).context("the boot id")?;
            let text = IN_A_HOST
                .replace("BOOT_ID", &id.display().to_string())
                .replace("PROGRAM", &programs.whydownd.display().to_string());
            std::fs::write(&wrapper, text)?;
            run(Command::new("chmod").arg("755").arg(&wrapper), PATIENCE)?;
            Ok(wrapper)
        })
    }

    fn start_with(
        name: &str,
        programs: &Programs,
        program: impl Fn(&Path) -> Result<PathBuf>,
    ) -> Result<Self> {
        Self::start_as(name, programs, program, |launch| launch)
    }

    fn start_as(
        name: &str,
        programs: &Programs,
        program: impl Fn(&Path) -> Result<PathBuf>,
        change: impl Fn(Launch) -> Launch,
    ) -> Result<Self> {
        let folder = lab_dir()?;
        let libvirtd = Libvirtd::start(folder.path().join("l"), name)?;
        // This libvirtd lives in namespaces of its own: its files are elsewhere than its address says.
        let its = libvirtd.directory();
        let config = format!(
            "[libvirt]\nlog_dir = '{}'\nrun_dir = '{}'\ndaemon_log = '{}'\n",
            its.join("log/qemu").display(),
            its.join("run/qemu").display(),
            libvirtd.log_path().display()
        );
        let launch = Launch::new(program(folder.path())?, folder.path().join("d"), &libvirtd.uri());
        let recorder = Recorder::start(&libvirtd.uri())?;
        let daemon = Whydownd::start(change(launch.config(&config)))?;
        let host = Self { daemon, libvirtd, recorder, folder, programs: programs.clone() };
        host.wait_ear()?;
        Ok(host)
    }

    /// Has the lab's own ear listen to a libvirtd that was started again.
    pub fn listen(&mut self) -> Result<()> {
        self.recorder.listen()?;
        self.wait_ear()
    }

    /// virsh does not say when it listens: a domain that is never started is defined until that is heard.
    fn wait_ear(&self) -> Result<()> {
        const DOCUMENT: &str = "<domain type='qemu'><name>lab-ear</name><memory unit='MiB'>2</memory>\
                                <os><type arch='x86_64' machine='pc'>hvm</type></os></domain>";
        let path = self.folder.path().join("ear.xml");
        std::fs::write(&path, DOCUMENT)?;
        let before = self.recorder.of("lab-ear").len();
        wait_for("an event that the lab hears", PATIENCE, || {
            self.libvirtd.virsh(&["define", &path.to_string_lossy()]).ok()?;
            let _ = self.libvirtd.virsh(&["undefine", "lab-ear"]);
            (self.recorder.of("lab-ear").len() > before).then_some(())
        })?;
        Ok(())
    }

    /// The host's service manager says from now on that it stops the system (only on a bootable host).
    pub fn announce_stop(&self) -> Result<()> {
        let pid = self.daemon.pid().context("whydownd runs")?;
        let folder = PathBuf::from(format!("/proc/{pid}/root/run/systemd/shutdown"));
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::write(folder.join("scheduled"), "USEC=1\nWARN_WALL=0\nMODE=poweroff\n")?)
    }

    /// The next boot of a bootable host whose daemons are dead: another id, an empty `/run`.
    pub fn next_boot(&self) -> Result<()> {
        // A bind mount shows the file that it was made of: the next daemon binds this one.
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        std::fs::write(self.folder.path().join("boot-id"), id)?;
        let run = self.libvirtd.directory().join("run");
        std::fs::remove_dir_all(&run)?;
        Ok(std::fs::create_dir(&run)?)
    }

    /// A guest that is not yet started.
    pub fn guest(&self, name: &str) -> Result<Guest> {
        Ok(Guest::new(self.folder.path(), name)?)
    }

    /// A page of the daemon; `None` if it has nothing to tell.
    pub fn ask(&self, target: &str) -> Option<Value> {
        let mut stream = UnixStream::connect(self.daemon.socket_path()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let request = format!("GET {target} HTTP/1.0\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        if !head.starts_with("HTTP/1.0 200 ") {
            return None;
        }
        serde_json::from_str(body).ok()
    }

    /// The domain as it is shown.
    pub fn shown(&self, guest: &Guest) -> Option<Value> {
        Some(self.ask(&format!("/v1/why?vm={}", guest.uuid_text()))?["domain"].take())
            .filter(|domain| !domain.is_null())
    }

    /// Its status.
    pub fn status(&self, guest: &Guest) -> Option<String> {
        Some(self.shown(guest)?["status"].as_str()?.to_owned())
    }

    /// Its present run.
    pub fn run(&self, guest: &Guest) -> Option<i64> {
        self.shown(guest)?["run"].as_i64()
    }

    /// Waits for a status.
    pub fn wait_status(&self, guest: &Guest, status: &str) -> Result<()> {
        let mut last = None;
        wait_for(&format!("the status {status} of {}", guest.name()), PATIENCE, || {
            last = self.status(guest);
            (last.as_deref() == Some(status)).then_some(())
        })
        .with_context(|| format!("the last status was {last:?}"))
    }

    /// All endings of a domain, newest first.
    pub fn past(&self, guest: &Guest) -> Result<Vec<Value>> {
        let history = self
            .ask(&format!("/v1/history?vm={}&limit=100", guest.uuid_text()))
            .context("the daemon's history")?;
        Ok(history["endings"].as_array().context("a list of endings")?.clone())
    }

    /// Waits until a run has its ending; the first one that is told where the run was never seen.
    pub fn wait_ending(&self, guest: &Guest, run: Option<i64>) -> Result<Value> {
        let what = format!("the ending of {}, run {run:?}", guest.name());
        let of_run = |ending: &Value| run.is_none_or(|run| ending["run"] == run);
        let found = wait_for(&what, PATIENCE, || self.past(guest).ok()?.into_iter().find(of_run));
        found.with_context(|| format!("whydown shows {:?}", self.shown(guest).map(|s| s["status"].clone())))
    }

    /// `whydown --json why`.
    pub fn why(&self, guest: &Guest) -> Result<Value> {
        let mut command = Command::new(&self.programs.whydown);
        command.arg("--socket").arg(self.daemon.socket_path()).args(["--json", "why", guest.uuid_text()]);
        let done = run(&mut command, PATIENCE)?;
        serde_json::from_slice(&done.stdout).context("what whydown prints")
    }

    /// What managers of both ranges read of these VMs: by UUID `[classic, full]`, nothing for VMs that are not there.
    pub fn polled(&self, uuids: &[&str]) -> Result<Value> {
        let port = self.daemon.port()?;
        let code = format!(
            "import json\n\
             full = xmlrpc.client.ServerProxy('http://127.0.0.1:{port}/', headers=[('X-Whydown-Exit-Reasons', 'full')])\n\
             def vm(s, id):\n    r = s.getVmStats(id)\n    return r['statsList'][0] if r['status']['code'] == 0 else None\n\
             print(json.dumps({{id: [vm(server, id), vm(full, id)] for id in {}}}))",
            serde_json::to_string(uuids)?
        );
        serde_json::from_str(&xmlrpc_client(port, &code)?).context("what Python prints")
    }

    /// Calls a verb and gives its status code.
    pub fn call(&self, call: &str) -> Result<i64> {
        let read = xmlrpc_client(self.daemon.port()?, &format!("print(server.{call}['status']['code'])"))?;
        read.trim().parse().context("a status code")
    }

    /// How often the daemon has found libvirt, over all its starts.
    pub fn links(&self) -> usize {
        let said = std::fs::read_to_string(self.daemon.output_path()).unwrap_or_default();
        said.matches("libvirt is there: ").count()
    }

    /// Waits until it has found libvirt more often than `before`, and shows what it found.
    pub fn wait_link(&self, before: usize) -> Result<()> {
        let found = wait_for("whydown finds libvirt again", PATIENCE, || {
            let linked = || self.ask("/v1/health").is_some_and(|health| health["link_lost_since"].is_null());
            (self.links() > before && linked()).then_some(())
        });
        Ok(found?)
    }
}
