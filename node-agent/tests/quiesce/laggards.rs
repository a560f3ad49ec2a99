//! Somebody parks late, or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use node_agent::guardian::board::Progress;
use node_agent::guardian::{Namespace, Root};
use node_agent::quiesce::quiesce;
use node_agent::tasks::{Job, Lister, TaskStatus};

use crate::program::Program;
use crate::{COMMAND, DEADLINE, FOLDER, NAMESPACE, Outcome};

/// Counters of the program: flags from and for the test.
const GO: usize = 20;
const IN_VFORK: usize = 22;

pub fn a_stopped_process(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["stopped"])?;
    program.goes_on(&[1, 2, 3]);
    let child = Lister::new(program.job).list().into_iter().find(|it| it.parent == program.child.id());
    let child = child.ok_or("it has a child")?.pid;
    kill(Pid::from_raw(child as i32), Signal::SIGSTOP)?;
    let all_are_stopped = || {
        let tasks = fs::read_dir(format!("/proc/{child}/task")).into_iter().flatten().flatten();
        let mut tids = tasks.filter_map(|it| it.file_name().to_str()?.parse().ok());
        tids.all(|tid| TaskStatus::read(child, tid).is_some_and(|it| it.state == 'T'))
    };
    program.until("it is stopped", all_are_stopped);
    let before = [1, 2].map(|it| program.counter(it));
    for round in 0..30 {
        let parked = program.park_still()?;
        let sources = parked.sources(COMMAND)?;
        let stopped: Vec<bool> = sources.iter().map(|it| it.stopped).collect();
        assert_eq!(stopped, [false, true], "round {round}");
        parked.resume();
        program.goes_on(&[0, 3]);
        program.until("it is stopped again", all_are_stopped);
        assert_eq!(before, [1, 2].map(|it| program.counter(it)), "a stopped process has run, round {round}");
    }
    kill(Pid::from_raw(child as i32), Signal::SIGCONT)?;
    program.goes_on(&[0, 1, 2, 3]);
    let parked = program.park_still()?;
    assert!(parked.sources(COMMAND)?.iter().all(|it| !it.stopped));
    // Stopped while it is parked: it is asked all the same.
    kill(Pid::from_raw(child as i32), Signal::SIGSTOP)?;
    program.until("it is stopped", all_are_stopped);
    assert!(parked.sources(COMMAND)?[1].host_pid == child);
    parked.resume();
    program.until("it stays stopped", all_are_stopped);
    program.goes_on(&[0, 3]);
    Ok(())
}

pub fn no_leader_and_a_zombie(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["zombie"])?;
    let zombie = || Lister::new(program.job).list().into_iter().find(|it| program.state(it.pid) == 'Z');
    program.until("a zombie", || zombie().is_some());
    let zombie = zombie().ok_or("a zombie")?.pid;
    let parked = program.park_still()?;
    assert_eq!(parked.zombies(), [(zombie, zombie)]);
    assert_eq!(parked.sources(COMMAND)?.len(), 1);
    drop(parked);
    drop(program);

    let mut command = Command::new(folder.join("parks"));
    let counted = |path: &Path| {
        fs::write(path, 1_u64.to_ne_bytes()).and_then(|()| File::options().write(true).open(path)?.set_len(4096))
    };
    let program = Program::run(folder, |path| {
        counted(path).expect("counters");
        command.arg(path).arg("leaderless")
    })?;
    program.until("its leader has ended", || program.state(program.child.id()) == 'Z');
    for _ in 0..10 {
        let parked = program.park_still()?;
        assert!(parked.zombies().is_empty(), "it lives");
        let sources = parked.sources(COMMAND)?;
        assert_eq!((sources[0].pid, sources[0].threads.len()), (program.child.id(), 1));
        drop(parked);
        program.goes_on(&[1]);
    }
    Ok(())
}

