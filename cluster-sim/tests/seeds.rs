//! What CI runs of the simulation, and that it is what it says it is.

use cluster_sim::sim::{Plan, What, many, restart, run};

#[test]
fn no_property_is_broken_in_2000_seeds() {
    let tally = many(What::Checkpoints, 0, 2000);
    if let Some((seed, outcome)) = tally.broken {
        panic!("seed {seed}: {}\n{}", outcome.broken.unwrap_or_default(), outcome.log.join("\n"));
    }
    // A simulation in which nothing happens breaks nothing either.
    assert!(tally.committed > 1000 && tally.failed > 500 && tally.read_out > 1000, "{tally:?}");
}

#[test]
fn a_seed_is_a_run() {
    for seed in [1, 17, 160, 4566, 10_119] {
        let (one, two) = (run(Plan::of(seed), true), run(Plan::of(seed), true));
        assert_eq!(one, two, "seed {seed}");
        assert_eq!(one.events, run(Plan::of(seed), false).events, "seed {seed} without a log");
    }
}

#[test]
fn no_restart_is_torn_in_2000_seeds() {
    let tally = many(What::Restart, 0, 2000);
    if let Some((seed, outcome)) = tally.broken {
        panic!("seed {seed}: {}\n{}", outcome.broken.unwrap_or_default(), outcome.log.join("\n"));
    }
    assert!(tally.committed > 500 && tally.failed > 200, "{tally:?}");
    assert_eq!(restart(7, true), restart(7, true));
}
