//! The usual proof of a program: untouched, resumed, restarted.

use std::fs;

use crate::ground::{RUN_LIMIT, until};
use crate::job::{Cost, Job, launch, result_in, tail};
use crate::leftovers::Mark;
use crate::program::Program;

/// The result of an undisturbed run without the product.
pub fn native(program: &Program) -> String {
    let text = native_text(program);
    result_in(&text).unwrap_or_else(|| panic!("{} has no RESULT even by itself: {}", program.name, tail(&text)))
}

/// All that an undisturbed run without the product prints.
pub fn native_text(program: &Program) -> String {
    let mark = Mark::new();
    let home = crate::scratch().join(format!("{}-native-{}", program.name, mark.variable().1));
    fs::create_dir_all(&home).unwrap_or_else(|cause| panic!("cannot make {}: {cause}", home.display()));
    let mut child = launch("", &[], program, &home, &mark, 1);
    let status = until(RUN_LIMIT, || child.try_wait().unwrap_or(None));
    mark.kill_all();
    let _ = child.wait();
    mark.sweep();
    let text =
        fs::read(home.join("out.1")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let _ = fs::remove_dir_all(&home);
    let good = status.is_some_and(|status| status.success()) && !text.contains("WRONG");
    assert!(good, "{} does not run even by itself ({status:?}): {}", program.name, tail(&text));
    text
}

/// Untouched under `ckpt-run`; checkpointed thrice and resumed; killed and restarted, checkpointed there, killed, restarted.
/// Checkpoints come at multiples of step `at`, so the program must have more than four times as many.
pub fn in_three_ways(program: &Program, at: u64) {
    let want = native(program);
    untouched(program, &want);
    let held = program.held_at(4 * at);
    resumed(&held, &want, at);
    let cost = restarted(&held, &want, at);
    println!("{}: {}", program.name, cost.0);
}

fn untouched(program: &Program, want: &str) {
    let mut job = Job::start(program);
    assert_eq!(job.finish(), want, "{}: merely launched, it has another result", program.name);
    job.assert_clean();
}

fn resumed(program: &Program, want: &str, at: u64) {
    let mut job = Job::start(program);
    for round in 1..=3 {
        job.wait_step(at * round);
        job.checkpoint();
    }
    assert_eq!(job.finish(), want, "{}: resumed, it has another result", program.name);
    job.assert_clean();
}

fn restarted(program: &Program, want: &str, at: u64) -> Cost {
    let mut job = Job::start(program);
    job.wait_step(at);
    let before = job.step();
    let cost = job.checkpoint();
    let after = job.step();
    job.kill_all();
    job.restart();
    job.wait_step(after + 1);
    assert_continues(&job, before, after);

    job.wait_step(2 * at);
    let before = job.step();
    job.checkpoint_with(&["--kill"]);
    job.wait();
    let after = job.step();
    assert!(job.mark.processes().is_empty(), "{}: left after --kill: {:?}", program.name, job.mark.leftovers());
    job.restart();
    assert_eq!(job.finish(), want, "{}: restarted twice, it has another result", program.name);
    assert_continues(&job, before, after);
    job.assert_clean();
    cost
}

/// The steps of this life must follow on those of the last one: it had printed `before` when the checkpoint was asked for
/// and `after` when it was done. Where the checkpoint fell into a line, the first line of this life is a rest of one.
fn assert_continues(job: &Job, before: u64, after: u64) {
    let text = job.text();
    let steps = job.steps();
    let cut = !text.starts_with("step ");
    let first = steps.first().copied().unwrap_or(0);
    let name = &job.program.name;
    assert!(first > before, "{name}: doubled: step {before} had been printed, it goes on with {first}");
    assert!(first <= after + 1 + u64::from(cut), "{name}: lost: step {after} was the last, it goes on with {first}");
    let gap = steps.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert!(gap.is_none(), "{name}: steps are missing or doubled after the restart: {gap:?}");
}
