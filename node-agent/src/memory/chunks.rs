//! Reading blocks back, some neighbours at a time.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use node_agent_image::FormatError;
use node_agent_image::contents::{Block, Compression, Contents};
use node_agent_image::names;

use super::error::ImageError;
use super::generation::open_file;

/// Raw bytes of a chunk, but for one block that is longer.
const CHUNK_BYTES: usize = 1 << 20;

/// The data files of a node, open.
#[derive(Debug)]
pub struct DataFiles(Vec<(PathBuf, File)>);

impl DataFiles {
    pub fn open(folder: &Path, node: u32, contents: &Contents) -> Result<Self, ImageError> {
        let open = |number| {
            let path = folder.join(names::data(node, number));
            let file = open_file(&path).map_err(ImageError::file("open", &path))?;
            Ok((path, file))
        };
        (0..contents.files.len()).map(open).collect::<Result<_, _>>().map(Self)
    }
}

/// Neighbours in one file, dealt out to threads.
pub fn chunks(blocks: &[Block]) -> Vec<Range<usize>> {
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (index, block) in blocks.iter().enumerate() {
        bytes += block.raw as usize;
        match chunks.last_mut() {
            Some(last) if blocks[last.start].file == block.file && bytes <= CHUNK_BYTES => last.end = index + 1,
            _ => {
                chunks.push(index..index + 1);
                bytes = block.raw as usize;
            }
        }
    }
    chunks
}

/// Buffers of a thread that reads chunks.
#[derive(Debug, Default)]
pub struct ChunkReader {
    stored: Vec<u8>,
    raw: Vec<u8>,
}

impl ChunkReader {
    /// Raw bytes of each block of a chunk, or why they cannot be had. The outer error: the file cannot be read.
    pub fn read(&mut self, files: &DataFiles, blocks: &[Block]) -> Result<Vec<Result<&[u8], FormatError>>, ImageError> {
        let Some(first) = blocks.first() else { return Ok(Vec::new()) };
        let (path, file) = &files.0[first.file as usize];
        let bytes: usize = blocks.iter().map(|it| it.stored as usize).sum();
        grow(&mut self.stored, bytes);
        let read = file.read_exact_at(&mut self.stored[..bytes], first.offset);
        read.map_err(ImageError::file("read", path))?;
        let packed = blocks.iter().filter(|it| it.compression != Compression::None);
        grow(&mut self.raw, packed.map(|it| it.raw as usize).sum());
        let (mut stored, mut raw) = (&self.stored[..], &mut self.raw[..]);
        let mut unpacked = Vec::with_capacity(blocks.len());
        let name = path.display().to_string();
        for block in blocks {
            let (own, rest) = stored.split_at(block.stored as usize);
            stored = rest;
            let room = if block.compression == Compression::None { 0 } else { block.raw as usize };
            let (scratch, rest) = raw.split_at_mut(room);
            raw = rest;
            unpacked.push(block.unpack(&name, own, scratch));
        }
        Ok(unpacked)
    }
}

fn grow(buffer: &mut Vec<u8>, bytes: usize) {
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
}
