//! Files that the job writes to as memory: decided for the whole job, since one process may only read what another
//! writes. PMIx keeps its store so: the launcher's daemon writes, the ranks have it mapped for reading. Were the
//! ranks' mappings left to the file system, a restart would find the file changed, or gone.

use std::collections::HashSet;
use std::fs;

use nix::unistd::{AccessFlags, access};
use node_agent_proc::maps::{self, Area};

use super::inode::Inode;
use super::{ObjectsError, open};
use crate::snapshot::{FlagsAhead, belongs_in_image, flags_now};

/// The inodes of all mappings through which a process of the job may write to a file, and of files that some process
/// has mapped shared and some process has open for writing.
pub fn in_job(host_pids: &[u32], ahead: Option<&FlagsAhead>) -> Result<HashSet<Inode>, ObjectsError> {
    let mut written = HashSet::new();
    let mut doubtful: Vec<(u32, Area)> = Vec::new();
    for host_pid in host_pids {
        let error = |source| ObjectsError::Process { host_pid: *host_pid, what: "maps", source };
        let text = fs::read(format!("/proc/{host_pid}/maps")).map_err(error)?;
        let areas = maps::parse(&text).map_err(|it| error(std::io::Error::other(it)))?;
        for area in areas.into_iter().filter(|it| it.shared && it.inode != 0) {
            if belongs_in_image(&area) {
                written.insert(Inode::of(&area));
            } else {
                doubtful.push((*host_pid, area));
            }
        }
    }
    // Most are files that nobody of this user could write to: locales, tables of character sets.
    doubtful.retain(|(host_pid, area)| !written.contains(&Inode::of(area)) && may_be_written(*host_pid, area));
    if !doubtful.is_empty() {
        made_read_only(&doubtful, ahead, &mut written)?;
        open_for_writing(host_pids, &doubtful, &mut written)?;
    }
    Ok(written)
}

fn may_be_written(host_pid: u32, area: &Area) -> bool {
    let path = String::from_utf8_lossy(&area.path);
    access(format!("/proc/{host_pid}/root{path}").as_str(), AccessFlags::W_OK).is_ok()
}

/// mprotect takes PROT_WRITE away and leaves VmFlags `mw`: it was opened for writing, and may have been written.
fn made_read_only(
    doubtful: &[(u32, Area)],
    ahead: Option<&FlagsAhead>,
    written: &mut HashSet<Inode>,
) -> Result<(), ObjectsError> {
    let has_mw = |flags: &[String]| flags.iter().any(|it| it == "mw");
    let mut read = std::collections::HashMap::new();
    for (host_pid, area) in doubtful {
        let writable = match ahead {
            // One that nobody has seen yet is taken for written: that costs space and loses nothing.
            Some(ahead) => ahead.of(*host_pid, area).is_none_or(has_mw),
            None => {
                if !read.contains_key(host_pid) {
                    let error = |source| ObjectsError::Process { host_pid: *host_pid, what: "smaps", source };
                    read.insert(*host_pid, flags_now(*host_pid).map_err(error)?);
                }
                read[host_pid].get(&area.start).is_some_and(|it| has_mw(it))
            }
        };
        if writable {
            written.insert(Inode::of(area));
        }
    }
    Ok(())
}

fn open_for_writing(
    host_pids: &[u32],
    doubtful: &[(u32, Area)],
    written: &mut HashSet<Inode>,
) -> Result<(), ObjectsError> {
    let mut paths = HashSet::new();
    for host_pid in host_pids {
        let error = |source| ObjectsError::Process { host_pid: *host_pid, what: "the descriptors", source };
        paths.extend(open::written_paths(*host_pid).map_err(error)?);
    }
    written.extend(doubtful.iter().filter(|(_, area)| paths.contains(&area.path)).map(|(_, area)| Inode::of(area)));
    Ok(())
}
