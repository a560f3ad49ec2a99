//! Many nodes: real MPIs by their own launchers over ssh, and nodes that die, hang and lose their network.
//!
//! `cargo xtask test` runs this program as root, which makes the nodes; what runs on them is an ordinary user.

#[path = "cluster/restarts.rs"]
mod restarts;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use cluster_sim::virtual_cluster::{Cluster, ClusterError, Hierarchies, Identity, Options};
use tests::{Life, Mpi, Nodes, Said, scratch, until};

/// The longest that the network may take to show what was done to it; the kernel's neighbour entries live for some seconds.
const SHOW_LIMIT: Duration = Duration::from_secs(60);

/// The longest that anything here is waited for in vain.
const LINE_LIMIT: Duration = Duration::from_secs(120);

/// n1 asks n`node`'s sshd for its first words: a witness for link, kernel and processes of both.
fn answers(nodes: &Nodes, node: u32) -> bool {
    let ask = format!("timeout 2 bash -c 'exec 3<>/dev/tcp/n{node}/22 && read -r words <&3 && echo $words'");
    nodes.line(1, &ask).out.starts_with("SSH-")
}

fn shows(what: &str, mut as_wanted: impl FnMut() -> bool) {
    assert!(until(SHOW_LIMIT, || as_wanted().then_some(())).is_some(), "not within {SHOW_LIMIT:?}: {what}");
}

/// n1 reads from a server on n2 that says one word and then nothing; "closed" when it hears that the server is gone.
fn listen_to_n2(nodes: &Nodes) -> (Life, Life) {
    let serve = "import socket, time\ns = socket.create_server(('', 7000))\nprint('ready', flush=True)\nc, _ = s.accept()\nc.send(b'word\\n')\ntime.sleep(600)";
    let mut server = nodes.start("server", 2, &format!("exec python3 -c \"{serve}\""));
    server.wait_for("a listening server", |text| text.contains("ready"));
    let read = "exec 3<>/dev/tcp/n2/7000; read -r word <&3; echo $word; cat <&3; echo closed; sleep 600";
    let mut reader = nodes.start("reader", 1, read);
    reader.wait_for("a word from the server", |text| text.contains("word"));
    (server, reader)
}

fn works(said: &Said) -> &str {
    assert!(said.status.success(), "{}: {}", said.status, said.text());
    said.out.trim()
}

fn native(mpi: Mpi, name: &str, program: &str, arguments: &[&str]) {
    let nodes = Nodes::up(name, 4);
    let line = mpi.line(program, &[1, 2, 3, 4], 2, arguments);
    let first = nodes.start(name, 1, &line).finish();
    let second = nodes.start(name, 3, &line).finish();
    assert_eq!(first, second, "the same program has another result when it is launched from another node");
    nodes.assert_quiet();
}

#[test]
fn openmpi_over_ssh() {
    native(Mpi::OpenMpi, "openmpi", "stencil", &["60", "256"]);
}

#[test]
fn openmpi5_over_prrte_and_ssh() {
    native(Mpi::OpenMpi5, "openmpi5", "stencil", &["60", "256"]);
}

#[test]
fn mpich_over_hydra_and_ssh() {
    native(Mpi::Mpich, "mpich", "stencil", &["60", "256"]);
}

#[test]
fn messages_in_flight_between_nodes() {
    native(Mpi::OpenMpi, "inflight", "inflight", &["10"]);
}

/// Each node is a machine of its own to what runs on it, except for the shared folders.
#[test]
fn nodes_are_machines_of_their_own() {
    let nodes = Nodes::up("machines", 2);
    let say = |node: u32, line: &str| works(&nodes.line(node, line)).to_owned();
    assert_eq!(say(2, "uname -n; id -nu; id -G; pwd; cat /proc/1/comm").replace('\n', " "), {
        let uid = say(1, "id -u");
        format!("n2 hpc {uid} /srv/work bash")
    });
    say(1, "touch /tmp/here /dev/shm/here /var/tmp/here /srv/work/shared ~/shared");
    assert_eq!(
        say(2, "ls /tmp/here /dev/shm/here /var/tmp/here 2>/dev/null; ls /srv/work ~"),
        "/home/hpc:\nshared\n\n/srv/work:\nshared"
    );
    let ids = "cat /proc/sys/kernel/random/boot_id";
    assert_ne!(say(1, ids), say(2, ids));
    assert_eq!(say(1, ids), say(1, ids));
    assert_eq!(say(1, "grep CapEff /proc/self/status"), "CapEff:\t0000000000000000");
    // What a restart needs: an unprivileged user namespace that mounts its own proc.
    assert_eq!(
        say(
            1,
            "unshare --user --map-root-user --pid --mount --fork sh -c 'mount -t proc proc /proc && cat /proc/1/comm'"
        ),
        "sh"
    );
    assert_eq!(
        say(1, "ssh n2 uname -n && ssh n2-v6 uname -n && ssh 127.0.0.1 uname -n").replace('\n', " "),
        "n2 n2 n1"
    );
    assert!(!nodes.line_as("nobody", 1, "ssh n2 true").status.success(), "only hpc has a key");
    // There is no way out, and nothing waits for one.
    let out = nodes.line(1, "exec 3<>/dev/tcp/192.0.2.1/80");
    assert!(!out.status.success() && out.err.contains("unreachable"), "{}", out.text());
}

