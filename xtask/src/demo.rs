//! `cargo xtask demo`: a real Open MPI job is checkpointed, killed with -9, restarted, compared.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::ground::{self, Outcome};
use crate::install;
use crate::packages;
use crate::session::{Session, word_after};

/// What the demonstration needs of Debian or Ubuntu.
const PACKAGES: [&str; 2] = ["openmpi-bin", "libopenmpi-dev"];
/// Ranks, steps, grid size, and microseconds of rest in each step: about ten seconds.
const RANKS: &str = "4";
const STEPS: &str = "600";
const GRID: &str = "1024";
const REST_US: &str = "8000";
/// The step at which the checkpoint is asked for.
const CHECKPOINT_AT: u64 = 200;
/// How many steps the job computes on before it is killed: they are lost, and computed again.
const LOSE: u64 = 60;

/// Runs the demonstration; true when both results agree.
pub fn demo() -> Outcome<bool> {
    packages::debian(&PACKAGES)?;
    let public = ground::public()?;
    let prefix = public.join("prefix");
    install::install(&prefix)?;
    let session = Session::open("demo", prefix)?;
    let stencil = compile(&public)?;
    let stencil = stencil.display().to_string();
    let job = ["mpirun.openmpi", "-n", RANKS, &stencil, STEPS, GRID, REST_US];

    say(&format!("The job: heat on a {GRID}×{GRID} grid, {RANKS} ranks, Debian's Open MPI, uid {}.", session.user.uid));
    let typed = |words: &[&str]| println!("$ {}", words.join(" ").replace(&format!("{stencil} "), "./stencil "));
    say("First undisturbed, to know what must come out:");
    typed(&job);
    let begun = Instant::now();
    let want = word_after(&session.run(&job, "undisturbed")?, "RESULT").ok_or("the undisturbed run has no RESULT")?;
    println!("RESULT {want}   ({:.1} s)", begun.elapsed().as_secs_f64());

    let dir = session.home.join("generations");
    let (run, restart) = (session.tool("ckpt-run"), session.tool("ckpt-restart"));
    let folder = dir.display().to_string();
    say("The same under ckpt-run, with nothing changed or recompiled:");
    typed(&[&["ckpt-run", "--dir", "generations"], &job[..]].concat());
    let mut life = session.start(&[&[run.as_str(), "--dir", &folder], &job[..]].concat(), "first")?;
    life.wait_step(CHECKPOINT_AT)?;
    println!("step {}", life.step());

    say("From another shell, while it computes:");
    typed(&["ckpt", "checkpoint", "--dir", "generations"]);
    let cost = session.checkpoint(&dir, &[])?;
    println!("generation {}: {}", cost["generation"], spoken(&cost));
    let last = life.step() + LOSE;
    life.wait_step(last)?;
    let last = life.step();

    say(&format!("It has come to step {last}. Now the power cut: kill -9 of mpirun, the ranks, ckpt-run, everything."));
    let killed = session.kill_all();
    println!("{killed} processes killed, {} left", session.processes().len());
    life.wait()?;

    typed(&["ckpt-restart", "generations"]);
    let begun = Instant::now();
    let mut life = session.start(&[&restart, &folder], "second")?;
    life.wait_step(1)?;
    let first = life
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("step ")?.split(' ').next().map(str::to_owned))
        .unwrap_or_default();
    println!("step {first}   ({:.2} s after the command)", begun.elapsed().as_secs_f64());
    let status = life.wait()?;
    let got = life
        .word("RESULT")
        .ok_or_else(|| format!("the restarted job has no RESULT ({status}): {}", life.text().trim()))?;
    println!("RESULT {got}");
    let same = got == want && status.success();
    say(if same { "Equal to the last bit." } else { "They differ: this is a defect of Slackwater's." });
    Ok(same)
}

/// The stencil of tests/programs, where the user can run it.
fn compile(public: &Path) -> Outcome<PathBuf> {
    let folder = public.join("demo");
    ground::make_folder(&folder)?;
    let built = folder.join("stencil");
    let source = ground::root().join("tests/programs/stencil.c");
    ground::run(Command::new("mpicc.openmpi").args(["-O2", "-o"]).arg(&built).arg(source).arg("-lm"))?;
    Ok(built)
}

fn spoken(cost: &serde_json::Value) -> String {
    let number = |field: &str| cost[field].as_f64().unwrap_or(f64::NAN);
    let mib = |field: &str| number(field) / f64::from(1 << 20);
    format!(
        "the job stood still for {:.1} ms; committed after {:.1} ms; {:.1} MiB read, {:.1} MiB stored; {} processes, {} threads, {} open files",
        number("stall_ms"),
        number("total_ms"),
        mib("bytes_read"),
        mib("bytes_stored"),
        cost["processes"],
        cost["threads"],
        cost["files"]
    )
}

fn say(what: &str) {
    println!("\n# {what}");
}
