//! Launchers' daemons on a node: the agent asks for them, the guardian is their parent, so that they outlive an agent.
//!
//! ```text
//! launch-7.order      LaunchOrder, written by the agent under another name and renamed; then it writes `to_guardian`
//! launch-7.started    the daemon's pid, or why there is none, written by the guardian; then it writes `to_agent`
//! launch-7.ended      its wait status, likewise
//! ```
//!
//! Files in the job's folder, because both sides may have died and been replaced between two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::root;
use super::sys::Inherited;

const PREFIX: &str = "launch-";
const ORDER: &str = ".order";
const STARTED: &str = ".started";
const ENDED: &str = ".ended";
/// Bytes of one of these files, at most: a launcher's line has some thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A daemon that is to be started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchOrder {
    /// A line for the user's shell, as ssh(1) takes it.
    pub line: String,
}

/// What became of an order at first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// It runs, under this pid.
    Pid(u32),
    /// It does not, and why.
    Refused(String),
}

/// What the agent can see of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    #[allow(missing_docs)]
    pub id: u64,
    #[allow(missing_docs)]
    pub start: Start,
    /// Wait status.
    pub ended: Option<i32>,
}

/// Asks for a daemon; the caller then wakes the guardian.
///
/// # Errors
/// When the file cannot be written.
pub fn order(folder: &Path, id: u64, order: &LaunchOrder) -> io::Result<()> {
    put(folder, id, ORDER, order)
}

/// Takes daemons over that an earlier life has started: `pid` as this process sees it. Nobody here is their parent.
///
/// # Errors
/// When it cannot be noted.
pub fn adopt(folder: &Path, id: u64, pid: u32) -> io::Result<()> {
    put(folder, id, STARTED, &Start::Pid(pid))?;
    put(folder, id, ORDER, &LaunchOrder::default())
}

/// An adopted daemon has ended; its wait status, where that is known.
///
/// # Errors
/// When it cannot be noted.
pub fn note_adopted_end(folder: &Path, id: u64, status: i32) -> io::Result<()> {
    put(folder, id, ENDED, &status)
}

/// All daemons that have been started here, or could not be.
#[must_use]
pub fn list(folder: &Path) -> Vec<Daemon> {
    let daemon = |id| {
        let start = get(&path(folder, id, STARTED))?;
        Some(Daemon { id, start, ended: get(&path(folder, id, ENDED)) })
    };
    ids(folder).into_iter().filter_map(daemon).collect()
}

/// The guardian's side.
#[derive(Debug, Default)]
pub(super) struct Daemons {
    known: BTreeSet<u64>,
    running: BTreeMap<u32, u64>,
}

impl Daemons {
    /// Starts what has been asked for since the last look; true when there was anything.
    pub(super) fn start_new(&mut self, tool: &str, folder: &Path, inherited: &Inherited) -> bool {
        let started = |id: u64| path(folder, id, STARTED).exists();
        let fresh: Vec<u64> = ids(folder).into_iter().filter(|id| self.known.insert(*id) && !started(*id)).collect();
        for id in &fresh {
            let start = match self.start(*id, tool, folder, inherited) {
                Ok(pid) => Start::Pid(pid),
                Err(error) => Start::Refused(error.to_string()),
            };
            // What cannot be written is missed by the agent, which has a deadline.
            let _ = put(folder, *id, STARTED, &start);
        }
        !fresh.is_empty()
    }

    fn start(&mut self, id: u64, tool: &str, folder: &Path, inherited: &Inherited) -> io::Result<u32> {
        let order: LaunchOrder = get(&path(folder, id, ORDER)).ok_or(io::ErrorKind::InvalidData)?;
        let shell = std::env::var_os("SHELL").filter(|it| Path::new(it).is_absolute()).unwrap_or("/bin/sh".into());
        let command: [OsString; 3] = [shell, "-c".into(), order.line.into()];
        let pid = root::start(tool, &command, folder, inherited)?;
        self.running.insert(pid, id);
        Ok(pid)
    }

    /// Takes note of a child's end; true when it was a daemon's.
    pub(super) fn note_end(&mut self, folder: &Path, pid: u32, status: i32) -> bool {
        let Some(id) = self.running.remove(&pid) else { return false };
        let _ = put(folder, id, ENDED, &status);
        true
    }
}

fn path(folder: &Path, id: u64, end: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{id}{end}"))
}

/// Numbers of all orders, ascending.
fn ids(folder: &Path) -> BTreeSet<u64> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.file_name());
    names.filter_map(|name| name.to_str()?.strip_prefix(PREFIX)?.strip_suffix(ORDER)?.parse().ok()).collect()
}

fn put<T: Serialize>(folder: &Path, id: u64, end: &str, value: &T) -> io::Result<()> {
    let to = path(folder, id, end);
    let fresh = folder.join(format!(".{PREFIX}{id}{end}"));
    fs::write(&fresh, serde_json::to_vec(value)?)?;
    fs::rename(fresh, to)
}

fn get<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let about = fs::metadata(path).ok().filter(|it| it.len() <= FILE_BYTES_MAX)?;
    debug_assert!(about.is_file());
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_found_once_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for id in [3, 10, 2] {
            order(folder.path(), id, &LaunchOrder { line: format!("true {id}") }).unwrap();
        }
        fs::write(folder.path().join("launch-x.order"), "").unwrap();
        assert_eq!(ids(folder.path()), BTreeSet::from([2, 3, 10]));
        assert!(list(folder.path()).is_empty());
        put(folder.path(), 3, STARTED, &Start::Pid(77)).unwrap();
        let mut daemons = Daemons { running: BTreeMap::from([(77, 3)]), ..Daemons::default() };
        assert!(!daemons.note_end(folder.path(), 78, 0) && daemons.note_end(folder.path(), 77, 9));
        assert_eq!(list(folder.path()), [Daemon { id: 3, start: Start::Pid(77), ended: Some(9) }]);
    }
}
