//! From the descriptors of parked processes to the model.

use std::collections::{HashMap, HashSet};
use std::fs;

use node_agent_image::model::{Descriptor, FileIndex, FileKind, OpenFile, Remote};
use node_agent_proc::fdinfo::Extra;

use super::ledger::Ledger;
use super::socket::Sockets;
use super::table::{Description, Table};
use super::{
    FileObjects, FilesError, Offence, ProcessRef, counters, epoll, inotify, path, pipe, pty, socket, sys, unix,
};

/// What was found in the job.
#[derive(Debug, Default)]
pub struct CapturedFiles {
    /// Open file descriptions, each once.
    pub files: Vec<OpenFile>,
    /// Descriptors of each process, in the order in which the processes were given.
    pub descriptors: Vec<Vec<Descriptor>>,
}

/// Where the parts of one capture meet.
pub(super) struct Capture<'a> {
    pub table: Table,
    pub processes: &'a [ProcessRef],
    pub objects: &'a mut dyn FileObjects,
    pub pipes: HashMap<(u64, u64), usize>,
    pub sockets: Sockets,
    pub ledger: &'a Ledger,
    pub remotes: &'a [Remote],
    pub offences: Vec<Offence>,
    /// Files (device, inode) that have a copy in the image.
    pub spared: HashSet<(u64, u64)>,
    /// Folders for temporary files, with a slash at their ends.
    temporary: Vec<String>,
}

/// Saves every descriptor of `processes`, which must be parked (or not running otherwise).
///
/// `guardian` is the process, as the agent sees it, whose 0, 1 and 2 are the job's standard streams. `ledger` has what
/// `drain` read out of TCP connections. `remotes`: connections to other nodes of the job.
///
/// # Errors
/// [`FilesError::Refused`] with every descriptor that cannot be kept; else what could not be looked at.
pub fn capture(
    processes: &[ProcessRef],
    guardian: u32,
    objects: &mut dyn FileObjects,
    ledger: &Ledger,
    remotes: &[Remote],
) -> Result<CapturedFiles, FilesError> {
    let table = Table::list(processes, guardian)?;
    let sockets = Sockets::list(&table)?;
    let mut capture = Capture {
        table,
        processes,
        objects,
        pipes: HashMap::new(),
        sockets,
        ledger,
        remotes,
        offences: Vec::new(),
        spared: HashSet::new(),
        temporary: temporary_folders(processes),
    };
    unix::look_into_queues(&mut capture)?;
    let mut files = Vec::new();
    while files.len() < capture.table.descriptions.len() {
        let file = capture.file(files.len())?;
        files.push(file);
    }
    if capture.offences.is_empty() {
        Ok(CapturedFiles { files, descriptors: capture.table.descriptors })
    } else {
        Err(FilesError::Refused(capture.offences))
    }
}

impl Capture<'_> {
    fn file(&mut self, index: FileIndex) -> Result<OpenFile, FilesError> {
        let description = &self.table.descriptions[index];
        if let Some(stream) = description.stream {
            return Ok(OpenFile { kind: FileKind::Inherited { stream }, ..OpenFile::default() });
        }
        let flags = description.info.flags;
        let (owner, owner_signal) = self.owner(index)?;
        let kind = self.kind(index)?;
        Ok(OpenFile { flags, owner, owner_signal, kind })
    }

    fn kind(&mut self, index: FileIndex) -> Result<FileKind, FilesError> {
        let description = &self.table.descriptions[index];
        if description.info.flags & libc::O_PATH as u32 != 0 {
            return path::capture(self, index);
        }
        match description.stat.kind() {
            libc::S_IFREG | libc::S_IFDIR => path::capture(self, index),
            libc::S_IFCHR => device(self, index),
            libc::S_IFIFO => pipe::capture(self, index),
            libc::S_IFSOCK => socket::capture(self, index),
            _ => anonymous(self, index),
        }
    }

    /// F_GETOWN in the job's own numbers, and F_GETSIG.
    fn owner(&self, index: FileIndex) -> Result<(i32, i32), FilesError> {
        if self.table.descriptions[index].info.flags & libc::O_PATH as u32 != 0 {
            return Ok((0, 0));
        }
        let file = self.table.open(index)?;
        let (owner, signal) =
            sys::owner(std::os::fd::AsRawFd::as_raw_fd(&file)).map_err(self.table.error("ask the owner of", index))?;
        Ok((owner.signum() * self.job_pid(owner.unsigned_abs()) as i32, signal))
    }

    /// Whether a path is in a folder for temporary files.
    pub fn is_temporary(&self, path: &str) -> bool {
        self.temporary.iter().any(|folder| path.starts_with(folder))
    }

    /// The job's number of a pid; 0 for one that is not of the job.
    pub fn job_pid(&self, host_pid: u32) -> u32 {
        self.processes.iter().find(|it| it.host_pid == host_pid).map_or(0, |it| it.pid)
    }

    /// Notes that a descriptor cannot be kept; the others are looked at all the same.
    pub fn refuse(&mut self, index: FileIndex, reason: impl Into<String>) -> FileKind {
        let Description { pid, holder, link, .. } = &self.table.descriptions[index];
        self.offences.push(Offence { pid: *pid, number: holder.1, file: link.clone(), reason: reason.into() });
        FileKind::Nothing
    }
}

