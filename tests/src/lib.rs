//! The harness: real programs under the installed product, as a user would run them.
//!
//! A test describes a [`Program`] and what is to happen to it: [`three_ways`] for the usual proof, a [`Job`] for
//! anything else. Programs judge themselves: they print `step K …` as they go, `WRONG …` when something is not as it
//! must be, and `RESULT …` at the end, which must equal that of an undisturbed run to the last bit.
//!
//! `cargo xtask test` installs the product and the MPIs and says by environment where they are. Nothing is skipped: what
//! is missing fails with the remedy. Every wait has a limit, and what a test starts it ends, found by a mark in its
//! environment, whatever namespaces it has entered since. [`Nodes`] is a cluster of virtual nodes, for tests that run as root
//! and whose jobs run as the nodes' user.

mod cluster;
mod ground;
mod job;
mod leftovers;
mod mpi;
mod program;
mod shell;
mod three_ways;

pub use cluster::{Life, Nodes};
pub use ground::{RESTART_LIMIT, RUN_LIMIT, disk, full, prefix, scratch, until};
pub use job::{Cost, Job, Said, ckpt, tail};
pub use leftovers::{Mark, processes};
pub use mpi::Mpi;
pub use program::{Program, compile, compile_with};
pub use shell::Shell;
pub use three_ways::{in_three_ways, native, native_text};
