//! Debian's Open MPI 4.1, over shared memory with CMA and over TCP, and Open MPI 5.

use tests::{Mpi, in_three_ways};

/// A checkpoint is asked for at multiples of this step.
const AT: u64 = 25;

#[test]
fn stencil() {
    in_three_ways(&Mpi::OpenMpi.program("stencil", 4, &["180", "512"]), AT);
}

#[test]
fn stencil_over_tcp() {
    in_three_ways(&Mpi::OpenMpiTcp.program("stencil", 4, &["180", "512"]), AT);
}

#[test]
fn messages_in_flight() {
    in_three_ways(&Mpi::OpenMpi.program("inflight", 4, &["160"]), AT);
}

#[test]
fn messages_in_flight_over_tcp() {
    in_three_ways(&Mpi::OpenMpiTcp.program("inflight", 3, &["160"]), AT);
}

#[test]
fn onesided() {
    in_three_ways(&Mpi::OpenMpi.program("onesided", 4, &["160"]), AT);
}

#[test]
fn onesided_over_tcp() {
    in_three_ways(&Mpi::OpenMpiTcp.program("onesided", 3, &["160"]), AT);
}

#[test]
fn rust_ring() {
    in_three_ways(&Mpi::OpenMpi.rust_program("ring", 4, &["160"]), AT);
}

#[test]
fn rust_ring_over_tcp() {
    in_three_ways(&Mpi::OpenMpiTcp.rust_program("ring", 4, &["160"]), AT);
}

#[test]
fn rust_stencil() {
    in_three_ways(&Mpi::OpenMpi.rust_program("stencil", 4, &["160"]), AT);
}

#[test]
fn rust_collectives() {
    in_three_ways(&Mpi::OpenMpi.rust_program("collectives", 4, &["160"]), AT);
}

#[test]
fn rust_threads() {
    in_three_ways(&Mpi::OpenMpi.rust_program("threads", 2, &["160"]), AT);
}

#[test]
fn rust_spawn() {
    in_three_ways(&Mpi::OpenMpi.rust_program("spawn", 2, &["160"]), AT);
}

#[test]
fn openmpi5_stencil() {
    in_three_ways(&Mpi::OpenMpi5.program("stencil", 4, &["180", "512"]), AT);
}

#[test]
fn openmpi5_messages_in_flight() {
    in_three_ways(&Mpi::OpenMpi5.program("inflight", 3, &["160"]), AT);
}

#[test]
fn openmpi5_onesided() {
    in_three_ways(&Mpi::OpenMpi5.program("onesided", 3, &["160"]), AT);
}
