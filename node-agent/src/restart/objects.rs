//! Shared memory and deleted files: made empty with their old identity; the agent fills them through the builder.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
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
    /// Where each is mapped in this process; 0 = empty object.
    addresses: Vec<u64>,
}

/// Makes all objects, maps each for the agent, and publishes where.
///
/// # Errors
/// Names the object.
pub fn make(model: &NodeModel, base: RawFd, board: Board) -> Result<Objects, RestartError> {
    let mut made = Objects::default();
    for (index, object) in model.objects.iter().enumerate() {
        let name = name(index, object);
        let (descriptor, address) = make_one(object, base).map_err(RestartError::system("make", &name))?;
        // Stand-ins live as long as the job: a mapping of theirs would keep memory that the job has given up, attach a
        // segment that is to go with its last user, and stand in the way of a seal.
        if address != 0 {
            let alone = sys::keep_from_children(address, object.size as usize);
            alone.map_err(RestartError::system("keep from the job's stand-ins", name))?;
        }
        made.descriptors.push(descriptor);
        made.addresses.push(address);
        board.object(index).store(address, Ordering::Release);
    }
    Ok(made)
}

/// What can only be done when everybody has attached and the contents are there: removal marks, seals.
///
/// # Errors
/// Names the object.
pub fn finish(model: &NodeModel, made: &Objects) -> Result<(), RestartError> {
    for (index, object) in model.objects.iter().enumerate() {
        let result = match &object.kind {
            ObjectKind::SysV { id, removed: true, .. } => sys::shm_remove(*id),
            ObjectKind::Memfd { seals, .. } if *seals != 0 => seal(object, *seals, made, index),
            _ => Ok(()),
        };
        result.map_err(RestartError::system("finish", name(index, object)))?;
    }
    Ok(())
}

/// F_SEAL_WRITE is refused while anybody has it mapped in a way that could become writable, this process too.
fn seal(object: &Object, seals: u32, made: &Objects, index: usize) -> io::Result<()> {
    if made.addresses[index] != 0 {
        sys::unmap(made.addresses[index], object.size as usize)?;
    }
    let path = format!("/proc/self/fd/{}", made.descriptors[index]);
    let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    sys::add_seals(file.as_raw_fd(), seals)
}

fn name(index: usize, object: &Object) -> String {
    match &object.kind {
        ObjectKind::Anonymous => format!("shared memory {index}"),
        ObjectKind::Memfd { name, .. } => format!("memfd {name}"),
        ObjectKind::SysV { id, .. } => format!("System V segment {id}"),
        ObjectKind::Named { file } | ObjectKind::Spare { file } => file.path.clone(),
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
        ObjectKind::Spare { file } if Path::new(&file.path).exists() => sys::memfd("slackwater-spare", false)?,
        ObjectKind::Named { file } | ObjectKind::Spare { file } => named(Path::new(&file.path))?,
        ObjectKind::Deleted { path } => deleted(Path::new(path))?,
    };
    let file = fs::File::from(file);
    file.set_len(object.size)?;
    if !matches!(object.kind, ObjectKind::Anonymous) {
        file.set_permissions(mode)?;
    }
    let address = if object.size == 0 {
        0
    } else {
        sys::map(object.size as usize, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd())?
    };
    let inherited = if is_write_sealed(&object.kind) { read_only(&file)? } else { file };
    let number = sys::dup_above(inherited.as_raw_fd(), base)?;
    Ok((number, address))
}

fn is_write_sealed(kind: &ObjectKind) -> bool {
    matches!(kind, ObjectKind::Memfd { seals, .. } if *seals & libc::F_SEAL_WRITE as u32 != 0)
}

/// For mappings that do not stand in the way of F_SEAL_WRITE.
fn read_only(file: &fs::File) -> io::Result<fs::File> {
    fs::File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The file itself, so that links and whoever else knows it still lead there; empty, so that nothing that it holds now
/// shines through where the image has holes or zeros. Folders that are missing are its user's alone: whose they were
/// is not known, and the safe guess is right for the session folders of MPI.
fn named(path: &Path) -> io::Result<OwnedFd> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    match options.open(path) {
        // Its owner had taken the right to write away from himself after he had opened it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            options.open(path).map(Into::into)
        }
        other => other.map(Into::into),
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use nix::fcntl::{FcntlArg, fcntl};
    use node_agent_image::model::FileIdentity;

    use super::*;

    const BASE: RawFd = 500;
    const SEALS: u32 = (libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL) as u32;

    /// Makes objects as the builder does and lends their descriptors.
    fn made(objects: Vec<Object>) -> (NodeModel, Objects, Vec<std::os::fd::BorrowedFd<'static>>) {
        let model = NodeModel { objects, ..NodeModel::default() };
        let board = Board::new(model.objects.len(), &[]).expect("memory");
        let made = make(&model, BASE, board).unwrap_or_else(|error| panic!("{error}"));
        let links = made.descriptors.iter().map(|it| format!("/proc/self/fd/{it}"));
        let again = links.map(|it| Box::leak(Box::new(fs::File::open(it).expect("it is open"))));
        let lent = again.map(|it| std::os::fd::AsFd::as_fd(it)).collect();
        (model, made, lent)
    }

    #[test]
    fn nothing_old_shines_through_a_named_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let old = folder.path().join("old");
        fs::write(&old, [7; 3 * 4096]).expect("an old file");
        fs::set_permissions(&old, fs::Permissions::from_mode(0o400)).expect("its owner may");
        let fresh = folder.path().join("session/of/mpi");
        let object = |path: &Path, size, mode| {
            let file = FileIdentity { path: path.display().to_string(), ..FileIdentity::default() };
            Object { kind: ObjectKind::Named { file }, size, mode }
        };
        made(vec![object(&old, 8192, 0o440), object(&fresh, 4096, 0o640)]);
        assert_eq!(fs::read(&old).expect("it is there"), [0; 8192]);
        assert_eq!(fs::read(&fresh).expect("it is there"), [0; 4096]);
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
        assert_eq!((mode(&old), mode(&fresh)), (0o440, 0o640));
        assert_eq!(mode(&folder.path().join("session/of")), 0o700);
    }

    #[test]
    fn seals_come_last_and_hold() {
        let kind = ObjectKind::Memfd { name: "sealed".into(), seals: SEALS, hugetlb: false };
        let (model, made, lent) = made(vec![Object { kind, size: 4096, mode: 0o777 }]);
        // A process of the job that maps it.
        let shared = sys::map(4096, libc::PROT_READ, libc::MAP_SHARED, made.descriptors[0]).expect("it can be mapped");
        let link = format!("/proc/self/fd/{}", made.descriptors[0]);
        let write = || fs::OpenOptions::new().write(true).open(&link)?.write_all_at(b"contents", 0);
        write().expect("it is filled");
        finish(&model, &made).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(fcntl(lent[0], FcntlArg::F_GET_SEALS).expect("it has seals") as u32, SEALS);
        assert_eq!(write().expect_err("it is sealed").raw_os_error(), Some(libc::EPERM));
        sys::unmap(shared, 4096).expect("it was mapped");
    }

    #[test]
    fn a_deleted_file_has_no_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gone").display().to_string();
        let (_, made, _) = made(vec![Object { kind: ObjectKind::Deleted { path }, size: 5, mode: 0o600 }]);
        assert_eq!(fs::read(format!("/proc/self/fd/{}", made.descriptors[0])).expect("it is open"), [0; 5]);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
