//! A cluster of nodes out of namespaces, for tests.
//!
//! Each node is a process tree with its own network, host name, mounts, pids, ipc and cgroup namespace: own address, own
//! /tmp, /dev/shm, /run, /var/log, own boot_id. Its root file system is the host's; /home and /srv are shared by all nodes
//! ("the parallel file system"). OpenSSH runs on every node, and the user `hpc` may go from each to each. The network lies
//! in a namespace of its own: the host gets no interface, mount or user, and nothing of the cluster reaches its network.
//!
//! ```text
//!   the test ── pipe ─▶ cat                (network namespace with the bridge br0, ports vn1 … vnN)
//!            ── pipe ─▶ unshare ─▶ bash    pid 1 of n1: sshd, daemons, whatever `command` starts
//!            ── pipe ─▶ unshare ─▶ bash    pid 1 of n2 …
//! ```
//!
//! When the [`Cluster`] is dropped, everything is ended and removed. When its process is killed, the pipes close and the
//! nodes end by themselves; what is left (files, frozen nodes) is cleared by the next [`Cluster::up`] in the same scratch
//! folder. Only what the cluster has started is ever ended: by pid and start time, or as a member of its own cgroup.

mod cgroups;
mod error;
mod ground;
mod layout;
mod leftovers;
mod network;
mod node;
mod options;
mod process;
mod run;

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::Flock;

pub use cgroups::Hierarchies;
pub use error::ClusterError;
pub use options::{NODES_MAX, Options};
pub use process::{Identity, Process};

use cgroups::Cgroups;
use layout::Layout;
use network::Network;
use node::Node;

/// The ordinary user of the nodes.
pub const USER: &str = "hpc";

/// A running cluster. Its deeds take `&self`, so that they can be done while something runs on it.
pub struct Cluster {
    nodes: Mutex<Vec<Option<Node>>>,
    network: Network,
    groups: Cgroups,
    layout: Layout,
    options: Options,
    /// Says that the scratch folder is taken for as long as we live.
    lock: Option<Flock<File>>,
}

impl Cluster {
    /// Brings a cluster up and returns when all its nodes' daemons run. Clears first what an earlier one has left in the
    /// same scratch folder. Needs root.
    pub fn up(options: Options) -> Result<Cluster, ClusterError> {
        let uid = nix::unistd::geteuid();
        if !uid.is_root() {
            return Err(ClusterError::NotRoot { uid: uid.as_raw() });
        }
        ground::check_programs()?;
        let options = options.checked()?;
        let layout = Layout { scratch: options.scratch.clone() };
        layout::make_folder(&layout.scratch, 0o755)?;
        let lock = leftovers::lock(&layout)?;
        let name = cgroups::name_of(&layout.scratch);
        leftovers::clear(&layout, &Cgroups::make(&name, Hierarchies::All))?;
        let groups = Cgroups::make(&name, options.hierarchies);
        let network = layout.write(&options).and_then(|()| Network::start(&groups, &layout));
        let network = network.inspect_err(|_| {
            // What went wrong is what the caller wants to hear, not that something cannot be taken back either.
            let _ = groups.remove();
            let _ = layout.remove();
        })?;
        let nodes = Mutex::new((0..options.nodes).map(|_| None).collect());
        let cluster = Cluster { nodes, network, groups, layout, options, lock: Some(lock) };
        // From here on dropping it takes everything back.
        cluster.boot_all()?;
        Ok(cluster)
    }

    /// How many nodes it has, those that are down included.
    pub fn nodes(&self) -> u32 {
        self.options.nodes
    }

    /// The host name of a node; it is numbered from 1.
    pub fn name(&self, node: u32) -> String {
        node::name(node)
    }

    /// The IPv4 address of a node, which its name stands for.
    pub fn address(&self, node: u32) -> Ipv4Addr {
        network::address(node)
    }

    /// The IPv6 address of a node; its name is that of the node and `-v6`.
    pub fn address_v6(&self, node: u32) -> Ipv6Addr {
        network::address_v6(node)
    }

    /// Where the host sees what nodes see as /srv/work, a shared folder of the user's.
    pub fn shared(&self) -> PathBuf {
        self.layout.shared().join("work")
    }

    /// Where the host sees the user's home folder, /home/hpc on all nodes.
    pub fn home(&self) -> PathBuf {
        self.layout.home()
    }

    /// Where the host sees a node's /var/log.
    pub fn logs(&self, node: u32) -> PathBuf {
        self.layout.node(&node::name(node)).join("log")
    }

