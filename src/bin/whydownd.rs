//! The daemon's entry: flags, configuration, log, runtime.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::prelude::*;
use whydown::config::{self, Flags, Log, LogTarget, Sources};
use whydown::http;
use whydown::visible::on_a_terminal;

fn main() -> ExitCode {
    // First of all: it takes variables out of the environment, which must have no other reader yet.
    let inherited = http::Inherited::from_environment();
    let sources = Sources::of_process(Flags::parse());
    if sources.flags.check_config {
        let report = config::check(&sources);
        let _ = write!(std::io::stdout(), "{}", report.text());
        return ExitCode::from(report.exit_code());
    }
    let loaded = match config::load(&sources) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            let _ = fail(&mistakes.to_string());
            return ExitCode::from(config::EX_CONFIG);
        }
    };
    if let Err(error) = start_log(&loaded.settings.log) {
        return fail(&error);
    }
    for change in loaded.changes() {
        tracing::info!(origin = %change.origin, "{} = {}", change.key, change.value);
    }
    whydown_libvirt::share_one_heap();
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("whydownd").build() {
            Ok(runtime) => runtime,
            Err(error) => return fail(&error.to_string()),
        };
    let ended = runtime.block_on(whydown::daemon::run(loaded.settings, inherited));
    // A call into a libvirt that hangs must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(why: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "whydownd: {why}");
    ExitCode::FAILURE
}

fn start_log(log: &Log) -> Result<(), String> {
    let filter =
        tracing_subscriber::EnvFilter::try_new(&log.filter).map_err(|e| format!("log.filter: {e}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let under_systemd = std::env::vars_os().any(|(key, _)| key == "JOURNAL_STREAM");
    let journal = match log.target {
        LogTarget::Journald => true,
        LogTarget::Auto => under_systemd,
        LogTarget::Stderr => false,
    };
    if journal {
        let layer = tracing_journald::layer().map_err(|e| format!("log.target: the journal: {e}"))?;
        registry.with(layer).init();
    } else {
        let ansi = std::io::stderr().is_terminal();
        registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(move || Lines { ansi })
                    .fmt_fields(fields())
                    .with_ansi(ansi),
            )
            .init();
    }
    Ok(())
}

/// Messages name the VM and the run themselves, for the journal's readers: their fields are not shown again.
fn fields() -> impl for<'writer> tracing_subscriber::fmt::FormatFields<'writer> {
    use tracing_subscriber::field::MakeExt as _;
    use tracing_subscriber::fmt::format::debug_fn;
    debug_fn(|out, field, value| match field.name() {
        "message" => write!(out, "{value:?}"),
        "run" | "vm" => Ok(()),
        name => write!(out, "{name}={value:?}"),
    })
    .delimited(" ")
}

/// Standard error, where people read: nothing that strangers named hides in it. Each write is whole lines.
struct Lines {
    /// Whether it is a terminal, with colours.
    ansi: bool,
}

impl Write for Lines {
    fn write(&mut self, lines: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(lines);
        // On a terminal colours are ours: the text of events comes without the character that begins them.
        let shown: String = text
            .split_inclusive('\u{1b}')
            .map(|piece| match piece.strip_suffix('\u{1b}') {
                Some(before) if self.ansi => on_a_terminal(before) + "\u{1b}",
                _ => on_a_terminal(piece),
            })
            .collect();
        std::io::stderr().lock().write_all(shown.as_bytes())?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}
