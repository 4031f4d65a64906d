//! What an action may touch: one VM on its stage, by the means that an administrator, a manager or a rogue has.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use whydown_lab::{Console, FullDisk, Guest, LinuxGuest, Qemu, Serial, Signal, run, wait_for};

use crate::case::Kind;
use crate::host::{Host, PATIENCE};

/// One VM on its stage.
pub struct Scene<'a> {
    /// Where it is.
    pub host: &'a Host,
    /// Where it may go, on a stage of two.
    pub there: Option<&'a Host>,
    /// What it is.
    pub guest: Guest,
    /// The same, where it is a whole Linux.
    pub linux: Option<LinuxGuest>,
    /// How libvirt holds it.
    pub kind: Kind,
    /// Its full disk, if it has one.
    pub disk: Option<FullDisk>,
    /// Its process, taken when it was up, so that it can be signalled when libvirtd is away.
    pub process: Option<Qemu>,
    pub(crate) line: Option<Serial>,
    pub(crate) console: Option<Console>,
}

impl<'a> Scene<'a> {
    /// One that is not yet begun.
    pub fn new(host: &'a Host, there: Option<&'a Host>, guest: Guest, kind: Kind) -> Self {
        Self { host, there, guest, linux: None, kind, disk: None, process: None, line: None, console: None }
    }
}

impl Scene<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.guest.name()
    }

    /// The guest's serial line.
    pub fn serial(&mut self) -> Result<&mut Serial> {
        if self.line.is_none() {
            self.line = Some(self.guest.serial(PATIENCE)?);
        }
        self.line.as_mut().context("connected")
    }

    /// The Linux guest's serial line; it is ready.
    pub fn console(&mut self) -> Result<&mut Console> {
        if self.console.is_none() {
            let linux = self.linux.as_ref().context("it is a Linux guest")?;
            self.console = Some(linux.console(PATIENCE)?);
        }
        self.console.as_mut().context("connected")
    }

    /// Waits until libvirt reaches its guest agent.
    pub fn wait_agent(&self) -> Result<()> {
        let what = format!("the guest agent of {}", self.name());
        Ok(wait_for(&what, PATIENCE, || self.virsh("domtime VM").ok())?)
    }

    /// Starts it through libvirt, as another client does; neither waits for the guest nor for whydown.
    pub fn start(&self) -> Result<()> {
        match self.kind {
            Kind::Persistent => Ok(self.host.libvirtd.start_domain(self.name())?),
            Kind::Transient => Ok(self.host.libvirtd.create(&self.guest)?),
        }
    }

    /// virsh with the domain's name in the place of `VM`.
    pub fn virsh(&self, line: &str) -> Result<()> {
        let arguments: Vec<&str> =
            line.split_whitespace().map(|word| if word == "VM" { self.name() } else { word }).collect();
        Ok(self.host.libvirtd.virsh(&arguments).map(drop)?)
    }

    /// The same for what must be refused.
    pub fn virsh_refused(&self, line: &str) -> Result<()> {
        match self.virsh(line) {
            Err(_) => Ok(()),
            Ok(()) => bail!("virsh {line} was not refused"),
        }
    }

    /// The same for what breaks off as QEMU ends before it answers, or takes its time: any outcome is right.
    pub fn virsh_whatever(&self, line: &str) -> Result<()> {
        // The outcome is seen by what becomes of the VM.
        let _ = self.virsh(line);
        Ok(())
    }

    /// Signals QEMU.
    pub fn kill(&mut self, signal: Signal) -> Result<()> {
        Ok(self.process.as_ref().context("it was never up")?.signal(signal)?)
    }

    /// Waits until its process has ended.
    pub fn wait_process_gone(&self) -> Result<()> {
        Ok(self.process.as_ref().context("it was never up")?.wait_gone(PATIENCE)?)
    }

    /// Waits for libvirt's state of it, in virsh's words.
    pub fn wait_state(&self, state: &str) -> Result<()> {
        Ok(self.host.libvirtd.wait_state(self.name(), Some(state), PATIENCE)?)
    }

    /// Waits until it is off, or gone.
    pub fn wait_off(&self) -> Result<()> {
        wait_for(&format!("the end of {}", self.name()), PATIENCE, || off(self.host, self.name()))
            .context("libvirt still has it")
    }

    /// Waits for an event that the lab's own ear hears.
    pub fn wait_event(&self, phrase: &str) -> Result<()> {
        self.host
            .recorder
            .wait(self.name(), 0, PATIENCE, |event| event.phrase().starts_with(phrase))
            .with_context(|| format!("no {phrase:?}"))
    }

    /// Calls a verb of whydown with the VM's UUID as the first parameter; it must be taken.
    pub fn verb(&self, verb: &str, more: &str) -> Result<()> {
        let call = format!("{verb}('{}'{more})", self.guest.uuid_text());
        match self.host.call(&call)? {
            0 => Ok(()),
            code => bail!("{call} was answered with code {code}"),
        }
    }

    /// Asks whydown for its start.
    pub fn create(&self) -> Result<()> {
        let document = self.guest.write_xml()?;
        let uuid = self.guest.uuid_text();
        let code = self
            .host
            .call(&format!("create({{'vmId': '{uuid}', 'xml': open('{}').read()}})", document.display()))?;
        if code != 0 {
            bail!("create was answered with code {code}");
        }
        Ok(())
    }

    /// Waits until whydown shows it Up and it answers.
    pub fn wait_up(&mut self) -> Result<()> {
        self.line = None;
        self.console = None;
        match self.linux {
            Some(_) => drop(self.console()?),
            None => self.serial()?.answer(PATIENCE)?,
        }
        self.host.wait_status(&self.guest, "up")
    }

    /// A command of virsh that goes on meanwhile, with the domain's name in the place of `VM`.
    pub fn virsh_begin(&self, line: &str) -> Result<std::process::Child> {
        let mut command = std::process::Command::new("virsh");
        command.args(["-q", "-c", &self.host.libvirtd.uri()]);
        command.args(line.split_whitespace().map(|word| if word == "VM" { self.name() } else { word }));
        command.stdin(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().context("virsh")
    }

    /// Lets real time pass: for rules that are about how long something lasted.
    pub fn let_pass(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        let what = "the passing of time";
        Ok(wait_for(what, time + PATIENCE, || (Instant::now() >= until).then_some(()))?)
    }

    /// A file of this VM's own beside it.
    pub fn file(&self, name: &str) -> String {
        self.host.folder.path().join(format!("{}.{name}", self.name())).display().to_string()
    }

    /// The document of the same VM for the other stage, where its serial line has another socket.
    pub fn document_there(&self) -> Result<String> {
        let there = self.there.context("a stage of two")?;
        let serial = there.folder.path().join(format!("{}.ser", self.name()));
        let here = self.guest.serial_path().display().to_string();
        let path = there.folder.path().join(format!("{}.xml", self.name()));
        // The document of the running VM, as libvirt holds it: a restarted libvirtd no longer knows `pc` by that name.
        let said = self.host.libvirtd.virsh(&["dumpxml", self.name(), "--migratable"])?;
        let document = String::from_utf8_lossy(&said.stdout).into_owned();
        ensure!(document.contains(&here), "its document has no serial line at {here}");
        std::fs::write(&path, document.replace(&here, &serial.display().to_string()))?;
        Ok(path.display().to_string())
    }

    /// The arguments of a migration to the other stage; more may be put behind.
    pub fn migration(&self) -> Result<String> {
        let there = self.there.context("a stage of two")?;
        let document = self.document_there()?;
        let persist = match self.kind {
            Kind::Persistent => format!(" --persistent --persistent-xml {document}"),
            Kind::Transient => String::new(),
        };
        Ok(format!(
            "migrate VM --live --desturi {} --migrateuri unix://{} --xml {document}{persist}",
            there.libvirtd.uri(),
            there.folder.path().join(format!("{}.mig", self.name())).display(),
        ))
    }

    /// The process of the copy that is on its way in on the other stage.
    pub fn process_there(&self) -> Result<Qemu> {
        let there = self.there.context("a stage of two")?;
        let name = self.name();
        Ok(wait_for(&format!("QEMU of {name} on the destination"), PATIENCE, || {
            there.libvirtd.qemu(name).ok()
        })?)
    }

    /// Waits until some memory has been sent and some is left.
    pub fn wait_in_flight(&self) -> Result<()> {
        let there = self.there.context("a stage of two")?;
        there
            .recorder
            .wait(self.name(), 0, PATIENCE, |event| event.phrase().starts_with("Started Migrated"))?;
        Ok(wait_for("a migration in flight", PATIENCE, || {
            let said = self.host.libvirtd.virsh(&["domjobinfo", self.name()]).ok()?;
            let said = String::from_utf8_lossy(&said.stdout).into_owned();
            let processed = said.lines().find_map(|line| line.strip_prefix("Data processed:"))?;
            (!processed.trim().starts_with("0.000")).then_some(())
        })?)
    }

    /// Runs a program that must end well.
    pub fn program(&self, program: &str, arguments: &[&str]) -> Result<()> {
        Ok(run(std::process::Command::new(program).args(arguments), PATIENCE).map(drop)?)
    }
}