    /// Kills a node: SIGKILL to all its processes, whose sockets say goodbye to their peers. Nothing to do when it is down.
    pub fn kill_node(&self, node: u32) -> Result<(), ClusterError> {
        let mut nodes = self.lock_nodes();
        let slot = self.slot(&mut nodes, node)?;
        let Some(running) = slot.as_mut() else { return Ok(()) };
        running.end(&self.layout, &self.groups, &self.network)?;
        *slot = None;
        Ok(())
    }

    /// Powers a node off: its link is unplugged first, so that its peers hear nothing.
    pub fn power_off(&self, node: u32) -> Result<(), ClusterError> {
        self.with(node, |running| self.network.unplug(&running.name))?;
        self.kill_node(node)
    }

    /// Starts a node that is down, with empty /tmp and /dev/shm. Nothing to do when it runs.
    pub fn boot(&self, node: u32) -> Result<(), ClusterError> {
        let mut nodes = self.lock_nodes();
        let slot = self.slot(&mut nodes, node)?;
        if slot.is_some() {
            return Ok(());
        }
        let running = slot.insert(node::start(node, &self.layout, &self.groups, &self.network)?);
        running.wait_up(&self.layout)
    }

    /// Cuts a node from the network. `silent`: its link stays up and nothing comes through; otherwise the link is down.
    pub fn cut(&self, node: u32, silent: bool) -> Result<(), ClusterError> {
        self.with(node, |running| match silent {
            true => self.network.unplug(&running.name),
            false => self.network.cut(&running.name),
        })
    }

    /// Undoes [`Cluster::cut`].
    pub fn heal(&self, node: u32) -> Result<(), ClusterError> {
        self.with(node, |running| self.network.plug(&running.name))
    }

    /// Whatever goes to a node arrives `delay_ms` later; 0 undoes it. Needs the kernel's netem.
    pub fn delay(&self, node: u32, delay_ms: u32) -> Result<(), ClusterError> {
        self.with(node, |running| self.network.delay(&running.name, delay_ms))
    }

    /// Freezes a node: it hangs, its kernel goes on answering. Returns when everything stands.
    pub fn freeze(&self, node: u32) -> Result<(), ClusterError> {
        self.with(node, |running| running.freeze(&self.groups, true))
    }

    /// Undoes [`Cluster::freeze`].
    pub fn thaw(&self, node: u32) -> Result<(), ClusterError> {
        self.with(node, |running| running.freeze(&self.groups, false))
    }

    /// Ends everything and removes it; the same as dropping, with the error for whoever wants it.
    pub fn down(mut self) -> Result<(), ClusterError> {
        self.bring_down()
    }

    fn boot_all(&self) -> Result<(), ClusterError> {
        let mut nodes = self.lock_nodes();
        for (number, slot) in (1..).zip(nodes.iter_mut()) {
            *slot = Some(node::start(number, &self.layout, &self.groups, &self.network)?);
        }
        nodes.iter_mut().flatten().try_for_each(|node| node.wait_up(&self.layout))
    }

    fn bring_down(&mut self) -> Result<(), ClusterError> {
        let Some(lock) = self.lock.take() else { return Ok(()) };
        let mut first_error = Ok(());
        let mut note = |outcome: Result<(), ClusterError>| {
            if first_error.is_ok() {
                first_error = outcome;
            }
        };
        let mut nodes = std::mem::take(&mut *self.lock_nodes());
        nodes.iter_mut().flatten().for_each(|node| node.kill(&self.groups));
        for node in nodes.iter_mut().flatten() {
            note(node.end(&self.layout, &self.groups, &self.network));
        }
        note(self.network.end());
        note(self.groups.remove());
        note(self.layout.remove());
        note(leftovers::unlock(&self.layout, lock));
        first_error
    }

    /// Does something with a running node.
    fn with<T>(&self, node: u32, deed: impl FnOnce(&mut Node) -> Result<T, ClusterError>) -> Result<T, ClusterError> {
        let mut nodes = self.lock_nodes();
        deed(self.slot(&mut nodes, node)?.as_mut().ok_or(ClusterError::NodeIsDown { node })?)
    }

    fn slot<'a>(&self, nodes: &'a mut [Option<Node>], node: u32) -> Result<&'a mut Option<Node>, ClusterError> {
        let at = usize::try_from(node).unwrap_or(usize::MAX).checked_sub(1);
        at.and_then(|at| nodes.get_mut(at)).ok_or(ClusterError::NoSuchNode { node, nodes: self.options.nodes })
    }

    fn lock_nodes(&self) -> MutexGuard<'_, Vec<Option<Node>>> {
        // A test that panicked in between has its cluster brought down all the same.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.bring_down() {
            eprintln!("virtual cluster: {error}");
        }
    }
}
