//! The restorer's file: read, laid out for an address, relocated.

use std::path::Path;

use super::error::RestartError;

const R_X86_64_RELATIVE: u64 = 8;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PROGRAM_HEADER_BYTES: usize = 56;
const RELA_BYTES: usize = 24;
/// The restorer has a few pages; anything much larger is another file.
const SPAN_MAX: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// A part with a protection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Offset from the load address, on a page boundary.
    pub start: u64,
    /// Whole pages.
    pub length: u64,
    /// PROT_*.
    pub protection: i32,
}

/// The restorer as it has to lie in memory.
#[derive(Clone, Debug)]
pub struct Restorer {
    /// All of it, from its load address on.
    bytes: Vec<u8>,
    /// Offset of the entry.
    pub entry: u64,
    #[allow(missing_docs)]
    pub segments: Vec<Segment>,
    /// Where (offset) a load address plus this addend belongs.
    relocations: Vec<(u64, u64)>,
}

impl Restorer {
    /// Reads the installed file.
    ///
    /// # Errors
    /// When there is none or it is of another kind.
    pub fn load(path: &Path) -> Result<Self, RestartError> {
        let refuse = |reason: String| RestartError::Restorer { path: path.into(), reason };
        let file = std::fs::read(path).map_err(|error| refuse(error.to_string()))?;
        Self::parse(&file).ok_or_else(|| refuse("it is not a position-independent x86-64 program of ours".into()))
    }

    fn parse(file: &[u8]) -> Option<Self> {
        let is_ours = file.starts_with(b"\x7fELF\x02\x01") && half(file, 16)? == ET_DYN && half(file, 18)? == EM_X86_64;
        if !is_ours || usize::from(half(file, 54)?) != PROGRAM_HEADER_BYTES {
            return None;
        }
        let table = word(file, 32)? as usize;
        let (mut bytes, mut segments, mut dynamic) = (Vec::new(), Vec::new(), None);
        for number in 0..usize::from(half(file, 56)?) {
            let at = table.checked_add(number * PROGRAM_HEADER_BYTES)?;
            let kind = u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?);
            let [offset, address, _, file_bytes, memory_bytes] =
                [at + 8, at + 16, at + 24, at + 32, at + 40].map(|at| word(file, at));
            let (offset, address, length) = (offset? as usize, address?, memory_bytes?);
            match kind {
                PT_LOAD => {
                    let end = address.checked_add(length).filter(|end| *end <= SPAN_MAX)?;
                    if bytes.len() < end as usize {
                        bytes.resize(end.next_multiple_of(PAGE) as usize, 0);
                    }
                    let part = file.get(offset..offset.checked_add(file_bytes? as usize)?)?;
                    bytes.get_mut(address as usize..address as usize + part.len())?.copy_from_slice(part);
                    let start = address & !(PAGE - 1);
                    let flags = u32::from_le_bytes(file.get(at + 4..at + 8)?.try_into().ok()?);
                    segments.push(Segment {
                        start,
                        length: end.next_multiple_of(PAGE) - start,
                        protection: protection(flags),
                    });
                }
                PT_DYNAMIC => dynamic = Some((address as usize, length as usize)),
                _ => {}
            }
        }
        let relocations = relocations(&bytes, dynamic)?;
        Some(Self { entry: word(file, 24)?, bytes, segments, relocations })
    }

    /// Bytes in memory, whole pages.
    pub fn span(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The bytes for load address `base`.
    pub fn relocated(&self, base: u64) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for (place, addend) in &self.relocations {
            let place = *place as usize;
            bytes[place..place + 8].copy_from_slice(&base.wrapping_add(*addend).to_le_bytes());
        }
        bytes
    }
}

fn half(file: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?))
}

fn word(file: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(file.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn protection(flags: u32) -> i32 {
    let bit = |flag: u32, bit: i32| if flags & flag == 0 { 0 } else { bit };
    bit(1, libc::PROT_EXEC) | bit(2, libc::PROT_WRITE) | bit(4, libc::PROT_READ)
}

/// Relative relocations; any other kind means that the restorer was linked wrongly.
fn relocations(bytes: &[u8], dynamic: Option<(usize, usize)>) -> Option<Vec<(u64, u64)>> {
    let Some((at, length)) = dynamic else { return Some(Vec::new()) };
    let (mut table, mut size) = (0, 0);
    for entry in (at..at.checked_add(length)?).step_by(16) {
        match word(bytes, entry)? {
            DT_RELA => table = word(bytes, entry + 8)? as usize,
            DT_RELASZ => size = word(bytes, entry + 8)? as usize,
            _ => {}
        }
    }
    let mut found = Vec::new();
    for entry in (table..table.checked_add(size)?).step_by(RELA_BYTES) {
        let (place, kind, addend) = (word(bytes, entry)?, word(bytes, entry + 8)?, word(bytes, entry + 16)?);
        if kind != R_X86_64_RELATIVE || place.checked_add(8)? > bytes.len() as u64 {
            return None;
        }
        found.push((place, addend));
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(Restorer::parse(b"").is_none());
        assert!(Restorer::parse(b"\x7fELF\x02\x01\x01").is_none());
        assert!(Restorer::parse(&[0x7f; 4096]).is_none());
    }
}
