//! One thread's part of writing: read a batch, leave out zero pages, find equal blocks, compress, checksum, append.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use node_agent_image::block::{PACK_BYTES, Packer, is_zero};
use node_agent_image::contents::{Block, Compression, Owner, Run};
use node_agent_image::limits::{BLOCK_BYTES, PAGE_BYTES};
use node_agent_image::{checksum, names};

use super::data_file::DataFile;
use super::error::WriteError;
use super::folder::OpenFolder;
use super::known::{Known, Place};
use super::read::read;
use super::source::{BATCH_BYTES, Batch, Piece, Source};

/// What all workers of a part share.
#[derive(Debug, Default)]
pub struct Shared {
    pub known: Known,
    /// Number of the next data file.
    pub next_file: AtomicU32,
}

/// A run whose block has no final number yet.
#[derive(Clone, Copy, Debug)]
pub struct StoredRun {
    pub owner: Owner,
    /// `run.block` is not set.
    pub run: Run,
    pub place: Place,
}

/// A thread's buffers and what it has written.
#[derive(Debug)]
pub struct Worker {
    node: u32,
    number: u32,
    /// None until it has something to write: an empty file would be no part of a generation.
    pub data: Option<DataFile>,
    pub blocks: Vec<Block>,
    pub runs: Vec<StoredRun>,
    buffers: Buffers,
}

#[derive(Debug, Default)]
struct Buffers {
    raw: Vec<u8>,
    packed: Vec<u8>,
    packer: Packer,
    /// What of the two buffers is to be written, in order.
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Raw(Range<usize>),
    Packed(Range<usize>),
}

impl Worker {
    /// The `number`th of virtual node `node`.
    pub fn new(node: u32, number: usize) -> Self {
        let number = number as u32;
        Self { node, number, data: None, blocks: Vec::new(), runs: Vec::new(), buffers: Buffers::default() }
    }

    /// Stores a batch of a source.
    pub fn store(
        &mut self,
        folder: &OpenFolder,
        shared: &Shared,
        source: &Source,
        batch: &Batch,
        pieces: &[Piece],
    ) -> Result<(), WriteError> {
        self.buffers.begin();
        read(source, pieces, &mut self.buffers.raw[..batch.bytes])?;
        let mut at = 0;
        for piece in pieces {
            let keep_zeros = source.stretches[piece.stretch].keep_zeros;
            let mut start = piece.start;
            while start < piece.end {
                let bytes = (piece.end - start).min(BLOCK_BYTES as u64) as usize;
                self.store_window(&shared.known, source.owner, start, at..at + bytes, keep_zeros);
                start += bytes as u64;
                at += bytes;
            }
        }
        self.append(folder, shared)
    }

    /// Stores up to one block of memory, which is in `window` of the raw buffer and belongs to `start`.
    fn store_window(&mut self, known: &Known, owner: Owner, start: u64, window: Range<usize>, keep_zeros: bool) {
        let first = self.runs.len();
        let at = window.start;
        let raw_bytes = self.gather(owner, start, window, keep_zeros);
        if raw_bytes == 0 {
            return;
        }
        let raw = at..at + raw_bytes;
        let sum = checksum(&self.buffers.raw[raw.clone()]);
        let here = Place { worker: self.number, number: self.blocks.len() as u32 };
        let place = known.find_or_add(sum, raw_bytes, here);
        self.runs[first..].iter_mut().for_each(|run| run.place = place.unwrap_or(here));
        if place.is_none() {
            self.blocks.push(self.buffers.pack(raw, sum));
        }
    }

    /// Notes the runs of pages to be stored and moves them together at the window's beginning. Their bytes.
    fn gather(&mut self, owner: Owner, start: u64, window: Range<usize>, keep_zeros: bool) -> usize {
        let bytes = &mut self.buffers.raw[window];
        let (mut gathered, mut at) = (0, 0);
        while at < bytes.len() {
            let length = bytes[at..].chunks_exact(PAGE_BYTES).take_while(|page| keep_zeros || !is_zero(page)).count()
                * PAGE_BYTES;
            if length > 0 {
                if gathered < at {
                    bytes.copy_within(at..at + length, gathered);
                }
                let run = Run { start: start + at as u64, bytes: length as u32, block: 0, at: gathered as u32 };
                self.runs.push(StoredRun { owner, run, place: Place::default() });
                gathered += length;
            }
            // The page behind the run is zero, or the end.
            at += length + PAGE_BYTES;
        }
        gathered
    }

    /// Writes what the batch has brought.
    fn append(&mut self, folder: &OpenFolder, shared: &Shared) -> Result<(), WriteError> {
        let Buffers { raw, packed, parts, .. } = &self.buffers;
        if parts.is_empty() {
            return Ok(());
        }
        let data = match &mut self.data {
            Some(data) => data,
            None => {
                let number = shared.next_file.fetch_add(1, Ordering::Relaxed);
                let (path, file) = folder.make(&names::data(self.node, number as usize))?;
                self.data.insert(DataFile::new(number, path, file))
            }
        };
        let mut slices: Vec<IoSlice<'_>> = parts
            .iter()
            .map(|part| match part {
                Part::Raw(range) => IoSlice::new(&raw[range.clone()]),
                Part::Packed(range) => IoSlice::new(&packed[range.clone()]),
            })
            .collect();
        data.append(&mut slices)
    }
}

impl Buffers {
    fn begin(&mut self) {
        // Once: they are as long as they will ever be.
        self.raw.resize(BATCH_BYTES, 0);
        self.packed.resize(BATCH_BYTES + PACK_BYTES, 0);
        self.parts.clear();
    }

    /// Puts a block on the list of what is to be written. `sum`: the checksum of its raw bytes.
    fn pack(&mut self, raw: Range<usize>, sum: u128) -> Block {
        let used = self.parts.iter().rev().find_map(|part| match part {
            Part::Packed(range) => Some(range.end),
            Part::Raw(_) => None,
        });
        let used = used.unwrap_or(0);
        let bytes = raw.len() as u32;
        if let Some(length) = self.packer.pack(&self.raw[raw.clone()], &mut self.packed[used..]) {
            let packed = used..used + length;
            let sum = checksum(&self.packed[packed.clone()]);
            self.add(Part::Packed(packed));
            let (compression, stored) = (Compression::Lz4, length as u32);
            return Block { compression, stored, raw: bytes, checksum: sum, ..Block::default() };
        }
        self.add(Part::Raw(raw));
        Block { compression: Compression::None, stored: bytes, raw: bytes, checksum: sum, ..Block::default() }
    }

    /// Neighbours are written as one.
    fn add(&mut self, part: Part) {
        match (self.parts.last_mut(), &part) {
            (Some(Part::Raw(last)), Part::Raw(next)) if last.end == next.start => last.end = next.end,
            (Some(Part::Packed(last)), Part::Packed(next)) if last.end == next.start => last.end = next.end,
            _ => self.parts.push(part),
        }
    }
}

// One call writes a whole batch: the kernel takes 1024 slices at once.
const _: () = assert!(BATCH_BYTES / PAGE_BYTES <= 1024);
