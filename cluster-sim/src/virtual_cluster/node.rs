//! One node: a process tree in namespaces of its own.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use super::cgroups::Cgroups;
use super::error::ClusterError;
use super::ground::{spoken, system, until};
use super::layout::{Layout, make_folder, write};
use super::network::{GATEWAY, Network, PREFIX, PREFIX_V6, address, address_v6};
use super::process::{Identity, children, network_of};

/// What pid 1 of a node runs.
const INIT: &str = include_str!("node-init.sh");
/// The longest that a node may take to be up on a loaded machine.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// The longest that the last process of a killed node may take to be gone; big ranks take a while.
const END_LIMIT: Duration = Duration::from_secs(30);

/// A node that was started and not yet ended.
pub struct Node {
    /// Its host name.
    pub name: String,
    /// Its pid 1.
    pub init: Identity,
    /// What names its network namespace.
    pub network: PathBuf,
    /// `unshare`, the parent of pid 1; ends with it. Its standard input is pid 1's: when that is closed, the node ends.
    outer: Child,
    frozen: bool,
}

/// The name of node `number`.
pub fn name(number: u32) -> String {
    format!("n{number}")
}

/// Starts a node, without waiting until it is up.
pub fn start(number: u32, layout: &Layout, groups: &Cgroups, network: &Network) -> Result<Node, ClusterError> {
    let name = name(number);
    make_folder(&layout.node(&name), 0o755)?;
    let _ = fs::remove_file(mark_of(layout, &name));
    groups.add(&name)?;
    let outer = spawn(number, layout, groups)?;
    let mut node = Node { name, init: NOBODY, network: PathBuf::new(), outer, frozen: false };
    match enter(&mut node, number, layout, network) {
        Ok(()) => Ok(node),
        Err(error) => {
            let _ = node.end(layout, groups, network);
            Err(error)
        }
    }
}

impl Node {
    /// Waits until its daemons run.
    pub fn wait_up(&mut self, layout: &Layout) -> Result<(), ClusterError> {
        let mark = mark_of(layout, &self.name);
        let name = self.name.clone();
        until(
            || format!("node {name} up"),
            BOOT_LIMIT,
            || {
                if mark.exists() {
                    return Ok(Some(()));
                }
                self.check_alive(layout).map(|()| None)
            },
        )
    }

    /// Freezes or thaws it.
    pub fn freeze(&mut self, groups: &Cgroups, frozen: bool) -> Result<(), ClusterError> {
        groups.freeze(&self.name, frozen)?;
        self.frozen = frozen;
        Ok(())
    }

    /// SIGKILL to pid 1, and the kernel ends all others of its pid namespace; returns when they are gone.
    pub fn end(&mut self, layout: &Layout, groups: &Cgroups, network: &Network) -> Result<(), ClusterError> {
        self.kill(groups);
        self.wait_end()?;
        network.detach(&self.name);
        let _ = fs::remove_file(mark_of(layout, &self.name));
        let _ = fs::remove_file(layout.records().join(format!("{}.pid", self.name)));
        Ok(())
    }

    /// SIGKILL to all of it, without waiting.
    pub fn kill(&mut self, groups: &Cgroups) {
        if self.frozen {
            // With the old freezer nothing dies while frozen, and nothing may run once more when it is thawed.
            groups.kill(&self.name);
        }
        if self.init == NOBODY {
            let _ = self.outer.kill();
        } else {
            let _ = self.init.kill();
        }
        if self.frozen {
            let _ = groups.freeze(&self.name, false);
            self.frozen = false;
        }
    }

    fn wait_end(&mut self) -> Result<(), ClusterError> {
        let what = format!("the end of node {}", self.name);
        until(|| what, END_LIMIT, || Ok(self.outer.try_wait().unwrap_or(None)))?;
        Ok(())
    }

    fn check_alive(&mut self, layout: &Layout) -> Result<(), ClusterError> {
        match self.outer.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(ClusterError::NodeDidNotStart { node: self.name.clone(), said: log_tail(layout, &self.name) }),
        }
    }
}

/// Until pid 1 is found.
const NOBODY: Identity = Identity { pid: 0, start_ticks: 0 };
/// How much of a node's log goes into an error, in lines.
const LOG_TAIL: usize = 5;

fn spawn(number: u32, layout: &Layout, groups: &Cgroups) -> Result<Child, ClusterError> {
    let name = name(number);
    let log_path = layout.node(&name).join("init.log");
    let log = File::create(&log_path).and_then(|log| Ok((log.try_clone()?, log)));
    let (out, err) = log.map_err(ClusterError::file("make", &log_path))?;
    let mut command = system("bash");
    // In its groups first, so that the cgroup namespace has its root there; in a session of its own, away from Ctrl-C.
    command.args(["-c", &groups.join_and_exec(&name), "bash", "setsid"]);
    command.args(["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child"]);
    command.args(["bash", "-c", INIT, "init"]);
    command.env("NODE", &name).env("FOLDER", layout.node(&name)).env("ETC", layout.etc());
    command.env("RUN", layout.records()).env("SHARED", layout.shared()).env("CGROUPS", groups.versions());
    command.env("ADDRESS", format!("{}/{PREFIX}", address(number)));
    command.env("ADDRESS6", format!("{}/{PREFIX_V6}", address_v6(number))).env("GATEWAY", GATEWAY.to_string());
    command.stdin(Stdio::piped()).stdout(out).stderr(err);
    command.spawn().map_err(|source| ClusterError::Start { command: spoken(&command), source })
}

/// Finds pid 1 of a node that was spawned, and gives it its network.
fn enter(node: &mut Node, number: u32, layout: &Layout, network: &Network) -> Result<(), ClusterError> {
    find_init(node, layout)?;
    // Recorded before anything else may fail: whoever comes after us must find it.
    write(&layout.records().join(format!("{}.pid", node.name)), &node.init.to_record(), 0o644)?;
    network.attach(&node.name, number, node.init)?;
    if let Some(stdin) = &mut node.outer.stdin {
        // One that does not read has ended; `wait_up` says so with its log.
        let _ = stdin.write_all(b"eth0 is there\n");
    }
    Ok(())
}

/// Waits for the child of `unshare`, which has been in the new namespaces from its first moment.
fn find_init(node: &mut Node, layout: &Layout) -> Result<(), ClusterError> {
    let outer = node.outer.id().cast_signed();
    let name = node.name.clone();
    let found = until(
        || format!("pid 1 of node {name}"),
        BOOT_LIMIT,
        || {
            node.check_alive(layout)?;
            let first = children(outer).into_iter().next();
            Ok(first.and_then(|pid| Some((Identity::of(pid)?, network_of(pid)?))))
        },
    );
    (node.init, node.network) = found?;
    Ok(())
}

fn mark_of(layout: &Layout, name: &str) -> PathBuf {
    layout.records().join(format!("{name}.up"))
}

fn log_tail(layout: &Layout, name: &str) -> String {
    let log = fs::read_to_string(layout.node(name).join("init.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().rev().take(LOG_TAIL).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("; ")
}
