//! Jobs of many nodes: checkpointed, and restarted on the same nodes, on others, on fewer, and checkpointed there again.

use tests::{Life, Mpi, Nodes};

const STEPS: &str = "300";

fn line(mpi: Mpi) -> String {
    mpi.line("stencil", &[1, 2, 3, 4], 2, &[STEPS, "256"])
}

fn checkpoint(nodes: &Nodes, node: u32, dir: &str) {
    let said = nodes.line(node, &format!("ckpt checkpoint --dir {dir} --json"));
    assert!(said.status.success(), "{}", said.text());
}

/// A life that goes on behind what was printed when the checkpoint was taken.
fn goes_on(job: &mut Life, seen: u64) {
    job.wait_step(seen + 1);
    let first = job.steps().first().copied().unwrap_or(0);
    assert!(first <= seen + 1, "steps are lost: it had come to {seen} and goes on with {first}");
}

#[test]
fn restarted_anywhere() {
    let nodes = Nodes::up("anywhere", 6);
    let want = nodes.start("native", 1, &line(Mpi::OpenMpi)).finish();
    let mut job = nodes.start("first", 1, &format!("ckpt-run --dir /srv/work/a {}", line(Mpi::OpenMpi)));
    job.wait_step(20);
    checkpoint(&nodes, 1, "/srv/work/a");
    let seen = job.steps().last().copied().unwrap_or(0);
    job.wait_step(seen + 2);
    nodes.kill_all();
    for (head, hosts) in [(1, "n1,n2,n3,n4"), (5, "n5,n6"), (2, "n2")] {
        let mut again = nodes.start("again", head, &format!("ckpt-restart --hosts {hosts} /srv/work/a"));
        goes_on(&mut again, seen);
        assert_eq!(again.finish(), want, "on {hosts}");
        nodes.assert_quiet();
    }
}

#[test]
fn a_job_of_many_nodes_that_is_left_alone() {
    let nodes = Nodes::up("alone", 4);
    let want = nodes.start("native", 1, &line(Mpi::OpenMpi)).finish();
    let mut job = nodes.start("ours", 1, &format!("ckpt-run --dir /srv/work/a {}", line(Mpi::OpenMpi)));
    assert_eq!(job.finish(), want);
    nodes.assert_quiet();
}

#[test]
fn killed_after_its_checkpoint() {
    let nodes = Nodes::up("killed", 4);
    let mut job = nodes.start("first", 1, &format!("ckpt-run --dir /srv/work/a {}", line(Mpi::OpenMpi)));
    job.wait_step(20);
    let said = nodes.line(1, "ckpt checkpoint --kill --dir /srv/work/a");
    assert!(said.status.success(), "{}", said.text());
    assert_eq!(job.wait().code(), Some(137), "{}", job.text());
    nodes.assert_quiet();
}

/// A node's processes have all ended before mpiexec has heard of it.
#[test]
fn over_hydra_on_other_nodes() {
    let nodes = Nodes::up("hydra", 4);
    let launch = Mpi::Mpich.line("stencil", &[1, 2, 3], 2, &[STEPS, "256"]);
    let want = nodes.start("native", 1, &launch).finish();
    let mut job = nodes.start("first", 1, &format!("ckpt-run --dir /srv/work/a {launch}"));
    job.wait_step(20);
    checkpoint(&nodes, 1, "/srv/work/a");
    let seen = job.steps().last().copied().unwrap_or(0);
    nodes.kill_all();
    let mut again = nodes.start("again", 2, "ckpt-restart --hosts n2,n4 /srv/work/a");
    goes_on(&mut again, seen);
    assert_eq!(again.finish(), want);
    nodes.assert_quiet();
}
