//! Page contents on their way into a data file and out of it.

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};

use crate::contents::{Block, Compression};
use crate::limits::BLOCK_BYTES;
use crate::{FormatError, checksum};

/// Bytes from the middle of a block that are tried first: noise is not worth a try of the whole.
const SAMPLE_BYTES: usize = 4096;
/// Bytes that [`Packer::pack`] needs for the longest block.
pub const PACK_BYTES: usize = get_maximum_output_size(BLOCK_BYTES);
/// Compression has to save one part in this many, or the block is stored as it is: what costs less to write must not
/// cost more to read.
const WORTH: usize = 8;

/// Compresses blocks, one after the other.
pub struct Packer {
    table: CompressTable,
    sample: Vec<u8>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Packer")
    }
}

impl Default for Packer {
    fn default() -> Self {
        Self { table: CompressTable::large(), sample: vec![0; get_maximum_output_size(SAMPLE_BYTES)] }
    }
}

impl Packer {
    /// Compresses `raw`, at most [`BLOCK_BYTES`], to the beginning of `packed`, at least [`PACK_BYTES`]. The compressed
    /// length; None when it does not pay.
    pub fn pack(&mut self, raw: &[u8], packed: &mut [u8]) -> Option<usize> {
        if raw.len() > 4 * SAMPLE_BYTES {
            let middle = &raw[raw.len() / 2..][..SAMPLE_BYTES];
            let length = compress_into_with_table(middle, &mut self.sample, &mut self.table).ok()?;
            if length > worth(SAMPLE_BYTES) {
                return None;
            }
        }
        let length = compress_into_with_table(raw, packed, &mut self.table).ok()?;
        (length <= worth(raw.len())).then_some(length)
    }
}

fn worth(raw: usize) -> usize {
    raw - raw / WORTH
}

impl Block {
    /// Raw bytes of a block, given what is stored of it: `stored` itself, or the beginning of `scratch`, which has to
    /// have [`Block::raw`] bytes. Nothing that the checksum does not vouch for comes out.
    ///
    /// # Errors
    /// When they are not what was written; names `file`.
    pub fn unpack<'a>(&self, file: &str, stored: &'a [u8], scratch: &'a mut [u8]) -> Result<&'a [u8], FormatError> {
        let is = checksum(stored);
        if is != self.checksum || stored.len() != self.stored as usize {
            return Err(FormatError::Checksum {
                file: file.into(),
                offset: self.offset,
                bytes: stored.len() as u64,
                is,
                should: self.checksum,
            });
        }
        let raw = self.raw as usize;
        match self.compression {
            Compression::None => Ok(stored),
            Compression::Lz4 => match decompress_into(stored, &mut scratch[..raw]) {
                Ok(length) if length == raw => Ok(&scratch[..raw]),
                Ok(length) => Err(self.bad(file, format!("gives {length} bytes in place of {raw}"))),
                Err(error) => Err(self.bad(file, error.to_string())),
            },
        }
    }

    fn bad(&self, file: &str, reason: String) -> FormatError {
        crate::parse::field_error(file, self.offset, "a block compressed with LZ4", reason)
    }
}

/// True when all bytes of a page, or of any other piece, are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // Memory that is not zero mostly says so at once; the rest is summed up in chunks that the compiler makes vectors of.
    let (chunks, rest) = bytes.as_chunks::<64>();
    chunks.iter().all(|chunk| chunk.iter().fold(0, |sum, byte| sum | byte) == 0) && rest.iter().all(|byte| *byte == 0)
}

const _: () = assert!(BLOCK_BYTES > 4 * SAMPLE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 88_172_645_463_325_252_u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(next).collect()
    }

    fn stored(raw: &[u8]) -> (Block, Vec<u8>) {
        let mut packed = vec![0; PACK_BYTES];
        let (compression, bytes) = match Packer::default().pack(raw, &mut packed) {
            Some(length) => (Compression::Lz4, packed[..length].to_vec()),
            None => (Compression::None, raw.to_vec()),
        };
        let (length, checksum) = (bytes.len() as u32, checksum(&bytes));
        let block = Block { compression, stored: length, raw: raw.len() as u32, checksum, ..Block::default() };
        (block, bytes)
    }

    #[test]
    fn noise_stays_and_slopes_shrink() {
        let slope: Vec<u8> = (0..BLOCK_BYTES).map(|at| (at >> 9) as u8).collect();
        for (raw, compression) in [(slope, Compression::Lz4), (noise(BLOCK_BYTES), Compression::None)] {
            for length in [4096, 12288, BLOCK_BYTES] {
                let raw = &raw[..length];
                let (block, bytes) = stored(raw);
                assert_eq!(block.compression, compression);
                assert_eq!(block.unpack("f", &bytes, &mut vec![0; length]).unwrap(), raw);
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        let (block, bytes) = stored(&vec![7; 4096]);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = block.unpack("f", &bad, &mut [0; 4096]).unwrap_err();
            assert!(matches!(error, FormatError::Checksum { .. }), "{error}");
        }
        assert!(block.unpack("f", &bytes[1..], &mut [0; 4096]).is_err());
    }

    #[test]
    fn a_checksum_of_nonsense_does_not_help() {
        for bytes in [noise(100), vec![0xff; 64], vec![0; 64], stored(&vec![7; 8192]).1, stored(&[7; 100]).1] {
            let (stored, checksum) = (bytes.len() as u32, checksum(&bytes));
            let block = Block { compression: Compression::Lz4, stored, raw: 4096, checksum, ..Block::default() };
            let error = block.unpack("f", &bytes, &mut [0; 4096]).unwrap_err();
            assert!(matches!(error, FormatError::Field { .. }), "{error}");
        }
    }

    #[test]
    fn one_byte_makes_a_page_matter() {
        let mut page = [0; 4096];
        assert!(is_zero(&page) && is_zero(&[]) && is_zero(&page[..100]));
        for at in [0, 63, 64, 4095] {
            page[at] = 1;
            assert!(!is_zero(&page));
            page[at] = 0;
        }
    }
}
