//! `ckpt-run`: a job's first life.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use node_agent::guardian::{self, Tool};
use node_agent::job::{self, JobRecord};

use crate::{Failure, coordinate, install, time};

/// The name that this goes by.
pub const TOOL: &str = "ckpt-run";
/// What it preloads.
pub const LIBRARY: &str = "libckpt_hijack.so";

/// Run a command so that it can be checkpointed and restarted, without changing it.
///
/// Put it before mpirun. Standard streams, terminal, signals and exit code pass through.
#[derive(Debug, Parser)]
#[command(name = TOOL, version, override_usage = "ckpt-run [OPTIONS] [--] COMMAND [ARGUMENT]...", after_help = EXIT_CODES)]
struct Options {
    /// Where generations go [default: ./ckpt-JOB]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Checkpoint by the clock, as in 90s, 30m or 4h
    #[arg(long, value_name = "TIME", value_parser = time::seconds)]
    every: Option<u64>,
    /// How many generations to keep
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,
    /// A name to find the job by [default: the program's]
    #[arg(long, value_parser = name)]
    name: Option<String>,
    /// Let the job stand still until a checkpoint is written, in place of copy-on-write twins: needs no more memory
    #[arg(long)]
    stop: bool,
    /// What starts programs on other hosts, in place of ssh: called as `CMD HOST LINE`
    #[arg(long, value_name = "CMD")]
    rsh: Option<String>,
    /// What to run
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = false, value_name = "COMMAND")]
    command: Vec<OsString>,
}

const EXIT_CODES: &str = "\
Exit codes:
  the program's own, or 128 + n when signal n ended it
  1    it could not be started, or a rank died though the launcher says 0
  2    wrong usage
  126  the program cannot be executed
  127  the program was not found
  137  ended on request, by `ckpt checkpoint --kill`";

/// `ckpt-run` from its arguments to its exit code.
pub fn main() -> Result<ExitCode, Failure> {
    let options = Options::parse();
    let library = install::find(LIBRARY).map_err(Failure::of(TOOL))?;
    let record = record(&options).map_err(Failure::of(TOOL))?;
    let code = guardian::run(tool(&library), record, &options.command).map_err(Failure::of(TOOL))?;
    Ok(ExitCode::from(code as u8))
}

fn tool(library: &Path) -> Tool<'_> {
    Tool { name: TOOL, library, coordinate: coordinate::main }
}

fn record(options: &Options) -> std::io::Result<JobRecord> {
    let id = job::new_id()?;
    let dir = options.dir.clone().unwrap_or_else(|| PathBuf::from(format!("ckpt-{id}")));
    let guardian = std::process::id();
    let program = options.command.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    Ok(JobRecord {
        name: options.name.clone().unwrap_or_else(|| program.to_string_lossy().into_owned()),
        dir: job::absolute(&dir)?,
        command: options.command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        keep: options.keep,
        every_s: options.every.unwrap_or(0),
        stop: options.stop,
        rsh: options.rsh.clone().unwrap_or_default(),
        guardian,
        guardian_start: job::start_of(guardian).unwrap_or(0),
        started_at_ns: time::now_ns(),
        addresses: node_agent::addresses::of_this_host(),
        job: id,
        ..JobRecord::default()
    })
}

/// A name that can be typed, and shown in a table.
pub fn name(text: &str) -> Result<String, String> {
    const NAME_CHARS_MAX: usize = 64;
    let plain = !text.is_empty() && text.chars().all(|letter| !letter.is_control() && !letter.is_whitespace());
    if plain && text.chars().count() <= NAME_CHARS_MAX && !text.starts_with('-') {
        Ok(text.to_owned())
    } else {
        Err(format!("a name is a word of at most {NAME_CHARS_MAX} characters"))
    }
}
