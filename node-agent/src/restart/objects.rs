//! Shared memory and deleted files: made empty with their old identity; the agent fills them through the builder.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::Ordering;

use node_agent_image::model::{NodeModel, Object, ObjectKind};

use super::board::Board;
use super::error::RestartError;
use super::sys;

/// Objects as processes inherit them.
#[derive(Debug, Default)]
pub struct Objects {
    /// Descriptor by index; -1 for System V segments.
    pub descriptors: Vec<RawFd>,
}

/// Makes all objects, maps each for the agent, and publishes where.
///
/// # Errors
/// Names the object.
pub fn make(model: &NodeModel, base: RawFd, board: Board) -> Result<Objects, RestartError> {
    let mut made = Objects::default();
    for (index, object) in model.objects.iter().enumerate() {
        let name = name(index, object);
        let (descriptor, address) = make_one(object, base).map_err(RestartError::system("make", name))?;
        made.descriptors.push(descriptor);
        board.object(index).store(address, Ordering::Release);
    }
    Ok(made)
}

/// What can only be done when everybody has attached and the contents are there: removal marks, seals, modes.
///
/// # Errors
/// Names the object.
pub fn finish(model: &NodeModel, made: &Objects) -> Result<(), RestartError> {
    for (index, (object, descriptor)) in model.objects.iter().zip(&made.descriptors).enumerate() {
        let result = match &object.kind {
            ObjectKind::SysV { id, removed: true, .. } => sys::shm_remove(*id),
            ObjectKind::Memfd { seals, .. } if *seals != 0 => sys::add_seals(*descriptor, *seals),
            _ => Ok(()),
        };
        result.map_err(RestartError::system("finish", name(index, object)))?;
    }
    Ok(())
}

fn name(index: usize, object: &Object) -> String {
    match &object.kind {
        ObjectKind::Anonymous => format!("shared memory {index}"),
        ObjectKind::Memfd { name, .. } => format!("memfd {name}"),
        ObjectKind::SysV { id, .. } => format!("System V segment {id}"),
        ObjectKind::Named { file } => file.path.clone(),
        ObjectKind::Deleted { path } => format!("{path} (deleted)"),
    }
}

fn make_one(object: &Object, base: RawFd) -> io::Result<(RawFd, u64)> {
    let mode = fs::Permissions::from_mode(object.mode & 0o7777);
    let file: OwnedFd = match &object.kind {
        ObjectKind::SysV { id, key, .. } => {
            fs::write("/proc/sys/kernel/shm_next_id", id.to_string())?;
            let got = sys::shm_create(*key, object.size, object.mode & 0o777)?;
            if got != *id {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
            return Ok((-1, sys::shm_attach(*id)?));
        }
        ObjectKind::Anonymous => sys::memfd("slackwater-shared", false)?,
        ObjectKind::Memfd { name, hugetlb, .. } => sys::memfd(name, *hugetlb)?,
        ObjectKind::Named { file } => {
            let path = Path::new(&file.path);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options.open(path)?.into()
        }
        ObjectKind::Deleted { path } => deleted(Path::new(path))?,
    };
    let file = fs::File::from(file);
    file.set_len(object.size)?;
    if matches!(object.kind, ObjectKind::Named { .. } | ObjectKind::Deleted { .. } | ObjectKind::Memfd { .. }) {
        file.set_permissions(mode)?;
    }
    let address = if object.size == 0 {
        0
    } else {
        sys::map(object.size as usize, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd())?
    };
    let number = sys::dup_above(file.as_raw_fd(), base)?;
    Ok((number, address))
}

/// Where it was, if the folder is still there: its programs may look at the file system it is on.
fn deleted(path: &Path) -> io::Result<OwnedFd> {
    let folders = [path.parent().unwrap_or(Path::new("/tmp")), Path::new("/tmp")];
    for folder in folders {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600);
        if let Ok(file) = options.open(folder) {
            return Ok(file.into());
        }
    }
    sys::memfd(&path.display().to_string(), false)
}

/// Lets a descriptor live as long as the process.
pub fn keep(file: OwnedFd, base: RawFd) -> io::Result<RawFd> {
    if file.as_raw_fd() >= base { Ok(file.into_raw_fd()) } else { sys::dup_above(file.as_raw_fd(), base) }
}
