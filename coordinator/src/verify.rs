//! `ckpt verify`.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::{ckpt, generations};

/// Read every byte of the generations in a folder against its checksum
#[derive(Debug, Args)]
pub struct Options {
    /// The folder that --dir named
    dir: PathBuf,
    /// Only this one
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
}

/// Names each damaged file; exit code 1 when there is one.
pub fn verify(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let chosen = match options.generation {
        Some(_) => vec![generations::find(ckpt::TOOL, &options.dir, options.generation)?],
        None => generations::list(ckpt::TOOL, &options.dir)?,
    };
    if chosen.is_empty() {
        generations::find(ckpt::TOOL, &options.dir, None)?;
    }
    let mut good = true;
    for generation in chosen {
        let damage = generation.damage();
        good &= damage.is_empty();
        match damage.is_empty() {
            true => println!("generation {}: good", generation.number),
            false => println!("generation {}: damaged", generation.number),
        }
        damage.iter().for_each(|line| eprintln!("{}: {line}", ckpt::TOOL));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
