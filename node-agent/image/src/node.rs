//! The model file: a header, the model as JSON, tables of owners, runs, data files and blocks, and the checksum of all of it.

use crate::contents::{Block, Compression, Contents, Owner, OwnerRuns, Places, Run, validate};
use crate::limits::{BLOCKS_MAX, DATA_FILES_MAX, MODEL_BYTES_MAX, MODEL_JSON_BYTES_MAX, OWNERS_MAX, RUNS_MAX};
use crate::model::NodeModel;
use crate::parse::{Cursor, at_most, field_error, json};
use crate::{ARCHITECTURE, FORMAT, FormatError, architecture_name, checksum};

/// First bytes of a model file.
const MAGIC: &[u8; 8] = b"SLKMODEL";
/// Magic, version, architecture, five numbers.
pub const HEADER_BYTES: usize = 56;
/// Kind, index, number of runs.
pub const OWNER_BYTES: usize = 16;
/// Start, bytes, block, place in the block.
pub const RUN_BYTES: usize = 20;
/// Blocks, bytes.
pub const DATA_FILE_BYTES: usize = 16;
/// Compression, stored, raw, checksum.
pub const BLOCK_ENTRY_BYTES: usize = 28;
/// The checksum.
pub const TRAILER_BYTES: usize = 16;

/// How much of everything there is.
#[derive(Clone, Copy, Debug)]
struct Header {
    json: usize,
    owners: usize,
    files: usize,
    runs: usize,
    blocks: usize,
}

impl Header {
    fn places(&self) -> Places {
        let json = HEADER_BYTES as u64;
        let owners = json + self.json as u64;
        let runs = owners + (self.owners * OWNER_BYTES) as u64;
        let files = runs + (self.runs * RUN_BYTES) as u64;
        Places { json, owners, runs, blocks: files + (self.files * DATA_FILE_BYTES) as u64 }
    }

    fn file_bytes(&self) -> u64 {
        self.places().blocks + (self.blocks * BLOCK_ENTRY_BYTES + TRAILER_BYTES) as u64
    }

    /// With every limit.
    fn new(file: &str, [json, owners, files, runs, blocks]: [u64; 5]) -> Result<Self, FormatError> {
        Ok(Self {
            json: at_most(file, "bytes of the JSON model", json, MODEL_JSON_BYTES_MAX)?,
            owners: at_most(file, "owners of contents", owners, OWNERS_MAX)?,
            files: at_most(file, "data files", files, DATA_FILES_MAX)?,
            runs: at_most(file, "runs", runs, RUNS_MAX)?,
            blocks: at_most(file, "blocks", blocks, BLOCKS_MAX)?,
        })
    }
}

