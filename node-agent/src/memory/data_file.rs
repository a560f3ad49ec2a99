//! The file that one worker writes.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::PathBuf;

use node_agent_image::contents::Block;

use super::error::WriteError;
use super::sys;

/// After so many bytes the disk is told to begin.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// A data file that grows.
#[derive(Debug)]
pub struct DataFile {
    /// J of `node-K.data-J`.
    pub number: u32,
    pub path: PathBuf,
    pub file: File,
    /// Its length.
    pub bytes: u64,
    /// Up to where the disk has been told to begin.
    begun: u64,
}

impl DataFile {
    pub fn new(number: u32, path: PathBuf, file: File) -> Self {
        Self { number, path, file, bytes: 0, begun: 0 }
    }

    /// Writes slices one behind the other.
    pub fn append(&mut self, mut slices: &mut [IoSlice<'_>]) -> Result<(), WriteError> {
        while !slices.is_empty() {
            let written = match self.file.write_vectored(slices) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other,
            };
            let written = written.map_err(WriteError::file("write", &self.path))?;
            self.bytes += written as u64;
            IoSlice::advance_slices(&mut slices, written);
        }
        if self.bytes - self.begun >= WRITEBACK_BYTES {
            sys::begin_writeback(&self.file, self.begun, self.bytes);
            self.begun = self.bytes;
        }
        Ok(())
    }
}

/// Blocks in the order in which they lie in the file, as [`node_agent_image::contents::Contents::blocks`] has them.
pub fn lay_out(file: u32, blocks: &[Block]) -> impl Iterator<Item = Block> {
    let mut offset = 0;
    blocks.iter().map(move |block| {
        let here = Block { file, offset, ..*block };
        offset += u64::from(block.stored);
        here
    })
}