pub fn vfork(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["vfork"])?;
    program.until("it is in vfork", || program.counter(IN_VFORK) == 1);
    let text = program.refusal(Duration::from_millis(1500), &[0, 1]);
    assert!(text.contains("vfork") && text.contains("(parks)"), "{text}");
    program.set(GO, 1)?;
    program.park_still()?.resume();
    program.until("vfork is over", || program.counter(IN_VFORK) == 2);
    program.goes_on(&[0, 1, 2]);
    drop(program);

    // The child waits for another thread of the job: only when everybody is let go meanwhile it ever ends.
    let program = Program::start(folder, &["vfork-waits"])?;
    program.until("it is in vfork", || program.counter(IN_VFORK) == 1);
    program.park_still()?.resume();
    program.goes_on(&[0, 1, 2]);
    Ok(())
}

pub fn a_static_program(folder: &Path) -> Outcome<()> {
    let lonely = folder.join("lonely");
    let program = Program::start(folder, &["runs", &lonely.display().to_string()])?;
    let is_lonely = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|it| it == lonely);
    let lonely = || program.job.pids().into_iter().find(is_lonely);
    program.until("the program is executed", || lonely().is_some());
    let pid = lonely().ok_or("a process")?;
    let text = program.refusal(DEADLINE, &[0]);
    assert!(text.contains("statically") && text.contains(&format!("pid {pid} (lonely)")), "{text}");
    let text = program.refusal(Duration::from_millis(50), &[0]);
    assert!(text.contains("statically") && text.contains("within 50 ms"), "{text}");
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL)?;
    let parked = program.park_still()?;
    assert_eq!(parked.zombies(), [(pid, pid)]);
    Ok(())
}

pub fn a_debugger(folder: &Path) -> Outcome<()> {
    let program = Program::start(folder, &["threads"])?;
    let pid = Pid::from_raw(program.child.id() as i32);
    ptrace::seize(pid, ptrace::Options::empty())?;
    ptrace::interrupt(pid)?;
    waitpid(pid, None)?;
    let text = program.refusal(Duration::from_millis(300), &[1, 2, 3, 4]);
    assert!(text.contains("debugger"), "{text}");
    ptrace::detach(pid, None)?;
    program.park_still()?.resume();
    program.goes_on(&[0, 1, 2, 3, 4]);
    Ok(())
}

/// This process's job: pid 1, a stand-in below it, and below that the program.
pub fn another_pid_namespace(folder: &Path) -> Outcome<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(NAMESPACE, folder.join("parks"));
    let mut program = Program::run(folder, |path| command.env(FOLDER, path))?;
    let everybody = Lister::new(program.job).list();
    let inner = |pid: u32| TaskStatus::read(pid, pid).map_or((0, 0), |it| (it.depth, it.pid));
    let init = everybody.iter().find(|it| inner(it.pid) == (2, 1)).ok_or("pid 1")?.pid;
    let root = everybody.iter().find(|it| inner(it.pid) == (2, 3)).ok_or("pid 3")?.pid;
    program.job.root = Root::Namespace(Namespace { init, root });
    assert_eq!(program.job.pids(), BTreeSet::from([root]), "neither pid 1 nor the stand-in");
    for _ in 0..10 {
        let parked = program.park_still()?;
        let sources = parked.sources(COMMAND)?;
        assert_eq!((sources.len(), sources[0].host_pid, sources[0].pid), (1, root, 3));
        assert!(sources[0].threads.iter().all(|it| it.state.tid != it.host_tid && it.state.pid == 3));
        let twins = parked.twins(COMMAND)?;
        parked.resume();
        assert_eq!(fs::read_link(format!("/proc/{}/exe", twins.pids()[0]))?, folder.join("parks"));
        program.goes_on(&[0, 1, 2, 3, 4]);
    }
    // As a child of our own it is of another namespace than the job's.
    let job = Job { root: Root::Child(init), ..program.job };
    let error = quiesce(&program.control, job, DEADLINE, &Progress::default()).map(|_| ()).expect_err("refused");
    assert!(error.to_string().contains("namespace"), "{error}");
    program.goes_on(&[0, 1, 2, 3, 4]);
    Ok(())
}
