//! Control groups: a node's processes are together in one, by which the node is frozen and nothing of it is lost.
//!
//! Version 2 (`cgroup.freeze`) and the freezer of version 1 (`freezer.state`) both do; on hybrid machines a node is in a
//! group of each, because what runs on it may look for either, and is frozen by version 2. Where neither is writable, as in
//! most containers, nodes run without and [`Cgroups::freeze`] says why.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::ClusterError;
use super::ground::until;
use super::process::Identity;

/// The longest from asking a node to freeze to its being frozen; a process in a long system call makes it wait.
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// How long killed processes may keep a group busy.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);

/// Which hierarchies nodes are put into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hierarchies {
    /// All that can freeze.
    #[default]
    All,
    /// Only the freezer of version 1.
    V1,
    /// Only version 2.
    V2,
    /// None, as in a container where none is writable.
    Without,
}

/// The groups of one cluster.
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    why_none: String,
}

struct Hierarchy {
    version: Version,
    /// The cluster's group; each node has one below it.
    folder: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V2,
    V1,
}

impl Cgroups {
    /// Makes the cluster's groups, named `name`, wherever that can be done.
    pub fn make(name: &str, wanted: Hierarchies) -> Cgroups {
        let mut groups = Cgroups { hierarchies: Vec::new(), why_none: "no cgroup hierarchy was asked for".into() };
        if wanted == Hierarchies::Without {
            return groups;
        }
        groups.why_none = "neither cgroup v2 nor the v1 freezer is mounted".into();
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for (version, mount) in freezing_mounts(&mountinfo) {
            let taken = groups.hierarchies.iter().any(|other| other.version == version);
            let unwanted = matches!((wanted, version), (Hierarchies::V1, Version::V2) | (Hierarchies::V2, Version::V1));
            if taken || unwanted {
                continue;
            }
            let folder = mount.join(name);
            match make_group(&folder, version) {
                Ok(()) => groups.hierarchies.push(Hierarchy { version, folder }),
                Err(cause) => groups.why_none = format!("cannot make {}: {cause}", folder.display()),
            }
        }
        // Version 2 first: its frozen processes can still be killed.
        groups.hierarchies.sort_by_key(|hierarchy| hierarchy.version == Version::V1);
        groups
    }

    /// Makes the groups of one node.
    pub fn add(&self, node: &str) -> Result<(), ClusterError> {
        for hierarchy in &self.hierarchies {
            let folder = hierarchy.folder.join(node);
            fs::create_dir_all(&folder).map_err(ClusterError::file("make", &folder))?;
        }
        Ok(())
    }

    /// The versions that nodes are in: `v1`, `v2`, both or nothing.
    pub fn versions(&self) -> String {
        let word = |hierarchy: &Hierarchy| if hierarchy.version == Version::V2 { "v2" } else { "v1" };
        self.hierarchies.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// A line of sh that puts the shell into the node's groups and makes it the program of its arguments.
    pub fn join_and_exec(&self, node: &str) -> String {
        let joins = self.hierarchies.iter().map(|hierarchy| {
            format!("echo 0 >'{}' || exit 126; ", hierarchy.folder.join(node).join("cgroup.procs").display())
        });
        joins.collect::<String>() + "exec \"$@\""
    }

    /// Freezes or thaws a node, and waits until it is so.
    pub fn freeze(&self, node: &str, frozen: bool) -> Result<(), ClusterError> {
        let Some(hierarchy) = self.hierarchies.first() else {
            return Err(ClusterError::CannotFreeze { why: self.why_none.clone() });
        };
        let folder = hierarchy.folder.join(node);
        let (knob, word, state, sign) = match (hierarchy.version, frozen) {
            (Version::V2, true) => ("cgroup.freeze", "1", "cgroup.events", "frozen 1"),
            (Version::V2, false) => ("cgroup.freeze", "0", "cgroup.events", "frozen 0"),
            (Version::V1, true) => ("freezer.state", "FROZEN", "freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED", "freezer.state", "THAWED"),
        };
        let (knob, state) = (folder.join(knob), folder.join(state));
        let what = || format!("node {node} {}", if frozen { "frozen" } else { "thawed" });
        until(what, FREEZE_LIMIT, || {
            // Again each time: version 1 gives up on a process that would not stop, and says FREEZING.
            fs::write(&knob, word).map_err(ClusterError::file("write", &knob))?;
            let text = fs::read_to_string(&state).map_err(ClusterError::file("read", &state))?;
            Ok(text.lines().any(|line| line == sign).then_some(()))
        })
    }

    /// SIGKILL to everything in a node's groups, frozen or not.
    pub fn kill(&self, node: &str) {
        let Some(hierarchy) = self.hierarchies.first() else { return };
        kill_below(&hierarchy.folder.join(node));
    }

    /// Ends what is still in the cluster's groups and removes them.
    pub fn remove(&self) -> Result<(), ClusterError> {
        for hierarchy in &self.hierarchies {
            let what = || format!("the removal of {}", hierarchy.folder.display());
            until(what, REMOVE_LIMIT, || {
                if !hierarchy.folder.exists() {
                    return Ok(Some(()));
                }
                kill_below(&hierarchy.folder);
                thaw_below(&hierarchy.folder, hierarchy.version);
                remove_below(&hierarchy.folder);
                Ok(None)
            })?;
        }
        Ok(())
    }
}

/// A name that two clusters share only when they have the same scratch folder.
pub fn name_of(scratch: &Path) -> String {
    // FNV-1a: std's hasher promises nothing from one release to the next, and a leftover must be found again.
    let bytes = scratch.as_os_str().as_encoded_bytes();
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("slackwater-cluster-{hash:016x}")
}

fn make_group(folder: &Path, version: Version) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let knob = match version {
        Version::V2 => "cgroup.freeze",
        Version::V1 => "freezer.state",
    };
    let usable = fs::OpenOptions::new().write(true).open(folder.join(knob)).map(drop);
    if usable.is_err() {
        let _ = fs::remove_dir(folder);
    }
    usable
}

