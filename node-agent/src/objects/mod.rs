//! Shared memory, and files whose bytes belong in the image: each inode is one object, however many processes map it,
//! with whatever protection, and however many descriptors lead to it.
//!
//! ```text
//! new      who maps and writes what, in the whole job                              (written.rs)
//! mapped   a mapping → its object, entered when it is first met                    (inode.rs, open.rs, sysv.rs)
//! find     a descriptor → the same object                                          (FileObjects)
//! sources  where the bytes are: an open file with its holes, or the memory of
//!          processes that map it                                                   (contents.rs)
//! ```
//!
//! A file's bytes are read through a descriptor of our own where one can be had. Anonymous and System V memory has no
//! path, and /proc/PID/map_files is root's: for an ordinary user it is read through processes that map it, which finds
//! no holes (and makes the kernel fill them with zero pages, as any reader of a mapping does).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use node_agent_image::model::{Object, ObjectIndex, ObjectKind};
use node_agent_proc::maps::Area;
use thiserror::Error;

use crate::files::FileObjects;
use crate::memory::Source;
use crate::snapshot::{FlagsAhead, MappedObjects, belongs_in_image, flags_now};

mod contents;
mod inode;
mod open;
mod sysv;
mod written;

use contents::Window;
use inode::{Inode, Name};
use open::{Opened, Readable};

/// Permission bits of what has none that anybody could see.
const OWN_MODE: u32 = 0o600;