/// As it lies in `node-K.model`. `contents` have to be as their types say; [`decode`] checks it.
///
/// # Errors
/// [`FormatError::Limit`]; names `file`.
pub fn encode(file: &str, model: &NodeModel, contents: &Contents) -> Result<Vec<u8>, FormatError> {
    let json = serde_json::to_vec(model).map_err(|error| field_error(file, 0, "model", error.to_string()))?;
    let runs: usize = contents.owners.iter().map(|it| it.runs.len()).sum();
    let counts = [json.len(), contents.owners.len(), contents.files.len(), runs, contents.blocks.len()];
    let header = Header::new(file, counts.map(|it| it as u64))?;
    let mut bytes = Vec::with_capacity(header.file_bytes() as usize);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&ARCHITECTURE.to_le_bytes());
    counts.iter().for_each(|count| bytes.extend_from_slice(&(*count as u64).to_le_bytes()));
    bytes.extend_from_slice(&json);
    for owned in &contents.owners {
        let (kind, index) = match owned.owner {
            Owner::Process(index) => (0_u32, index as u32),
            Owner::Object(index) => (1, index as u32),
        };
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&index.to_le_bytes());
        bytes.extend_from_slice(&(owned.runs.len() as u64).to_le_bytes());
    }
    for run in contents.owners.iter().flat_map(|it| &it.runs) {
        bytes.extend_from_slice(&run.start.to_le_bytes());
        [run.bytes, run.block, run.at].iter().for_each(|it| bytes.extend_from_slice(&it.to_le_bytes()));
    }
    let mut blocks = vec![0_u64; contents.files.len()];
    contents.blocks.iter().for_each(|block| blocks[block.file as usize] += 1);
    for (blocks, length) in blocks.iter().zip(&contents.files) {
        bytes.extend_from_slice(&blocks.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
    }
    for block in &contents.blocks {
        let compression = match block.compression {
            Compression::None => 0_u32,
            Compression::Lz4 => 1,
        };
        [compression, block.stored, block.raw].iter().for_each(|it| bytes.extend_from_slice(&it.to_le_bytes()));
        bytes.extend_from_slice(&block.checksum.to_le_bytes());
    }
    let sum = checksum(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

/// What is in a model file, with every check that needs no other file.
///
/// # Errors
/// Bytes that were not written by [`encode`], or by that of another version or architecture.
pub fn decode(file: &str, bytes: &[u8]) -> Result<(NodeModel, Contents), FormatError> {
    let header = check_frame(file, bytes)?;
    let mut cursor = Cursor::new(file, bytes);
    cursor.bytes(HEADER_BYTES, "header")?;
    let places = header.places();
    let model: NodeModel = json(file, places.json, cursor.bytes(header.json, "model")?)?;
    let owners = decode_owners(&mut cursor, &header)?;
    let (files, blocks) = decode_blocks(&mut cursor, &header)?;
    let contents = Contents { owners, files, blocks };
    validate(file, places, &model, &contents)?;
    Ok((model, contents))
}

/// Length, magic, checksum, version, architecture and limits: whatever can be said without looking inside.
fn check_frame(file: &str, bytes: &[u8]) -> Result<Header, FormatError> {
    at_most(file, "bytes of a model file", bytes.len() as u64, MODEL_BYTES_MAX as usize)?;
    if !bytes.starts_with(MAGIC) {
        return Err(FormatError::Mark { file: file.into(), what: "model file" });
    }
    let length = bytes.len() as u64;
    let least = (HEADER_BYTES + TRAILER_BYTES) as u64;
    if length < least {
        return Err(FormatError::Length { file: file.into(), is: length, should: least });
    }
    let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
    let (is, should) = (checksum(body), Cursor::new(file, trailer).u128("checksum")?);
    if is != should {
        return Err(FormatError::Checksum { file: file.into(), offset: 0, bytes: body.len() as u64, is, should });
    }
    let mut cursor = Cursor::new(file, bytes);
    cursor.bytes(MAGIC.len(), "magic")?;
    let version = cursor.u32("format version")?;
    if version > FORMAT {
        return Err(FormatError::Newer { file: file.into(), theirs: version });
    }
    if version == 0 {
        return Err(field_error(file, MAGIC.len() as u64, "format version", "0"));
    }
    let architecture = cursor.u32("architecture")?;
    if architecture != ARCHITECTURE {
        return Err(FormatError::Architecture { file: file.into(), theirs: architecture_name(architecture) });
    }
    let mut counts = [0; 5];
    for (count, field) in counts.iter_mut().zip(["JSON", "owners", "data files", "runs", "blocks"]) {
        *count = cursor.u64(field)?;
    }
    let header = Header::new(file, counts)?;
    if length != header.file_bytes() {
        return Err(FormatError::Length { file: file.into(), is: length, should: header.file_bytes() });
    }
    Ok(header)
}

fn decode_owners(cursor: &mut Cursor<'_>, header: &Header) -> Result<Vec<OwnerRuns>, FormatError> {
    let mut owners = Vec::with_capacity(header.owners);
    let mut left = header.runs;
    for number in 0..header.owners {
        let kind = cursor.u32("owner.kind")?;
        let index = cursor.u32("owner.index")? as usize;
        let runs = cursor.u64("owner.runs")?;
        let owner = match kind {
            0 => Owner::Process(index),
            1 => Owner::Object(index),
            other => return Err(cursor.error(format!("owners[{number}].kind"), format!("{other}"))),
        };
        left = usize::try_from(runs)
            .ok()
            .and_then(|runs| left.checked_sub(runs))
            .ok_or_else(|| cursor.error(format!("owners[{number}].runs"), "more runs than there are"))?;
        owners.push((owner, runs as usize));
    }
    if left > 0 {
        return Err(cursor.error("owners", format!("{left} runs belong to nobody")));
    }
    let mut owned = Vec::with_capacity(owners.len());
    for (owner, count) in owners {
        let mut runs = Vec::with_capacity(count);
        for _ in 0..count {
            let (start, bytes) = (cursor.u64("run.start")?, cursor.u32("run.bytes")?);
            runs.push(Run { start, bytes, block: cursor.u32("run.block")?, at: cursor.u32("run.at")? });
        }
        owned.push(OwnerRuns { owner, runs });
    }
    Ok(owned)
}

fn decode_blocks(cursor: &mut Cursor<'_>, header: &Header) -> Result<(Vec<u64>, Vec<Block>), FormatError> {
    let mut files = Vec::with_capacity(header.files);
    for _ in 0..header.files {
        files.push((cursor.u64("file.blocks")?, cursor.u64("file.bytes")?));
    }
    let mut blocks = Vec::with_capacity(header.blocks);
    for (number, (count, length)) in files.iter().enumerate() {
        let mut offset = 0_u64;
        if *count == 0 || *count > (header.blocks - blocks.len()) as u64 {
            return Err(cursor.error(format!("files[{number}].blocks"), format!("{count}")));
        }
        for _ in 0..*count {
            let compression = match cursor.u32("block.compression")? {
                0 => Compression::None,
                1 => Compression::Lz4,
                other => return Err(cursor.error(format!("blocks[{}].compression", blocks.len()), format!("{other}"))),
            };
            let (stored, raw) = (cursor.u32("block.stored")?, cursor.u32("block.raw")?);
            let checksum = cursor.u128("block.checksum")?;
            blocks.push(Block { file: number as u32, compression, stored, raw, offset, checksum });
            offset += u64::from(stored);
        }
        if offset != *length {
            let reason = format!("{length}, and its blocks have {offset}");
            return Err(cursor.error(format!("files[{number}].bytes"), reason));
        }
    }
    if blocks.len() != header.blocks {
        return Err(cursor.error("blocks", "more than the data files have"));
    }
    Ok((files.into_iter().map(|(_, bytes)| bytes).collect(), blocks))
}
