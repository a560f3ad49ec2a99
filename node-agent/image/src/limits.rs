//! What a generation has at most. Checked before anything is allocated for it.

/// Bytes of a page: the unit of all addresses, offsets and lengths of contents.
pub const PAGE_BYTES: usize = 4096;
/// Raw bytes of a block as it is written: with its compressed twin it stays in a core's second-level cache, and its
/// entry in the tables (48 bytes) is no cost beside it.
pub const BLOCK_BYTES: usize = 128 << 10;
/// Raw bytes of a block that is read: room for later writers.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Virtual nodes of a generation: more than any machine of today has.
pub const NODES_MAX: usize = 1 << 14;
/// Bytes of a host's name: what DNS allows, four times what uname(2) tells.
pub const HOST_BYTES_MAX: usize = 255;
/// Data files of all nodes together: those of 8,192 nodes with 128 cores each.
pub const DATA_FILES_IN_ALL_MAX: usize = 1 << 20;
/// Manifest: a line for each node, in it 60 bytes for each data file. With as much of everything as there may be it fits.
pub const MANIFEST_BYTES_MAX: u64 = 128 << 20;
/// Data files of a node: one for each core that writes.
pub const DATA_FILES_MAX: usize = 4096;
/// The model as JSON: kilobytes, unless sockets and pipes are full; then what their buffers hold, in base64.
pub const MODEL_JSON_BYTES_MAX: usize = 512 << 20;
/// Processes and objects of a node that have contents: as many as there are pids.
pub const OWNERS_MAX: usize = 1 << 22;
/// Blocks of a node: 8 TiB of them.
pub const BLOCKS_MAX: usize = 1 << 26;
/// Runs of a node: twice as many, since equal blocks are stored once and zero pages are left out.
pub const RUNS_MAX: usize = 1 << 27;
/// A model file with as much of everything as there may be.
pub const MODEL_BYTES_MAX: u64 = MODEL_JSON_BYTES_MAX as u64
    + (OWNERS_MAX * crate::node::OWNER_BYTES
        + RUNS_MAX * crate::node::RUN_BYTES
        + DATA_FILES_MAX * crate::node::DATA_FILE_BYTES
        + BLOCKS_MAX * crate::node::BLOCK_ENTRY_BYTES
        + crate::node::HEADER_BYTES
        + crate::node::TRAILER_BYTES) as u64;
