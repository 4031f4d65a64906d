//! The command line.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    whydown::ctl::main(&whydown::ctl::Cli::parse())
}
