//! Descriptors of real MPI jobs: launcher, daemons and ranks are captured, and everything can be opened again.

#[path = "files/program.rs"]
#[allow(dead_code)] // shared with tests/files.rs, which uses the rest
mod program;

use std::fs;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use node_agent::files::{self, Ledger, ProcessRef, refill};
use node_agent_image::model::{NodeModel, Process};
use program::{Objects, Program};

/// Tells a copy of this program which folder's model to open.
const OPEN: &str = "SLACKWATER_TEST_OPEN";
const BASE: i32 = 400;
const DEADLINE: Duration = Duration::from_secs(20);
const SOURCE: &str = r#"
#include <mpi.h>
#include <stdio.h>
#include <unistd.h>
int main(int count, char **arguments) {
    int rank, ranks, from = -1;
    MPI_Init(&count, &arguments);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank), MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    // One after the other: ranks that connect to each other at once close one connection of two.
    if (rank == 0) MPI_Send(&rank, 1, MPI_INT, 1, 0, MPI_COMM_WORLD);
    if (rank == 1) MPI_Recv(&from, 1, MPI_INT, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0) puts("ready"), fflush(stdout);
    pause();
}
"#;

fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(text.split_whitespace().filter_map(|it| it.parse::<u32>().ok()));
    }
    found
}

fn family(pid: u32) -> Vec<ProcessRef> {
    let mut all = vec![ProcessRef { host_pid: pid, pid }];
    all.extend(children(pid).into_iter().flat_map(family));
    all
}

fn signal(processes: &[ProcessRef], signal: nix::sys::signal::Signal) {
    for process in processes {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process.host_pid as i32), signal);
    }
}

/// Capture of the whole family, then every process's descriptors opened and installed in a process of its own.
fn round_trip(compiler: &str, launcher: &str, arguments: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("ready.c"), SOURCE).expect("it is written");
    let program = folder.path().join("ready");
    match Command::new(compiler).arg("-o").arg(&program).arg(folder.path().join("ready.c")).status() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        status => assert!(status.expect("the compiler runs").success()),
    }
    let mut words = vec!["-np", "2"];
    words.extend(arguments);
    let name = program.to_string_lossy();
    words.push(&name);
    let one = Path::new("1");
    // A job that is killed leaves its session folder and its segments: they go with our folder.
    let environment = [
        ("OMPI_ALLOW_RUN_AS_ROOT", one),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", one),
        ("OMPI_MCA_btl_vader_backing_directory", folder.path()),
        ("TMPDIR", folder.path()),
    ];
    let mut job = Program::start(Path::new(launcher), &words, &environment);
    while job.line() != "ready" {}
    let processes = family(job.child.id());
    assert!(processes.len() > 2, "{processes:?}");
    // Stopped, as if parked.
    signal(&processes, nix::sys::signal::Signal::SIGSTOP);
    let ledger = Ledger::create().expect("a ledger");
    let drained = files::drain(&processes, job.child.id(), &ledger, DEADLINE);
    let mut objects = Objects { folder: folder.path().into(), known: Vec::new() };
    let captured = files::capture(&processes, job.child.id(), &mut objects, &ledger, &[]);
    let refilled = refill::from_ledger(&ledger);
    signal(&processes, nix::sys::signal::Signal::SIGKILL);
    drained.unwrap_or_else(|it| panic!("{it}"));
    refilled.unwrap_or_else(|it| panic!("{it}"));
    let captured = captured.unwrap_or_else(|it| panic!("{it}"));
    drop(job);
    let owners = processes.iter().zip(captured.descriptors);
    let processes =
        owners.map(|(it, descriptors)| Process { pid: it.pid, descriptors, ..Process::default() }).collect();
    let model = NodeModel { files: captured.files, processes, ..NodeModel::default() };
    fs::write(folder.path().join("model"), serde_json::to_vec(&model).expect("JSON")).expect("it is written");
    let own = std::env::current_exe().expect("our own path");
    let arguments = ["--exact", "open_helper", "--nocapture"];
    for process in 0..model.processes.len() {
        let place = folder.path().join(process.to_string());
        let mut opener = Program::start(&own, &arguments, &[(OPEN, &place)]);
        let mut output = String::new();
        opener.lines.read_to_string(&mut output).expect("its output can be read");
        let expected = model.processes[process].descriptors.iter().filter(|it| !it.close_on_exec).count();
        assert!(opener.child.wait().expect("it ends").success() && expected > 0, "{output}");
    }
}

#[test]
fn open_helper() {
    let Some(place) = std::env::var_os(OPEN).map(PathBuf::from) else { return };
    let folder = place.parent().expect("a folder");
    let process = place.file_name().and_then(|it| it.to_str()).and_then(|it| it.parse().ok()).expect("a number");
    let model: NodeModel = serde_json::from_slice(&fs::read(folder.join("model")).expect("a model")).expect("JSON");
    let objects = Objects::open(folder);
    let numbers: Vec<_> = objects.iter().map(AsRawFd::as_raw_fd).collect();
    let opened = files::open_all(&model, BASE, [0, 1, 2], &numbers, None);
    let opened = opened.unwrap_or_else(|error| panic!("{error}"));
    objects.into_iter().for_each(std::mem::forget);
    files::install(&model, process, &opened, &[]).unwrap_or_else(|error| panic!("{error}"));
    panic!("cannot become another program: {}", Command::new("true").exec());
}

#[test]
fn open_mpi_over_shared_memory() {
    round_trip("mpicc.openmpi", "mpirun.openmpi", &["--mca", "btl", "vader,self"]);
}

#[test]
fn open_mpi_over_tcp() {
    round_trip("mpicc.openmpi", "mpirun.openmpi", &["--mca", "btl", "tcp,self"]);
}

#[test]
fn mpich() {
    round_trip("mpicc.mpich", "mpirun.mpich", &[]);
}
