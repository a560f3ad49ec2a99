//! inotify. The kernel tells inodes, not paths: they are looked for where programs of a job watch.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use node_agent_image::model::{FileIndex, FileKind};
use node_agent_proc::fdinfo::{Extra, InotifyWatch};

use super::snapshot::Capture;
use super::{FilesError, sys};

/// Folders whose entries are compared, beside those of files that the job has open.
const USUAL_FOLDERS: [&str; 6] = ["/", "/tmp", "/dev/shm", "/etc", "/run", "/var/tmp"];

/// Watches with their paths.
pub fn capture(capture: &mut Capture<'_>, index: FileIndex) -> Result<FileKind, FilesError> {
    let watches = match &capture.table.descriptions[index].info.extra {
        Extra::Inotify(watches) => watches.clone(),
        _ => Vec::new(),
    };
    let file = capture.table.open(index)?;
    let unread =
        sys::ioctl_int(file.as_raw_fd(), libc::FIONREAD).map_err(capture.table.error("ask the queue of", index))?;
    if unread > 0 {
        return Ok(capture.refuse(index, format!("{unread} bytes of inotify events that the program has not read yet")));
    }
    let folders = folders(capture);
    let mut found = Vec::new();
    for watch in watches {
        let Some(path) = look_for(&watch, &folders) else {
            let reason = format!("inotify watch {} is on inode {}, whose path is not known", watch.wd, watch.inode);
            return Ok(capture.refuse(index, reason));
        };
        found.push((watch.wd, path.to_string_lossy().into_owned(), watch.mask));
    }
    Ok(FileKind::Inotify { watches: found })
}

fn folders(capture: &Capture<'_>) -> BTreeSet<PathBuf> {
    let mut folders: BTreeSet<PathBuf> = USUAL_FOLDERS.iter().map(PathBuf::from).collect();
    for process in capture.processes {
        folders.extend(fs::read_link(format!("/proc/{}/cwd", process.host_pid)));
    }
    let open = capture.table.descriptions.iter().map(|it| Path::new(&it.link)).filter(|it| it.is_absolute());
    for path in open {
        folders.extend(path.ancestors().take(3).map(PathBuf::from));
    }
    folders
}

fn look_for(watch: &InotifyWatch, folders: &BTreeSet<PathBuf>) -> Option<PathBuf> {
    let device = libc::makedev(watch.device >> 20, watch.device & 0xf_ffff);
    let is_it = |path: &Path| fs::symlink_metadata(path).is_ok_and(|it| it.ino() == watch.inode && it.dev() == device);
    if let Some(folder) = folders.iter().find(|it| is_it(it)) {
        return Some(folder.clone());
    }
    let entries = folders.iter().filter_map(|it| fs::read_dir(it).ok()).flatten().flatten();
    entries.map(|it| it.path()).find(|it| is_it(it))
}

/// A queue that watches nothing yet.
pub fn open() -> Result<OwnedFd, FilesError> {
    sys::inotify().map_err(FilesError::restore("make", "an inotify queue"))
}

/// Watches with the same numbers; last of all, so that what a restart itself makes and removes is not seen.
pub fn watch(file: &OwnedFd, watches: &[(i32, String, u32)]) -> Result<(), FilesError> {
    let mut in_order: Vec<_> = watches.iter().collect();
    in_order.sort_unstable_by_key(|it| it.0);
    for (wd, path, mask) in in_order {
        let error = || FilesError::restore("watch", path.clone());
        let name = CString::new(path.as_str()).map_err(|it| error()(it.into()))?;
        // fdinfo shows flags that are the kernel's own; IN_ALL_EVENTS and what inotify_add_watch takes are left.
        const SETTABLE: u32 = libc::IN_ALL_EVENTS | libc::IN_EXCL_UNLINK | libc::IN_ONESHOT | libc::IN_ONLYDIR;
        sys::add_watch(file.as_raw_fd(), *wd, &name, mask & SETTABLE).map_err(error())?;
    }
    Ok(())
}
