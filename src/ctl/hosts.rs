//! `whydown hosts`: looks at hosts as a manager does, whydown's or VDSM's.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use whydown_manager::{Exit, HostClient, News, Patience, Policy, Rhythm, Target, Then, TlsFiles, poll, then};

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
        Policy { highly_available: self.highly_available }
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
    let rhythm = Rhythm { every, acknowledge: wanted.acknowledge, ..Rhythm::default() };
    let mut news = poll(&wanted.targets(), rhythm)?;
    while let Some((number, piece)) = news.recv().await {
        tell(wanted, &wanted.urls[number], &piece, json, out)?;
        out.flush()?;
    }
    Ok(())
}

async fn once(wanted: &Hosts, json: bool, out: &mut impl Write) -> anyhow::Result<bool> {
    let mut all_read = true;
    for target in wanted.targets() {
        let client = HostClient::new(&target, Patience::default())?;
        match client.all_vm_stats().await {
            Ok(reading) => {
                for bad in &reading.broken {
                    all_read = false;
                    tell(wanted, &target.url, &News::Broken { what: bad.to_string() }, json, out)?;
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
    let follows = |exit: &Exit| match then(exit, wanted.policy()) {
        Then::Restart => "restart",
        Then::Leave => "leave",
        Then::HandOver => "hand-over",
        Then::Alert => "alert",
    };
    if json {
        let value = match piece {
            News::Answers { vms } => serde_json::json!({"host": host, "answers": true, "vms": vms}),
            News::Silent { why } => serde_json::json!({"host": host, "answers": false, "why": why}),
            News::Status { vm, status } => serde_json::json!({"host": host, "vm": vm, "status": status}),
            News::Gone { vm } => serde_json::json!({"host": host, "vm": vm, "gone": true}),
            News::Broken { what } => serde_json::json!({"host": host, "broken": what}),
            News::Ended { vm, exit } => serde_json::json!({
                "host": host, "vm": vm, "status": "Down", "exit_code": exit.code,
                "exit_reason": exit.reason.or_placeholder(), "exit_reason_sent": exit.reason.sent(),
                "message": exit.message, "cause": exit.cause, "certainty": exit.certainty, "then": follows(exit),
            }),
        };
        writeln!(out, "{value}")?;
        return Ok(());
    }
    let host = super::show::clean(host);
    match piece {
        News::Answers { vms } => writeln!(out, "{host}  answers: {vms} VMs")?,
        News::Silent { why } => writeln!(out, "{host}  does not answer: {}", super::show::clean(why))?,
        News::Status { vm, status } => {
            writeln!(out, "{host}  {}  {}", super::show::clean(vm), super::show::clean(status))?;
        }
        News::Gone { vm } => writeln!(out, "{host}  {}  gone", super::show::clean(vm))?,
        News::Broken { what } => writeln!(out, "{host}  cannot be read: {}", super::show::clean(what))?,
        News::Ended { vm, exit } => {
            let cause =
                exit.cause.as_deref().map_or_else(String::new, |c| format!(" {}", super::show::clean(c)));
            writeln!(
                out,
                "{host}  {}  Down {}/{}{cause}: {} -> {}",
                super::show::clean(vm),
                exit.code,
                exit.reason.or_placeholder(),
                super::show::clean(&exit.message),
                follows(exit)
            )?;
        }
    }
    Ok(())
}
