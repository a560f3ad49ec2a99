//! epoll sets. A registration belongs to a file *and* a number, and the number may mean something else by now.

use std::os::fd::OwnedFd;

use node_agent_image::model::{EpollEntry, FileIndex, FileKind};
use node_agent_proc::fdinfo::{EpollTarget, Extra};

use super::snapshot::Capture;
use super::{FilesError, sys};

/// Registrations, each with its file.
pub fn capture(capture: &mut Capture<'_>, index: FileIndex) -> Result<FileKind, FilesError> {
    let targets = match &capture.table.descriptions[index].info.extra {
        Extra::Epoll(targets) => targets.clone(),
        _ => Vec::new(),
    };
    let mut entries = Vec::new();
    for (at, target) in targets.iter().enumerate() {
        let offset = targets[..at].iter().filter(|it| it.number == target.number).count() as u32;
        match watched(capture, index, target, offset)? {
            Some(file) => {
                entries.push(EpollEntry { number: target.number, file, events: target.events, data: target.data })
            }
            None => {
                let reason = format!("it watches descriptor {}, whose file is open nowhere in the job", target.number);
                return Ok(capture.refuse(index, reason));
            }
        }
    }
    // The kernel sorts by address.
    entries.sort_unstable_by_key(|it| (it.number, it.file));
    Ok(FileKind::Epoll { entries })
}

fn watched(
    capture: &Capture<'_>,
    index: FileIndex,
    target: &EpollTarget,
    offset: u32,
) -> Result<Option<FileIndex>, FilesError> {
    let epoll = capture.table.descriptions[index].holder;
    for candidate in capture.table.by_inode(target.inode) {
        let holder = capture.table.descriptions[candidate].holder;
        if sys::watches(holder, epoll, target.number, offset).map_err(capture.table.error("compare", index))? {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

/// An empty set; it is filled by the first process that has it, under the right numbers.
pub fn open() -> Result<OwnedFd, FilesError> {
    sys::epoll().map_err(FilesError::restore("make", "an epoll set"))
}
