//! `whydown hosts`: looks at hosts as a manager does, whydown's or VDSM's.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use whydown_manager::{
    Choice, Exit, Fleet, HostClient, Memory, News, Patience, Policy, Rhythm, Target, TlsFiles, then,
};

/// What to look at, and how.
#[derive(Debug, Args)]
pub struct Hosts {
    /// Hosts: http://HOST:PORT/ or https://HOST:PORT/.
    #[arg(required = true, value_name = "URL")]
    urls: Vec<String>,
    /// Look once, and end with status 1 if a host or a VM could not be read.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks at a host.
    #[arg(long, default_value_t = 3.0, value_name = "SECONDS")]
    every: f64,
    /// Acknowledge Down VMs when they have been told, so that their hosts forget them.
    #[arg(long, conflicts_with = "once")]
    acknowledge: bool,
    /// Say what follows if the VMs are to be kept running.
    #[arg(long)]
    highly_available: bool,
    /// For VMs to be kept running: do not restart, but alert, where the host does not know the cause.
    #[arg(long, requires = "highly_available")]
    alert_when_unknown: bool,
    /// Keep what was told in this file, so that the next start does not tell it again.
    #[arg(long, value_name = "FILE", conflicts_with = "once")]
    memory: Option<PathBuf>,
    /// Hosts that are spoken to at once.
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,
    /// For https: the authority of the hosts' certificates.
    #[arg(long, value_name = "PEM", requires_all = ["certificate", "key"])]
    ca: Option<PathBuf>,
    /// For https: our certificate.
    #[arg(long, value_name = "PEM")]
    certificate: Option<PathBuf>,
    /// For https: its key.
    #[arg(long, value_name = "PEM")]
    key: Option<PathBuf>,
}

impl Hosts {
    fn targets(&self) -> Vec<Target> {
        let tls = match (&self.ca, &self.certificate, &self.key) {
            (Some(ca), Some(certificate), Some(key)) => {
                Some(TlsFiles { ca: ca.clone(), certificate: certificate.clone(), key: key.clone() })
            }
            _ => None,
        };
        self.urls.iter().map(|url| Target { url: url.clone(), tls: tls.clone() }).collect()
    }

    fn policy(&self) -> Policy {
        let mut policy = Policy::new(self.highly_available);
        if self.alert_when_unknown {
            policy.when_unknown = Choice::Alert;
        }
        policy
    }
}

/// Runs the command; false if `--once` found something that could not be read.
pub async fn run(wanted: &Hosts, json: bool, out: &mut impl Write) -> anyhow::Result<bool> {
    let every = Duration::try_from_secs_f64(wanted.every).context("--every")?;
    anyhow::ensure!(every >= Duration::from_millis(100), "--every: at least 0.1 s");
    if wanted.once {
        once(wanted, json, out).await
    } else {
        follow(wanted, every, json, out).await.map(|()| true)
    }
}

async fn follow(wanted: &Hosts, every: Duration, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let at_once = usize::from(wanted.at_once);
    let rhythm = Rhythm { every, acknowledge: wanted.acknowledge, at_once, ..Rhythm::default() };
    let memory = wanted.memory.as_deref().map(recall).transpose()?.unwrap_or_default();
    let mut fleet = Fleet::start(&wanted.targets(), rhythm, memory)?;
    loop {
        let (number, piece) = match fleet.try_next() {
            Some(next) => next,
            // Written once for all that came together, and before anybody waits.
            None => {
                if let Some(file) = &wanted.memory {
                    remember(file, &fleet.memory())?;
                }
                match fleet.next().await {
                    Some(next) => next,
                    None => return Ok(()),
                }
            }
        };
        tell(wanted, &wanted.urls[number], &piece, json, out)?;
        out.flush()?;
    }
}

