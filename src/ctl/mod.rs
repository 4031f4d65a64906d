//! The command line: asks the running daemon over its unix socket, and tells people.

mod client;
mod hosts;
mod show;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use bytes::Bytes;
use clap::{Parser, Subcommand};

use self::client::Client;
pub use self::client::ClientError;
use crate::told::{Change, Doctor, Domains, Health, History, Why};
use crate::visible::{json_on_a_terminal, on_a_terminal};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/whydown/whydown.sock";

/// Tells why virtual machines went down.
#[derive(Debug, Parser)]
#[command(name = "whydown", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit status: 0 done, 1 trouble, 2 wrong usage, 4 no such VM, 69 the daemon cannot be reached."
)]
pub struct Cli {
    /// The daemon's socket.
    #[arg(long, global = true, value_name = "PATH", env = "WHYDOWN_SOCKET__PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print JSON, as the daemon tells it.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show all VMs: running ones, and those that are down and not acknowledged.
    List,
    /// Tell why a VM went down: the cause, when, how certain, on what evidence, and what to do.
    Why {
        /// Name or UUID.
        vm: String,
    },
    /// Show past endings, newest first.
    History {
        /// Only of this VM: name or UUID.
        vm: Option<String>,
        /// Only since then: a date or time (2026-11-21T10:00Z), or an age (2h, 7d).
        #[arg(long, value_name = "WHEN")]
        since: Option<String>,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Follow what happens, until interrupted.
    Watch,
    /// Show how the daemon itself is doing.
    Health,
    /// Tell which causes this host, and a VM's definition, can tell apart, and what to add. Status 1 if not all.
    Doctor {
        /// Also look at this VM: name or UUID.
        vm: Option<String>,
    },
    /// Look at hosts as a manager does, over XML-RPC: whydown's or VDSM's, old or new.
    Hosts(hosts::Hosts),
}

/// There is no VM of this name or UUID, and there never was one.
#[derive(Debug, thiserror::Error)]
#[error("no VM is or was called \"{}\"", crate::visible::visible(.0))]
struct NoSuchVm(String);

/// Runs a command; errors are told on standard error.
pub fn main(cli: &Cli) -> ExitCode {
    match run(cli) {
        Ok(status) => status,
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "whydown: {}", on_a_terminal(&format!("{error:#}")));
            match (error.downcast_ref::<ClientError>(), error.downcast_ref::<NoSuchVm>()) {
                (
                    Some(
                        ClientError::Unreachable { .. }
                        | ClientError::Forbidden { .. }
                        | ClientError::Stopping,
                    ),
                    _,
                ) => ExitCode::from(69),
                (_, Some(_)) => ExitCode::from(4),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(cli: &Cli) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &cli.command {
            Command::Doctor { vm } => doctor(cli, vm.as_ref()).await,
            _ => command(cli).await.map(|()| ExitCode::SUCCESS),
        }
    })
}

/// Its status says whether all causes can be told.
async fn doctor(cli: &Cli, vm: Option<&String>) -> anyhow::Result<ExitCode> {
    let query = form(&[("vm", vm)]);
    let told = match (Client::new(cli.socket.clone()).get(&format!("/v1/doctor?{query}")).await, vm) {
        (Err(ClientError::Refused { status: 404, .. }), Some(vm)) => return Err(NoSuchVm(vm.clone()).into()),
        (told, _) => told?,
    };
    print(cli, &mut std::io::stdout().lock(), &told, |doctor: Doctor| show::doctor(&doctor))?;
    let doctor: Doctor = serde_json::from_slice(&told).context("the daemon's answer")?;
    Ok(ExitCode::from(u8::from(!doctor.cannot_tell.is_empty())))
}

