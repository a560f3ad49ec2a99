//! collectives STEPS: every collective operation, blocking and immediate, on the world and on halves of it.

#![forbid(unsafe_code)]

use mpi::collective::SystemOperation;
use mpi::datatype::{Partition, PartitionMut};
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::*;
use rsmpi_programs::{mix, must, result, step, steps};

/// Words per rank in the collectives that move data.
const WORDS: usize = 600;

fn words(step: u64, rank: i32) -> Vec<u64> {
    (0..WORDS).map(|at| mix(step << 40 ^ (rank as u64) << 20 ^ at as u64)).collect()
}

/// One-to-all and all-to-one.
fn rooted(world: &SimpleCommunicator, number: u64) -> u64 {
    let (rank, size) = (world.rank(), world.size());
    let root_rank = (number % size as u64) as i32;
    let root = world.process_at_rank(root_rank);
    let mut shared = if rank == root_rank { words(number, root_rank) } else { vec![0; WORDS] };
    root.broadcast_into(&mut shared[..]);
    must(world, shared == words(number, root_rank), &format!("broadcast of step {number}"));
    let mine = words(number, rank);
    let all: Vec<u64> = (0..size).flat_map(|from| words(number, from)).collect();
    let mut back = vec![0; WORDS];
    if rank == root_rank {
        let mut gathered = vec![0; WORDS * size as usize];
        root.gather_into_root(&mine[..], &mut gathered[..]);
        must(world, gathered == all, &format!("gather of step {number}"));
        root.scatter_into_root(&all[..], &mut back[..]);
    } else {
        root.gather_into(&mine[..]);
        root.scatter_into(&mut back[..]);
    }
    must(world, back == mine, &format!("scatter of step {number}"));
    let mut sum = 0_u64;
    if rank == root_rank {
        root.reduce_into_root(&(mine[0] >> 8), &mut sum, SystemOperation::sum());
        must(
            world,
            sum == (0..size).map(|from| words(number, from)[0] >> 8).sum(),
            &format!("reduce of step {number}"),
        );
    } else {
        root.reduce_into(&(mine[0] >> 8), SystemOperation::sum());
    }
    shared[WORDS - 1]
}

/// All-to-all, with equal and with unequal parts.
fn all_to_all(world: &SimpleCommunicator, number: u64) -> u64 {
    let (rank, size) = (world.rank(), world.size() as usize);
    let out: Vec<u64> = (0..size).map(|to| mix(number << 16 ^ (rank as u64) << 8 ^ to as u64)).collect();
    let mut back = vec![0_u64; size];
    world.all_to_all_into(&out[..], &mut back[..]);
    must(
        world,
        (0..size).all(|from| back[from] == mix(number << 16 ^ (from as u64) << 8 ^ rank as u64)),
        &format!("all-to-all of step {number}"),
    );
    // Rank r gives r + 1 words.
    let counts: Vec<i32> = (1..=size as i32).collect();
    let displacements: Vec<i32> =
        counts.iter().scan(0, |at, &count| Some(std::mem::replace(at, *at + count))).collect();
    let mut gathered = vec![0_u64; counts.iter().sum::<i32>() as usize];
    let mine = vec![mix(number ^ rank as u64); rank as usize + 1];
    let mut parts = PartitionMut::new(&mut gathered[..], &counts[..], &displacements[..]);
    world.all_gather_varcount_into(&mine[..], &mut parts);
    let want: Vec<u64> = (0..size).flat_map(|from| vec![mix(number ^ from as u64); from + 1]).collect();
    must(world, gathered == want, &format!("allgatherv of step {number}"));
    // Rank r gets r + 1 words of everybody.
    let send_counts = counts.clone();
    let sent: Vec<u64> = (0..size).flat_map(|to| vec![mix(number ^ (to as u64) << 30); to + 1]).collect();
    let receive_counts = vec![rank + 1; size];
    let receive_at: Vec<i32> = (0..size as i32).map(|from| from * (rank + 1)).collect();
    let mut received = vec![0_u64; size * (rank as usize + 1)];
    let from = Partition::new(&sent[..], &send_counts[..], &displacements[..]);
    let mut into = PartitionMut::new(&mut received[..], &receive_counts[..], &receive_at[..]);
    world.all_to_all_varcount_into(&from, &mut into);
    must(
        world,
        received.iter().all(|&have| have == mix(number ^ (rank as u64) << 30)),
        &format!("alltoallv of step {number}"),
    );
    gathered[0]
}

/// Reductions to all, prefixes, and their immediate forms.
fn reductions(world: &SimpleCommunicator, number: u64) -> u64 {
    let (rank, size) = (world.rank(), world.size());
    let value = |from: i32| mix(number << 8 ^ from as u64) >> 16;
    let mine = value(rank);
    let (mut all, mut prefix, mut before, mut later) = (0_u64, 0_u64, 0_u64, 0_u64);
    world.all_reduce_into(&mine, &mut all, SystemOperation::sum());
    world.scan_into(&mine, &mut prefix, SystemOperation::sum());
    world.exclusive_scan_into(&mine, &mut before, SystemOperation::sum());
    mpi::request::scope(|scope| {
        world.immediate_all_reduce_into(scope, &mine, &mut later, SystemOperation::max()).wait();
        world.immediate_barrier().wait();
    });
    must(world, all == (0..size).map(value).sum::<u64>(), &format!("allreduce of step {number}"));
    must(world, prefix == (0..=rank).map(value).sum::<u64>(), &format!("scan of step {number}"));
    must(world, rank == 0 || before == (0..rank).map(value).sum::<u64>(), &format!("exscan of step {number}"));
    must(world, Some(later) == (0..size).map(value).max(), &format!("iallreduce of step {number}"));
    all
}

fn main() {
    let Some(universe) = mpi::initialize() else { std::process::exit(1) };
    let world = universe.world().duplicate();
    let Some(half) = world.split_by_color(Color::with_value(world.rank() % 2)) else { std::process::exit(1) };
    let mut hash = 1;
    for number in 1..=steps() {
        hash = mix(hash ^ rooted(&world, number));
        hash = mix(hash ^ all_to_all(&world, number));
        hash = mix(hash ^ reductions(&world, number));
        let mut part = 0_u64;
        half.all_reduce_into(&(hash >> 8), &mut part, SystemOperation::bitwise_xor());
        world.barrier();
        if number % 16 == 0 {
            // Communicators come and go.
            let twin = half.duplicate();
            must(&world, twin.size() == half.size(), "a duplicated communicator has another size");
        }
        let mut whole = 0_u64;
        world.all_reduce_into(&part, &mut whole, SystemOperation::sum());
        hash = mix(hash ^ whole);
        step(&world, number, hash);
    }
    result(&world, hash);
}