/// Mount points of hierarchies that can freeze, from /proc/self/mountinfo.
fn freezing_mounts(mountinfo: &str) -> Vec<(Version, PathBuf)> {
    let version = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mount = PathBuf::from(place.split(' ').nth(4)?);
        let mut kind = kind.split(' ');
        match (kind.next()?, kind.nth(1)) {
            ("cgroup2", _) => Some((Version::V2, mount)),
            ("cgroup", Some(options)) if options.split(',').any(|it| it == "freezer") => Some((Version::V1, mount)),
            _ => None,
        }
    };
    mountinfo.lines().filter_map(version).collect()
}

fn groups_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.flat_map(|entry| [groups_below(&entry.path()), vec![entry.path()]].concat()).collect()
}

fn kill_below(folder: &Path) {
    for group in [groups_below(folder), vec![folder.to_path_buf()]].concat() {
        let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        for process in list.lines().filter_map(|pid| Identity::of(pid.parse().ok()?)) {
            // One that cannot be killed keeps its group busy, which is noticed.
            let _ = process.kill();
        }
    }
}

/// In version 1 a frozen process dies only when it is thawed.
fn thaw_below(folder: &Path, version: Version) {
    for group in groups_below(folder).into_iter().filter(|_| version == Version::V1) {
        let _ = fs::write(group.join("freezer.state"), "THAWED");
    }
}

fn remove_below(folder: &Path) {
    for group in [groups_below(folder), vec![folder.to_path_buf()]].concat() {
        // Busy until the last process is gone; the caller looks again.
        let _ = fs::remove_dir(group);
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Cgroups, Hierarchies, Version, freezing_mounts, name_of};
    use crate::virtual_cluster::ClusterError;

    #[test]
    fn mounts_of_a_hybrid_machine() {
        let text = "31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                    32 30 0:28 / /sys/fs/cgroup/freezer rw,relatime shared:9 - cgroup cgroup rw,freezer\n\
                    40 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
                    41 1 0:5 / /tmp rw - tmpfs tmpfs rw,size=5k\n";
        let have = freezing_mounts(text);
        let want = [(Version::V1, "/sys/fs/cgroup/freezer"), (Version::V2, "/sys/fs/cgroup/unified")];
        assert_eq!(have, want.map(|(version, mount)| (version, PathBuf::from(mount))));
    }

    #[test]
    fn without_cgroups_freezing_is_refused_with_a_reason() {
        let none = Cgroups::make("slackwater-none", Hierarchies::Without);
        let refused = none.freeze("n1", true).unwrap_err();
        assert!(matches!(refused, ClusterError::CannotFreeze { .. }), "{refused}");
        assert_eq!(none.join_and_exec("n1"), "exec \"$@\"");
    }

    #[test]
    fn names_stay_what_they_are() {
        assert_eq!(name_of(Path::new("/a")), name_of(Path::new("/a")));
        assert_ne!(name_of(Path::new("/a")), name_of(Path::new("/b")));
    }
}