#[test]
fn a_cut_node_and_a_healed_one() {
    let nodes = Nodes::up("cut", 2);
    for silent in [false, true] {
        shows("n2 answers", || answers(&nodes, 2));
        nodes.cluster.cut(2, silent).unwrap();
        assert!(!answers(&nodes, 2), "n2 answers although it was cut (silent: {silent})");
        let carrier = works(&nodes.line(2, "cat /sys/class/net/eth0/operstate")).to_owned();
        assert_eq!(carrier, if silent { "up" } else { "down" });
        nodes.cluster.heal(2).unwrap();
    }
    shows("n2 answers again", || answers(&nodes, 2));
}

#[test]
fn a_killed_node_says_goodbye_and_boots_empty() {
    let nodes = Nodes::up("kill", 2);
    let (_server, mut reader) = listen_to_n2(&nodes);
    works(&nodes.line(2, "touch /tmp/here /srv/work/there"));
    nodes.cluster.kill_node(2).unwrap();
    reader.wait_for("the end of the connection", |text| text.contains("closed"));
    assert!(!answers(&nodes, 2));
    assert!(matches!(nodes.cluster.cut(2, true), Err(ClusterError::NodeIsDown { node: 2 })));
    nodes.cluster.boot(2).unwrap();
    shows("n2 answers after its boot", || answers(&nodes, 2));
    assert_eq!(works(&nodes.line(2, "ls /srv/work/there /tmp/here 2>/dev/null; true")), "/srv/work/there");
}

#[test]
fn a_node_without_power_says_nothing() {
    let nodes = Nodes::up("power", 2);
    let (mut server, reader) = listen_to_n2(&nodes);
    nodes.cluster.power_off(2).unwrap();
    assert!(!server.wait().success(), "it outlived its node");
    // n2 is gone for good by now, with all that it could have sent.
    let connections = "ss -Htn state established '( dport = :7000 )'";
    assert_eq!(works(&nodes.line(1, connections)).lines().count(), 1, "n1 was told");
    assert!(!reader.text().contains("closed"));
    assert!(!answers(&nodes, 2));
    nodes.cluster.boot(2).unwrap();
    shows("n2 answers after its boot", || answers(&nodes, 2));
}

#[test]
fn a_frozen_node_hangs() {
    for hierarchies in [Hierarchies::V2, Hierarchies::V1] {
        let nodes = Nodes::with(Options { hierarchies, ..Nodes::options("freeze", 2) });
        if let Err(ClusterError::CannotFreeze { why }) = nodes.cluster.freeze(2) {
            println!("{hierarchies:?} is not here: {why}");
            continue;
        }
        let connect = "timeout 5 bash -c 'exec 3<>/dev/tcp/n2/22'";
        works(&nodes.line(1, connect));
        assert!(!answers(&nodes, 2), "{hierarchies:?}: n2's sshd talks although it is frozen");
        nodes.cluster.thaw(2).unwrap();
        shows("n2 talks again", || answers(&nodes, 2));
        nodes.cluster.freeze(2).unwrap();
        nodes.cluster.power_off(2).unwrap();
        nodes.cluster.boot(2).unwrap();
        shows("n2 talks after its boot", || answers(&nodes, 2));
        // It is brought down with a frozen node.
        nodes.cluster.freeze(1).unwrap();
    }
}

#[test]
fn without_cgroups_freezing_is_refused() {
    let nodes = Nodes::with(Options { hierarchies: Hierarchies::Without, ..Nodes::options("without", 1) });
    works(&nodes.line(1, "true"));
    let refused = nodes.cluster.freeze(1);
    assert!(matches!(refused, Err(ClusterError::CannotFreeze { .. })), "{refused:?}");
}

#[test]
fn daemons_start_at_boot() {
    let daemons = vec!["sleep 600 & echo $NODE >/var/log/daemon".to_owned()];
    let nodes = Nodes::with(Options { daemons, ..Nodes::options("daemons", 2) });
    assert_eq!(std::fs::read_to_string(nodes.cluster.logs(2).join("daemon")).unwrap(), "n2\n");
    drop(nodes);
    let daemons = vec!["echo there is no such daemon >&2; exit 3".to_owned()];
    let refused = Cluster::up(Options { daemons, ..Nodes::options("daemons", 2) }).map(drop);
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("did not start: ") && text.contains("there is no such daemon"), "{text}");
}

