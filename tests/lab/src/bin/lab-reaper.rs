//! `lab-reaper LOG COMMAND [ARGUMENT...]`: runs a command, reaps every orphan below it and logs how each one ended.
//!
//! It stands in for an init that reaps, and shows the wait status of every QEMU, which libvirt does not tell.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(log), Some(program)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: lab-reaper LOG COMMAND [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let rest: Vec<_> = arguments.collect();
    match whydown_lab::supervise(log.as_ref(), &program, &rest) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("lab-reaper: {error}");
            ExitCode::from(127)
        }
    }
}
