//! Which bytes belong where: runs of pages of processes and objects, and the blocks that hold them.

use crate::FormatError;
use crate::limits::{BLOCK_BYTES_MAX, PAGE_BYTES};
use crate::model::NodeModel;
use crate::parse::field_error;

/// Whose contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Index into [`NodeModel::processes`]; runs begin at addresses.
    Process(usize),
    /// Index into [`NodeModel::objects`]; runs begin at offsets.
    Object(usize),
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Process(index) => write!(f, "process {index} of the model"),
            Self::Object(index) => write!(f, "object {index} of the model"),
        }
    }
}

/// Everything but the model: what the data files hold and where it goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// Each owner once: processes before objects, ascending.
    pub owners: Vec<OwnerRuns>,
    /// Bytes of each data file.
    pub files: Vec<u64>,
    /// File after file, in the order in which they lie there, without gaps.
    pub blocks: Vec<Block>,
}

/// What one owner's memory holds. What is in no run is zero, or what its mapping's file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRuns {
    #[allow(missing_docs)]
    pub owner: Owner,
    /// Ascending, without overlap.
    pub runs: Vec<Run>,
}

/// Neighbouring pages whose bytes are neighbours in a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Address or offset.
    pub start: u64,
    #[allow(missing_docs)]
    pub bytes: u32,
    /// Index into [`Contents::blocks`].
    pub block: u32,
    /// Where it begins in the raw block.
    pub at: u32,
}

impl Run {
    /// First byte behind it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes as u64)
    }
}

/// Up to [`BLOCK_BYTES_MAX`] bytes of contents as they are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Index into [`Contents::files`].
    pub file: u32,
    #[allow(missing_docs)]
    pub compression: Compression,
    /// Bytes in the file.
    pub stored: u32,
    /// Bytes of memory.
    pub raw: u32,
    /// Where it begins in the file. Not in the tables: it is the sum of what lies before.
    pub offset: u64,
    /// XXH3-128 of the stored bytes.
    pub checksum: u128,
}

/// How a block is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// LZ4's block format.
    Lz4,
}

const PAGE: u64 = PAGE_BYTES as u64;

/// Where in the model file each table begins, for errors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Places {
    pub json: u64,
    pub owners: u64,
    pub runs: u64,
    pub blocks: u64,
}

/// Everything that has to hold between model and tables and is not checked while they are read.
pub(crate) fn validate(file: &str, places: Places, model: &NodeModel, contents: &Contents) -> Result<(), FormatError> {
    crate::model::check(file, places.json, model)?;
    check_blocks(file, places, contents)?;
    let mut first = 0;
    for (index, owned) in contents.owners.iter().enumerate() {
        let place = places.owners + (index * crate::node::OWNER_BYTES) as u64;
        let error = |reason: &str| field_error(file, place, format!("owners[{index}]"), reason);
        if index > 0 && contents.owners[index - 1].owner >= owned.owner {
            return Err(error("not behind the one before"));
        }
        check_runs(file, places, first, owned, &contents.blocks)?;
        let outside = match owned.owner {
            Owner::Process(process) => {
                let process =
                    model.processes.get(process).ok_or_else(|| error("a process that is not in the model"))?;
                check_vmas(file, places, owned.owner, &process.memory.vmas)?;
                outside_vmas(&owned.runs, &process.memory.vmas)
            }
            Owner::Object(object) => {
                let object = model.objects.get(object).ok_or_else(|| error("an object that is not in the model"))?;
                let pages = object.size.div_ceil(PAGE);
                owned.runs.iter().position(|run| run.end().div_ceil(PAGE) > pages)
            }
        };
        if let Some(run) = outside {
            let reason = format!("{:#x} is not in the memory of {}", owned.runs[run].start, owned.owner);
            return Err(run_error(file, places, first + run, "start", &reason));
        }
        first += owned.runs.len();
    }
    Ok(())
}

fn run_error(file: &str, places: Places, index: usize, field: &str, reason: &str) -> FormatError {
    let offset = places.runs + (index * crate::node::RUN_BYTES) as u64;
    field_error(file, offset, format!("runs[{index}].{field}"), reason)
}

fn check_blocks(file: &str, places: Places, contents: &Contents) -> Result<(), FormatError> {
    for (index, block) in contents.blocks.iter().enumerate() {
        let raw = block.raw as usize;
        let (field, reason) = match block.compression {
            _ if raw == 0 || !raw.is_multiple_of(PAGE_BYTES) => ("raw", "not a number of pages"),
            _ if raw > BLOCK_BYTES_MAX => ("raw", "more than a block can have"),
            _ if block.stored == 0 => ("stored", "nothing"),
            Compression::None if block.stored != block.raw => ("stored", "another length than in memory"),
            Compression::Lz4 if block.stored >= block.raw => ("stored", "not shorter than in memory"),
            _ => continue,
        };
        let offset = places.blocks + (index * crate::node::BLOCK_ENTRY_BYTES) as u64;
        return Err(field_error(file, offset, format!("blocks[{index}].{field}"), reason));
    }
    Ok(())
}

/// `first`: the number of the owner's first run among all runs.
fn check_runs(
    file: &str,
    places: Places,
    first: usize,
    owned: &OwnerRuns,
    blocks: &[Block],
) -> Result<(), FormatError> {
    let mut before = 0;
    for (index, run) in owned.runs.iter().enumerate() {
        let error = |field, reason| Err(run_error(file, places, first + index, field, reason));
        let Some(block) = blocks.get(run.block as usize) else {
            return error("block", "not in the table of blocks");
        };
        if run.bytes == 0 || !(run.bytes as usize).is_multiple_of(PAGE_BYTES) {
            return error("bytes", "not a number of pages");
        }
        if !run.start.is_multiple_of(PAGE) || run.start.checked_add(run.bytes.into()).is_none() {
            return error("start", "not the beginning of a page that can be");
        }
        if !(run.at as usize).is_multiple_of(PAGE_BYTES)
            || u64::from(run.at) + u64::from(run.bytes) > u64::from(block.raw)
        {
            return error("at", "outside of its block");
        }
        if run.start < before {
            return error("start", "before the end of the run before");
        }
        before = run.end();
    }
    Ok(())
}

fn check_vmas(file: &str, places: Places, owner: Owner, vmas: &[crate::model::Vma]) -> Result<(), FormatError> {
    let mut before = 0;
    for (index, vma) in vmas.iter().enumerate() {
        if vma.start < before || vma.end <= vma.start {
            let field = format!("{owner}: memory.vmas[{index}]");
            return Err(field_error(file, places.json, field, "not behind the one before"));
        }
        before = vma.end;
    }
    Ok(())
}

/// The first run of which a byte is in no VMA. Both ascend; a run may go on from one VMA into its neighbour.
fn outside_vmas(runs: &[Run], vmas: &[crate::model::Vma]) -> Option<usize> {
    let mut rest = vmas.iter().peekable();
    runs.iter().position(|run| {
        let mut at = run.start;
        while at < run.end() {
            while rest.next_if(|vma| vma.end <= at).is_some() {}
            match rest.peek() {
                Some(vma) if vma.start <= at => at = vma.end,
                _ => return true,
            }
        }
        false
    })
}
