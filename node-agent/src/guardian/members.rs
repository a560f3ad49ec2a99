//! Who is in a job, from /proc: descendants of its guardian; when that is dead, those that carry the job's folder in
//! their environment, and their descendants.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use hijack_abi::JOB_FOLDER_VARIABLE;

/// A line of /proc/PID/stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    pid: u32,
    parent: u32,
    zombie: bool,
}

/// Descendants of `ancestor`, without `except` and theirs and without zombies.
#[must_use]
pub fn descendants(ancestor: u32, except: &[u32]) -> BTreeSet<u32> {
    below(&all(), BTreeSet::from([ancestor]), except)
}

/// Processes that carry `folder` in their environment, and their descendants.
#[must_use]
pub fn of_folder(folder: &Path, except: u32) -> BTreeSet<u32> {
    let entries = all();
    let mark = format!("{JOB_FOLDER_VARIABLE}={}", folder.display());
    let marked: BTreeSet<u32> = entries
        .iter()
        .filter(|entry| entry.pid != except && !entry.zombie)
        .filter(|entry| {
            fs::read(format!("/proc/{}/environ", entry.pid))
                .is_ok_and(|text| text.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()))
        })
        .map(|entry| entry.pid)
        .collect();
    let mut found = below(&entries, marked.clone(), &[except]);
    found.extend(marked);
    found
}

/// Children of every process, zombies too.
#[must_use]
pub fn children() -> BTreeMap<u32, Vec<u32>> {
    let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in all() {
        found.entry(entry.parent).or_default().push(entry.pid);
    }
    found
}

/// The process that sees itself as `pid` among the descendants of `ancestor`.
#[must_use]
pub fn with_inner_pid(ancestor: u32, pid: u32) -> Option<u32> {
    descendants(ancestor, &[]).into_iter().find(|candidate| {
        let status = fs::read_to_string(format!("/proc/{candidate}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        numbers.and_then(|it| it.split_whitespace().next_back()).is_some_and(|it| it == pid.to_string())
    })
}

/// Those of `pids` that are in the same process group as `pid`.
#[must_use]
pub fn in_group_of(pid: u32, pids: &BTreeSet<u32>) -> Vec<u32> {
    let group = group_of(pid);
    pids.iter().copied().filter(|other| group.is_some() && group_of(*other) == group).collect()
}

fn group_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): state, ppid, pgrp.
    stat.rsplit_once(')')?.1.split_whitespace().nth(2)?.parse().ok()
}

/// The wait status of a zombie.
#[must_use]
pub fn zombie_status(pid: u32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    // proc_pid_stat(5): the last field is exit_code, for those who may trace the process.
    if fields.next()? == "Z" { fields.next_back()?.parse().ok() } else { None }
}

fn below(entries: &[Entry], mut known: BTreeSet<u32>, except: &[u32]) -> BTreeSet<u32> {
    let roots = known.clone();
    loop {
        let size = known.len();
        known.extend(
            entries
                .iter()
                .filter(|it| known.contains(&it.parent) && !except.contains(&it.pid))
                .map(|it| it.pid)
                .collect::<Vec<_>>(),
        );
        if known.len() == size {
            break;
        }
    }
    let zombies: BTreeSet<u32> = entries.iter().filter(|it| it.zombie).map(|it| it.pid).collect();
    known.retain(|pid| !roots.contains(pid) && !zombies.contains(pid));
    known
}

fn all() -> Vec<Entry> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(entry_of)
        .collect()
}

fn entry_of(pid: u32) -> Option<Entry> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let zombie = matches!(fields.next()?, "Z" | "X");
    Some(Entry { pid, parent: fields.next()?.parse().ok()?, zombie })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(pid: u32, parent: u32) -> Entry {
        Entry { pid, parent, zombie: false }
    }

    #[test]
    fn a_tree_without_one_branch() {
        let zombie = Entry { pid: 14, parent: 12, zombie: true };
        // Children may have smaller numbers than their parents, and come first.
        let entries = [entry(3, 12), entry(11, 10), entry(12, 10), entry(13, 11), zombie, entry(20, 1), entry(21, 14)];
        let found = below(&entries, BTreeSet::from([10]), &[11]);
        assert_eq!(found, BTreeSet::from([3, 12, 21]));
    }
}
