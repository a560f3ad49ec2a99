//! `ckpt doctor`.

use std::error::Error;
use std::process::ExitCode;

use clap::Args;
use node_agent::doctor::{self, Need};

/// Try on this machine what checkpoints and restarts need, and say what to change
#[derive(Debug, Args)]
pub struct Options {}

/// Prints what works; exit code 1 when something is in the way of checkpoints or restarts.
pub fn doctor(_options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let findings = doctor::examine();
    for finding in &findings {
        match &finding.trouble {
            None => println!("works    {}", finding.what),
            Some(trouble) => {
                println!("missing  {}\n         {} suffers: {trouble}", finding.what, finding.need.name());
            }
        }
    }
    let fatal = findings.iter().any(|it| it.trouble.is_some() && it.need != Need::Speed);
    Ok(if fatal { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