/// /tmp, and what the job's first process was told to use instead.
fn temporary_folders(processes: &[ProcessRef]) -> Vec<String> {
    let environment = processes.first().and_then(|it| fs::read(format!("/proc/{}/environ", it.host_pid)).ok());
    let environment = environment.unwrap_or_default();
    let value = |entry: &[u8]| String::from_utf8(entry.strip_prefix(b"TMPDIR=")?.to_vec()).ok();
    let told = environment.split(|byte| *byte == 0).find_map(value).filter(|it| it.starts_with('/'));
    let folders = told.into_iter().chain(["/tmp".to_owned()]);
    folders.map(|it| it.trim_end_matches('/').to_owned() + "/").filter(|it| it != "/").collect()
}

/// Devices whose state cannot be read from outside, and what helps.
const REFUSED_DEVICES: [(&str, &str); 5] = [
    ("/dev/knem", "KNEM: start the job with --mca btl_vader_single_copy_mechanism cma (Open MPI)"),
    ("/dev/xpmem", "XPMEM: start the job with --mca btl_vader_single_copy_mechanism cma (Open MPI)"),
    ("/dev/infiniband/", "an InfiniBand device opened without the job's own verbs library"),
    ("/dev/nvidia", "a GPU"),
    ("/dev/kfd", "a GPU"),
];

fn device(capture: &mut Capture<'_>, index: FileIndex) -> Result<FileKind, FilesError> {
    let description = &capture.table.descriptions[index];
    let link = description.link.clone();
    if let Some((_, reason)) = REFUSED_DEVICES.iter().find(|(path, _)| link.starts_with(path)) {
        return Ok(capture.refuse(index, *reason));
    }
    if pty::is_master(description) || pty::slave_index(description).is_some() {
        return pty::capture(capture, index);
    }
    Ok(FileKind::Device { path: link })
}

fn anonymous(capture: &mut Capture<'_>, index: FileIndex) -> Result<FileKind, FilesError> {
    let description = &capture.table.descriptions[index];
    let link = description.link.clone();
    let kind = link.strip_prefix("anon_inode:").unwrap_or(&link);
    match (&description.info.extra, kind) {
        (Extra::None, "inotify") | (Extra::Inotify(_), _) => inotify::capture(capture, index),
        (Extra::None, "[eventpoll]") | (Extra::Epoll(_), _) => epoll::capture(capture, index),
        (Extra::Eventfd { .. } | Extra::Timerfd { .. } | Extra::Signalfd { .. }, _) => {
            Ok(counters::capture(&description.info.extra))
        }
        (Extra::Pidfd { .. }, _) => Ok(capture.refuse(index, "a pidfd (not done yet)")),
        (_, "[io_uring]") => {
            Ok(capture.refuse(index, "io_uring: its rings cannot be read from outside; switch it off in the program"))
        }
        (_, "[userfaultfd]") => Ok(capture.refuse(index, "a userfaultfd of the program's own")),
        _ => Ok(capture.refuse(index, "a kind of file that Slackwater does not know")),
    }
}
