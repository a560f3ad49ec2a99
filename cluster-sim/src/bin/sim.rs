//! `sim --seeds N [--seed S]`: runs the simulation for many seeds, or one seed with every word of it.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cluster_sim::sim::{Outcome, Plan, What, many, one};

/// Deterministic simulation of checkpoints and restarts over many nodes.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only this one seed, and its log.
    #[arg(long)]
    log: bool,
    /// Only restarts.
    #[arg(long, conflicts_with = "checkpoints")]
    restarts: bool,
    /// Only checkpoints.
    #[arg(long)]
    checkpoints: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let what: &[What] = match (arguments.restarts, arguments.checkpoints) {
        (true, _) => &[What::Restart],
        (_, true) => &[What::Checkpoints],
        _ => &[What::Checkpoints, What::Restart],
    };
    if arguments.log {
        if what.contains(&What::Checkpoints) {
            println!("{:#?}", Plan::of(arguments.seed));
        }
        return tell(what[0], arguments.seed, &one(what[0], arguments.seed, true));
    }
    for what in what {
        if !run(*what, &arguments) {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// All seeds; whether every property held.
fn run(what: What, arguments: &Arguments) -> bool {
    let begun = Instant::now();
    let tally = many(what, arguments.seed, arguments.seeds);
    let seconds = begun.elapsed().as_secs_f64();
    let good = match what {
        What::Checkpoints => format!("{} checkpoints committed, {} streams read out", tally.committed, tally.read_out),
        What::Restart => format!("{} restarts went well", tally.committed),
    };
    println!(
        "{} seeds in {seconds:.1} s ({:.0} seeds/s): {good}, {} failed, {} events, {:.1} virtual hours",
        tally.seeds,
        tally.seeds as f64 / seconds,
        tally.failed,
        tally.events,
        tally.elapsed_us as f64 / 3.6e9,
    );
    if let Some((seed, outcome)) = &tally.broken {
        let _ = tell(what, *seed, outcome);
    }
    tally.broken.is_none()
}

fn tell(what: What, seed: u64, outcome: &Outcome) -> ExitCode {
    outcome.log.iter().for_each(|line| println!("{line}"));
    match &outcome.broken {
        Some(property) => {
            let only = if what == What::Restart { "--restarts" } else { "--checkpoints" };
            println!("seed {seed} breaks a property: {property}");
            println!("replay it with: cargo xtask sim --seed {seed} {only} --log");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
