//! Files and folders with a path, deleted files, memfds.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};
use node_agent_image::model::{FileIdentity, FileIndex, FileKind, ObjectKind};

use super::snapshot::Capture;
use super::table::{Description, Stat};
use super::{FilesError, sys};

/// Flags that only mean something while a file is opened, or would make opening it again fail.
const OPENING_FLAGS: i32 = libc::O_CREAT
    | libc::O_EXCL
    | libc::O_TRUNC
    | libc::O_NOCTTY
    | libc::O_NOFOLLOW
    | (libc::O_TMPFILE & !libc::O_DIRECTORY)
    | libc::O_ASYNC;
/// Where files are memory: their contents are part of the job.
const SHARED_MEMORY: &str = "/dev/shm/";
const DELETED: &str = " (deleted)";
/// Files for temporary use up to this size have a copy in the image. Session files of MPI launchers are some kilobytes.
const SPARE_BYTES_MAX: u64 = 1 << 20;

/// A regular file, a folder, or anything opened with O_PATH.
pub fn capture(capture: &mut Capture<'_>, index: FileIndex) -> Result<FileKind, FilesError> {
    let Description { link, stat, info, .. } = &capture.table.descriptions[index];
    let (link, stat, position) = (link.clone(), *stat, info.position);
    let path_only = info.flags & libc::O_PATH as u32 != 0;
    let folder = stat.kind() == libc::S_IFDIR;
    let regular = stat.kind() == libc::S_IFREG;
    if regular && !path_only {
        if let Some(object) = capture.objects.find(stat.device, stat.inode) {
            return Ok(FileKind::Object { object, position });
        }
        if stat.links == 0 || link.starts_with(SHARED_MEMORY) {
            return object(capture, index, &link, stat, position);
        }
    }
    // As the process itself sees it: a restarted job has a mount namespace of its own.
    let seen = format!("/proc/{}/root{link}", capture.table.descriptions[index].holder.0);
    let there: Option<Stat> = look(&seen, info.flags).ok().map(Into::into);
    if there.is_none_or(|it| (it.device, it.inode) != (stat.device, stat.inode)) {
        let reason = "its path leads elsewhere (deleted, hidden by a mount, or of another mount namespace)";
        return Ok(capture.refuse(index, reason));
    }
    if regular && !path_only && stat.size <= SPARE_BYTES_MAX && capture.is_temporary(&link) {
        spare(capture, index, &link, stat)?;
    }
    Ok(FileKind::Path { file: identity(&link, &stat), position, folder, path_only })
}

/// stat(2) of what a path names: with O_PATH and O_NOFOLLOW a symbolic link itself, as those hold who walk a path by hand.
fn look(path: &str, flags: u32) -> io::Result<fs::Metadata> {
    if is_link_itself(flags) { fs::symlink_metadata(path) } else { fs::metadata(path) }
}

fn is_link_itself(flags: u32) -> bool {
    let both = libc::O_PATH | libc::O_NOFOLLOW;
    flags as i32 & both == both
}

fn identity(path: &str, stat: &Stat) -> FileIdentity {
    FileIdentity {
        path: path.into(),
        device: stat.device,
        inode: stat.inode,
        size: stat.size,
        modified_ns: stat.modified_ns,
        hash: String::new(),
    }
}

/// A file whose contents go into the image.
fn object(
    capture: &mut Capture<'_>,
    index: FileIndex,
    link: &str,
    stat: Stat,
    position: u64,
) -> Result<FileKind, FilesError> {
    let file = readable(capture, index)?;
    let name = link.strip_suffix(DELETED).unwrap_or(link);
    let kind = if let Some(name) = name.strip_prefix("/memfd:") {
        let seals = sys::fcntl(file.as_raw_fd(), libc::F_GET_SEALS, 0).unwrap_or(0) as u32;
        ObjectKind::Memfd { name: name.into(), seals, hugetlb: is_hugetlb(&file) }
    } else if stat.links == 0 {
        ObjectKind::Deleted { path: name.into() }
    } else {
        ObjectKind::Named { file: identity(name, &stat) }
    };
    let entered = capture.objects.add_file(file, kind);
    let object = entered.map_err(capture.table.error("save the contents of", index))?;
    Ok(FileKind::Object { object, position })
}

