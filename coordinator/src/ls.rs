//! `ckpt ls`.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::generations::{self, Generation};
use crate::{ckpt, table, time};

/// List the committed generations in a folder
#[derive(Debug, Args)]
pub struct Options {
    /// The folder that --dir named
    dir: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// One generation, as `--json` has it.
#[derive(Debug, Serialize)]
struct Row {
    generation: u64,
    path: String,
    /// RFC 3339, UTC.
    committed_at: String,
    bytes_stored: u64,
    /// Virtual nodes; null where the manifest cannot be read, which `ckpt verify` explains.
    nodes: Option<usize>,
}

/// Prints a line for each.
pub fn ls(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let rows: Vec<Row> = generations::list(ckpt::TOOL, &options.dir)?.iter().map(row).collect();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        let cells: Vec<[String; 5]> = rows
            .iter()
            .map(|row| {
                let stored = table::bytes(row.bytes_stored);
                let nodes = row.nodes.map_or_else(|| "?".into(), |nodes| nodes.to_string());
                [row.generation.to_string(), row.committed_at.clone(), nodes, stored, row.path.clone()]
            })
            .collect();
        table::print(["GENERATION", "COMMITTED", "NODES", "STORED", "PATH"], &cells);
    }
    Ok(ExitCode::SUCCESS)
}

fn row(it: &Generation) -> Row {
    Row {
        generation: it.number,
        path: it.path.display().to_string(),
        committed_at: time::moment(it.committed_ns()),
        bytes_stored: it.bytes_stored(),
        nodes: it.manifest().ok().map(|manifest| manifest.nodes.len()),
    }
}
