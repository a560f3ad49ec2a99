//! `ckpt`: what can be asked of running jobs and of generations.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{Failure, agent, checkpoint, doctor, inspect, ls, preflight, ps, verify};

/// The name that this goes by.
pub const TOOL: &str = "ckpt";

/// Checkpoint running jobs, and look at what was checkpointed.
#[derive(Debug, Parser)]
#[command(name = TOOL, version, after_help = EXIT_CODES)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    it could not be done: standard error says why; a job that was to be checkpointed runs on
  2    wrong usage";

#[derive(Debug, Subcommand)]
enum Command {
    Checkpoint(checkpoint::Options),
    Ps(ps::Options),
    Ls(ls::Options),
    Inspect(inspect::Options),
    Verify(verify::Options),
    Preflight(preflight::Options),
    Doctor(doctor::Options),
    Agent(agent::Options),
}

/// `ckpt` from its arguments to its exit code.
pub fn main() -> Result<ExitCode, Failure> {
    match Options::parse().command {
        Command::Checkpoint(options) => checkpoint::checkpoint(&options),
        Command::Ps(options) => ps::ps(&options),
        Command::Ls(options) => ls::ls(&options),
        Command::Inspect(options) => inspect::inspect(&options),
        Command::Verify(options) => verify::verify(&options),
        Command::Preflight(options) => preflight::preflight(&options),
        Command::Doctor(options) => doctor::doctor(&options),
        Command::Agent(options) => agent::agent(&options),
    }
    .map_err(Failure::of(TOOL))
}