/// A copy for the case that the file is gone when the job is restarted; one for each file.
fn spare(capture: &mut Capture<'_>, index: FileIndex, link: &str, stat: Stat) -> Result<(), FilesError> {
    if capture.spared.insert((stat.device, stat.inode)) {
        let file = readable(capture, index)?;
        let entered = capture.objects.add_file(file, ObjectKind::Spare { file: identity(link, &stat) });
        entered.map_err(capture.table.error("save the contents of", index))?;
    }
    Ok(())
}

fn is_hugetlb(file: &OwnedFd) -> bool {
    nix::sys::statfs::fstatfs(file).is_ok_and(|it| it.filesystem_type() == nix::sys::statfs::HUGETLBFS_MAGIC)
}

/// A duplicate may be write-only; the same inode opened anew through /proc is not.
fn readable(capture: &Capture<'_>, index: FileIndex) -> Result<OwnedFd, FilesError> {
    let access = capture.table.descriptions[index].info.flags as i32 & libc::O_ACCMODE;
    if access != libc::O_WRONLY {
        return capture.table.open(index);
    }
    File::open(capture.table.proc_path(index)).map(Into::into).map_err(capture.table.error("open for reading", index))
}

/// Opens a file of the model by its path and puts its offset where it was.
pub fn open(file: &FileIdentity, flags: u32, position: u64, kind: (bool, bool)) -> Result<OwnedFd, FilesError> {
    let (folder, path_only) = kind;
    let path = &file.path;
    let metadata = match look(path, flags) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(FilesError::Missing { path: path.clone() });
        }
        Err(error) => return Err(FilesError::restore("look at", path)(error)),
    };
    if metadata.is_file() && !path_only && metadata.len() < file.size {
        return Err(FilesError::Shrunk { path: path.clone(), was: file.size, is: metadata.len() });
    }
    let opened = open_path(path, flags).map_err(FilesError::restore("open", path))?;
    if !folder && !path_only {
        seek(&opened, position).map_err(FilesError::restore("seek in", path))?;
    } else if folder && position != 0 {
        // A folder's offset is a cookie of its file system: where that does not know it, reading starts over.
        let _ = seek(&opened, position);
    }
    Ok(opened)
}

/// Cuts a file that the job was writing back to what the checkpoint knew of it.
pub fn cut_back(file: &FileIdentity, flags: u32) -> Result<(), FilesError> {
    let writes = flags as i32 & libc::O_ACCMODE != libc::O_RDONLY && flags as i32 & libc::O_PATH == 0;
    let has_grown = fs::metadata(&file.path).is_ok_and(|it| it.is_file() && it.len() > file.size);
    if !writes || !has_grown {
        return Ok(());
    }
    let cut = OpenOptions::new().write(true).open(&file.path).and_then(|it| it.set_len(file.size));
    cut.map_err(FilesError::restore("cut back", &file.path))
}

/// A new description on an object's file, which the caller has open as `object`.
pub fn open_object(object: RawFd, flags: u32, position: u64) -> Result<OwnedFd, FilesError> {
    let error = || FilesError::restore("open again", format!("an object of the image (descriptor {object})"));
    let opened = reopen(object, flags).map_err(error())?;
    seek(&opened, position).map_err(error())?;
    Ok(opened)
}

/// A new description on the file behind one of our own descriptors.
pub fn reopen(fd: RawFd, flags: u32) -> io::Result<OwnedFd> {
    open_path(&format!("/proc/self/fd/{fd}"), flags)
}

/// open(2) with the flags of an open description; never becomes the controlling terminal.
pub fn open_path(path: &str, flags: u32) -> io::Result<OwnedFd> {
    let link = if is_link_itself(flags) { libc::O_NOFOLLOW } else { 0 };
    let flags = (flags as i32 & !OPENING_FLAGS) | link | libc::O_CLOEXEC | libc::O_NOCTTY;
    Ok(nix::fcntl::open(path, OFlag::from_bits_retain(flags), Mode::empty())?)
}

fn seek(file: &OwnedFd, position: u64) -> io::Result<()> {
    match lseek(file, position as i64, Whence::SeekSet) {
        Err(nix::Error::ESPIPE) if position == 0 => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
