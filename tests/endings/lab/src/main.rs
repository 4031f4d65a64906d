//! `endings-lab`: ends real VMs in every known way and shows what whydown tells of it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use whydown_endings_lab::case::Case;
use whydown_endings_lab::host::Programs;
use whydown_endings_lab::report::Row;
use whydown_endings_lab::runner::{Plan, run};
use whydown_endings_lab::{cases, trials};

/// Ends real VMs in every known way and shows what whydown tells of it. Needs root; see tests/endings-lab.sh.
#[derive(Parser)]
#[command(after_help = "Exit status: 0 every answer was right or honest, 1 some were not, 2 wrong usage.")]
struct Arguments {
    /// All cases and not only the quick selection.
    #[arg(long)]
    full: bool,
    /// Only cases whose name contains this, of all.
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// None of these, such as one that this host's libvirtd does not survive.
    #[arg(long, value_name = "PATTERN")]
    except: Vec<String>,
    /// So many at once on the shared stage.
    #[arg(long, value_name = "N", default_value_t = 3)]
    jobs: usize,
    /// Write all that was found, the events too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the page.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Only say which cases there are.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match told(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "endings-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn told(arguments: &Arguments) -> Result<bool> {
    let named = |case: &Case, by: &[String]| by.iter().any(|pattern| case.name.contains(pattern));
    let wanted = |case: &Case| match arguments.only.is_empty() {
        _ if named(case, &arguments.except) => false,
        true => arguments.full || case.quick,
        false => named(case, &arguments.only),
    };
    let mut out = std::io::stdout();
    if arguments.list {
        for case in
            cases::all().iter().filter(|case| !arguments.full && arguments.only.is_empty() || wanted(case))
        {
            let mark = if case.quick { "*" } else { " " };
            writeln!(out, "{mark} {:40} {}", case.name, case.what)?;
        }
        return Ok(true);
    }
    let plan = Plan {
        trials: trials(wanted),
        jobs: arguments.jobs,
        programs: Programs::beside_this_one()?,
        seen: progress,
    };
    ensure!(!plan.trials.is_empty(), "no case has such a name; --list shows all");
    let report = run(&plan)?;
    out.write_all(report.table().as_bytes())?;
    if let Some(path) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, report.markdown()).with_context(|| path.display().to_string())?;
    }
    Ok(report.is_well())
}

fn progress(row: &Row) {
    let _ = writeln!(
        std::io::stderr(),
        "{:7} {:5.1} s  {} {}",
        row.verdict.word(),
        row.seconds,
        row.label(),
        row.kind
    );
}
