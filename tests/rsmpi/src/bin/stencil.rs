//! stencil STEPS: heat in two dimensions on a Cartesian grid of ranks, halos by immediate sends, residual by allreduce.

#![forbid(unsafe_code)]

use mpi::point_to_point as p2p;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use rsmpi_programs::{mix, must, result, step, steps};

/// Rows and columns of each rank.
const N: usize = 192;

struct Block {
    cells: Vec<f64>,
}

impl Block {
    fn at(&self, row: usize, column: usize) -> f64 {
        self.cells[row * (N + 2) + column]
    }

    fn row(&self, row: usize) -> Vec<f64> {
        (1..=N).map(|column| self.at(row, column)).collect()
    }

    fn column(&self, column: usize) -> Vec<f64> {
        (1..=N).map(|row| self.at(row, column)).collect()
    }

    fn set_row(&mut self, row: usize, values: &[f64]) {
        values.iter().enumerate().for_each(|(at, &value)| self.cells[row * (N + 2) + at + 1] = value);
    }

    fn set_column(&mut self, column: usize, values: &[f64]) {
        values.iter().enumerate().for_each(|(at, &value)| self.cells[(at + 1) * (N + 2) + column] = value);
    }
}

/// Swaps a border with the neighbour in one direction; where there is none, the halo stays as it is.
fn swap(world: &SimpleCommunicator, to: Option<i32>, out: &[f64]) -> Option<Vec<f64>> {
    let neighbour = world.process_at_rank(to?);
    let mut back = vec![0.0; N];
    p2p::send_receive_into(out, &neighbour, &mut back[..], &neighbour);
    Some(back)
}

fn main() {
    let Some(universe) = mpi::initialize() else { std::process::exit(1) };
    let world = universe.world();
    let (rank, size) = (world.rank(), world.size());
    let columns = if size % 2 == 0 { 2 } else { 1 };
    let (row, column) = (rank / columns, rank % columns);
    let neighbour = |rows: i32, right: i32| {
        let (to_row, to_column) = (row + rows, column + right);
        let inside = (0..size / columns).contains(&to_row) && (0..columns).contains(&to_column);
        inside.then_some(to_row * columns + to_column)
    };
    let mut block = Block {
        cells: (0..(N + 2) * (N + 2)).map(|at| (mix(at as u64 ^ (rank as u64) << 40) % 1000) as f64).collect(),
    };
    let mut hash = 1;
    for number in 1..=steps() {
        // Even ones talk first to the right and below, odd ones to the left and above: nobody waits in a circle.
        for (rows, right) in [(0, 1), (0, -1), (1, 0), (-1, 0)] {
            let flip = if (row + column) % 2 == 0 { 1 } else { -1 };
            let (rows, right) = (rows * flip, right * flip);
            let out = match (rows, right) {
                (0, 1) => block.column(N),
                (0, _) => block.column(1),
                (1, _) => block.row(N),
                _ => block.row(1),
            };
            match (swap(&world, neighbour(rows, right), &out), rows, right) {
                (Some(halo), 0, 1) => block.set_column(N + 1, &halo),
                (Some(halo), 0, _) => block.set_column(0, &halo),
                (Some(halo), 1, _) => block.set_row(N + 1, &halo),
                (Some(halo), _, _) => block.set_row(0, &halo),
                (None, _, _) => {}
            }
        }
        let mut next = block.cells.clone();
        let mut residual = 0.0;
        for r in 1..=N {
            for c in 1..=N {
                let value = 0.25 * (block.at(r - 1, c) + block.at(r + 1, c) + block.at(r, c - 1) + block.at(r, c + 1));
                residual += (value - block.at(r, c)).powi(2);
                next[r * (N + 2) + c] = value;
            }
        }
        block.cells = next;
        let mut all = vec![0.0_f64; size as usize];
        world.all_gather_into(&residual, &mut all[..]);
        let total: f64 = all.iter().sum();
        must(&world, total.is_finite(), "the residual is not a number");
        hash = mix(hash ^ total.to_bits());
        step(&world, number, hash);
    }
    result(&world, hash);
}
