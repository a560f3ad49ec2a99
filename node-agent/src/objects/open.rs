//! Ways to a descriptor of our own on the file behind an object.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use node_agent_image::model::FileIdentity;
use node_agent_proc::maps::Area;

use super::inode;
use crate::snapshot::identify;

/// A file that can be read at any offset.
#[derive(Debug)]
pub struct Readable {
    pub file: File,
    /// Nobody else uses its offset, so that it may be moved to look for holes.
    pub own_offset: bool,
    /// Device and inode of stat(2).
    pub identity: (u64, u64),
    pub size: u64,
    pub mode: u32,
}

impl Readable {
    fn new(file: File, own_offset: bool) -> io::Result<Self> {
        let now = file.metadata()?;
        let identity = (now.dev(), now.ino());
        Ok(Self { file, own_offset, identity, size: now.len(), mode: now.mode() & 0o7777 })
    }

    /// From a duplicate of one of the job's descriptors, whose offset is the job's.
    pub fn shared(duplicate: File) -> io::Result<Self> {
        match File::open(format!("/proc/self/fd/{}", duplicate.as_raw_fd())) {
            Ok(own) => Self::new(own, true),
            Err(_) => Self::new(duplicate, false),
        }
    }
}

/// The file by its name, if it still is the one that is mapped.
///
/// # Errors
/// When it is a device, or may not be read.
pub fn by_path(host_pid: u32, area: &Area, path: &str) -> io::Result<Option<(Readable, FileIdentity)>> {
    // As the process itself sees it: a restarted job has a mount namespace of its own.
    let seen = format!("/proc/{host_pid}/root{path}");
    let Ok(now) = fs::metadata(&seen) else { return Ok(None) };
    if !inode::is_behind((now.dev(), now.ino()), area) {
        return Ok(None);
    }
    if !now.is_file() {
        let what = if now.file_type().is_char_device() { "a device" } else { "what is no file" };
        return Err(io::Error::other(format!("shared memory of {what} cannot be saved")));
    }
    let identity = FileIdentity { path: path.into(), ..identify(&seen)? };
    Ok(Some((Readable::new(File::open(seen)?, true)?, identity)))
}

/// By /proc/PID/map_files, which only root's capabilities open.
pub fn behind_mapping(host_pid: u32, area: &Area) -> Option<Readable> {
    let file = File::open(format!("/proc/{host_pid}/map_files/{:x}-{:x}", area.start, area.end)).ok()?;
    Readable::new(file, true).ok()
}

/// A descriptor of the job on a file that has no name any more.
#[derive(Debug)]
pub struct Opened {
    host_pid: u32,
    number: i32,
    path: Vec<u8>,
    identity: (u64, u64),
}

impl Opened {
    pub fn is_behind(&self, area: &Area) -> bool {
        let same_device = self.identity.0 == inode::device_and_inode(area).0;
        self.identity.1 == area.inode && (same_device || self.path == area.path)
    }

    pub fn open(&self) -> Option<Readable> {
        Readable::new(File::open(format!("/proc/{}/fd/{}", self.host_pid, self.number)).ok()?, true).ok()
    }
}

/// Deleted files and memfds among the descriptors of these processes.
///
/// # Errors
/// When a list of descriptors cannot be read.
pub fn list(host_pids: &[u32]) -> io::Result<Vec<Opened>> {
    let mut opened = Vec::new();
    for host_pid in host_pids {
        for (number, path, _) in links(*host_pid)? {
            if !path.ends_with(b" (deleted)") {
                continue;
            }
            if let Ok(now) = fs::metadata(format!("/proc/{host_pid}/fd/{number}")) {
                opened.push(Opened { host_pid: *host_pid, number, path, identity: (now.dev(), now.ino()) });
            }
        }
    }
    Ok(opened)
}

/// Paths that a process has open for writing.
///
/// # Errors
/// When its descriptors cannot be listed.
pub fn written_paths(host_pid: u32) -> io::Result<impl Iterator<Item = Vec<u8>>> {
    const OWNER_MAY_WRITE: u32 = 0o200;
    Ok(links(host_pid)?.into_iter().filter(|it| it.2 & OWNER_MAY_WRITE != 0).map(|it| it.1))
}

/// Number, target, and the link's own mode, which tells how the file was opened.
fn links(host_pid: u32) -> io::Result<Vec<(i32, Vec<u8>, u32)>> {
    let mut links = Vec::new();
    for entry in fs::read_dir(format!("/proc/{host_pid}/fd"))? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(|it| it.parse().ok());
        if let (Some(number), Ok(target)) = (number, fs::read_link(entry.path())) {
            let target = target.as_os_str().as_bytes();
            if target.starts_with(b"/") {
                let mode = fs::symlink_metadata(entry.path())?.permissions().mode();
                links.push((number, target.to_vec(), mode));
            }
        }
    }
    Ok(links)
}
