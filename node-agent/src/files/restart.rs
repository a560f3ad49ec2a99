//! Opens every open file description of the model once, at high numbers, in one process from which all others inherit.

use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};

use node_agent_image::model::{FileKind, NodeModel, ObjectIndex, OpenFile};

use super::pairing::Meeting;
use super::{FilesError, counters, epoll, inotify, path, pipe, pty, socket, sys};

/// What becomes of files that have grown since the checkpoint (`--files`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilePolicy {
    /// Cut files that the job was writing back to the size that the checkpoint knew.
    #[default]
    Cut,
    /// Leave them.
    Keep,
}

/// Status flags that F_SETFL can set.
const SETTABLE_FLAGS: i32 = libc::O_APPEND | libc::O_NONBLOCK | libc::O_DIRECT | libc::O_NOATIME | libc::O_ASYNC;

/// Opens all files of `model`; the result has one number ≥ `base` per file, close-on-exec.
///
/// `stdio`: what takes the place of the old standard streams. `objects`: descriptors by [`ObjectIndex`], -1 where a
/// file does not need it; they stay the caller's. `meeting`: where the builders of other nodes are met. The calling process is single-threaded, in the job's namespaces,
/// with its own /proc and /dev/pts mounted.
///
/// # Errors
/// Names the file that cannot be had and, where there is one, the remedy.
pub fn open_all(
    model: &NodeModel,
    base: RawFd,
    stdio: [RawFd; 3],
    objects: &[RawFd],
    meeting: Option<&Meeting>,
) -> Result<Vec<RawFd>, FilesError> {
    // The job's own soft limit is set for each process later.
    sys::allow_descriptors().map_err(FilesError::restore("allow", "as many descriptors as the job has"))?;
    let files = &model.files;
    let mut opened: Vec<Option<OwnedFd>> = files.iter().map(|_| None).collect();
    pipe::open_all(files, &mut opened)?;
    pty::open_all(files, &mut opened)?;
    for (file, place) in files.iter().zip(&mut opened) {
        if place.is_none() {
            *place = open_one(file, model, stdio, objects)?;
        }
    }
    socket::open_all(files, &mut opened, meeting)?;
    for (file, place) in files.iter().zip(&opened) {
        if let (FileKind::Inotify { watches }, Some(place)) = (&file.kind, place) {
            inotify::watch(place, watches)?;
        }
    }
    let mut numbers = Vec::with_capacity(files.len());
    for (file, place) in files.iter().zip(opened) {
        numbers.push(finish(file, place, base)?);
    }
    Ok(numbers)
}

/// Cuts files that have grown. What the job had written after the checkpoint is lost by that, so nothing that can fail
/// may come after it.
///
/// # Errors
/// Names the file that cannot be cut; others may have been by then.
pub fn cut_back(model: &NodeModel, policy: FilePolicy) -> Result<(), FilesError> {
    for file in model.files.iter().filter(|_| policy == FilePolicy::Cut) {
        if let FileKind::Path { file: identity, .. } = &file.kind {
            path::cut_back(identity, file.flags)?;
        }
    }
    Ok(())
}

/// All that stands for itself; sockets come later, in pairs.
fn open_one(
    file: &OpenFile,
    model: &NodeModel,
    stdio: [RawFd; 3],
    objects: &[RawFd],
) -> Result<Option<OwnedFd>, FilesError> {
    let opened = match &file.kind {
        FileKind::Inherited { stream } => {
            let number = *stdio.get(*stream as usize).ok_or_else(|| FilesError::Model(format!("stream {stream}")))?;
            sys::dup_above(number, 0).map_err(FilesError::restore("duplicate", format!("standard stream {stream}")))?
        }
        FileKind::Path { file: identity, position, folder, path_only } => {
            path::open(identity, file.flags, *position, (*folder, *path_only))?
        }
        FileKind::Object { object, position } => {
            path::open_object(object_number(objects, *object)?, file.flags, *position)?
        }
        FileKind::Device { path } => device(path, file.flags, stdio)?,
        FileKind::Epoll { .. } => epoll::open()?,
        FileKind::Eventfd { .. } | FileKind::Timerfd { .. } | FileKind::Signalfd { .. } => {
            counters::open(&file.kind, model.machine.realtime_ns)?
        }
        FileKind::Inotify { .. } => inotify::open()?,
        FileKind::Socket(_) | FileKind::Pipe { .. } | FileKind::Pty { .. } => return Ok(None),
        FileKind::Nothing | FileKind::Pidfd { .. } => {
            return Err(FilesError::Model("a file of a kind that cannot be opened".into()));
        }
    };
    Ok(Some(opened))
}

fn object_number(objects: &[RawFd], object: ObjectIndex) -> Result<RawFd, FilesError> {
    let number = objects.get(object).copied().filter(|number| *number >= 0);
    number.ok_or_else(|| FilesError::Model(format!("object {object} is not open")))
}

/// A terminal of the caller's may have another name now, or none: the one that the restart was given stands in for it.
fn device(path: &str, flags: u32, stdio: [RawFd; 3]) -> Result<OwnedFd, FilesError> {
    let terminal = path == "/dev/tty" || path.starts_with("/dev/pts/") || path == "/dev/console";
    if terminal {
        for number in stdio {
            if nix::unistd::isatty(borrow(&sys::dup_above(number, 0).map_err(FilesError::restore("look at", path))?))
                .unwrap_or(false)
            {
                return path::reopen(number, flags).map_err(FilesError::restore("open", path));
            }
        }
        return path::open_path("/dev/null", flags).map_err(FilesError::restore("open", "/dev/null"));
    }
    path::open_path(path, flags).map_err(FilesError::restore("open", path))
}

fn borrow(file: &OwnedFd) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(file)
}

/// Flags that could not be given at opening, and the final number.
fn finish(file: &OpenFile, opened: Option<OwnedFd>, base: RawFd) -> Result<RawFd, FilesError> {
    let opened = opened.ok_or_else(|| FilesError::Model("a file that nothing has opened".into()))?;
    let inherited = matches!(file.kind, FileKind::Inherited { .. });
    if !inherited && file.flags as i32 & libc::O_PATH == 0 {
        let flags = file.flags as i32 & SETTABLE_FLAGS & !libc::O_ASYNC;
        let error = || FilesError::restore("set the flags of", format!("{:?}", file.kind));
        let now = sys::fcntl(opened.as_raw_fd(), libc::F_GETFL, 0).map_err(error())? & SETTABLE_FLAGS;
        if now != flags {
            sys::fcntl(opened.as_raw_fd(), libc::F_SETFL, flags.into()).map_err(error())?;
        }
    }
    if opened.as_raw_fd() >= base {
        return Ok(opened.into_raw_fd());
    }
    let moved = sys::dup_above(opened.as_raw_fd(), base);
    moved.map(IntoRawFd::into_raw_fd).map_err(FilesError::restore("move", "a descriptor above the job's"))
}
