//! Whatever dies, and whenever: the job runs on or ends, the last committed generation restarts, nothing stays stopped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::{Job, Mpi, Program, compile_with, disk, full, native, prefix, tail, until};

/// Moments of a checkpoint at which something is killed, spread over the time that one takes.
const MOMENTS: u32 = 8;
/// Longest that an ended job's processes may take to be gone.
const END: Duration = Duration::from_secs(30);

fn busy(steps: &str) -> Program {
    Program::serial("descriptors", &[steps])
}

/// Starts `ckpt checkpoint` and does not wait for it.
fn begin_checkpoint(job: &Job) -> Child {
    let (name, value) = job.mark.variable();
    let mut command = Command::new(prefix().join("bin/ckpt"));
    command.args(["checkpoint", "--dir"]).arg(&job.dir).env(name, value).current_dir(&job.home);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("ckpt starts")
}

fn end_of(child: &mut Child) -> i32 {
    let status =
        until(END, || child.try_wait().unwrap_or(None)).expect("ckpt checkpoint ends although its agent is dead");
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// How long a checkpoint of this job takes, and from that the moments to strike at.
fn moments(job: &Job) -> impl Iterator<Item = Duration> + use<> {
    let begun = Instant::now();
    job.checkpoint();
    let took = begun.elapsed();
    (0..MOMENTS).map(move |moment| took * moment / MOMENTS)
}

fn agents(job: &Job) -> Vec<i32> {
    let rows: serde_json::Value = serde_json::from_str(&job.ckpt(&["ps", "--json"]).out).expect("ps --json is JSON");
    let rows = rows.as_array().cloned().unwrap_or_default();
    let row = rows
        .into_iter()
        .find(|row| row["dir"].as_str().map(Path::new) == Some(job.dir.as_path()))
        .expect("ps lists the job");
    let agents = row["agents"].as_array().cloned().unwrap_or_default();
    agents.iter().filter_map(|pid| i32::try_from(pid.as_i64()?).ok()).collect()
}

fn strike(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
}

fn verify(job: &Job) {
    let said = job.ckpt(&["verify", &job.dir.display().to_string()]);
    assert_eq!(said.code(), Some(0), "ckpt verify: {}", said.text());
}

/// The job must go on within the usual time.
fn assert_lives(job: &mut Job) {
    let step = job.step();
    job.wait_step(step + 3);
}

#[test]
fn the_agent_dies_while_nothing_is_asked() {
    let program = busy("200").named("agent-idle");
    let want = native(&program);
    let mut job = Job::start(&program);
    job.wait_step(5);
    for _ in 0..3 {
        let agents = agents(&job);
        assert!(!agents.is_empty());
        agents.into_iter().for_each(strike);
        assert_lives(&mut job);
        job.checkpoint();
    }
    assert_eq!(job.finish(), want);
    job.assert_clean();
}

/// At any moment of a checkpoint: it fails or is committed, the job runs on, the next one works and restarts.
#[test]
fn the_agent_dies_in_mid_checkpoint() {
    let program = busy("1500").named("agent-busy");
    let mut job = Job::start(&program);
    job.wait_step(5);
    for moment in moments(&job) {
        let agents = agents(&job);
        let mut asked = begin_checkpoint(&job);
        sleep(moment);
        agents.into_iter().for_each(strike);
        end_of(&mut asked);
        assert_lives(&mut job);
        job.checkpoint();
        verify(&job);
    }
    job.kill_all();
    job.restart();
    job.wait_step(6);
    assert_lives(&mut job);
}

/// The same with bytes in flight between ranks, which a dead agent may just have had in its hands.
#[test]
fn the_agent_dies_while_ranks_talk() {
    let program = Mpi::OpenMpiTcp.program("inflight", 3, &["1800"]).named("agent-mpi");
    let want = native(&program);
    let mut job = Job::start(&program);
    job.wait_step(5);
    for moment in moments(&job) {
        let agents = agents(&job);
        let mut asked = begin_checkpoint(&job);
        sleep(moment);
        agents.into_iter().for_each(strike);
        end_of(&mut asked);
        assert_lives(&mut job);
    }
    job.checkpoint();
    assert_eq!(job.finish(), want);
    job.assert_clean();
}

/// Whoever asked for the checkpoint dies: that is no matter to the job.
#[test]
fn the_asker_dies() {
    let program = busy("1500").named("asker");
    let mut job = Job::start(&program);
    job.wait_step(5);
    for moment in moments(&job) {
        let mut asked = begin_checkpoint(&job);
        sleep(moment);
        let _ = asked.kill();
        let _ = asked.wait();
        assert_lives(&mut job);
    }
    job.checkpoint();
    verify(&job);
}

/// ckpt-run dies: the job ends, all of it; the last committed generation restarts.
#[test]
fn ckpt_run_dies() {
    let program = Mpi::OpenMpi.program("stencil", 3, &["250", "256"]).named("run-dies");
    let want = native(&program);
    for in_mid_checkpoint in [false, true] {
        let mut job = Job::start(&program);
        job.wait_step(10);
        let mut moments = moments(&job);
        let asked = in_mid_checkpoint.then(|| begin_checkpoint(&job));
        if in_mid_checkpoint {
            sleep(moments.nth(MOMENTS as usize / 2).unwrap_or_default());
        }
        strike(job.pid());
        job.wait();
        if let Some(mut asked) = asked {
            end_of(&mut asked);
        }
        let gone = until(END, || job.mark.processes().is_empty().then_some(()));
        assert!(gone.is_some(), "ckpt-run was killed and this runs on: {:?}", job.mark.leftovers());
        job.kill_all();
        job.restart();
        assert_eq!(job.finish(), want);
        job.assert_clean();
    }
}

/// A rank dies: ckpt-run ends, not with 0, says which, and leaves nothing.
#[test]
fn a_rank_dies() {
    for mpi in [Mpi::OpenMpi, Mpi::Mpich] {
        let program = mpi.program("stencil", 3, &["300", "256"]).named("rank-dies");
        let want = native(&program);
        let mut job = Job::start(&program);
        job.wait_step(10);
        job.checkpoint();
        let exe = |pid: &i32| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.to_string_lossy().contains("stencil"))
        };
        let ranks: Vec<i32> = job.mark.processes().into_iter().filter(exe).collect();
        assert_eq!(ranks.len(), 3);
        strike(ranks[1]);
        let status = job.wait();
        assert!(!status.success(), "{mpi:?}: a rank was killed and ckpt-run ended with 0");
        assert!(
            job.text().contains(&ranks[1].to_string()),
            "{mpi:?}: ckpt-run does not name process {}: {}",
            ranks[1],
            tail(&job.text())
        );
        let gone = until(END, || job.mark.processes().is_empty().then_some(()));
        assert!(gone.is_some(), "{mpi:?}: left: {:?}", job.mark.leftovers());
        job.kill_all();
        job.restart();
        assert_eq!(job.finish(), want, "{mpi:?}");
    }
}

