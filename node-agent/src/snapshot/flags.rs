//! VmFlags without standing still for them.
//!
//! Only smaps tells them, and smaps walks every page table: 12 ms for 1 GiB in small pages, all of it with the job
//! stopped. So they are read three times as cheaply as possible:
//!
//! 1. before the job is parked, [`FlagsAhead::look`], at the job's leisure;
//! 2. while it is parked, what was seen then is taken for what overlaps it (a mapping that has grown has kept its flags,
//!    or it would be two), and nothing is assumed of a mapping that is new;
//! 3. after it runs again, [`settle`] reads them from its frozen twin, which has them as they were. What a fork forgets
//!    (DONTFORK, the lock) or empties (WIPEONFORK) cannot be made good then, but it is seen: the checkpoint fails, and
//!    the next one knows.

use std::collections::HashMap;
use std::io;

use node_agent_image::model::{Pid, Process, Vma};
use node_agent_proc::maps::{self, Area};

use super::SnapshotError;

/// VmFlags that a restart has to apply.
const KEPT: [&str; 10] = ["lo", "gd", "dc", "dd", "wf", "hg", "nh", "mg", "nr", "ht"];
/// A mark of our own among a [`Vma`]'s flags: all its pages are stored, as those of anonymous memory, whatever is
/// behind it now. A mapping of our own library has it, whose file may be another one, or gone, where it is restarted.
pub const WHOLE: &str = "whole";

/// Mappings with their VmFlags, as they were a moment ago.
#[derive(Clone, Debug, Default)]
pub struct FlagsAhead(HashMap<u32, Vec<(Area, Vec<String>)>>);

impl FlagsAhead {
    /// Looks at processes that run. Those that have ended meanwhile are left out.
    #[must_use]
    pub fn look(host_pids: &[u32]) -> Self {
        let seen = |pid: &u32| Some((*pid, smaps(*pid).ok()?));
        Self(host_pids.iter().filter_map(seen).collect())
    }

    /// VmFlags of a mapping that was there when this was made, be it shorter or longer then.
    #[must_use]
    pub fn of(&self, host_pid: u32, area: &Area) -> Option<&[String]> {
        let seen = self.0.get(&host_pid)?;
        let first = seen.partition_point(|(it, _)| it.end <= area.start);
        let over = || seen[first..].iter().take_while(|(it, _)| it.start < area.end);
        let backing = |it: &Area| (it.shared, it.device, it.inode);
        let (_, flags) = over().next()?;
        let agreed = over().all(|(it, its)| backing(it) == backing(area) && its == flags);
        agreed.then_some(flags.as_slice())
    }

    /// VmFlags of the mappings of a parked process, by start address, as far as they are known.
    ///
    /// # Errors
    /// When /proc cannot be read.
    pub fn of_all(&self, host_pid: u32, areas: &[Area]) -> io::Result<HashMap<u64, Vec<String>>> {
        let known = areas.iter().map(|area| (area.start, self.of(host_pid, area)));
        let all_known = known.clone().all(|it| it.1.is_some());
        if !self.0.contains_key(&host_pid) || (!all_known && has_locked(host_pid)?) {
            return flags_now(host_pid);
        }
        Ok(known.map(|(start, flags)| (start, flags.unwrap_or_default().to_vec())).collect())
    }
}

/// VmFlags by start address, exactly: reads smaps.
///
/// # Errors
/// When smaps cannot be read.
pub fn flags_now(host_pid: u32) -> io::Result<HashMap<u64, Vec<String>>> {
    smaps(host_pid).map(by_start)
}

/// All mappings of a process with all their VmFlags, now.
fn smaps(host_pid: u32) -> io::Result<Vec<(Area, Vec<String>)>> {
    let text = std::fs::read(format!("/proc/{host_pid}/smaps"))?;
    let mut areas: Vec<(Area, Vec<String>)> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(names) = line.strip_prefix(b"VmFlags:") {
            if let Some((_, flags)) = areas.last_mut() {
                flags.extend(String::from_utf8_lossy(names).split_whitespace().map(str::to_owned));
            }
        } else if line.first().is_some_and(u8::is_ascii_hexdigit) {
            // "Anonymous:", "AnonHugePages:" and the like are no areas.
            areas.extend(maps::parse(line).unwrap_or_default().into_iter().map(|it| (it, Vec::new())));
        }
    }
    Ok(areas)
}

/// Those that a restart has to apply. Shared memory lies in huge pages or not as its file does.
pub(super) fn kept(area: &Area, flags: &[String]) -> Vec<String> {
    let matters = |it: &&String| KEPT.contains(&it.as_str()) && !(area.shared && *it == "ht");
    flags.iter().filter(matters).cloned().collect()
}

/// Puts right the flags that were assumed while the process was parked; `twin` is its frozen copy. Not for a process
/// whose flags were read while it was parked.
///
/// # Errors
/// When memory turns out to be missing from the twin; it was marked in the moment before the job was parked, and the
/// next checkpoint will know.
pub fn settle(process: &mut Process, twin: u32) -> Result<(), SnapshotError> {
    let pid = process.pid;
    let seen = smaps(twin).map_err(|source| SnapshotError::Read { pid, what: "smaps (of its twin)".into(), source })?;
    for vma in &mut process.memory.vmas {
        // The twin's stack may have grown.
        let at = seen.partition_point(|(it, _)| it.end <= vma.start);
        match seen.get(at).filter(|(it, _)| it.start < vma.end) {
            Some((area, flags)) => settle_one(pid, vma, &kept(area, flags))?,
            None if vma.flags.iter().any(|it| it == "dc") => {}
            None => return Err(late(pid, vma, "MADV_DONTFORK")),
        }
    }
    Ok(())
}

fn settle_one(pid: Pid, vma: &mut Vma, seen: &[String]) -> Result<(), SnapshotError> {
    let knew = |flag: &str| vma.flags.iter().any(|it| it == flag);
    if !vma.shared && seen.iter().any(|it| it == "wf") && !knew("wf") {
        return Err(late(pid, vma, "MADV_WIPEONFORK"));
    }
    let own = ["lo", WHOLE].into_iter().filter(|it| knew(it)).map(str::to_owned).collect::<Vec<_>>();
    vma.flags = seen.iter().cloned().chain(own).collect();
    Ok(())
}

fn late(pid: Pid, vma: &Vma, what: &str) -> SnapshotError {
    let reason = format!("it marked its memory at {:#x} {what} just then; try again", vma.start);
    SnapshotError::Refused { pid, reason }
}

fn by_start(areas: Vec<(Area, Vec<String>)>) -> HashMap<u64, Vec<String>> {
    areas.into_iter().map(|(area, flags)| (area.start, flags)).collect()
}

/// A process that has locked memory may have asked for its new mappings to be locked too (mlockall).
fn has_locked(host_pid: u32) -> io::Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{host_pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    Ok(line.and_then(|it| it.split_whitespace().next()).is_some_and(|it| it != "0"))
}
