//! `ckpt-restart`: a job's next life.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use node_agent::files::FilePolicy;
use node_agent::guardian::{self, Life, Namespace, NextLife, Tool};
use node_agent::job::{self, JobRecord};
use node_agent::memory;
use node_agent::restart::{self, Begun, RestartPlan};
use node_agent_image::model::JobModel;

use crate::generations::{self, Generation};
use crate::{Failure, coordinate, install, run, time};

/// The name that this goes by.
pub const TOOL: &str = "ckpt-restart";
/// The program that new processes jump into.
const RESTORER: &str = "ckpt-restorer";
/// Hosts of a generation that a message names.
const HOSTS_SHOWN: usize = 8;

/// Restart a job from a generation that was committed.
///
/// Standard input, output and error take the place of the old ones; the exit code is the job's. The restarted job can be
/// checkpointed and restarted again: its generations go on in the same folder.
#[derive(Debug, Parser)]
#[command(name = TOOL, version, after_help = EXIT_CODES)]
struct Options {
    /// The folder that --dir named
    dir: PathBuf,
    /// Another generation than the newest
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
    /// What becomes of files that have grown since the checkpoint
    #[arg(long, value_enum, default_value_t = Files::Cut)]
    files: Files,
    /// Checkpoint by the clock, as in 90s, 30m or 4h [default: as before]
    #[arg(long, value_name = "TIME", value_parser = time::seconds)]
    every: Option<u64>,
    /// How many generations to keep [default: as before]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// A name to find the job by [default: as before]
    #[arg(long, value_parser = run::name)]
    name: Option<String>,
    /// Let the job stand still until a checkpoint is written, in place of copy-on-write twins: needs no more memory
    #[arg(long)]
    stop: bool,
}

const EXIT_CODES: &str = "\
Exit codes:
  the program's own, or 128 + n when signal n ended it
  1    it could not be restarted, or a rank died though the launcher says 0
  2    wrong usage
  137  ended on request, by `ckpt checkpoint --kill`";

/// `--files`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Files {
    /// Cut back to what the job knew: it writes again what it wrote after the checkpoint
    Cut,
    /// Left as they are
    Keep,
}

/// `ckpt-restart` from its arguments to its exit code.
pub fn main() -> Result<ExitCode, Failure> {
    restart(&Options::parse()).map_err(Failure::of(TOOL))
}

fn restart(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    // What dead lives have left is cleared away, whatever becomes of this one.
    job::list()?;
    let found = generations::find(TOOL, &options.dir, options.generation)?;
    let node = only_node(&found)?;
    // Every byte is read before anything is touched: a file that is cut back is not for nothing.
    let damage = found.damage();
    if !damage.is_empty() {
        return Err(with_others(damage.join("\n").into(), options, &found));
    }
    let generation = found.open(node).map_err(|error| with_others(error.into(), options, &found))?;
    let record = record(options, &found, &generation.model().job)?;
    let library = install::find(run::LIBRARY)?;
    let restorer = install::find(RESTORER)?;
    let policy = match options.files {
        Files::Cut => FilePolicy::Cut,
        Files::Keep => FilePolicy::Keep,
    };
    let comeback = Comeback { generation, policy, restorer, library: library.clone(), begun: OnceCell::new() };
    let code =
        guardian::restart(Tool { name: TOOL, library: &library, coordinate: coordinate::main }, record, &comeback)?;
    Ok(ExitCode::from(code as u8))
}

/// The node of a generation that has one. Never a part of one that has more: the rest of the job would be waited for forever.
/// Where the manifest cannot be read, the first: reading all of it says what is wrong.
fn only_node(generation: &Generation) -> Result<u32, Box<dyn Error>> {
    let Ok(manifest) = generation.manifest() else { return Ok(0) };
    match &manifest.nodes[..] {
        [only] => Ok(only.node),
        nodes => {
            let hosts: BTreeSet<&str> = nodes.iter().map(|it| it.host.as_str()).collect();
            let mut shown: Vec<&str> = hosts.iter().copied().take(HOSTS_SHOWN).collect();
            if hosts.len() > HOSTS_SHOWN {
                shown.push("…");
            }
            let (number, count, shown) = (generation.number, nodes.len(), shown.join(","));
            Err(format!("generation {number} is of {count} nodes ({shown}): say with --hosts where it is to run")
                .into())
        }
    }
}

/// A damaged generation is not the end where there is an older one. It is not taken unasked: hours may lie between them.
fn with_others(error: Box<dyn Error>, options: &Options, damaged: &Generation) -> Box<dyn Error> {
    let others = generations::list(TOOL, &options.dir).unwrap_or_default();
    match others.iter().rev().find(|it| it.number != damaged.number && it.damage().is_empty()) {
        Some(good) => {
            let (number, dir) = (good.number, options.dir.display());
            format!("{error}\n\ngeneration {number} is good: {TOOL} --generation {number} {dir}").into()
        }
        None => error,
    }
}

fn record(options: &Options, generation: &Generation, job: &JobModel) -> std::io::Result<JobRecord> {
    let guardian = std::process::id();
    Ok(JobRecord {
        job: job.id.clone(),
        name: options.name.clone().unwrap_or_else(|| job.name.clone()),
        dir: job::absolute(&options.dir)?,
        command: job.command.clone(),
        keep: options.keep.unwrap_or(job.keep.max(1)),
        every_s: options.every.unwrap_or(job.every_s),
        stop: options.stop,
        guardian,
        guardian_start: job::start_of(guardian).unwrap_or(0),
        started_at_ns: time::now_ns(),
        restarted_from: Some(generation.number),
        ..JobRecord::default()
    })
}

/// What the guardian calls when all is ready for the job's processes.
struct Comeback {
    generation: memory::Generation,
    policy: FilePolicy,
    restorer: PathBuf,
    library: PathBuf,
    /// Set before the agent is forked, so that both have it.
    begun: OnceCell<Begun>,
}

impl NextLife for Comeback {
    fn epoch(&self) -> u32 {
        self.generation.model().epoch
    }

    fn ranks(&self) -> Vec<u32> {
        self.generation.model().job.ranks.clone()
    }

    fn begin(&self, life: &Life) -> Result<Namespace, Box<dyn Error>> {
        let segment = life.control.number();
        let mut plan = RestartPlan::new(self.generation.model(), &self.restorer, &self.library, segment)?;
        plan.policy = self.policy;
        let begun = restart::begin(&plan)?;
        if begun.degraded() {
            eprintln!(
                "{TOOL}: /proc cannot be mounted here: the job sees this machine's, with other pids than its own"
            );
        }
        let Begun { init, root, .. } = begun;
        let _ = self.begun.set(begun);
        Ok(Namespace { init, root })
    }

    fn complete(&self, life: &Life) -> Result<(), Box<dyn Error>> {
        let begun = self.begun.get().ok_or("the job's processes were not made")?;
        let fill = |targets: &restart::Targets| self.generation.fill(targets).map_err(Into::into);
        restart::complete(begun, self.generation.model(), life.control.segment(), fill)?;
        Ok(())
    }

    fn root_status(&self) -> Option<i32> {
        self.begun.get().and_then(Begun::root_status)
    }
}
