//! `ckpt agent`: guardian and agent of one of a job's other nodes.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use nix::unistd::pipe;
use node_agent::addresses;
use node_agent::files::FilePolicy;
use node_agent::guardian::{self, Tool};
use node_agent::job::{self, JobRecord};
use node_agent::link::Join;
use node_agent::memory;

use crate::comeback::{self, Comeback};
use crate::{coordinate, install, restart, run, time};

/// What its messages begin with.
pub const TOOL: &str = "ckpt agent";
/// Bytes of a join file, at most: keys, addresses, a command line.
const JOIN_BYTES_MAX: u64 = 8 << 20;
/// Where messages and what launchers' daemons print go, in the job's folder.
const LOG: &str = "node.log";
const READY: &str = "ready";

/// Make this machine a node of a running job; ckpt-run does so by itself where it can reach a node by ssh or --rsh
#[derive(Debug, Args)]
pub struct Options {
    /// The join file, or - for standard input
    #[arg(long, value_name = "FILE")]
    join: PathBuf,
    /// Stay in the foreground
    #[arg(long)]
    foreground: bool,
}

/// Reads the join file and becomes the node's guardian, in the background unless it is told otherwise: returns when the node
/// is ready.
pub fn agent(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let join = read_join(&options.join)?;
    let library = install::find(run::LIBRARY)?;
    if options.foreground {
        return serve(&join, &library, None);
    }
    let (reader, writer) = pipe()?;
    if guardian::detach()? {
        drop(reader);
        return serve(&join, &library, Some(writer));
    }
    drop(writer);
    let mut said = String::new();
    File::from(reader).read_to_string(&mut said)?;
    if said == READY { Ok(ExitCode::SUCCESS) } else { Err("the node's guardian did not come up".into()) }
}

fn read_join(path: &Path) -> Result<Join, Box<dyn Error>> {
    let source: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(path).map_err(|error| format!("cannot open {}: {error}", path.display()))?),
    };
    let mut text = Vec::new();
    source.take(JOIN_BYTES_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > JOIN_BYTES_MAX {
        return Err(format!("{} is no join file: more than {JOIN_BYTES_MAX} bytes", path.display()).into());
    }
    Ok(serde_json::from_slice(&text).map_err(|error| format!("{} is no join file: {error}", path.display()))?)
}

/// The guardian's life. `ready` is told when the node can be used, and closed.
fn serve(join: &Join, library: &Path, ready: Option<OwnedFd>) -> Result<ExitCode, Box<dyn Error>> {
    let guardian = std::process::id();
    let mut record = JobRecord {
        guardian,
        guardian_start: job::start_of(guardian).unwrap_or(0),
        started_at_ns: time::now_ns(),
        ..join.record.clone()
    };
    let tool = Tool { name: TOOL, library, coordinate: coordinate::main };
    let prepared = |folder: &Path| -> io::Result<()> {
        join.write(folder)?;
        if let Some(ready) = ready {
            leave_streams(folder)?;
            File::from(ready).write_all(READY.as_bytes())?;
        }
        Ok(())
    };
    let code = match record.generation.clone() {
        None => {
            record.addresses = addresses::of_this_host();
            guardian::serve(tool, record, prepared)?
        }
        Some(folder) => {
            let generation = memory::Generation::open(&folder, record.node)?;
            record.addresses.clone_from(&generation.model().machine.addresses);
            record.stand_in = comeback::stand_in(generation.model());
            let restorer = install::find(restart::RESTORER)?;
            let policy = FilePolicy::default();
            let comeback = Comeback::new(generation, policy, restorer, library.to_path_buf(), &record)?;
            guardian::restart(tool, record, &comeback, prepared)?
        }
    };
    Ok(ExitCode::from(code as u8))
}

/// Who started us, over ssh perhaps, must see the end of our output. Daemons inherit the log.
fn leave_streams(folder: &Path) -> io::Result<()> {
    let null = File::open("/dev/null")?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(folder.join(LOG))?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&log)?;
    nix::unistd::dup2_stderr(&log)?;
    Ok(())
}
