//! Where contents are read from while the job is parked.

/// Whose contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// Index into `NodeModel::processes`.
    Process(usize),
    /// Index into `NodeModel::objects`.
    Object(usize),
}

/// A page-aligned piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    #[allow(missing_docs)]
    pub start: u64,
    #[allow(missing_docs)]
    pub end: u64,
    /// Zero pages must be stored too: a file shines through below.
    pub keep_zeros: bool,
}

/// Where the bytes of a source are.
#[derive(Debug)]
pub enum Bytes {
    /// At base + offset in that process (wrapping: `base` is below zero where a mapping begins far into its file).
    Memory {
        /// As the agent sees it.
        pid: u32,
        #[allow(missing_docs)]
        base: u64,
    },
    /// In a file that this process has open for reading. What lies behind its end, in its last page, counts as zeros.
    File(std::fs::File),
}

/// Something to be read.
#[derive(Debug)]
pub struct Source {
    #[allow(missing_docs)]
    pub owner: Owner,
    #[allow(missing_docs)]
    pub bytes: Bytes,
    /// Ascending, without overlap: addresses of a process (base 0), offsets of an object.
    pub stretches: Vec<Stretch>,
}
