//! `ckpt checkpoint`.

use std::error::Error;
use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use coordinator_protocol::{Answer, Committed, Mode, Phase, Request};
use indicatif::{ProgressBar, ProgressStyle};
use node_agent::job::{self, Selector};

use crate::{ask, table, time};

/// How long an agent may say nothing at all: it tells of every phase, and of writing all the time.
const SILENCE: Duration = Duration::from_secs(120);
/// How long a job that was ended on request may take to be gone.
const KILLED: Duration = Duration::from_secs(20);

/// Take a checkpoint of a running job and wait until it is committed
#[derive(Debug, Args)]
pub struct Options {
    /// Id or name of the job; may be left out where one job of yours runs
    #[arg(conflicts_with = "dir")]
    job: Option<String>,
    /// The job whose generations go to DIR
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// End the job once the checkpoint is committed
    #[arg(long)]
    kill: bool,
    /// Let the job stand still until it is written, in place of copy-on-write twins: needs no more memory
    #[arg(long)]
    stop: bool,
    /// Give up when parking, draining or remembering takes longer than this, as in 5s or 1m
    #[arg(long, value_name = "TIME", value_parser = time::seconds)]
    timeout: Option<u64>,
    /// Print what it cost as JSON
    #[arg(long)]
    json: bool,
}

/// Asks the job's agent and prints what it cost.
pub fn checkpoint(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let job = job::find(&selector(options)?)?;
    let request = Request::Checkpoint { kill: options.kill, stop: options.stop, timeout_s: options.timeout };
    let bar = stderr().is_terminal().then(Bar::new);
    let answer = ask::ask(&job, &request, SILENCE, |answer| {
        if let Some(bar) = &bar {
            bar.show(answer);
        }
    });
    drop(bar);
    let committed = match answer? {
        Answer::Committed(committed) => committed,
        other => return Err(format!("the agent answered something else: {other:?}").into()),
    };
    if options.kill && !ask::ends_within(&job, KILLED) {
        return Err(format!("generation {} is committed, but the job does not end", committed.generation).into());
    }
    if options.json {
        println!("{}", serde_json::to_string(&committed)?)
    } else {
        say(&committed)
    }
    Ok(ExitCode::SUCCESS)
}

fn selector(options: &Options) -> std::io::Result<Selector> {
    Ok(match (&options.job, &options.dir) {
        (Some(word), _) => Selector::Named(word.clone()),
        (None, Some(dir)) => Selector::Dir(job::absolute(dir)?),
        (None, None) => Selector::Only,
    })
}

fn say(it: &Committed) {
    println!("generation {} committed: {}", it.generation, it.path);
    println!(
        "  stood still {:.1} ms of {:.1} ms{}",
        it.stall_ms,
        it.total_ms,
        if it.mode == Mode::Stop { ", without twins" } else { "" }
    );
    println!("  {} read, {} stored", table::bytes(it.bytes_read), table::bytes(it.bytes_stored));
    println!("  {} processes, {} threads, {} open files", it.processes, it.threads, it.files);
}

/// A progress bar; it is gone when it is dropped.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{msg:9} {wide_bar} {bytes}/{total_bytes}");
        Self(ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
    }

    fn show(&self, answer: &Answer) {
        match answer {
            Answer::Waiting => self.0.set_message("another checkpoint is being taken: waiting"),
            Answer::Progress { phase: Phase::Idle, .. } => {}
            Answer::Progress { phase, done, total } => {
                self.0.set_message(phase.name());
                self.0.set_length(*total);
                self.0.set_position(*done);
            }
            _ => {}
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