async fn command(cli: &Cli) -> anyhow::Result<()> {
    let client = Client::new(cli.socket.clone());
    let mut out = std::io::stdout().lock();
    match &cli.command {
        Command::List => {
            let told = client.get("/v1/domains").await?;
            print(cli, &mut out, &told, |domains: Domains| show::domains(&domains))
        }
        Command::Why { vm } => {
            let query = form(&[("vm", Some(vm))]);
            let told = match client.get(&format!("/v1/why?{query}")).await {
                Err(ClientError::Refused { status: 404, .. }) => return Err(NoSuchVm(vm.clone()).into()),
                told => told?,
            };
            print(cli, &mut out, &told, |why: Why| show::why(&why))
        }
        Command::History { vm, since, limit } => {
            let since = since.as_deref().map(moment).transpose().context("--since")?;
            let since = since.map(|at| at.to_string());
            let told = history(&client, vm.as_ref(), since.as_ref(), *limit).await?;
            print(cli, &mut out, &told, |history: History| show::history(&history))
        }
        Command::Watch => {
            let mut lines = client.lines("/v1/watch").await?;
            while let Some(line) = lines.next().await? {
                let change: Change = serde_json::from_slice(&line).context("a line of the daemon")?;
                if cli.json {
                    let line = std::str::from_utf8(&line).context("a line of the daemon")?;
                    writeln!(out, "{}", json_on_a_terminal(line))?;
                } else if !change.stopping {
                    writeln!(out, "{}", on_a_terminal(&show::change(&change)))?;
                }
                out.flush()?;
                if change.stopping {
                    return Err(ClientError::Stopping.into());
                }
            }
            anyhow::bail!("the daemon ended the stream")
        }
        Command::Doctor { .. } => unreachable!("answered with a status of its own"),
        Command::Hosts(wanted) => {
            let all_read = hosts::run(wanted, cli.json, &mut out).await?;
            anyhow::ensure!(all_read, "not everything could be read");
            Ok(())
        }
        Command::Health => {
            let told = client.get("/v1/health").await?;
            print(cli, &mut out, &told, |health: Health| show::health(&health))
        }
    }
}

/// Page after page, up to the limit, as one answer.
async fn history(
    client: &Client,
    vm: Option<&String>,
    since: Option<&String>,
    limit: usize,
) -> anyhow::Result<Bytes> {
    let mut whole: Option<History> = None;
    loop {
        let (found, after) = whole.as_ref().map_or((0, None), |w| (w.endings.len(), w.next.clone()));
        let left = (limit - found).to_string();
        let query = form(&[("vm", vm), ("since", since), ("limit", Some(&left)), ("after", after.as_ref())]);
        let told = client.get_patiently(&format!("/v1/history?{query}")).await?;
        let mut page: History = serde_json::from_slice(&told).context("the daemon's answer")?;
        if page.endings.is_empty() && page.unread.is_empty() {
            page.next = None;
        }
        let whole = match &mut whole {
            Some(whole) => {
                whole.endings.append(&mut page.endings);
                whole.unread.append(&mut page.unread);
                whole.next = page.next;
                whole
            }
            // Almost always there is but one, and it is shown as it came.
            None if page.next.is_none() => return Ok(told),
            none => none.insert(page),
        };
        if whole.next.is_none() || whole.endings.len() >= limit {
            return Ok(serde_json::to_vec(whole)?.into());
        }
    }
}

fn print<T: serde::de::DeserializeOwned>(
    cli: &Cli,
    out: &mut impl Write,
    told: &[u8],
    show: impl Fn(T) -> String,
) -> anyhow::Result<()> {
    if cli.json && !std::io::stdout().is_terminal() {
        let told = std::str::from_utf8(told).context("the daemon's answer")?;
        writeln!(out, "{}", json_on_a_terminal(told))?;
    } else if cli.json {
        let value: serde_json::Value = serde_json::from_slice(told).context("the daemon's answer")?;
        writeln!(out, "{}", json_on_a_terminal(&serde_json::to_string_pretty(&value)?))?;
    } else {
        let value = serde_json::from_slice(told).context("the daemon's answer")?;
        writeln!(out, "{}", on_a_terminal(show(value).trim_end()))?;
    }
    Ok(out.flush()?)
}

fn form(pairs: &[(&str, Option<&String>)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (key, value) in pairs {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    query.finish()
}

/// A moment that a person wrote: a timestamp, a date or time of this machine's zone, or an age.
fn moment(text: &str) -> anyhow::Result<jiff::Timestamp> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at);
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        return Ok(local.to_zoned(jiff::tz::TimeZone::system())?.timestamp());
    }
    if let Ok(age) = text.parse::<jiff::Span>() {
        return Ok(jiff::Zoned::now().checked_sub(age.abs())?.timestamp());
    }
    anyhow::bail!("\"{text}\" is neither a time (2026-11-21T10:00Z), a date (2026-11-21) nor an age (2h, 7d)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_date_or_an_age() {
        assert_eq!(moment("2026-11-21T10:00:00Z").unwrap().to_string(), "2026-11-21T10:00:00Z");
        assert!(moment("2026-11-21").is_ok());
        let then = moment("2h").unwrap();
        let age = jiff::Timestamp::now().duration_since(then);
        assert!((7_200..7_260).contains(&age.as_secs()), "{age}");
        assert!(moment("7d").is_ok());
        for text in ["", "yesterday-ish", "12"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
