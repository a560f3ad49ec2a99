//! What checkpoints and restarts cost: stall, write, restart, image size.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::{Bench, Bound, Figure, median, peer};
use crate::ground::{self, Outcome};
use crate::session::Running;

/// Checkpoints per figure; the median counts.
const TIMES: usize = 5;
/// Memory of the big process, MiB.
const MEBIBYTES: usize = 1024;
/// When the small ones are checkpointed.
const AT: u64 = 20;
/// The longest wait for a first sign of life.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// One GiB resident: stall against a bare fork, writing against copying and writing, restart against checkpoint.
pub fn gibibyte(bench: &Bench) -> Outcome<Vec<Figure>> {
    let dir = bench.generations("gibibyte");
    let words = [&bench.program("resident"), "1024", "15"].map(str::to_owned);
    let mut job = launch(bench, &dir, &words)?;
    job.wait_step(AT)?;
    let cost = bench.session.checkpoint(&dir, &[])?;
    job.wait()?;
    let (fork, gap) = (said(&job, "FORK_MS")?, said(&job, "GAP_MS")?);
    let (restart, mut again) = restart(bench, &dir)?;
    // With the same cores: the job, which never rests, computes on beside the peer as it did beside the checkpoint.
    let peer = peer::copy_and_write(&bench.session.home, MEBIBYTES)?;
    again.wait()?;
    let total = number(&cost, "total_ms");
    let rate = number(&cost, "bytes_read") / total * 1e3;
    let _ = fs::remove_dir_all(&dir);
    Ok(vec![
        Figure::new(
            "stall of 1 GiB / bare fork",
            gap / fork,
            Some(Bound::AtMost(2.0)),
            format!("seen {gap:.1} ms, said {:.1} ms, fork {fork:.1} ms", number(&cost, "stall_ms")),
        ),
        Figure::new(
            "checkpoint of 1 GiB / copy and write",
            rate / peer,
            Some(Bound::AtLeast(0.7)),
            format!(
                "{:.0} against {:.0} MB/s; {:.0} of {:.0} MiB stored",
                rate / 1e6,
                peer / 1e6,
                mib(&cost, "bytes_stored"),
                mib(&cost, "bytes_read")
            ),
        ),
        Figure::new(
            "restart of 1 GiB / its checkpoint",
            restart / total,
            Some(Bound::AtMost(1.0)),
            format!("{restart:.0} ms against {total:.0} ms"),
        ),
    ])
}

/// A process as small as it gets.
pub fn small(bench: &Bench) -> Outcome<Vec<Figure>> {
    let words = [bench.program("tick"), "1000000".to_owned()];
    let (checkpoint, restart) = latencies(bench, "small", &words)?;
    Ok(vec![
        Figure::new(
            "small process: checkpoint, ms",
            checkpoint,
            Some(Bound::AtMost(20.0)),
            format!("median of {TIMES}"),
        ),
        Figure::new("small process: restart, ms", restart, Some(Bound::AtMost(15.0)), "to its first step, of 1 ms"),
    ])
}

/// A job of two Open MPI ranks: mpirun, ranks, their threads and sockets.
pub fn openmpi(bench: &Bench) -> Outcome<Vec<Figure>> {
    let words = ["mpirun.openmpi", "-n", "2", &bench.program("stencil"), "1000000", "128", "1000"].map(str::to_owned);
    let (checkpoint, restart) = latencies(bench, "openmpi", &words)?;
    Ok(vec![
        Figure::new(
            "2-rank Open MPI job: checkpoint, ms",
            checkpoint,
            Some(Bound::AtMost(200.0)),
            format!("median of {TIMES}"),
        ),
        Figure::new(
            "2-rank Open MPI job: restart, ms",
            restart,
            Some(Bound::AtMost(300.0)),
            "to its first step, of 1 ms",
        ),
    ])
}

