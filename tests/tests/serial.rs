//! One program without MPI, each about one kind of state, in three ways.

use tests::{Job, Program, compile_with, in_three_ways};

/// Steps of a program that takes about 10 ms for each.
const STEPS: &str = "220";
/// A checkpoint is asked for at multiples of this step.
const AT: u64 = 30;

#[test]
fn descriptors() {
    in_three_ways(&Program::serial("descriptors", &["120"]), 20);
}

#[test]
fn threads() {
    in_three_ways(&Program::serial("threads", &[STEPS]), AT);
}

#[test]
fn openmp_team() {
    let built = compile_with("threads", "gcc", &["-fopenmp"]).display().to_string();
    in_three_ways(&Program::new("openmp", [built.as_str(), STEPS]), AT);
}

#[test]
fn signals_and_timers() {
    in_three_ways(&Program::serial("signals", &["120"]), 20);
}

/// Timers so fast that their signals wait at any moment.
#[test]
fn fast_timers() {
    in_three_ways(&Program::serial("signals", &["6000", "300"]).named("fast-timers"), 600);
}

#[test]
fn a_time_out_by_alarm() {
    in_three_ways(&Program::serial("alarms", &["100"]), 15);
}

/// More checkpoints than a time-out has time for.
#[test]
fn time_outs_end() {
    let program = Program::serial("timeouts", &["300", "1500"]);
    let mut job = Job::start(&program);
    for round in 1..=40 {
        job.wait_step(round * 5);
        job.checkpoint();
    }
    job.finish();
    job.assert_clean();
    in_three_ways(&program, 40);
}

#[test]
fn pending_signals() {
    in_three_ways(&Program::serial("pending", &[STEPS]), AT);
}

#[test]
fn ports_of_closed_connections() {
    in_three_ways(&Program::serial("ports", &["150"]), AT);
}

#[test]
fn process_tree() {
    in_three_ways(&Program::serial("tree", &[STEPS]), AT);
}

#[test]
fn stopped_child() {
    in_three_ways(&Program::serial("tree", &[STEPS, "stopped"]).named("stopped"), AT);
}

#[test]
fn shared_memory() {
    in_three_ways(&Program::serial("shared", &[STEPS]), AT);
}

#[test]
fn semaphores_and_message_queues() {
    in_three_ways(&Program::serial("ipc", &[STEPS]), AT);
}

#[test]
fn terminal() {
    in_three_ways(&Program::serial("terminal", &[STEPS]), AT);
}

#[test]
fn no_eintr_and_no_short_count() {
    in_three_ways(&Program::serial("watcher", &[STEPS]), AT);
}

#[test]
fn execs() {
    in_three_ways(&Program::serial("execs", &[STEPS]), AT);
}

/// A shell script: a program that execs others, reads itself as it goes, and whose children come and go.
#[test]
fn shell_script() {
    let script = "sum=0; i=0; while [ $i -lt 200 ]; do i=$((i+1)); part=$(expr $i \\* 3); sum=$(( (sum * 31 + part) % 1000003 )); sleep 0.01; echo step $i $sum; if [ \"$i\" = \"$SLACKWATER_HOLD\" ]; then until [ -e go-on ]; do sleep 0.01; done; fi; done; echo RESULT $sum";
    in_three_ways(&Program::new("script", ["sh", "-c", script]), 30);
}

/// An interpreter with threads of its own and vectorised code.
#[test]
fn python() {
    let script = "import os,time,hashlib,threading\nh=b'x'\ndef more():\n  global h\n  h=hashlib.sha256(h).digest()\nfor k in range(1,201):\n  t=threading.Thread(target=more);t.start();t.join();time.sleep(0.01);print('step',k,h.hex()[:8],flush=True)\n  while str(k)==os.environ.get('SLACKWATER_HOLD') and not os.path.exists('go-on'): time.sleep(0.01)\nprint('RESULT',h.hex())";
    in_three_ways(&Program::new("python", ["/usr/bin/python3", "-c", script]), 30);
}
