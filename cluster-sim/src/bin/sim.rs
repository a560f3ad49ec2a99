//! `sim --seeds N [--seed S]`: runs the simulation for many seeds, or one seed with every word of it.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cluster_sim::sim::{Outcome, Plan, many, run};

/// Deterministic simulation of checkpoints over many nodes.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first of them; without --seeds only this one, and its log.
    #[arg(long)]
    seed: Option<u64>,
    /// The log of every event although nothing is broken.
    #[arg(long)]
    log: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.log {
        let seed = arguments.seed.unwrap_or_default();
        let outcome = run(Plan::of(seed), true);
        println!("{:#?}", Plan::of(seed));
        return tell(seed, &outcome);
    }
    let begun = Instant::now();
    let tally = many(arguments.seed.unwrap_or_default(), arguments.seeds);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} seeds in {seconds:.1} s ({:.0} seeds/s): {} checkpoints committed, {} failed, {} streams read out, {} events, {:.1} virtual hours",
        tally.seeds,
        tally.seeds as f64 / seconds,
        tally.committed,
        tally.failed,
        tally.read_out,
        tally.events,
        tally.elapsed_us as f64 / 3.6e9,
    );
    match &tally.broken {
        Some((seed, outcome)) => tell(*seed, outcome),
        None => ExitCode::SUCCESS,
    }
}

fn tell(seed: u64, outcome: &Outcome) -> ExitCode {
    outcome.log.iter().for_each(|line| println!("{line}"));
    match &outcome.broken {
        Some(property) => {
            println!("seed {seed} breaks a property: {property}");
            println!("replay it with: cargo xtask sim --seed {seed} --log");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