/// A power cut at any moment of a checkpoint: what had been committed restarts, nothing is half-committed.
#[test]
fn everything_dies_in_mid_checkpoint() {
    let program = busy("150").named("midway");
    let want = native(&program);
    for moment in 0..MOMENTS {
        let mut job = Job::start(&program);
        job.wait_step(10);
        let mut when = moments(&job);
        let mut asked = begin_checkpoint(&job);
        sleep(when.nth(moment as usize).unwrap_or_default());
        job.kill_all();
        let _ = asked.wait();
        verify(&job);
        job.restart();
        assert_eq!(job.finish(), want);
        job.assert_clean();
    }
}

/// And at any moment of a restart.
#[test]
fn everything_dies_in_mid_restart() {
    let program = Mpi::OpenMpi.program("stencil", 3, &["200", "256"]).named("restart-dies");
    let want = native(&program);
    let mut job = Job::start(&program);
    job.wait_step(10);
    job.checkpoint();
    for moment in 0..MOMENTS {
        job.kill_all();
        job.restart();
        sleep(Duration::from_millis(25) * moment);
    }
    job.kill_all();
    job.restart();
    assert_eq!(job.finish(), want);
    job.assert_clean();
}

#[test]
fn a_full_disk() {
    let program = busy("400").named("full");
    let want = native(&program);
    let dir = disk().join("generations");
    let mut job = Job::start_with(&program, &[], Some(dir.clone()));
    job.wait_step(10);
    job.checkpoint();
    let ballast = disk().join("ballast");
    // Until the file system says that it is full, then a little back, so that the checkpoint begins and runs out of room.
    let mut bytes = fs::File::create(&ballast).expect("writable");
    let _ = std::io::copy(&mut std::io::Read::take(std::io::repeat(7), u64::MAX), &mut bytes);
    let _ = bytes.metadata().and_then(|about| bytes.set_len(about.len().saturating_sub(100_000)));
    let said = job.try_checkpoint(&[]);
    assert!(
        said.code().is_some_and(|code| (1..=100).contains(&code)),
        "a checkpoint onto a full disk: {}: {}",
        said.status,
        said.text()
    );
    let text = said.text().to_lowercase();
    assert!(["space", "full", "enospc"].iter().any(|word| text.contains(word)), "the reason is not named: {text}");
    fs::remove_file(&ballast).expect("ours");
    assert_eq!(job.finish(), want, "the job was harmed by a failed checkpoint");
    verify(&job);
    job.restart();
    assert_eq!(job.finish(), want, "the older generation does not restart");
    let _ = fs::remove_dir_all(&dir);
}

