//! `cargo xtask bench`: figures as ratios against a peer that is measured in the same run, on the same machine.
//!
//! Each figure has a bound. A figure that misses it is said so, and the command ends with 1. A figure above its bound whose
//! interval reaches below it is UNSURE: this run has not shown that it holds, so the command ends with 1 as well.

mod cost;
mod memory;
mod peer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ground::{self, Outcome};
use crate::install;
use crate::packages;
use crate::session::Session;

/// What the figures need of Debian or Ubuntu.
const PACKAGES: [&str; 3] = ["openmpi-bin", "libopenmpi-dev", "lammps"];
/// C programs of tests/programs that are measured; with MPI or without.
const PROGRAMS: [(&str, &str); 5] = [
    ("resident", "gcc"),
    ("tick", "gcc"),
    ("loops", "gcc"),
    ("pingpong", "mpicc.openmpi"),
    ("stencil", "mpicc.openmpi"),
];

/// What a measurement gives: one figure or several.
type Measure = fn(&Bench) -> Outcome<Vec<Figure>>;
/// The measurements, by the name that a filter is compared with.
const MEASURES: [(&str, Measure); 8] = [
    ("gibibyte", memory::gibibyte),
    ("small", memory::small),
    ("openmpi", memory::openmpi),
    ("lammps", memory::lammps),
    ("pingpong", cost::pingpong),
    ("stencil", cost::stencil),
    ("loops", cost::loops),
    ("launch", cost::launch),
];

/// A measured value and its bound.
pub struct Figure {
    /// What it is, in a few words.
    pub name: String,
    /// The value, in the unit that `name` says; for ratios none.
    pub value: f64,
    /// `None` where there is no bound.
    pub bound: Option<Bound>,
    /// What it was measured against.
    pub against: String,
    /// Where its true value lies, with 95 %; the value itself where nothing is known of that.
    interval: [f64; 2],
}

/// What a value must be.
#[derive(Clone, Copy)]
pub enum Bound {
    /// Not more than.
    AtMost(f64),
    /// Not less than.
    AtLeast(f64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Holds,
    Misses,
    /// The bound lies in the interval.
    Unsure,
}

/// Programs, session and folders of a run.
pub struct Bench {
    /// The session that runs the jobs.
    pub session: Session,
    programs: PathBuf,
}

/// Measures the figures whose name contains `filter`; true when each is within its bound.
pub fn bench(filter: Option<&str>) -> Outcome<bool> {
    packages::debian(&PACKAGES)?;
    let public = ground::public()?;
    let prefix = public.join("prefix");
    install::install(&prefix)?;
    let bench = Bench { session: Session::open("bench", prefix)?, programs: compile(&public)? };
    let mut good = true;
    for (name, measure) in MEASURES.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter))) {
        match measure(&bench) {
            Ok(figures) => {
                for figure in figures {
                    println!("{figure}");
                    good &= figure.verdict() == Verdict::Holds;
                }
            }
            Err(error) => {
                println!("FAILED  {name}: {error}");
                good = false;
            }
        }
        bench.session.kill_all();
    }
    Ok(good)
}

fn compile(public: &Path) -> Outcome<PathBuf> {
    let folder = public.join("bench");
    ground::make_folder(&folder)?;
    for (name, compiler) in PROGRAMS {
        let source = ground::root().join(format!("tests/programs/{name}.c"));
        ground::run(
            Command::new(compiler)
                .args(["-std=gnu11", "-O2", "-pthread", "-o"])
                .arg(folder.join(name))
                .arg(source)
                .arg("-lm"),
        )?;
    }
    Ok(folder)
}

impl Bench {
    /// Path of a compiled program.
    pub fn program(&self, name: &str) -> String {
        self.programs.join(name).display().to_string()
    }

    /// A fresh folder for generations.
    pub fn generations(&self, name: &str) -> PathBuf {
        self.session.home.join(format!("generations-{name}"))
    }
}

impl Figure {
    /// A figure and what it was measured against.
    pub fn new(name: impl Into<String>, value: f64, bound: Option<Bound>, against: impl Into<String>) -> Figure {
        Figure { name: name.into(), value, bound, against: against.into(), interval: [value; 2] }
    }

    /// The same with the interval of its true value.
    pub fn within(mut self, interval: [f64; 2]) -> Figure {
        self.interval = interval;
        self
    }

    fn verdict(&self) -> Verdict {
        let Some(bound) = self.bound else { return Verdict::Holds };
        let keeps = |value: f64| match bound {
            Bound::AtMost(bound) => value <= bound,
            Bound::AtLeast(bound) => value >= bound,
        };
        match (keeps(self.value), self.interval.into_iter().any(keeps)) {
            (true, _) => Verdict::Holds,
            (false, true) => Verdict::Unsure,
            (false, false) => Verdict::Misses,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict() {
            Verdict::Holds => "holds ",
            Verdict::Misses => "MISSES",
            Verdict::Unsure => "UNSURE",
        };
        write!(f, "{word}  {:<46} {:>9.3}", self.name, self.value)?;
        match self.bound {
            Some(Bound::AtMost(bound)) => write!(f, "  (at most {bound})")?,
            Some(Bound::AtLeast(bound)) => write!(f, "  (at least {bound})")?,
            None => write!(f, "  (no bound)")?,
        }
        let [low, high] = self.interval;
        if low < high {
            write!(f, "  [{low:.3}, {high:.3}]")?;
        }
        write!(f, "  {}", self.against)
    }
}

/// The middle of some values; not a number when there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The interval in which the median of what the values were drawn from lies with 95 %, by the sign test: between the values
/// whose ranks are 0.98 √n from the middle (W. J. Conover, Practical Nonparametric Statistics, 3.2).
pub fn interval_of_median(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return [f64::NAN; 2] };
    let away = (0.98 * (values.len() as f64).sqrt()).ceil() as usize;
    let middle = values.len() / 2;
    [values[middle.saturating_sub(away)], values[(middle + away).min(last)]]
}

#[cfg(test)]
mod tests {
    use super::{Bound, Figure, Verdict, interval_of_median, median};

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn what_is_not_a_number_misses() {
        assert_eq!(Figure::new("x", f64::NAN, Some(Bound::AtMost(1.0)), "").verdict(), Verdict::Misses);
        assert_eq!(Figure::new("x", 1.0, Some(Bound::AtLeast(1.0)), "").verdict(), Verdict::Holds);
    }

    #[test]
    fn a_bound_inside_the_interval_is_not_decided() {
        let figure = |low, high| Figure::new("x", 1.1, Some(Bound::AtMost(1.0)), "").within([low, high]).verdict();
        assert_eq!((figure(0.9, 1.2), figure(1.05, 1.2)), (Verdict::Unsure, Verdict::Misses));
        let hundred: Vec<f64> = (0..100).map(f64::from).collect();
        assert_eq!(interval_of_median(hundred), [40.0, 60.0]);
    }
}
