//! What is to be stored, and how it is dealt out to threads.

use std::fs::File;
use std::ops::Range;

use node_agent_image::contents::Owner;
use node_agent_image::limits::{BLOCK_BYTES, PAGE_BYTES};

/// Bytes read at once: enough for a system call to cost nothing, few enough to stay in a cache between reading,
/// checksumming and writing.
pub const BATCH_BYTES: usize = 1 << 20;

/// Something to be stored.
#[derive(Debug)]
pub struct Source {
    #[allow(missing_docs)]
    pub owner: Owner,
    #[allow(missing_docs)]
    pub bytes: Bytes,
    /// Ascending, without overlap: addresses of a process, offsets of an object.
    pub stretches: Vec<Stretch>,
}

/// A piece of an owner. Begins and ends with a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Address or offset.
    pub start: u64,
    /// First byte behind it.
    pub end: u64,
    /// Zero pages must be stored, too: a file shines through below.
    pub keep_zeros: bool,
}

/// Where bytes come from.
#[derive(Debug)]
pub enum Bytes {
    /// Memory of a process: what is at `start` of the owner is at `base + start` there.
    Memory {
        /// As the agent sees it.
        pid: u32,
        /// 0 for a process's own addresses; the sum wraps where a mapping begins far into its file.
        base: u64,
    },
    /// A file, from its beginning. In its last page what lies behind its end is zero.
    File(File),
    /// Copied while the job was parked.
    Held(Held),
}

/// Bytes that were copied: one buffer for each stretch.
#[derive(Debug, Default)]
pub struct Held(pub(super) Vec<Vec<u8>>);

/// Part of a stretch that is read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Index into [`Source::stretches`].
    pub stretch: usize,
    pub start: u64,
    pub end: u64,
}

impl Piece {
    pub fn bytes(&self) -> usize {
        (self.end - self.start) as usize
    }
}

/// Pieces of one source, at most [`BATCH_BYTES`] of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Index of the source.
    pub source: usize,
    /// Indices of its pieces.
    pub pieces: Range<usize>,
    /// Sum of their bytes.
    pub bytes: usize,
}

/// All that is to be read, in portions for threads.
#[derive(Debug, Default)]
pub struct Plan {
    pub pieces: Vec<Piece>,
    pub batches: Vec<Batch>,
    /// Sum of all bytes.
    pub bytes: u64,
}

impl Plan {
    pub fn new(sources: &[Source]) -> Self {
        let mut plan = Self::default();
        for (index, source) in sources.iter().enumerate() {
            plan.begin_batch(index);
            source.stretches.iter().enumerate().for_each(|(number, stretch)| plan.add(index, number, stretch));
        }
        plan.batches.retain(|batch| batch.bytes > 0);
        plan
    }

    fn begin_batch(&mut self, source: usize) {
        let next = self.pieces.len();
        self.batches.push(Batch { source, pieces: next..next, bytes: 0 });
    }

    /// Cuts only at multiples of a block's length from the stretch's start: so equal memory is cut into equal blocks,
    /// wherever it lies.
    fn add(&mut self, source: usize, number: usize, stretch: &Stretch) {
        assert!(
            stretch.start.is_multiple_of(PAGE_BYTES as u64) && stretch.end.is_multiple_of(PAGE_BYTES as u64),
            "{stretch:?} is not made of pages"
        );
        let mut start = stretch.start;
        while start < stretch.end {
            let room = BATCH_BYTES - self.batches.last().map_or(BATCH_BYTES, |batch| batch.bytes);
            let whole = (stretch.end - start).min(BATCH_BYTES as u64) as usize;
            let bytes = if whole <= room { whole } else { room / BLOCK_BYTES * BLOCK_BYTES };
            match self.batches.last_mut() {
                Some(batch) if bytes > 0 => {
                    let end = start + bytes as u64;
                    self.pieces.push(Piece { stretch: number, start, end });
                    batch.pieces.end += 1;
                    batch.bytes += bytes;
                    self.bytes += bytes as u64;
                    start = end;
                }
                _ => self.begin_batch(source),
            }
        }
    }
}

const _: () = assert!(BATCH_BYTES.is_multiple_of(BLOCK_BYTES) && BLOCK_BYTES.is_multiple_of(PAGE_BYTES));

#[cfg(test)]
mod tests {
    use super::*;

    fn source(lengths: &[u64]) -> Source {
        let mut start = 0;
        let stretch = |pages: &u64| {
            start += PAGE_BYTES as u64;
            let end = start + pages * PAGE_BYTES as u64;
            Stretch { start: std::mem::replace(&mut start, end), end, keep_zeros: false }
        };
        let stretches = lengths.iter().map(stretch).collect();
        Source { owner: Owner::Process(0), bytes: Bytes::Memory { pid: 0, base: 0 }, stretches }
    }

    #[test]
    fn every_byte_is_in_one_piece() {
        let sources = [source(&[1, 1, 700, 3]), source(&[]), source(&[256, 256, 10_000]), source(&[1; 600])];
        let plan = Plan::new(&sources);
        let mut pieces = 0;
        for batch in &plan.batches {
            assert_eq!(batch.pieces.start, pieces, "pieces are passed over");
            pieces = batch.pieces.end;
            let bytes: usize = plan.pieces[batch.pieces.clone()].iter().map(Piece::bytes).sum();
            assert_eq!(bytes, batch.bytes);
            assert!((1..=BATCH_BYTES).contains(&bytes));
        }
        assert_eq!(pieces, plan.pieces.len());
        let mut again = Vec::new();
        for batch in &plan.batches {
            for piece in &plan.pieces[batch.pieces.clone()] {
                let stretch = sources[batch.source].stretches[piece.stretch];
                assert!((piece.start - stretch.start).is_multiple_of(BLOCK_BYTES as u64));
                again.push((batch.source, piece.start, piece.end));
            }
        }
        let joined: u64 = again.iter().map(|(_, start, end)| end - start).sum();
        let want: u64 = sources.iter().flat_map(|it| &it.stretches).map(|it| it.end - it.start).sum();
        assert_eq!((joined, plan.bytes), (want, want));
        assert!(again.windows(2).all(|two| two[0].0 < two[1].0 || two[0].2 <= two[1].1));
    }
}
