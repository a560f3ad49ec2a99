//! What a cluster is to be like.

use std::path::{Path, PathBuf};

use super::cgroups::Hierarchies;
use super::error::ClusterError;

/// The most nodes that a cluster may have: what one machine carries, and what its addresses give.
pub const NODES_MAX: u32 = 200;
/// What nodes have of their own, where a folder may be made for a bind. Elsewhere that would be made on the host.
const OWN: [&str; 5] = ["/tmp", "/var/tmp", "/run", "/srv", "/home"];

/// What [`Cluster::up`](super::Cluster::up) makes.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many nodes, 1 to [`NODES_MAX`].
    pub nodes: u32,
    /// A folder for the cluster's files, its own alone; seen by the nodes under the same path.
    pub scratch: PathBuf,
    /// The uid (and gid) of the nodes' user.
    pub uid: u32,
    /// What of the host's files nodes shall see (from, to): what lies in /tmp, /var/tmp, /run, /srv or /home, or takes the
    /// place of something.
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Put before the usual folders of PATH for whatever [`Cluster::command`](super::Cluster::command) starts.
    pub path: Vec<PathBuf>,
    /// Scripts of bash that each node runs at its boot, in this order, as root, after sshd, with its name in `NODE`. A
    /// script starts a daemon and returns; one that fails fails the boot.
    pub daemons: Vec<String>,
    /// Which cgroup hierarchies nodes are put into.
    pub hierarchies: Hierarchies,
}

impl Options {
    /// Nodes with nothing but sshd.
    pub fn new(nodes: u32, scratch: impl Into<PathBuf>, uid: u32) -> Options {
        Options {
            nodes,
            scratch: scratch.into(),
            uid,
            binds: Vec::new(),
            path: Vec::new(),
            daemons: Vec::new(),
            hierarchies: Hierarchies::All,
        }
    }

    /// Nodes see `folder` where the host has it.
    pub fn see(mut self, folder: impl Into<PathBuf>) -> Options {
        let folder = folder.into();
        self.binds.push((folder.clone(), folder));
        self
    }

    /// Refuses what cannot be met.
    pub(super) fn checked(self) -> Result<Options, ClusterError> {
        let refuse = |what: String| Err(ClusterError::Options { what });
        if self.nodes == 0 || self.nodes > NODES_MAX {
            return refuse(format!("{} nodes: a cluster has 1 to {NODES_MAX}", self.nodes));
        }
        if self.uid == 0 {
            return refuse("uid 0: the nodes' user is an ordinary one".into());
        }
        if !plain(&self.scratch) {
            return refuse(format!("{} is no plain absolute path", self.scratch.display()));
        }
        for (from, to) in &self.binds {
            if !plain(from) || !plain(to) {
                return refuse(format!("bind of {} to {}: no plain absolute path", from.display(), to.display()));
            }
            if !from.exists() {
                return refuse(format!("bind of {}: there is nothing", from.display()));
            }
            if !to.exists() && !OWN.iter().any(|own| to.starts_with(own)) {
                return refuse(format!("bind to {}: it would have to be made on the host", to.display()));
            }
        }
        Ok(self)
    }
}

/// Absolute, and without what shell scripts and lists of paths stumble over.
fn plain(path: &Path) -> bool {
    let text = path.to_str().unwrap_or("");
    let odd = |letter: char| letter.is_control() || matches!(letter, '\'' | '"' | '\\' | '$' | '`' | ':');
    path.is_absolute() && !text.is_empty() && !text.contains("/../") && !text.contains(odd)
}

#[cfg(test)]
mod tests {
    use super::{NODES_MAX, Options};

    #[test]
    fn what_cannot_be_met_is_refused() {
        let good = Options::new(4, "/var/tmp/cluster", 20_001);
        assert!(good.clone().see("/etc").checked().is_ok());
        let bad = [
            Options { nodes: 0, ..good.clone() },
            Options { nodes: NODES_MAX + 1, ..good.clone() },
            Options { uid: 0, ..good.clone() },
            Options { scratch: "not/absolute".into(), ..good.clone() },
            Options { scratch: "/with\nnewline".into(), ..good.clone() },
            good.clone().see("/no/such/thing"),
            Options { binds: vec![("/etc".into(), "/new-at-the-top".into())], ..good },
        ];
        for options in bad {
            let refused = options.clone().checked();
            assert!(refused.is_err(), "{options:?}");
        }
    }
}
