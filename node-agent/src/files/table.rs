//! All descriptors of the job and the open file descriptions behind them, each once.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;

use node_agent_image::model::{Descriptor, FileIndex};
use node_agent_proc::fdinfo::{self, Fdinfo};

use super::{FilesError, ProcessRef, sys};

/// An open file description of the job.
#[derive(Debug)]
pub struct Description {
    /// One descriptor that refers to it: pid as the agent sees it, number. Our own pid for files in flight.
    pub holder: (u32, RawFd),
    /// The same pid as the job sees it.
    pub pid: u32,
    /// Text of /proc/PID/fd/N.
    pub link: String,
    /// From stat(2).
    pub stat: Stat,
    /// From fdinfo.
    pub info: Fdinfo,
    /// Some(0, 1 or 2): what ckpt-run was started with.
    pub stream: Option<u32>,
}

impl Description {
    /// S_IFSOCK.
    pub fn is_socket(&self) -> bool {
        self.stat.kind() == libc::S_IFSOCK
    }
}

/// The part of stat(2) that matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    #[allow(missing_docs)]
    pub device: u64,
    #[allow(missing_docs)]
    pub inode: u64,
    #[allow(missing_docs)]
    pub mode: u32,
    #[allow(missing_docs)]
    pub rdev: u64,
    #[allow(missing_docs)]
    pub size: u64,
    #[allow(missing_docs)]
    pub links: u64,
    #[allow(missing_docs)]
    pub modified_ns: i64,
}

impl Stat {
    /// S_IFMT of the mode.
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

impl From<fs::Metadata> for Stat {
    fn from(it: fs::Metadata) -> Self {
        Self {
            device: it.dev(),
            inode: it.ino(),
            mode: it.mode(),
            rdev: it.rdev(),
            size: it.size(),
            links: it.nlink(),
            modified_ns: it.mtime() * 1_000_000_000 + it.mtime_nsec(),
        }
    }
}

/// Everything open in the job.
#[derive(Debug, Default)]
pub struct Table {
    /// In order of discovery.
    pub descriptions: Vec<Description>,
    /// Per process.
    pub descriptors: Vec<Vec<Descriptor>>,
    /// Indices by inode, sorted by kcmp: a description is compared with few.
    groups: HashMap<(u64, u64, String), Vec<FileIndex>>,
    inodes: HashMap<u64, Vec<FileIndex>>,
    pidfds: HashMap<u32, OwnedFd>,
    /// ckpt-run's 0, 1, 2.
    streams: Vec<(u32, Stat)>,
    /// The job's view of each of ckpt-run's streams.
    inherited: HashMap<u32, FileIndex>,
    guardian: u32,
    in_flight: Vec<OwnedFd>,
}

impl Table {
    /// Lists all descriptors of `processes`. `guardian`: the process whose 0, 1, 2 are the job's standard streams.
    pub fn list(processes: &[ProcessRef], guardian: u32) -> Result<Self, FilesError> {
        let mut table = Self { guardian, ..Self::default() };
        sys::allow_descriptors().map_err(|source| FilesError::Process { pid: std::process::id(), source })?;
        for stream in 0..=2 {
            // One that ckpt-run was started without is nobody's.
            if let Ok(metadata) = fs::metadata(format!("/proc/{guardian}/fd/{stream}")) {
                table.streams.push((stream, metadata.into()));
            }
        }
        for process in processes {
            let error = |source| FilesError::Process { pid: process.pid, source };
            table.pidfds.insert(process.host_pid, sys::pidfd_open(process.host_pid).map_err(error)?);
            let mut numbers = numbers(process.host_pid).map_err(error)?;
            numbers.sort_unstable();
            let mut descriptors = Vec::with_capacity(numbers.len());
            for number in numbers {
                let (file, close_on_exec) = table.enter((process.host_pid, number), process.pid)?;
                descriptors.push(Descriptor { number, file, close_on_exec });
            }
            table.descriptors.push(descriptors);
        }
        Ok(table)
    }

    /// Enters a file that was found in a message: no process need have a descriptor of it.
    pub fn enter_in_flight(&mut self, file: OwnedFd, found_by: u32) -> Result<FileIndex, FilesError> {
        let index = self.enter((std::process::id(), file.as_raw_fd()), found_by)?.0;
        // Kept open: the description may have been entered under this very number.
        self.in_flight.push(file);
        Ok(index)
    }