fn recall(file: &Path) -> anyhow::Result<Memory> {
    match std::fs::read(file) {
        Ok(text) => {
            serde_json::from_slice(&text).with_context(|| format!("{}: not our memory", file.display()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Memory::default()),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// In one piece or not at all.
fn remember(file: &Path, memory: &Memory) -> anyhow::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let text = serde_json::to_vec(memory).expect("a memory has only texts and numbers");
    std::fs::write(&beside, text)
        .and_then(|()| std::fs::rename(&beside, file))
        .with_context(|| file.display().to_string())
}

async fn once(wanted: &Hosts, json: bool, out: &mut impl Write) -> anyhow::Result<bool> {
    let mut all_read = true;
    for target in wanted.targets() {
        let client = HostClient::new(&target, Patience::default())?;
        match client.all_vm_stats().await {
            Ok(reading) => {
                let count = reading.broken.len();
                for bad in &reading.broken {
                    all_read = false;
                    tell(wanted, &target.url, &News::Broken { what: bad.to_string(), count }, json, out)?;
                }
                for vm in reading.vms {
                    let piece = match vm.exit {
                        Some(exit) => News::Ended { vm: vm.id, exit },
                        None => News::Status { vm: vm.id, status: vm.status },
                    };
                    tell(wanted, &target.url, &piece, json, out)?;
                }
            }
            Err(error) => {
                all_read = false;
                tell(wanted, &target.url, &News::Silent { why: error.to_string() }, json, out)?;
            }
        }
    }
    out.flush()?;
    Ok(all_read)
}

fn tell(wanted: &Hosts, host: &str, piece: &News, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let follows = |exit: &Exit| then(exit, &wanted.policy()).word();
    if json {
        let value = match piece {
            News::Answers { vms, broken } => {
                serde_json::json!({"host": host, "answers": true, "vms": vms, "unreadable": broken})
            }
            News::Silent { why } => serde_json::json!({"host": host, "answers": false, "why": why}),
            News::Status { vm, status } => serde_json::json!({"host": host, "vm": vm, "status": status}),
            News::Gone { vm } => serde_json::json!({"host": host, "vm": vm, "gone": true}),
            News::Stale { vm } => serde_json::json!({"host": host, "vm": vm, "stale": true}),
            News::Broken { what, count } => {
                serde_json::json!({"host": host, "broken": what, "unreadable": count})
            }
            News::Ended { vm, exit } => serde_json::json!({
                "host": host, "vm": vm, "status": "Down", "exit_code": exit.code,
                "exit_reason": exit.reason.or_placeholder(), "exit_reason_sent": exit.reason.sent(),
                "message": exit.message, "cause": exit.cause, "certainty": exit.certainty,
                "run": exit.run, "then": follows(exit),
            }),
        };
        writeln!(out, "{}", crate::visible::json_on_a_terminal(&value.to_string()))?;
        return Ok(());
    }
    let host = super::show::clean(host);
    match piece {
        News::Answers { vms, broken: 0 } => writeln!(out, "{host}  answers: {vms} VMs")?,
        News::Answers { vms, broken } => {
            writeln!(out, "{host}  answers: {vms} VMs, and {broken} that cannot be read")?;
        }
        News::Silent { why } => writeln!(out, "{host}  does not answer: {}", super::show::clean(why))?,
        News::Status { vm, status } => {
            writeln!(out, "{host}  {}  {}", super::show::clean(vm), super::show::clean(status))?;
        }
        News::Gone { vm } => writeln!(out, "{host}  {}  gone", super::show::clean(vm))?,
        News::Stale { vm } => {
            writeln!(out, "{host}  {}  told as it was before: not believed", super::show::clean(vm))?;
        }
        News::Broken { what, .. } => writeln!(out, "{host}  cannot be read: {}", super::show::clean(what))?,
        News::Ended { vm, exit } => {
            let cause =
                exit.cause.as_deref().map_or_else(String::new, |c| format!(" {}", super::show::clean(c)));
            writeln!(
                out,
                "{host}  {}  Down {}/{}{cause}: {} -> {}",
                super::show::clean(vm),
                exit.code,
                reason(exit),
                super::show::clean(&exit.message),
                follows(exit)
            )?;
        }
    }
    Ok(())
}

/// The number that we know, or the placeholder with the number that was sent.
fn reason(exit: &Exit) -> String {
    match (exit.reason.or_placeholder(), exit.reason.sent()) {
        (-1, Some(sent)) => format!("-1 (sent: {sent})"),
        (number, _) => number.to_string(),
    }
}
