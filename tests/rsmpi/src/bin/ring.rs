//! ring STEPS: a token and messages of several sizes go round; every word is checked.

#![forbid(unsafe_code)]

use mpi::point_to_point as p2p;
use mpi::traits::*;
use rsmpi_programs::{mix, must, result, step, steps};

/// Words of the messages: eager, just over it, rendezvous, big.
const SIZES: [usize; 4] = [1, 700, 9_000, 150_000];

fn word(step: u64, from: i32, slot: usize, at: usize) -> u64 {
    mix(step << 40 ^ (from as u64) << 32 ^ (slot as u64) << 24 ^ at as u64)
}

fn main() {
    let Some(universe) = mpi::initialize() else { std::process::exit(1) };
    let world = universe.world();
    let (rank, size) = (world.rank(), world.size());
    let right = world.process_at_rank((rank + 1) % size);
    let left = world.process_at_rank((rank + size - 1) % size);
    let mut token = 1_u64;
    for number in 1..=steps() {
        for (slot, &words) in SIZES.iter().enumerate() {
            let out: Vec<u64> = (0..words).map(|at| word(number, rank, slot, at)).collect();
            let mut back = vec![0_u64; words];
            p2p::send_receive_into(&out[..], &right, &mut back[..], &left);
            let want = |at: usize| word(number, left.rank(), slot, at);
            must(
                &world,
                back.iter().enumerate().all(|(at, &have)| have == want(at)),
                &format!("step {number} message {slot}"),
            );
        }
        // The token goes once around, and every rank signs it.
        if rank == 0 {
            right.send(&mix(token));
            token = left.receive::<u64>().0;
        } else {
            token = mix(left.receive::<u64>().0 ^ rank as u64);
            right.send(&token);
        }
        step(&world, number, token);
    }
    result(&world, token);
}
