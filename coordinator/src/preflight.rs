//! `ckpt preflight`.

use std::collections::BTreeSet;
use std::error::Error;
use std::process::ExitCode;

use clap::Args;
use node_agent::guardian::members::descendants;
use node_agent::job::{self, Selector};
use node_agent::preflight;

use crate::{ask, ckpt, ps};

/// Name what is in the way of a checkpoint, without taking one
#[derive(Debug, Args)]
pub struct Options {
    /// Id or name of a job, or a pid; may be left out where one job of yours runs
    job: Option<String>,
}

/// Prints a line for each obstacle; exit code 1 when there is one.
pub fn preflight(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let pids = match options.job.as_deref().map(|word| (word, word.parse::<u32>())) {
        Some((_, Ok(pid))) if job::start_of(pid).is_some() => {
            let mut pids = descendants(pid, &[]);
            pids.insert(pid);
            pids
        }
        Some((word, _)) => members(&Selector::Named(word.to_owned()))?,
        None => members(&Selector::Only)?,
    };
    let found = preflight::check(pids.iter().copied());
    found.iter().for_each(|offence| eprintln!("{}: {offence}", ckpt::TOOL));
    if found.is_empty() {
        println!("{} processes, nothing in the way that can be seen from outside", pids.len());
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

/// Processes of a job: descendants of its guardian but for the agent.
fn members(selector: &Selector) -> Result<BTreeSet<u32>, Box<dyn Error>> {
    let job = job::find(selector)?;
    let status = ask::status(&job, ps::PATIENCE)?;
    Ok(descendants(job.record.guardian, &[status.agent, status.coordinator]))
}
