//! What the guardian and the agent owe to a job and to each other, seen from outside.

use std::path::Path;
use std::process::Command;

use crate::place::{Place, alive, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn pid_of(value: &serde_json::Value) -> u64 {
    value.as_u64().expect("a pid")
}

fn send(pid: u64, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).expect("it is there");
}

#[test]
fn an_agent_that_dies_is_replaced() {
    let place = Place::new();
    let job = place.job("replaced", "echo up; exec sleep 1000");
    let first = pid_of(&place.listed("replaced").expect("listed")["agents"][0]);
    send(first, Signal::SIGKILL);
    let second = until("another agent answers", || {
        place.listed("replaced").and_then(|row| row["agents"][0].as_u64()).filter(|agent| *agent != first)
    });
    assert!(alive(second));
    assert!(job.err().contains("the agent died (SIGKILL)"), "{}", job.err());
    assert_eq!(place.listed("replaced").expect("it runs on")["processes"], 1);
}

#[test]
fn agents_that_die_all_the_time_are_given_up_and_the_job_runs_on() {
    let place = Place::new();
    let job = place.job("hopeless", "echo up; exec sleep 1000");
    until("no agent is left", || {
        let row = place.listed("hopeless").expect("it runs on");
        if let Some(agent) = row["agents"][0].as_u64() {
            let _ = kill(Pid::from_raw(agent as i32), Signal::SIGKILL);
        }
        job.err().contains("without checkpoints").then_some(())
    });
    assert_eq!(place.run("ckpt", &["checkpoint", "hopeless"]).status.code(), Some(1));
}

#[test]
fn the_job_ends_with_its_guardian() {
    let place = Place::new();
    let mut job = place.job("orphaned", "setsid sleep 1000 & sleep 1000 & echo $$ $! up; wait");
    let row = place.listed("orphaned").expect("listed");
    let agent = pid_of(&row["agents"][0]);
    let pids: Vec<u64> = job.out().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    send(pid_of(&row["guardian"]), Signal::SIGKILL);
    assert_eq!(job.end(), 128 + 9);
    until("agent and job are gone", || {
        [pids.as_slice(), &[agent]].concat().iter().all(|pid| !alive(*pid)).then_some(())
    });
    assert!(place.listed("orphaned").is_none());
}

#[test]
fn signals_sent_to_ckpt_run_reach_the_program() {
    let place = Place::new();
    let mut job =
        place.job("told", "trap 'echo got it; exit 3' USR1; trap 'exit 4' TERM; echo up; while :; do sleep 0.01; done");
    send(job.child.id().into(), Signal::SIGUSR1);
    assert_eq!(job.end(), 3);
    assert!(job.out().contains("got it"));
}

#[test]
fn what_outlives_the_program_is_ended() {
    let place = Place::new();
    let mut job = place.job("first", "(trap '' TERM; setsid sleep 1000 & echo $! up; wait) & sleep 0.1; exit 5");
    assert_eq!(job.end(), 5);
    let pid = job.out().split_whitespace().next().and_then(|word| word.parse().ok()).expect("a pid");
    assert!(!alive(pid), "{pid} outlives its job");
}

/// A rank that dies by a signal is a failure even where its launcher says 0.
#[test]
fn a_lost_rank_is_named() {
    let announce = r#"
import ctypes, mmap, os, signal, struct, time
f = os.open(os.environ["SLACKWATER_JOB"] + "/segment", os.O_RDWR)
m = mmap.mmap(f, 4096)
struct.pack_into("<I", m, 64, os.getpid())
struct.pack_into("<I", m, 36, 1)
word = ctypes.addressof(ctypes.c_uint32.from_buffer(m, 36))
ctypes.CDLL(None).syscall(202, ctypes.c_void_p(word), 1, 1000)
guardian = os.readlink(os.environ["SLACKWATER_JOB"] + "/segment").split("/")[2]
def watched():
    for n in os.listdir(f"/proc/{guardian}/fdinfo"):
        try:
            if f"\nPid:\t{os.getpid()}\n" in open(f"/proc/{guardian}/fdinfo/{n}").read():
                return True
        except OSError:
            pass
while not watched():
    time.sleep(0.001)
os.kill(os.getpid(), signal.SIGKILL)
"#;
    let place = Place::new();
    std::fs::write(place.path().join("rank.py"), announce).expect("writable");
    let said = place.run("ckpt-run", &["sh", "-c", "python3 rank.py; exit 0"]);
    assert_eq!(said.status.code(), Some(1), "{}", text(&said.stderr));
    assert!(text(&said.stderr).contains("died by signal 9"), "{}", text(&said.stderr));
}

/// Ctrl-Z: the shell sees ckpt-run stop, and go on.
#[test]
fn stops_and_goes_on_with_its_group() {
    use std::os::unix::process::CommandExt;
    let place = Place::new();
    let out = place.path().join("out");
    let file = std::fs::File::create(&out).expect("writable");
    // One process: a shell that is stopped while its child is between vfork and exec does not stop, with us or without.
    let mut command = place.tool("ckpt-run", &["sh", "-c", "mkfifo done; echo up; exec cat done"]);
    let mut child = command.stdout(file).process_group(0).spawn().expect("it starts");
    let group = Pid::from_raw(-(child.id() as i32));
    let read = || std::fs::read_to_string(&out).unwrap_or_default();
    until("it is up", || read().contains("up").then_some(()));
    kill(group, Signal::SIGTSTP).expect("the group is there");
    until("ckpt-run has stopped", || (state_of(child.id()) == "T").then_some(()));
    kill(group, Signal::SIGCONT).expect("the group is there");
    until("ckpt-run goes on", || (state_of(child.id()) != "T").then_some(()));
    std::fs::write(place.path().join("done"), "").expect("writable");
    let status = until("it ends", || child.try_wait().expect("a child"));
    assert_eq!(status.code(), Some(0));
}

fn state_of(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).unwrap_or_default().to_owned()
}

#[test]
fn two_jobs_do_not_share_a_folder() {
    let place = Place::new();
    let dir = place.path().join("generations");
    let dir = dir.to_str().expect("text");
    let mut first =
        place.tool("ckpt-run", &["--dir", dir, "--name", "sharer", "sleep", "1000"]).spawn().expect("it starts");
    until("it is listed", || place.listed("sharer"));
    let said = place.run("ckpt-run", &["--dir", dir, "true"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains("sharer"), "{}", text(&said.stderr));
    let mut ended = Command::new("kill").arg(first.id().to_string()).spawn().expect("kill");
    ended.wait().expect("kill ends");
    assert_eq!(first.wait().expect("a child").code(), Some(143));
    assert!(!Path::new(dir).exists(), "no checkpoint, no folder");
}
