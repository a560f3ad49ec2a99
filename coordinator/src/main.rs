//! What people type: `ckpt-run`, `ckpt-restart` and `ckpt`, one binary that goes by the name it is called by.

use std::env;
use std::path::Path;
use std::process::ExitCode;

mod agent;
mod ask;
mod checkpoint;
mod ckpt;
mod comeback;
mod coordinate;
mod doctor;
mod generations;
mod inspect;
mod install;
mod ls;
mod placement;
mod preflight;
mod ps;
mod restart;
mod rsh;
mod run;
mod table;
mod time;
mod verify;

/// Exit code when something could not be done.
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let name = env::args_os().next().unwrap_or_default();
    let done = match Path::new(&name).file_name().and_then(|it| it.to_str()) {
        Some(run::TOOL) => run::main(),
        Some(restart::TOOL) => restart::main(),
        Some(rsh::TOOL) => rsh::main(),
        _ => ckpt::main(),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{}: {}", failure.tool, failure.error);
            ExitCode::from(FAILED)
        }
    }
}

/// Something that could not be done.
#[derive(Debug)]
struct Failure {
    tool: &'static str,
    error: Box<dyn std::error::Error>,
}

impl Failure {
    /// For map_err.
    fn of<E: Into<Box<dyn std::error::Error>>>(tool: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self { tool, error: error.into() }
    }
}