#[test]
fn a_delayed_node() {
    let nodes = Nodes::up("delay", 2);
    let ask = "exec 3<>/dev/tcp/n2/22; read -r words <&3; ss -Htin '( dport = :22 )' | grep -o 'rtt:[0-9]*'";
    let rtt_ms = || works(&nodes.line(1, ask)).trim_start_matches("rtt:").parse::<u32>().unwrap();
    if let Err(error) = nodes.cluster.delay(2, 80) {
        assert!(error.to_string().contains("netem"), "{error}");
        println!("no netem in this kernel: {error}");
        nodes.cluster.delay(2, 0).unwrap();
        return;
    }
    assert!(rtt_ms() >= 80);
    nodes.cluster.delay(2, 0).unwrap();
    shows("a quick answer", || rtt_ms() < 80);
}

/// What of a cluster is on the host: interfaces and mounts in its own namespaces, cgroups, and those of `namespaces` that live.
fn traces(folder: &Path, namespaces: &[String]) -> Vec<String> {
    let lines = |program: &str, arguments: &[&str]| {
        let said = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&said.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let links = lines("ip", &["-brief", "link"]).into_iter().filter(|line| line.starts_with(['v', 'b']));
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(folder.to_str().unwrap())).map(str::to_owned);
    let live = lines("lsns", &["--noheadings", "--output", "NS"]);
    let live = live.iter().map(|number| number.trim().to_owned()).filter(|number| namespaces.contains(number));
    links.chain(mounts).chain(sorted(&live.collect::<Vec<_>>())).collect()
}

/// The name of the cgroup in which pid 1 of n1 is, as the host sees it.
fn group_of(folder: &Path) -> String {
    let record = std::fs::read_to_string(folder.join("run/n1.pid")).unwrap();
    let pid = Identity::from_record(&record).unwrap().pid;
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let ours = groups.split('/').find(|part| part.starts_with("slackwater-cluster-"));
    ours.unwrap_or_else(|| panic!("n1 is in none of the cluster's groups: {groups}")).to_owned()
}

fn sorted(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    words.sort();
    words.dedup();
    words
}

#[test]
fn nothing_is_left() {
    let options = Nodes::options("traces", 2);
    let folder = options.scratch.clone();
    let before = traces(&folder, &[]);
    let nodes = Nodes::with(options);
    let numbers = "for space in mnt uts ipc net pid cgroup; do readlink /proc/self/ns/$space | tr -dc '0-9\\n'; done";
    let of = |node| works(&nodes.line(node, numbers)).lines().map(str::to_owned).collect::<Vec<_>>();
    let namespaces = [of(1), of(2)].concat();
    let group = group_of(&folder);
    let mut sleeper = nodes.start("sleeper", 2, "sleep 600 & setsid sleep 601 & echo $$; wait");
    sleeper.wait_for("its start", |text| text.ends_with('\n'));
    let uid = works(&nodes.line(1, "id -u")).parse().unwrap();
    let asleep = || nodes.cluster.processes_of(uid).iter().filter(|it| it.node == 2 && it.name == "sleep").count() == 2;
    shows("two processes on n2", asleep);
    let during = traces(&folder, &namespaces);
    assert_eq!(during, [before.clone(), sorted(&namespaces)].concat(), "the host sees namespaces and nothing else");
    nodes.kill_all();
    assert!(!sleeper.wait().success());
    nodes.assert_quiet();
    drop(nodes);
    assert!(!folder.exists(), "{} is left", folder.display());
    // The kernel takes namespaces down in its own time.
    shows("the end of all namespaces", || traces(&folder, &namespaces) == before);
    let groups = Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "2", "-name", &group]).output().unwrap();
    assert!(groups.stdout.is_empty(), "left: {}", String::from_utf8_lossy(&groups.stdout));
}

/// For [`a_killed_cluster_is_cleared`], which runs this in a process of its own and kills it.
#[test]
#[ignore = "waits to be killed"]
fn a_cluster_to_be_killed() {
    let nodes = Nodes::up("orphan", 2);
    nodes.cluster.freeze(2).unwrap();
    println!("READY");
    std::thread::sleep(LINE_LIMIT);
}

#[test]
fn a_killed_cluster_is_cleared() {
    let said = scratch().join("orphan.said");
    let mut orphan = Command::new(std::env::current_exe().unwrap());
    orphan.args(["--ignored", "--exact", "--nocapture", "a_cluster_to_be_killed"]);
    let mut orphan = orphan.stdout(std::fs::File::create(&said).unwrap()).spawn().unwrap();
    shows("a cluster of another process", || std::fs::read_to_string(&said).unwrap().contains("READY"));
    let options = || Nodes::options("orphan", 1);
    let refused = Cluster::up(options()).map(drop);
    assert!(matches!(refused, Err(ClusterError::Busy { .. })), "{refused:?}");
    let old = std::fs::read_to_string(options().scratch.join("run/n2.pid")).unwrap();
    orphan.kill().unwrap();
    orphan.wait().unwrap();
    let nodes = Nodes::with(options());
    works(&nodes.line(1, "true"));
    let old = Identity::from_record(&old).unwrap();
    assert!(!old.lives(), "pid 1 of the old n2 lives: {old:?}");
    std::fs::remove_file(said).unwrap();
}
