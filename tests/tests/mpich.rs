//! MPICH 5 (UCX and OFI inside its wheel, hydra as its launcher).

use tests::{Mpi, in_three_ways};

/// A checkpoint is asked for at multiples of this step.
const AT: u64 = 25;

#[test]
fn stencil() {
    in_three_ways(&Mpi::Mpich.program("stencil", 4, &["180", "512"]), AT);
}

#[test]
fn messages_in_flight() {
    in_three_ways(&Mpi::Mpich.program("inflight", 4, &["160"]), AT);
}

#[test]
fn onesided() {
    in_three_ways(&Mpi::Mpich.program("onesided", 4, &["160"]), AT);
}

#[test]
fn rust_ring() {
    in_three_ways(&Mpi::Mpich.rust_program("ring", 4, &["160"]), AT);
}

#[test]
fn rust_collectives() {
    in_three_ways(&Mpi::Mpich.rust_program("collectives", 4, &["160"]), AT);
}

#[test]
fn rust_spawn() {
    in_three_ways(&Mpi::Mpich.rust_program("spawn", 2, &["160"]), AT);
}
