//! Copying contents that change, or can no longer be seen, once the job runs on.

use std::mem;
use std::sync::{Mutex, PoisonError};

use node_agent_image::block::is_zero;

use super::error::MemoryError;
use super::read::read;
use super::source::{Bytes, Held, Plan, Source, Stretch};
use super::threads::{self, Turns, on_threads};

/// A stretch of a source (its index), and its bytes.
type Copy = (usize, Stretch, Vec<u8>);

/// Copies contents into memory, so that the job may run on: shared memory, areas that no fork inherits. What is all zero
/// and need not be stored takes none.
///
/// # Errors
/// When something cannot be read; names process and address.
pub fn hold(sources: Vec<Source>) -> Result<Vec<Source>, MemoryError> {
    let plan = Plan::new(&sources);
    let turns = Turns::new(plan.batches.len());
    let copies = Mutex::new(Vec::new());
    on_threads(threads::worth(plan.bytes), || {
        let mut own = Vec::new();
        while let Some(turn) = turns.take() {
            turns.stop_at(copy(&sources, &plan, turn, &mut own))?;
        }
        copies.lock().unwrap_or_else(PoisonError::into_inner).append(&mut own);
        Ok(())
    })?;
    let mut copies: Vec<Copy> = copies.into_inner().unwrap_or_else(PoisonError::into_inner);
    copies.sort_unstable_by_key(|(source, stretch, _)| (*source, stretch.start));
    Ok(put_together(sources, copies))
}

fn copy(sources: &[Source], plan: &Plan, turn: usize, copies: &mut Vec<Copy>) -> Result<(), MemoryError> {
    let batch = &plan.batches[turn];
    let source = &sources[batch.source];
    for piece in &plan.pieces[batch.pieces.clone()] {
        let keep_zeros = source.stretches[piece.stretch].keep_zeros;
        let mut bytes = vec![0; piece.bytes()];
        read(source, &[*piece], &mut bytes)?;
        if keep_zeros || !is_zero(&bytes) {
            copies.push((batch.source, Stretch { start: piece.start, end: piece.end, keep_zeros }, bytes));
        }
    }
    Ok(())
}

fn put_together(mut sources: Vec<Source>, copies: Vec<Copy>) -> Vec<Source> {
    for source in &mut sources {
        source.stretches.clear();
        // Closes a file, too.
        source.bytes = Bytes::Held(Held::default());
    }
    for (index, stretch, bytes) in copies {
        let source = &mut sources[index];
        source.stretches.push(stretch);
        match &mut source.bytes {
            Bytes::Held(held) => held.0.push(bytes),
            other => drop(mem::replace(other, Bytes::Held(Held(vec![bytes])))),
        }
    }
    sources
}
