//! Many nodes: a virtual cluster for a test, launch lines as its user `hpc`, and what they print.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cluster_sim::virtual_cluster::{Cluster, Options, USER};

use crate::ground::{RUN_LIMIT, prefix, scratch, told, until};
use crate::job::{Said, result_in, steps_in, tail};
use crate::mpi::Mpi;
use crate::program::compile;

/// The folder that all nodes share, in which lines run.
const WORK: &str = "/srv/work";
/// The longest that a short line may take.
const LINE_LIMIT: Duration = Duration::from_secs(60);
/// What launchers and MPIs are told: start daemons by ssh, share a few cores among many ranks without binding or spinning, and
/// for windows between nodes not to take Debian's osc/ucx, which dies without RDMA.
const ENVIRONMENT: [(&str, &str); 6] = [
    ("OMPI_MCA_plm", "rsh"),
    ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
    ("OMPI_MCA_hwloc_base_binding_policy", "none"),
    ("OMPI_MCA_mpi_yield_when_idle", "1"),
    ("OMPI_MCA_osc", "^ucx"),
    ("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe"),
];

/// A virtual cluster with the product and the MPIs on its nodes.
pub struct Nodes {
    /// The cluster, whose nodes can be killed, cut, frozen …
    pub cluster: Cluster,
    uid: u32,
    outputs: PathBuf,
    count: AtomicU32,
}

/// A line that was started on a node; its output goes to a file of the host.
pub struct Life {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Nodes {
    /// Brings up `nodes` nodes.
    pub fn up(name: &str, nodes: u32) -> Nodes {
        Nodes::with(Nodes::options(name, nodes))
    }

    /// What [`Nodes::up`] makes, to be changed.
    pub fn options(name: &str, nodes: u32) -> Options {
        let folder = scratch().join(format!("cluster-{name}"));
        let mut options = Options::new(nodes, folder, uid());
        options.path.push(prefix().join("bin"));
        let venv = |variable: &str| told(variable).parent().map(PathBuf::from).unwrap_or_default();
        let seen = [prefix(), venv("SLACKWATER_MPICH"), venv("SLACKWATER_OPENMPI5"), programs()];
        seen.into_iter().fold(options, Options::see)
    }

    /// Brings up what `options` say.
    pub fn with(options: Options) -> Nodes {
        let (uid, folder) = (options.uid, options.scratch.clone());
        let cluster = Cluster::up(options).unwrap_or_else(|error| panic!("{error}"));
        // Below the cluster's folder but not one of its own: it goes when we go.
        let outputs = folder.with_extension("outputs");
        fs::create_dir_all(&outputs).unwrap_or_else(|cause| panic!("cannot make {}: {cause}", outputs.display()));
        Nodes { cluster, uid, outputs, count: AtomicU32::new(0) }
    }

    /// Starts a line of bash on a node as the user `hpc` in /srv/work.
    pub fn start(&self, name: &str, node: u32, line: &str) -> Life {
        let (mut command, log) = self.command(USER, node, line);
        let out = File::create(&log).and_then(|log| Ok((log.try_clone()?, log)));
        let (out, err) = out.unwrap_or_else(|cause| panic!("cannot write {}: {cause}", log.display()));
        let child = command.stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|cause| panic!("cannot start {name}: {cause}"));
        Life { name: name.to_owned(), log, child }
    }

    /// Runs a short line to its end as `hpc`.
    pub fn line(&self, node: u32, line: &str) -> Said {
        self.line_as(USER, node, line)
    }

    /// The same as another user of the nodes.
    pub fn line_as(&self, user: &str, node: u32, line: &str) -> Said {
        let (mut command, log) = self.command(user, node, line);
        let errors = log.with_extension("err");
        let files = File::create(&log).and_then(|out| Ok((out, File::create(&errors)?)));
        let (out, err) = files.unwrap_or_else(|cause| panic!("cannot write {}: {cause}", log.display()));
        let mut child =
            command.stdout(out).stderr(err).spawn().unwrap_or_else(|cause| panic!("cannot start {line}: {cause}"));
        let status = until(LINE_LIMIT, || child.try_wait().unwrap_or(None)).unwrap_or_else(|| {
            let _ = child.kill();
            let _ = child.wait();
            panic!("`{line}` on n{node} did not end in {LINE_LIMIT:?}: {}", tail(&read(&errors)));
        });
        Said { status, out: read(&log), err: read(&errors) }
    }

