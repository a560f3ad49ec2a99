//! `ckpt-restart`: a job's next life.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use node_agent::files::FilePolicy;
use node_agent::guardian::{self, Tool};
use node_agent::job::{self, JobRecord};
use node_agent_image::model::JobModel;

use crate::comeback::{self, Comeback};
use crate::generations::{self, Generation};
use crate::{Failure, coordinate, install, placement, run, time};

/// The name that this goes by.
pub const TOOL: &str = "ckpt-restart";
/// The program that new processes jump into.
pub const RESTORER: &str = "ckpt-restorer";

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
    /// Where further generations go [default: the same folder]
    #[arg(long = "dir", value_name = "NEW")]
    onward: Option<PathBuf>,
    #[command(flatten)]
    placement: placement::Options,
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

impl From<Files> for FilePolicy {
    fn from(it: Files) -> Self {
        match it {
            Files::Cut => Self::Cut,
            Files::Keep => Self::Keep,
        }
    }
}

/// `ckpt-restart` from its arguments to its exit code.
pub fn main() -> Result<ExitCode, Failure> {
    restart(&Options::parse()).map_err(Failure::of(TOOL))
}

fn restart(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    // What dead lives have left is cleared away, whatever becomes of this one.
    job::list()?;
    let found = generations::find(TOOL, &options.dir, options.generation)?;
    let nodes = nodes_of(&found);
    let hosts = options.placement.place(&found, &nodes)?;
    // Every byte is read before anything is touched: a file that is cut back is not for nothing.
    let damage = found.damage();
    if !damage.is_empty() {
        return Err(with_others(damage.join("\n").into(), options, &found));
    }
    let generation = found.open(nodes[0]).map_err(|error| with_others(error.into(), options, &found))?;
    let mut record = record(options, &found, &generation.model().job)?;
    record.addresses.clone_from(&generation.model().machine.addresses);
    record.stand_in = comeback::stand_in(generation.model());
    record.hosts = hosts;
    record.nodes = nodes.len() as u32;
    record.token = job::new_id()? + &job::new_id()?;
    record.generation = Some(found.path.clone());
    let library = install::find(run::LIBRARY)?;
    let restorer = install::find(RESTORER)?;
    let comeback = Comeback::new(generation, options.files.into(), restorer, library.clone(), &record)?;
    let tool = Tool { name: TOOL, library: &library, coordinate: coordinate::main };
    let code = guardian::restart(tool, record, &comeback, |_| Ok(()))?;
    Ok(ExitCode::from(code as u8))
}

/// Virtual nodes of a generation. Where the manifest cannot be read, the first: reading all of it says what is wrong.
fn nodes_of(generation: &Generation) -> Vec<u32> {
    let nodes = generation.manifest().map(|it| it.nodes.iter().map(|it| it.node).collect()).unwrap_or_default();
    if Vec::is_empty(&nodes) { vec![0] } else { nodes }
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
        dir: job::absolute(options.onward.as_deref().unwrap_or(&options.dir))?,
        rsh: options.placement.rsh.clone().unwrap_or_default(),
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
