//! Set-up and everyday commands: `cargo xtask install | demo | test | sim | bench`.
//!
//! Each command sets up what it needs and says what it installs. What runs jobs runs them as an ordinary user even when
//! xtask itself is root: the product must work without privileges, and mpirun refuses root.

mod bench;
mod demo;
mod ground;
mod install;
mod packages;
mod rsmpi;
mod session;
mod sim;
mod test;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up and everyday commands of Slackwater.
#[derive(Parser)]
#[command(name = "cargo xtask", about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Builds the release and copies it to DIR/bin and DIR/lib/slackwater; the folder can be moved afterwards.
    Install {
        /// Where to; made if it is not there.
        #[arg(long, value_name = "DIR")]
        prefix: PathBuf,
    },
    /// A real Open MPI job is checkpointed, killed with -9, restarted and compared with an undisturbed run.
    Demo,
    /// Unit and property tests, then real processes and real MPI as an ordinary user.
    Test {
        /// Soak runs too: hours, not minutes.
        #[arg(long)]
        full: bool,
        /// Only tests whose name contains this.
        filter: Option<String>,
    },
    /// Simulates checkpoints and restarts over many nodes, each seed a run; a seed that breaks a property is printed with its log.
    Sim {
        /// --seeds N, --seed S (the first, or with --log the only one), --checkpoints, --restarts.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "OPTIONS")]
        options: Vec<String>,
    },
    /// Measures the figures of docs/performance.md as ratios against a peer in the same run.
    Bench {
        /// Only figures whose name contains this.
        filter: Option<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Install { prefix } => install::install(&prefix).map(|()| true),
        Command::Demo => demo::demo(),
        Command::Test { full, filter } => test::test(full, filter.as_deref()),
        Command::Sim { options } => sim::sim(&options),
        Command::Bench { filter } => bench::bench(filter.as_deref()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}
