//! ring
use mpi::traits::*;
fn main() {
    let universe = mpi::initialize().unwrap();
    println!("{}", universe.world().rank());
}
