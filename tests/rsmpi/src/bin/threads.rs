//! threads STEPS: MPI_THREAD_MULTIPLE: each rank computes and communicates from several threads at once.

#![forbid(unsafe_code)]

use mpi::Threading;
use mpi::traits::*;
use rsmpi_programs::{mix, must, result, step, steps};

/// Threads of a rank that communicate; each with its opposite number by a tag of its own.
const THREADS: i32 = 3;

fn main() {
    let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Multiple) else {
        std::process::exit(1)
    };
    let world = universe.world();
    must(&world, threading == Threading::Multiple, "this MPI gives no MPI_THREAD_MULTIPLE");
    let (rank, size) = (world.rank(), world.size());
    let (right, left) = ((rank + 1) % size, (rank + size - 1) % size);
    let mut hash = 1;
    for number in 1..=steps() {
        let universe = &universe;
        let talk = |thread: i32| {
            let world = universe.world();
            let (other, from) = (world.process_at_rank(right), world.process_at_rank(left));
            let out: Vec<u64> =
                (0..5000).map(|at| mix(number << 32 ^ (rank as u64) << 24 ^ (thread as u64) << 16 ^ at)).collect();
            let mut back = vec![0_u64; out.len()];
            mpi::request::scope(|scope| {
                let sent = other.immediate_send_with_tag(scope, &out[..], thread);
                from.receive_into_with_tag(&mut back[..], thread);
                sent.wait();
            });
            let want = |at: u64| mix(number << 32 ^ (left as u64) << 24 ^ (thread as u64) << 16 ^ at);
            must(&world, (0..5000).all(|at| back[at as usize] == want(at)), &format!("step {number} thread {thread}"));
            back[7]
        };
        let talk = &talk;
        let heard: Vec<u64> = std::thread::scope(|threads| {
            let talkers: Vec<_> = (0..THREADS).map(|thread| threads.spawn(move || talk(thread))).collect();
            talkers.into_iter().filter_map(|talker| talker.join().ok()).collect()
        });
        must(&world, heard.len() == THREADS as usize, "a thread is lost");
        hash = heard.iter().fold(hash, |hash, &word| mix(hash ^ word));
        step(&world, number, hash);
    }
    result(&world, hash);
}