/// A scene while its stage is changed: what of it outlives that.
pub struct Parked {
    guest: Guest,
    kind: Kind,
    disk: Option<FullDisk>,
    process: Option<Qemu>,
    line: Option<Serial>,
    linux: Option<LinuxGuest>,
    console: Option<Console>,
}

impl Scene<'_> {
    /// Lets go of the stage.
    pub fn park(self) -> Parked {
        let Self { guest, linux, kind, disk, process, line, console, .. } = self;
        Parked { guest, kind, disk, process, line, linux, console }
    }
}

impl Parked {
    /// Takes hold of the stage again.
    pub fn unpark<'a>(self, host: &'a Host, there: Option<&'a Host>) -> Scene<'a> {
        let Self { guest, kind, disk, process, line, linux, console } = self;
        Scene { host, there, guest, linux, kind, disk, process, line, console }
    }

    /// Waits until it is off, or gone.
    pub fn wait_off(&self, host: &Host) -> Result<()> {
        wait_for(&format!("the end of {}", self.guest.name()), PATIENCE, || off(host, self.guest.name()))
            .context("libvirt still has it")
    }

    /// Starts it again, and waits until it listens.
    pub fn start_again(&mut self, host: &Host) -> Result<()> {
        self.line = None;
        match self.kind {
            Kind::Persistent => host.libvirtd.start_domain(self.guest.name())?,
            Kind::Transient => host.libvirtd.create(&self.guest)?,
        }
        self.line = Some(self.guest.serial(PATIENCE)?);
        Ok(())
    }
}

/// Something, if libvirt shows it off or does not know it.
pub(crate) fn off(host: &Host, name: &str) -> Option<()> {
    match host.libvirtd.state(name) {
        Ok(None) => Some(()),
        Ok(Some(state)) if state.starts_with("shut off") => Some(()),
        _ => None,
    }
}
