//! What it costs to be checkpointable and not be checkpointed: the same program by turns with and without `ckpt-run`.
//!
//! The program times itself and gives its best round. Each run is compared with the one next to it, and the middle of
//! these ratios counts: what the machine does besides changes slower than that. Where a program's pages happen to lie makes
//! runs of the same program differ by some percent, so the figure comes with the interval in which its true value lies.
//! Two ranks are timed by the clock, loops in processor time.

use std::time::{Duration, Instant};

use super::{Bench, Bound, Figure, interval_of_median, median};
use crate::ground::Outcome;
use crate::session::word_after;

/// Pairs of runs per figure: many short ones.
const PAIRS: usize = 41;
/// Time for the pairs of one figure; at least one is measured.
const PAIRS_TAKE: Duration = Duration::from_secs(60);
/// Times that `ckpt-run` is started around a program that does nothing, and that program without it.
const STARTS: usize = 15;
/// Most that a program may be slower.
const SLOWER: Bound = Bound::AtMost(1.005);
/// Most that a loop of fork and exec may be slower.
const SLOWER_EXEC: Bound = Bound::AtMost(1.05);
/// fork+exec's in the launch loop.
const LAUNCHES: &str = "100";

/// Round trips between two ranks over shared memory.
pub fn pingpong(bench: &Bench) -> Outcome<Vec<Figure>> {
    let words = ["mpirun.openmpi", "-n", "2", &bench.program("pingpong"), "20000"].map(str::to_owned);
    Ok(vec![pair(bench, "MPI ping-pong / bare", &words, SLOWER, &seconds)?.0])
}

/// A stencil that never rests, two ranks.
pub fn stencil(bench: &Bench) -> Outcome<Vec<Figure>> {
    let words = ["mpirun.openmpi", "-n", "2", &bench.program("stencil"), "150", "1024", "0"].map(str::to_owned);
    Ok(vec![pair(bench, "MPI stencil / bare", &words, SLOWER, &seconds)?.0])
}

/// Loops of malloc, open and read.
pub fn loops(bench: &Bench) -> Outcome<Vec<Figure>> {
    let one = |what: &str, count: &str| {
        let words = [bench.program("loops"), what.to_owned(), count.to_owned()];
        pair(bench, &format!("{what} loop / bare"), &words, SLOWER, &seconds).map(|(figure, ..)| figure)
    };
    Ok(vec![one("malloc", "500000")?, one("open", "20000")?, one("read", "100000")?])
}

/// A loop of fork and exec, what each launch adds, and what `ckpt-run` itself adds.
pub fn launch(bench: &Bench) -> Outcome<Vec<Figure>> {
    let words = [&bench.program("loops"), "exec", LAUNCHES].map(str::to_owned);
    let (exec, bare, ours) = pair(bench, "fork+exec loop / bare", &words, SLOWER_EXEC, &seconds)?;
    let each = (ours - bare) * 1e3 / LAUNCHES.parse().unwrap_or(1.0);
    let truth = vec!["/bin/true".to_owned()];
    let mut added = Vec::new();
    for _ in 0..STARTS {
        let (bare, ours) = (wall(bench, &truth)?, wall(bench, &under(bench, &truth))?);
        added.push((ours - bare) * 1e3);
    }
    Ok(vec![
        exec,
        Figure::new("a launch adds, ms", each, Some(Bound::AtMost(2.0)), "in that loop"),
        Figure::new("ckpt-run adds to /bin/true, ms", median(added), Some(Bound::AtMost(30.0)), "median"),
    ])
}

/// Measures a command with and without `ckpt-run` by turns; the figure, and the middles of both times in seconds.
fn pair(
    bench: &Bench,
    name: &str,
    words: &[String],
    bound: Bound,
    time: &dyn Fn(&Bench, &[String]) -> Outcome<f64>,
) -> Outcome<(Figure, f64, f64)> {
    let (mut bare, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let with = under(bench, words);
    let begun = Instant::now();
    while ratios.len() < PAIRS && (ratios.is_empty() || begun.elapsed() < PAIRS_TAKE) {
        // Who comes first would otherwise be who meets the machine as it gets slower.
        let (first, second) = if ratios.len() % 2 == 0 { (words, &*with) } else { (&*with, words) };
        let (first, second) = (time(bench, first)?, time(bench, second)?);
        let (without, under) = if ratios.len() % 2 == 0 { (first, second) } else { (second, first) };
        bare.push(without);
        ours.push(under);
        ratios.push(under / without);
    }
    let pairs = ratios.len();
    let interval = interval_of_median(ratios.clone());
    let (ratio, bare, ours) = (median(ratios), median(bare), median(ours));
    let against = format!("{pairs} pairs: {:.2} against {:.2} ms", ours * 1e3, bare * 1e3);
    Ok((Figure::new(name, ratio, Some(bound), against).within(interval), bare, ours))
}

fn under(bench: &Bench, words: &[String]) -> Vec<String> {
    let dir = bench.generations("cost").display().to_string();
    let mut all = vec![bench.session.tool("ckpt-run"), "--dir".to_owned(), dir];
    all.extend(words.iter().cloned());
    all
}

/// What the program says that it took.
fn seconds(bench: &Bench, words: &[String]) -> Outcome<f64> {
    let text = bench.session.run(&borrowed(words), "cost.out")?;
    let said = word_after(&text, "SECONDS").and_then(|said| said.parse().ok());
    said.ok_or_else(|| format!("`{}` did not say SECONDS: {}", words.join(" "), text.trim()).into())
}

/// What it took from outside.
fn wall(bench: &Bench, words: &[String]) -> Outcome<f64> {
    let begun = Instant::now();
    bench.session.run(&borrowed(words), "cost.out")?;
    Ok(begun.elapsed().as_secs_f64())
}

fn borrowed(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}
