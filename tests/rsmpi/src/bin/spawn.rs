//! spawn STEPS: MPI_Comm_spawn: the ranks start two more of themselves and talk to them over the intercommunicator.

#![forbid(unsafe_code)]

use std::process::Command;

use mpi::collective::SystemOperation;
use mpi::topology::{InterCommunicator, Process};
use mpi::traits::*;
use rsmpi_programs::{mix, must, result, step, steps};

/// How many are started.
const CHILDREN: i32 = 2;

/// A child answers each word until it is told to end.
fn child(parent: &InterCommunicator) {
    loop {
        let (word, status) = parent.any_process().receive::<u64>();
        if word == 0 {
            break;
        }
        parent.process_at_rank(status.source_rank()).send(&mix(word + 1));
    }
}

fn main() {
    let Some(universe) = mpi::initialize() else { std::process::exit(1) };
    let world = universe.world();
    if let Some(parent) = world.parent() {
        child(&parent);
        parent.merge(mpi::topology::MergeOrder::High).barrier();
        return;
    }
    let root: Process = world.process_at_rank(0);
    let Ok(program) = std::env::current_exe() else { std::process::exit(1) };
    let Ok(children) = root.spawn(&Command::new(program), CHILDREN) else {
        must(&world, false, "MPI_Comm_spawn");
        return;
    };
    let mut hash = mix(world.rank() as u64 + 1);
    for number in 1..=steps() {
        let to = children.process_at_rank(((number + world.rank() as u64) % CHILDREN as u64) as i32);
        to.send(&(hash | 1));
        let (back, _) = to.receive::<u64>();
        must(&world, back == mix((hash | 1) + 1), &format!("answer of step {number}"));
        let mut all = 0;
        world.all_reduce_into(&back, &mut all, SystemOperation::bitwise_xor());
        hash = mix(hash ^ back);
        step(&world, number, all);
    }
    let mut all = 0;
    world.all_reduce_into(&hash, &mut all, SystemOperation::bitwise_xor());
    if world.rank() == 0 {
        (0..CHILDREN).for_each(|rank| children.process_at_rank(rank).send(&0_u64));
    }
    children.merge(mpi::topology::MergeOrder::Low).barrier();
    result(&world, all);
}