#[test]
fn an_unwritable_folder() {
    let program = busy("300").named("unwritable");
    let want = native(&program);
    let mut job = Job::start(&program);
    job.wait_step(10);
    job.checkpoint();
    fs::set_permissions(&job.dir, fs::Permissions::from_mode(0o500)).expect("ours");
    let said = job.try_checkpoint(&[]);
    fs::set_permissions(&job.dir, fs::Permissions::from_mode(0o700)).expect("ours");
    assert!(said.code().is_some_and(|code| (1..=100).contains(&code)), "{}: {}", said.status, said.text());
    assert!(said.text().contains(&job.dir.display().to_string()), "the folder is not named: {}", said.text());
    job.checkpoint();
    assert_eq!(job.finish(), want);
}

/// A read, a write, a sync, a rename that fails: the checkpoint says so, the job runs on, the older generation counts, the
/// next checkpoint works.
#[test]
fn a_failing_call() {
    let want = native(&busy("400").named("failing"));
    let library = compile_with("failing", "gcc", &["-shared", "-fPIC"]).display().to_string();
    let fault = tests::scratch().join("fault");
    let mut program = busy("400").named("failing");
    program.environment.push(("LD_PRELOAD".into(), library));
    program.environment.push(("SLACKWATER_FAULT".into(), fault.display().to_string()));
    fs::write(&fault, "").expect("writable");
    let mut job = Job::start(&program);
    job.wait_step(5);
    job.checkpoint();
    for call in ["process_vm_readv", "writev", "fsync", "rename"] {
        fs::write(&fault, call).expect("writable");
        let said = job.try_checkpoint(&[]);
        fs::write(&fault, "").expect("writable");
        assert!(said.code().is_some_and(|code| (1..=100).contains(&code)), "{call}: {}: {}", said.status, said.text());
        assert!(said.text().contains("Input/output error"), "{call}: the reason is not named: {}", said.text());
        assert_lives(&mut job);
        verify(&job);
        job.checkpoint();
    }
    job.kill_all();
    job.restart();
    assert_eq!(job.finish(), want);
    job.assert_clean();
    let _ = fs::remove_file(&fault);
}

/// Not even a start where generations cannot go.
#[test]
fn a_folder_that_cannot_be_made() {
    let mut job = Job::start_with(&busy("50").named("nowhere"), &[], Some("/proc/generations".into()));
    let status = job.wait();
    assert!(status.code().is_some_and(|code| (1..=100).contains(&code)), "{status}");
    assert!(job.text().contains("/proc/generations"), "{}", job.text());
}

/// Processes that exec in loops while the job is parked again and again: none dies, none is missed.
#[test]
fn parks_while_processes_exec() {
    let parks = if full() { 1000 } else { 200 };
    let mut job = Job::start(&Program::serial("execs", &["1000000"]).named("parks"));
    job.wait_step(1);
    for park in 0..parks {
        job.checkpoint();
        assert!(job.ended().is_none(), "after park {park}: {}", tail(&job.text()));
    }
    assert_lives(&mut job);
    assert!(!job.text().contains("WRONG"), "{}", tail(&job.text()));
}

/// Checkpoints at moments that nobody chose, each of them restarted.
#[test]
fn random_moments() {
    let program = Mpi::OpenMpi.program("inflight", 3, &["120"]).named("random");
    let want = native(&program);
    let rounds = if full() { 200 } else { 10 };
    for round in 0..rounds {
        let mut job = Job::start(&program);
        job.wait_step(1 + round * 37 % 60);
        sleep(Duration::from_micros(round * 7919 % 30_000));
        job.checkpoint();
        job.kill_all();
        job.restart();
        assert_eq!(job.finish(), want, "round {round}");
    }
}
