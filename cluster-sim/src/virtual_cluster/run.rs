//! What runs on the nodes: commands, and the processes that there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Cluster;
use super::error::ClusterError;
use super::ground::{SYSTEM_PATH, system, until};
use super::process::{Identity, Process, network_of, pids, stat, uid_of};

/// How long processes that were sent SIGKILL may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(20);

impl Cluster {
    /// A command that runs on a node as one of its users (`hpc`, `root`, `nobody` …), in `dir`, without groups, with a clean
    /// environment and nothing on its standard input; add the program and its arguments. Ending the command's own process
    /// does not end what it has started: [`Cluster::kill_all`] does.
    pub fn command(&self, node: u32, user: &str, dir: impl AsRef<Path>) -> Result<Command, ClusterError> {
        let init = self.with(node, |running| Ok(running.init))?;
        let account = self.layout.account(user)?;
        let mut command = system("bash");
        // In the node's cgroup first: what is in its namespaces must be frozen and counted with it.
        command.args(["-c", &self.groups.join_and_exec(&self.name(node)), "bash"]);
        command.args(["nsenter", "--target", &init.pid.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid"]);
        command.args(["--cgroup", "--", "setpriv", "--reuid", &account.uid.to_string()]);
        command.args(["--regid", &account.gid.to_string(), "--clear-groups", "--inh-caps", "-all"]);
        command.args(["env", "--chdir"]).arg(dir.as_ref());
        let front = self.options.path.iter().map(|folder| format!("{}:", folder.display())).collect::<String>();
        command.env("PATH", front + SYSTEM_PATH).env("HOME", &account.home).env("SHELL", &account.shell);
        command.env("USER", user).env("LOGNAME", user);
        Ok(command)
    }

    /// All processes of a uid on the nodes, zombies included.
    pub fn processes_of(&self, uid: u32) -> Vec<Process> {
        let networks = self.networks();
        let node_of = |pid: i32| networks.get(&network_of(pid)?).copied();
        let look = |pid: i32| {
            let stat = stat(pid)?;
            // A zombie has no namespaces any more; it belongs to where its parent is.
            let node = node_of(pid).or_else(|| node_of(stat.parent))?;
            let identity = Identity { pid, start_ticks: stat.start_ticks };
            (uid_of(pid)? == uid).then_some(Process { identity, node, state: stat.state, name: stat.name })
        };
        pids().filter_map(look).collect()
    }

    /// SIGKILL to all processes of a uid on the nodes until there are none.
    pub fn kill_all(&self, uid: u32) -> Result<(), ClusterError> {
        let living = || self.processes_of(uid).into_iter().filter(Process::lives).collect::<Vec<_>>();
        let kill = || {
            let left = living();
            for process in &left {
                // One that cannot be killed is still there at the end and named.
                let _ = process.identity.kill();
            }
            Ok(left.is_empty().then_some(()))
        };
        until(|| "their end".into(), KILL_LIMIT, kill).map_err(|_| {
            let names = living().iter().map(|it| format!("{} ({})", it.identity.pid, it.name)).collect::<Vec<_>>();
            ClusterError::ProcessesLeft { left: names.join(", "), limit: KILL_LIMIT }
        })
    }

    /// Which network namespace is which node's.
    fn networks(&self) -> BTreeMap<PathBuf, u32> {
        let nodes = self.lock_nodes();
        let running = (1..).zip(nodes.iter()).filter_map(|(number, node)| Some((node.as_ref()?, number)));
        running.map(|(node, number)| (node.network.clone(), number)).collect()
    }
}
