//! What a line of maps says about the inode behind it.

use std::fs::File;
use std::io;

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use node_agent_image::model::ObjectKind;
use node_agent_proc::maps::Area;

const DELETED: &[u8] = b" (deleted)";
const SYSV: &[u8] = b"/SYSV";
const MEMFD: &str = "/memfd:";
const ANONYMOUS: &[u8] = b"/dev/zero (deleted)";
/// Anonymous shared memory that prctl(PR_SET_VMA_ANON_NAME) has given a name: one of the mapping, not of the inode.
const NAMED_ANONYMOUS: &[u8] = b"[anon_shmem:";
/// Anonymous shared memory in huge pages: as good as a memfd of that name.
const HUGE: &str = "/anon_hugepage";

/// Key of an inode as maps shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inode {
    device: (u32, u32),
    number: u64,
    /// Numbers of System V segments are their ids, on the device where memfds and anonymous memory number theirs too.
    sysv: bool,
    /// Only where device and number do not tell: btrfs shows one device for all its subvolumes, each of which counts
    /// its inodes from the same number. A file that was merely read must not be taken for one that was written.
    path: Vec<u8>,
}

impl Inode {
    /// Of a mapping with something behind it.
    pub fn of(area: &Area) -> Self {
        let sysv = area.path.starts_with(SYSV) && area.path.ends_with(DELETED);
        let (on_disk, in_memory) = (area.device.0 != 0, sysv || is_anonymous(area));
        let path = if on_disk || in_memory { Vec::new() } else { area.path.clone() };
        Self { device: area.device, number: area.inode, sysv, path }
    }
}

fn is_anonymous(area: &Area) -> bool {
    area.path == ANONYMOUS || area.path.starts_with(NAMED_ANONYMOUS)
}

/// What the path in maps is.
#[derive(Debug)]
pub enum Name<'a> {
    /// A System V segment.
    SysV {
        #[allow(missing_docs)]
        id: i32,
        #[allow(missing_docs)]
        key: i32,
    },
    /// MAP_SHARED | MAP_ANONYMOUS.
    Anonymous,
    /// Everything else with a path, deleted or not.
    Path(&'a str),
}

impl<'a> Name<'a> {
    /// # Errors
    /// When it is nothing whose bytes could be saved.
    pub fn of(area: &'a Area) -> io::Result<Self> {
        let key =
            || u32::from_str_radix(std::str::from_utf8(area.path.get(SYSV.len()..SYSV.len() + 8)?).ok()?, 16).ok();
        if is_anonymous(area) {
            return Ok(Self::Anonymous);
        }
        // The kernel calls every segment deleted, whether it is marked for removal or not.
        if let (true, Some(key)) = (Inode::of(area).sysv, key()) {
            return Ok(Self::SysV { id: area.inode as i32, key: key as i32 });
        }
        match std::str::from_utf8(&area.path) {
            Ok(path) if path.starts_with('/') => Ok(Self::Path(path)),
            Ok(_) => Err(io::Error::other("memory of this kind cannot be saved")),
            Err(_) => Err(io::Error::other("its name is not UTF-8")),
        }
    }
}

/// Device as stat(2) would tell it, on most file systems, and inode.
pub fn device_and_inode(area: &Area) -> (u64, u64) {
    (libc::makedev(area.device.0, area.device.1), area.inode)
}

/// The path that a deleted file had.
///
/// # Errors
/// When it is not deleted: then its path leads elsewhere.
pub fn last_path(area: &Area) -> io::Result<String> {
    let path = area.path.strip_suffix(DELETED).and_then(|it| std::str::from_utf8(it).ok());
    path.map(str::to_owned).ok_or_else(|| {
        io::Error::other("its path leads elsewhere (replaced, hidden by a mount, or of another mount namespace)")
    })
}

/// Kind of a file without a name; `file` is open, where that could be done.
pub fn kind_of_deleted(path: &str, file: Option<&File>) -> ObjectKind {
    let hugetlb = file.is_some_and(|it| fstatfs(it).is_ok_and(|it| it.filesystem_type() == HUGETLBFS_MAGIC));
    if path == HUGE {
        return ObjectKind::Memfd { name: HUGE[1..].into(), seals: 0, hugetlb: true };
    }
    match path.strip_prefix(MEMFD) {
        Some(name) => {
            let seals = file.and_then(seals).unwrap_or(0);
            ObjectKind::Memfd { name: name.into(), seals, hugetlb }
        }
        None => ObjectKind::Deleted { path: path.into() },
    }
}

fn seals(file: &File) -> Option<u32> {
    fcntl(file, FcntlArg::F_GET_SEALS).ok().map(|it| it as u32)
}

/// True when a file that stat(2) describes is the one that a line of maps shows. Their devices differ on btrfs and
/// overlayfs, where stat tells one without a major number.
pub fn is_behind(identity: (u64, u64), area: &Area) -> bool {
    let (device, inode) = identity;
    inode == area.inode && (device == device_and_inode(area).0 || libc::major(device) == 0)
}
