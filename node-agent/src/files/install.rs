//! A process of the new tree takes its descriptors, at its own numbers.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};

use node_agent_image::model::{EpollEntry, FileIndex, FileKind, NodeModel, Process};

use super::{FilesError, sys};

/// Moves the open files of `files` (from `open_all`) to the numbers of process `process` (an index of
/// `model.processes`), fills the epoll sets that it is the first to have, and closes every other descriptor but those
/// in `keep`. No number of `keep` may be one that the process had.
///
/// # Errors
/// Names the descriptor that cannot be put in its place.
pub fn install(model: &NodeModel, process: usize, files: &[RawFd], keep: &[RawFd]) -> Result<(), FilesError> {
    let own = model.processes.get(process).ok_or_else(|| FilesError::Model(format!("no process {process}")))?;
    for descriptor in &own.descriptors {
        if keep.contains(&descriptor.number) {
            return Err(FilesError::Model(format!("descriptor {} is kept for the restart itself", descriptor.number)));
        }
        sys::dup_to(number_of(files, descriptor.file)?, descriptor.number, descriptor.close_on_exec).map_err(error(
            own,
            "set",
            descriptor.number,
        ))?;
    }
    for (index, file) in model.files.iter().enumerate() {
        if let FileKind::Epoll { entries } = &file.kind
            && first_holder(model, index) == Some(process)
        {
            register(own, number_of(files, index)?, entries, files)?;
        }
    }
    set_owners(model, own, files)?;
    close_others(own, keep)
}

fn number_of(files: &[RawFd], index: FileIndex) -> Result<RawFd, FilesError> {
    files.get(index).copied().ok_or_else(|| FilesError::Model(format!("no file {index}")))
}

fn error(process: &Process, deed: &'static str, number: RawFd) -> impl FnOnce(std::io::Error) -> FilesError {
    FilesError::restore(deed, format!("descriptor {number} of pid {}", process.pid))
}

fn first_holder(model: &NodeModel, file: FileIndex) -> Option<usize> {
    model.processes.iter().position(|it| it.zombie.is_none() && it.descriptors.iter().any(|it| it.file == file))
}

/// A registration keeps the number under which it was made: where that number is something else by now, or nothing, the
/// file takes the place for a moment.
fn register(process: &Process, epoll: RawFd, entries: &[EpollEntry], files: &[RawFd]) -> Result<(), FilesError> {
    let numbers: HashMap<i32, _> = process.descriptors.iter().map(|it| (it.number, it)).collect();
    for entry in entries {
        let add = || sys::epoll_add(epoll, entry.number, entry.events, entry.data);
        let place = numbers.get(&entry.number);
        if place.is_some_and(|it| it.file == entry.file) {
            add().map_err(error(process, "watch", entry.number))?;
            continue;
        }
        let guest = number_of(files, entry.file)?;
        let taken = files.contains(&entry.number) || entry.number == epoll;
        if taken && place.is_none() {
            return Err(FilesError::Model(format!("epoll number {} is among the restart's own", entry.number)));
        }
        sys::dup_to(guest, entry.number, true).map_err(error(process, "lend", entry.number))?;
        let added = add();
        match place {
            Some(it) => sys::dup_to(number_of(files, it.file)?, it.number, it.close_on_exec),
            None => sys::close_range(entry.number as u32, entry.number as u32),
        }
        .map_err(error(process, "give back", entry.number))?;
        added.map_err(error(process, "watch", entry.number))?;
    }
    Ok(())
}

/// SIGIO goes to a process or a group that must exist: each sets what is its own.
fn set_owners(model: &NodeModel, process: &Process, files: &[RawFd]) -> Result<(), FilesError> {
    let mine = [process.pid as i32, -(process.pgid as i32)];
    for (file, number) in model.files.iter().zip(files) {
        if file.owner != 0 && mine.contains(&file.owner) {
            let set = sys::fcntl(*number, libc::F_SETOWN, file.owner.into())
                .and_then(|_| sys::set_owner_signal(*number, file.owner_signal));
            set.map_err(error(process, "set the owner of", *number))?;
            if file.flags as i32 & libc::O_ASYNC != 0 {
                let flags = sys::fcntl(*number, libc::F_GETFL, 0).unwrap_or(0) | libc::O_ASYNC;
                sys::fcntl(*number, libc::F_SETFL, flags.into()).map_err(error(
                    process,
                    "set the flags of",
                    *number,
                ))?;
            }
        }
    }
    Ok(())
}

fn close_others(process: &Process, keep: &[RawFd]) -> Result<(), FilesError> {
    let mut kept: Vec<u32> = process.descriptors.iter().map(|it| it.number as u32).collect();
    kept.extend(keep.iter().map(|it| it.as_raw_fd() as u32));
    kept.sort_unstable();
    let mut first = 0;
    for number in kept {
        if number > first {
            sys::close_range(first, number - 1).map_err(error(process, "close what lies below", number as RawFd))?;
        }
        first = first.max(number + 1);
    }
    sys::close_range(first, u32::MAX).map_err(error(process, "close what lies above", first as RawFd))
}
