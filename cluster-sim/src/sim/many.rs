//! Many seeds, in parallel.

use std::sync::Mutex;

use rayon::prelude::*;

use super::{Outcome, Plan, restart, run};

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Checkpoints of a running job.
    Checkpoints,
    /// A restart.
    Restart,
}

/// One seed.
#[must_use]
pub fn one(what: What, seed: u64, log: bool) -> Outcome {
    match what {
        What::Checkpoints => run(Plan::of(seed), log),
        What::Restart => restart(seed, log),
    }
}

/// What became of many runs.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    #[allow(missing_docs)]
    pub seeds: u64,
    #[allow(missing_docs)]
    pub committed: u64,
    #[allow(missing_docs)]
    pub failed: u64,
    #[allow(missing_docs)]
    pub read_out: u64,
    #[allow(missing_docs)]
    pub events: u64,
    /// Virtual time, µs.
    pub elapsed_us: u64,
    /// The smallest seed that broke something, and its log.
    pub broken: Option<(u64, Outcome)>,
}

/// Runs `count` seeds from `first` on.
#[must_use]
pub fn many(what: What, first: u64, count: u64) -> Tally {
    let tally = Mutex::new(Tally::default());
    (first..first + count).into_par_iter().for_each(|seed| {
        let outcome = one(what, seed, false);
        let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tally.seeds += 1;
        tally.committed += outcome.committed;
        tally.failed += outcome.failed;
        tally.read_out += outcome.read_out;
        tally.events += outcome.events;
        tally.elapsed_us += outcome.elapsed_us;
        if outcome.broken.is_some() && tally.broken.as_ref().is_none_or(|(smallest, _)| seed < *smallest) {
            tally.broken = Some((seed, outcome));
        }
    });
    let mut tally = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Once more, this time with every word.
    if let Some((seed, outcome)) = &mut tally.broken {
        *outcome = one(what, *seed, true);
    }
    tally
}