    /// `kill -9` to all processes of `hpc` on all nodes.
    pub fn kill_all(&self) {
        self.cluster.kill_all(self.uid).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Nothing of `hpc` may run any more.
    pub fn assert_quiet(&self) {
        let living = || self.cluster.processes_of(self.uid).into_iter().filter(|it| it.lives()).collect::<Vec<_>>();
        let quiet = until(LINE_LIMIT, || living().is_empty().then_some(()));
        assert!(quiet.is_some(), "left on the nodes: {:?}", living());
    }

    fn command(&self, user: &str, node: u32, line: &str) -> (Command, PathBuf) {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let command = self.cluster.command(node, user, WORK);
        let mut command = command.unwrap_or_else(|error| panic!("{error}"));
        command.args(["bash", "-c", line]).envs(ENVIRONMENT);
        (command, self.outputs.join(format!("{count:03}.out")))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.outputs);
    }
}

impl Life {
    /// What it has printed so far, standard output and error together.
    pub fn text(&self) -> String {
        read(&self.log)
    }

    /// Numbers of the whole `step` lines so far.
    pub fn steps(&self) -> Vec<u64> {
        steps_in(&self.text())
    }

    /// Waits for step `number`.
    pub fn wait_step(&mut self, number: u64) {
        self.wait_for(&format!("step {number}"), |text| steps_in(text).last().is_some_and(|&last| last >= number));
    }

    /// Waits until what it has printed is as wanted.
    pub fn wait_for(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        let reached = until(RUN_LIMIT, || {
            let ended = self.ended();
            match (wanted(&self.text()), ended) {
                (true, _) => Some(Ok(())),
                (false, Some(status)) => Some(Err(format!("ended with {status} before {what}"))),
                (false, None) => None,
            }
        });
        let reached = reached.unwrap_or_else(|| Err(format!("{what} not reached in {RUN_LIMIT:?}")));
        reached.unwrap_or_else(|why| panic!("{}: {why}; it said: {}", self.name, tail(&self.text())));
    }

    /// Exit status, when it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or(None)
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        until(RUN_LIMIT, || self.ended())
            .unwrap_or_else(|| panic!("{}: did not end in {RUN_LIMIT:?}; it said: {}", self.name, tail(&self.text())))
    }

    /// Waits for a good end; the program's result.
    pub fn finish(&mut self) -> String {
        let status = self.wait();
        let text = self.text();
        assert!(status.success() && !text.contains("WRONG"), "{}: {status}: {}", self.name, tail(&text));
        result_in(&text).unwrap_or_else(|| panic!("{}: no RESULT: {}", self.name, tail(&text)))
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} said: {}", self.name, tail(&self.text()));
        }
        // nsenter, which waits for what it has started; that is the cluster's to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Mpi {
    /// The line that launches a C program of tests/programs over ssh with `ranks` ranks on each of the nodes `hosts`.
    pub fn line(self, source: &str, hosts: &[u32], ranks: u32, arguments: &[&str]) -> String {
        let program = compile(source, &self.compiler());
        let list = hosts.iter().map(|node| format!("n{node}:{ranks}")).collect::<Vec<_>>().join(",");
        let total = hosts.len() * ranks as usize;
        let launcher = match self {
            Mpi::OpenMpi => format!("mpirun.openmpi -np {total} -H {list}"),
            Mpi::OpenMpiTcp => format!("mpirun.openmpi --mca btl tcp,self -np {total} -H {list}"),
            Mpi::OpenMpi5 => {
                let bin = told("SLACKWATER_OPENMPI5");
                format!("PATH={bin}:$PATH {bin}/mpirun -np {total} -H {list}", bin = bin.display())
            }
            Mpi::Mpich => {
                let bin = told("SLACKWATER_MPICH");
                format!("{}/mpiexec -launcher ssh -hosts {list} -n {total}", bin.display())
            }
        };
        format!("{launcher} {} {}", program.display(), arguments.join(" "))
    }
}

/// Where [`compile`] puts programs; made here, because nodes are to see it before there are any.
fn programs() -> PathBuf {
    let folder = scratch().join("programs");
    fs::create_dir_all(&folder).unwrap_or_else(|cause| panic!("cannot make {}: {cause}", folder.display()));
    folder
}

/// The uid that jobs run as, on the nodes too.
fn uid() -> u32 {
    let text = told("SLACKWATER_UID");
    let number = text.to_str().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("SLACKWATER_UID is no number: {}", text.display()))
}

fn read(path: &std::path::Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