/// The image of four LAMMPS ranks against their private resident memory.
pub fn lammps(bench: &Bench) -> Outcome<Vec<Figure>> {
    let dir = bench.generations("lammps");
    let deck = bench.session.home.join("in.melt");
    let melt = "units lj\natom_style atomic\nlattice fcc 0.8442\nregion box block 0 20 0 20 0 20\ncreate_box 1 box\ncreate_atoms 1 box\nmass 1 1.0\n\
        velocity all create 3.0 87287 loop geom\npair_style lj/cut 2.5\npair_coeff 1 1 1.0 1.0 2.5\nfix 1 all nve\nthermo 10\nthermo_modify flush yes\nrun 100000\n";
    fs::write(&deck, melt).map_err(|cause| format!("cannot write {}: {cause}", deck.display()))?;
    let deck = deck.display().to_string();
    let words = ["mpirun.openmpi", "-n", "4", "lmp", "-in", &deck, "-log", "none"].map(str::to_owned);
    let job = launch(bench, &dir, &words)?;
    let under_way =
        ground::until(LIMIT, || (job.text().lines().filter(|line| line.starts_with(' ')).count() > 8).then_some(()));
    under_way.ok_or_else(|| format!("LAMMPS does not get under way: {}", job.text().trim()))?;
    let private: u64 =
        bench.session.processes().iter().filter(|pid| runs(pid, "lmp")).map(|pid| private_bytes(pid)).sum();
    let cost = bench.session.checkpoint(&dir, &[])?;
    bench.session.kill_all();
    let _ = fs::remove_dir_all(&dir);
    let stored = number(&cost, "bytes_stored");
    let against = format!(
        "{:.1} MiB stored, {:.1} MiB private in the ranks",
        stored / f64::from(1 << 20),
        private as f64 / f64::from(1 << 20)
    );
    Ok(vec![Figure::new("image of 4 LAMMPS ranks / their private memory", stored / private as f64, None, against)])
}

/// Medians of the time of `ckpt checkpoint` as it says it, and from `ckpt-restart` to the first step.
fn latencies(bench: &Bench, name: &str, words: &[String]) -> Outcome<(f64, f64)> {
    let dir = bench.generations(name);
    let mut job = launch(bench, &dir, words)?;
    let (mut checkpoints, mut restarts) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        job.wait_step(1)?;
        job.wait_step(job.step() + AT)?;
        checkpoints.push(number(&bench.session.checkpoint(&dir, &[])?, "total_ms"));
        bench.session.kill_all();
        job.wait()?;
        let took;
        (took, job) = restart(bench, &dir)?;
        restarts.push(took);
    }
    bench.session.kill_all();
    let _ = fs::remove_dir_all(&dir);
    Ok((median(checkpoints), median(restarts)))
}

fn launch(bench: &Bench, dir: &Path, words: &[String]) -> Outcome<Running> {
    let (tool, dir) = (bench.session.tool("ckpt-run"), dir.display().to_string());
    let mut all = vec![tool.as_str(), "--dir", &dir];
    all.extend(words.iter().map(String::as_str));
    bench.session.start(&all, "job.out")
}

/// Restarts, and waits for the first step; milliseconds from the command to it.
fn restart(bench: &Bench, dir: &Path) -> Outcome<(f64, Running)> {
    let begun = Instant::now();
    let mut job =
        bench.session.start(&[&bench.session.tool("ckpt-restart"), &dir.display().to_string()], "restarted.out")?;
    job.wait_step(1)?;
    Ok((begun.elapsed().as_secs_f64() * 1e3, job))
}

fn number(cost: &Value, field: &str) -> f64 {
    cost[field].as_f64().unwrap_or(f64::NAN)
}

fn mib(cost: &Value, field: &str) -> f64 {
    number(cost, field) / f64::from(1 << 20)
}

fn said(job: &Running, word: &str) -> Outcome<f64> {
    let value = job.word(word).and_then(|value| value.parse().ok());
    value.ok_or_else(|| format!("the program did not say {word}: {}", job.text().trim()).into())
}

fn runs(pid: &str, program: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == program)
}

/// Private_Clean and Private_Dirty of /proc/PID/smaps_rollup.
fn private_bytes(pid: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = text
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.sum::<u64>() * 1024
}