/// Why shared memory cannot be saved. Nothing was changed.
#[derive(Debug, Error)]
pub enum ObjectsError {
    /// /proc refuses, or the process is gone.
    #[error("cannot read {what} of pid {host_pid} (as the node numbers it): {source}")]
    Process {
        /// As this process sees it.
        host_pid: u32,
        #[allow(missing_docs)]
        what: &'static str,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// The file behind an object.
    #[error("cannot find the contents of {object}: {source}")]
    Contents {
        #[allow(missing_docs)]
        object: String,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// Somebody could attach the segment again, and part of it is mapped nowhere.
    #[error("bytes {start} to {end} of {object} are mapped by no process of the job: they cannot be read")]
    Unmapped {
        #[allow(missing_docs)]
        object: String,
        #[allow(missing_docs)]
        start: u64,
        #[allow(missing_docs)]
        end: u64,
    },
}

/// The objects of one snapshot. The job has to be parked for all its life.
#[derive(Debug, Default)]
pub struct Objects {
    host_pids: Vec<u32>,
    ahead: Option<FlagsAhead>,
    written: HashSet<Inode>,
    entries: Vec<Entry>,
    /// By device and inode of stat(2).
    by_file: HashMap<(u64, u64), ObjectIndex>,
    /// By what maps shows, which is not the same on btrfs and overlayfs.
    by_area: HashMap<Inode, ObjectIndex>,
    /// Deleted files and memfds that the job has open; listed when first needed.
    opened: Option<Vec<Opened>>,
    sysv: sysv::Segments,
}

/// An object and where its bytes are.
#[derive(Debug)]
struct Entry {
    object: Object,
    file: Option<Readable>,
    /// Only where there is no file.
    windows: Vec<Window>,
    /// The size is known; otherwise it is what can be reached through the windows.
    sized: bool,
}

impl Objects {
    /// Looks at all mappings of the job's processes, which are parked. With `ahead` their VmFlags are taken from there
    /// (then `snapshot::settle` has to put them right), without it from smaps (12 ms for 1 GiB).
    ///
    /// # Errors
    /// When /proc refuses.
    pub fn new(host_pids: &[u32], ahead: Option<FlagsAhead>) -> Result<Self, ObjectsError> {
        let written = written::in_job(host_pids, ahead.as_ref())?;
        Ok(Self { host_pids: host_pids.to_vec(), ahead, written, ..Self::default() })
    }

    /// For `NodeModel::objects`.
    #[must_use]
    pub fn objects(&self) -> Vec<Object> {
        self.entries.iter().map(|it| it.object.clone()).collect()
    }

    /// Where the contents of all objects are read from while the job is parked; each byte once. Contents change as soon
    /// as the job runs: a twin shares them with it.
    ///
    /// # Errors
    /// Names the object.
    pub fn sources(&self) -> Result<Vec<Source>, ObjectsError> {
        let mut sources = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            contents::sources(index, entry, &mut sources)?;
        }
        Ok(sources)
    }

    fn enter(&mut self, host_pid: u32, area: &Area) -> io::Result<ObjectIndex> {
        match Name::of(area)? {
            Name::SysV { id, key } => Ok(self.enter_segment(host_pid, area, id, key)),
            Name::Anonymous => {
                let file = open::behind_mapping(host_pid, area);
                Ok(self.enter_file(area, file, |_| ObjectKind::Anonymous))
            }
            Name::Path(path) => match open::by_path(host_pid, area, path)? {
                Some((file, identity)) => {
                    Ok(self.enter_file(area, Some(file), |_| ObjectKind::Named { file: identity }))
                }
                None => self.enter_deleted(host_pid, area),
            },
        }
    }

    fn enter_segment(&mut self, host_pid: u32, area: &Area, id: i32, key: i32) -> ObjectIndex {
        let file = open::behind_mapping(host_pid, area);
        let of_file = file.as_ref().map(|it| (it.size, it.mode));
        let known = self.sysv.segment(host_pid, id);
        let (size, mode) = known.map(|it| (it.size, it.mode)).or(of_file).unwrap_or((0, OWN_MODE));
        let sized = known.is_some() || of_file.is_some();
        // Where it cannot be known, it is not removed: that leaves it behind in a namespace which goes with the job,
        // and the other way round its next shmat would fail.
        let kind = ObjectKind::SysV { id, key, removed: known.is_some_and(|it| it.removed) };
        self.push(Entry { object: Object { kind, size, mode }, file, windows: Vec::new(), sized })
    }

    /// A memfd, a deleted file, shared memory in huge pages.
    fn enter_deleted(&mut self, host_pid: u32, area: &Area) -> io::Result<ObjectIndex> {
        if let Some(index) = self.by_file.get(&inode::device_and_inode(area)) {
            return Ok(*index);
        }
        let name = inode::last_path(area)?;
        if self.opened.is_none() {
            self.opened = Some(open::list(&self.host_pids)?);
        }
        let opened = self.opened.iter().flatten().find(|it| it.is_behind(area));
        let file = opened.and_then(Opened::open).or_else(|| open::behind_mapping(host_pid, area));
        Ok(self.enter_file(area, file, |file| inode::kind_of_deleted(&name, file)))
    }

    /// Enters a file by its own device and inode, unless it is known.
    fn enter_file(
        &mut self,
        area: &Area,
        file: Option<Readable>,
        kind: impl FnOnce(Option<&File>) -> ObjectKind,
    ) -> ObjectIndex {
        let identity = file.as_ref().map_or_else(|| inode::device_and_inode(area), |it| it.identity);
        if let Some(index) = self.by_file.get(&identity) {
            return *index;
        }
        let kind = kind(file.as_ref().map(|it| &it.file));
        let (size, mode) = file.as_ref().map_or((0, OWN_MODE), |it| (it.size, it.mode));
        let sized = file.is_some();
        let index = self.push(Entry { object: Object { kind, size, mode }, file, windows: Vec::new(), sized });
        self.by_file.insert(identity, index);
        index
    }

    fn push(&mut self, entry: Entry) -> ObjectIndex {
        self.entries.push(entry);
        self.entries.len() - 1
    }
}

impl MappedObjects for Objects {
    fn mapped(&mut self, host_pid: u32, area: &Area) -> io::Result<ObjectIndex> {
        let key = Inode::of(area);
        let index = match self.by_area.get(&key) {
            Some(index) => *index,
            None => self.enter(host_pid, area)?,
        };
        self.by_area.insert(key, index);
        let entry = &mut self.entries[index];
        if entry.file.is_none() {
            let window = Window::new(host_pid, area);
            if !entry.sized {
                entry.object.size = window.reach(entry.object.size)?;
            }
            entry.windows.push(window);
        }
        Ok(index)
    }

    fn keeps(&self, area: &Area) -> bool {
        belongs_in_image(area) || self.written.contains(&Inode::of(area))
    }

    fn flags(&mut self, host_pid: u32, areas: &[Area]) -> io::Result<HashMap<u64, Vec<String>>> {
        match &self.ahead {
            Some(ahead) => ahead.of_all(host_pid, areas),
            None => flags_now(host_pid),
        }
    }
}

impl FileObjects for Objects {
    fn find(&self, device: u64, inode: u64) -> Option<ObjectIndex> {
        self.by_file.get(&(device, inode)).copied()
    }

    fn add_file(&mut self, file: OwnedFd, kind: ObjectKind) -> io::Result<ObjectIndex> {
        let readable = Readable::shared(File::from(file))?;
        let (identity, size, mode) = (readable.identity, readable.size, readable.mode);
        let entry =
            Entry { object: Object { kind, size, mode }, file: Some(readable), windows: Vec::new(), sized: true };
        // A spare copy is not the file: nobody's descriptor or mapping leads to it.
        let spare = matches!(entry.object.kind, ObjectKind::Spare { .. });
        let index = self.push(entry);
        if !spare {
            self.by_file.insert(identity, index);
        }
        Ok(index)
    }
}
