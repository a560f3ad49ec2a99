//! Address spaces, what is behind them, and what of it has its contents in the image.

use serde::{Deserialize, Serialize};

use super::ObjectIndex;

/// Memory of a process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemoryLayout {
    /// start_code, end_code, start_data, end_data, start_brk, brk, start_stack, arg_start, arg_end, env_start, env_end
    /// (the order of struct prctl_mm_map).
    pub mm: [u64; 11],
    /// Auxiliary vector, key and value by turns.
    pub auxv: Vec<u64>,
    /// Where the control segment is mapped.
    pub segment_address: u64,
    /// In ascending order; the control segment and vsyscall are not among them.
    pub vmas: Vec<Vma>,
}

/// A virtual memory area.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vma {
    #[allow(missing_docs)]
    pub start: u64,
    #[allow(missing_docs)]
    pub end: u64,
    /// PROT_* bits.
    pub protection: u32,
    /// MAP_SHARED.
    pub shared: bool,
    #[allow(missing_docs)]
    pub backing: Backing,
    /// VmFlags of smaps that matter: lo, gd, dc, dd, wf, hg, nh, mg, nr, ht; and `whole`: all its pages are in the image,
    /// whatever is behind it (our own library, whose file may be another one where the job is restarted).
    pub flags: Vec<String>,
}

/// What is behind a VMA.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backing {
    /// Private anonymous memory; Some(name) of PR_SET_VMA_ANON_NAME.
    #[default]
    Anonymous,
    /// `[heap]`.
    Heap,
    /// `[stack]` of the leader.
    Stack,
    /// `[vvar]`, `[vvar_vclock]`, `[vdso]`: never with contents.
    Vdso(String),
    /// A file on disk from `offset` bytes on. Private: pages written to are in the image. Shared: read-only use.
    File {
        #[allow(missing_docs)]
        file: FileIdentity,
        #[allow(missing_docs)]
        offset: u64,
    },
    /// An [`Object`] of the image from `offset` bytes on (shared, or a private mapping of a deleted file).
    Object {
        #[allow(missing_docs)]
        object: ObjectIndex,
        #[allow(missing_docs)]
        offset: u64,
    },
    /// A character device such as /dev/zero (private).
    Device(String),
}

/// Which file, and how to see at a restart that it still is that file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileIdentity {
    #[allow(missing_docs)]
    pub path: String,
    #[allow(missing_docs)]
    pub device: u64,
    #[allow(missing_docs)]
    pub inode: u64,
    #[allow(missing_docs)]
    pub size: u64,
    /// ns since 1970.
    pub modified_ns: i64,
    /// XXH3-128 of its bytes as 32 hex digits; filled for programs and libraries, may be empty elsewhere.
    pub hash: String,
}

/// Something whose bytes are in the image, once, with holes left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Object {
    #[allow(missing_docs)]
    pub kind: ObjectKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// Kinds of [`Object`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// Anonymous MAP_SHARED memory, /dev/zero shared.
    #[default]
    Anonymous,
    /// memfd_create(2): name and seals.
    Memfd {
        #[allow(missing_docs)]
        name: String,
        #[allow(missing_docs)]
        seals: u32,
        #[allow(missing_docs)]
        hugetlb: bool,
    },
    /// shmget(2).
    SysV {
        #[allow(missing_docs)]
        id: i32,
        #[allow(missing_docs)]
        key: i32,
        /// Marked for removal.
        removed: bool,
    },
    /// A file with a name that has to come back with its contents: mapped shared and writable, or on /dev/shm.
    Named {
        #[allow(missing_docs)]
        file: FileIdentity,
    },
    /// A small file that the job has open in a folder for temporary files: comes back with its contents where it is gone (a
    /// launcher that aborts clears its session's folder away), and is left alone where it is there.
    Spare {
        #[allow(missing_docs)]
        file: FileIdentity,
    },
    /// A deleted file: its last path.
    Deleted {
        #[allow(missing_docs)]
        path: String,
    },
}
