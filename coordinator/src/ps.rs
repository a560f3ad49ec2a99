//! `ckpt ps`.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use coordinator_protocol::{Phase, Status};
use node_agent::job::{self, LiveJob};
use serde::Serialize;

use crate::{ask, table, time};

/// How long a job's agent may take to say how it is.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// List your running jobs on this machine
#[derive(Debug, Args)]
pub struct Options {
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// One job, as `--json` has it.
#[derive(Debug, Serialize)]
struct Row {
    job: String,
    name: String,
    dir: String,
    command: Vec<String>,
    /// ckpt-run or ckpt-restart.
    guardian: u32,
    /// One for each node.
    agents: Vec<u32>,
    processes: u64,
    /// Newest; null = none.
    generation: Option<u64>,
    /// The one that this life began from.
    restarted_from: Option<u64>,
    /// Of a checkpoint that is being taken.
    phase: Phase,
    started_at: String,
    uptime_s: u64,
}

/// Prints one line for each job.
pub fn ps(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let rows: Vec<Row> = job::list()?.iter().map(row).collect();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(ExitCode::SUCCESS);
    }
    let cells: Vec<[String; 7]> = rows.iter().map(cells).collect();
    table::print(["JOB", "NAME", "PROCESSES", "GENERATION", "UP", "STATE", "DIR"], &cells);
    Ok(ExitCode::SUCCESS)
}

fn row(job: &LiveJob) -> Row {
    // A job whose agent is being replaced is a job all the same.
    let status = ask::status(job, PATIENCE).ok();
    let record = &job.record;
    let Status { agent, coordinator: _, processes, generation, phase } = status.clone().unwrap_or_default();
    Row {
        job: record.job.clone(),
        name: record.name.clone(),
        dir: record.dir.display().to_string(),
        command: record.command.clone(),
        guardian: record.guardian,
        agents: status.iter().map(|_| agent).collect(),
        processes,
        generation,
        restarted_from: record.restarted_from,
        phase,
        started_at: time::moment(record.started_at_ns),
        uptime_s: time::now_ns().saturating_sub(record.started_at_ns) / 1_000_000_000,
    }
}

fn cells(row: &Row) -> [String; 7] {
    let state = match row.phase {
        _ if row.agents.is_empty() => "no agent",
        Phase::Idle => "runs",
        phase => phase.name(),
    };
    [
        row.job.clone(),
        row.name.clone(),
        row.processes.to_string(),
        row.generation.map_or_else(|| "-".to_owned(), |it| it.to_string()),
        time::span(Duration::from_secs(row.uptime_s)),
        state.to_owned(),
        row.dir.clone(),
    ]
}