    /// A duplicate of the description, for a short look.
    pub fn open(&self, index: FileIndex) -> Result<OwnedFd, FilesError> {
        let (pid, number) = self.descriptions[index].holder;
        match self.pidfds.get(&pid) {
            Some(pidfd) => sys::pidfd_getfd(pidfd, number),
            None => sys::dup_above(number, 0),
        }
        .map_err(self.error("duplicate", index))
    }

    /// For map_err: what could not be done with a description.
    pub fn error(&self, deed: &'static str, index: FileIndex) -> impl FnOnce(io::Error) -> FilesError {
        let description = &self.descriptions[index];
        let (pid, number, file) = (description.pid, description.holder.1, description.link.clone());
        move |source| FilesError::Descriptor { deed, pid, number, file, source }
    }

    /// The description's path in /proc.
    pub fn proc_path(&self, index: FileIndex) -> String {
        let (pid, number) = self.descriptions[index].holder;
        format!("/proc/{pid}/fd/{number}")
    }

    /// Indices of the descriptions on one inode.
    pub fn by_inode(&self, inode: u64) -> impl Iterator<Item = FileIndex> {
        self.inodes.get(&inode).into_iter().flatten().copied()
    }

    fn enter(&mut self, holder: (u32, RawFd), pid: u32) -> Result<(FileIndex, bool), FilesError> {
        let description = describe(holder, pid)?;
        let close_on_exec = description.info.close_on_exec;
        let error = |file: &str, source| FilesError::Descriptor {
            deed: "compare",
            pid,
            number: holder.1,
            file: file.into(),
            source,
        };
        if let Some(stream) = self.stream_of(&description).map_err(|source| error(&description.link, source))? {
            let index = *self.inherited.entry(stream).or_insert(self.descriptions.len());
            if index == self.descriptions.len() {
                self.inodes.entry(description.stat.inode).or_default().push(index);
                self.descriptions.push(Description { stream: Some(stream), ..description });
            }
            return Ok((index, close_on_exec));
        }
        let link = if description.link.starts_with("anon_inode:") { description.link.clone() } else { String::new() };
        let group = self.groups.entry((description.stat.device, description.stat.inode, link)).or_default();
        let (mut low, mut high) = (0, group.len());
        while low < high {
            let middle = low.midpoint(high);
            let other = self.descriptions[group[middle]].holder;
            match sys::compare_files(holder, other).map_err(|source| error(&description.link, source))? {
                Ordering::Equal => return Ok((group[middle], close_on_exec)),
                Ordering::Less => high = middle,
                Ordering::Greater => low = middle + 1,
            }
        }
        group.insert(low, self.descriptions.len());
        self.inodes.entry(description.stat.inode).or_default().push(self.descriptions.len());
        self.descriptions.push(description);
        Ok((self.descriptions.len() - 1, close_on_exec))
    }

    /// Which of ckpt-run's streams it is. Where several are one description (a terminal), the descriptor's own number
    /// decides, so that `ckpt-restart > file` moves standard output and nothing else.
    fn stream_of(&self, description: &Description) -> io::Result<Option<u32>> {
        let mut equal = Vec::new();
        for (stream, stat) in &self.streams {
            let same_inode = stat.device == description.stat.device && stat.inode == description.stat.inode;
            if same_inode && sys::compare_files(description.holder, (self.guardian, *stream as RawFd))?.is_eq() {
                equal.push(*stream);
            }
        }
        let number = description.holder.1 as u32;
        Ok([number, 1, 2, 0].into_iter().find(|stream| equal.contains(stream)))
    }
}

fn describe(holder: (u32, RawFd), pid: u32) -> Result<Description, FilesError> {
    let (host_pid, number) = holder;
    let path = format!("/proc/{host_pid}/fd/{number}");
    let link = fs::read_link(&path).map(|it| it.to_string_lossy().into_owned());
    let shown = link.as_ref().cloned().unwrap_or_else(|_| "?".into());
    let error = |deed: &'static str| {
        let file = shown.clone();
        move |source| FilesError::Descriptor { deed, pid, number, file, source }
    };
    let stat = fs::metadata(&path).map_err(error("stat"))?.into();
    let text = fs::read_to_string(format!("/proc/{host_pid}/fdinfo/{number}")).map_err(error("read fdinfo of"))?;
    let info = fdinfo::parse(&text).map_err(|it| error("read fdinfo of")(io::Error::other(it)))?;
    Ok(Description { holder, pid, link: link.map_err(error("read the link of"))?, stat, info, stream: None })
}

fn numbers(host_pid: u32) -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(format!("/proc/{host_pid}/fd"))? {
        if let Some(number) = entry?.file_name().to_str().and_then(|it| it.parse().ok()) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}
