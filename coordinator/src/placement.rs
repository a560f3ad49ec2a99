//! Which hosts the virtual nodes of a generation go to.

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::Args;

use crate::generations::Generation;
use crate::restart::TOOL;

/// Bytes of a hostfile, at most: a line for each of some ten thousand hosts.
const HOSTFILE_BYTES_MAX: u64 = 4 << 20;

/// Where a restarted job is to run.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Options {
    /// Hosts to run on, this one among them [default: where it ran]
    #[arg(long, value_name = "HOST,…", value_delimiter = ',', conflicts_with = "hostfile")]
    hosts: Vec<String>,
    /// The same out of a file: a host a line, its first word counts
    #[arg(long, value_name = "FILE")]
    hostfile: Option<PathBuf>,
    /// What starts programs on other hosts, in place of ssh: called as `CMD HOST LINE`
    #[arg(long, value_name = "CMD")]
    pub rsh: Option<String>,
}

impl Options {
    /// The host of each of `nodes`, in their order; never of a part of them: the rest of the job would be waited for forever. The
    /// first is where this command runs; each host has neighbours. Empty for a job of one node, which comes back here.
    ///
    /// # Errors
    /// This host is not among those that were named; a hostfile that cannot be read.
    pub fn place(&self, generation: &Generation, nodes: &[u32]) -> Result<Vec<String>, Box<dyn Error>> {
        let here = nix::unistd::gethostname()?.to_string_lossy().into_owned();
        let mut hosts = self.named()?;
        if nodes.len() == 1 && hosts.is_empty() {
            return Ok(Vec::new());
        }
        if hosts.is_empty() {
            let manifest = generation.manifest()?;
            hosts = manifest.nodes.iter().map(|it| it.host.clone()).collect();
        }
        hosts.dedup();
        let Some(at) = hosts.iter().position(|it| *it == here) else {
            let hosts = hosts.join(",");
            return Err(format!(
                "this is {here}, and the job is to run on {hosts}: run {TOOL} on one of them, or name others with --hosts"
            )
            .into());
        };
        if nodes.len() == 1 {
            return Ok(Vec::new());
        }
        hosts.rotate_left(at);
        let count = hosts.len().min(nodes.len());
        Ok((0..nodes.len()).map(|it| hosts[it * count / nodes.len()].clone()).collect())
    }

    fn named(&self) -> Result<Vec<String>, Box<dyn Error>> {
        let Some(file) = &self.hostfile else {
            return Ok(self.hosts.iter().filter(|it| !it.is_empty()).cloned().collect());
        };
        let cannot = |why: String| format!("cannot take hosts from {}: {why}", file.display());
        let bytes = fs::metadata(file).map_err(|error| cannot(error.to_string()))?.len();
        if bytes > HOSTFILE_BYTES_MAX {
            return Err(cannot(format!("it has {bytes} bytes, {HOSTFILE_BYTES_MAX} at most are read")).into());
        }
        let hosts = hosts_in(&fs::read_to_string(file).map_err(|error| cannot(error.to_string()))?);
        if hosts.is_empty() { Err(cannot("it names none".into()).into()) } else { Ok(hosts) }
    }
}

/// As launchers' hostfiles have them: `n1 slots=2`, `n1:2`, comments after `#`.
fn hosts_in(text: &str) -> Vec<String> {
    let word = |line: &str| {
        let host = line.split('#').next()?.split_whitespace().next()?.split(':').next()?;
        (!host.is_empty()).then(|| host.to_owned())
    };
    text.lines().filter_map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostfiles_are_the_launchers() {
        assert_eq!(hosts_in("# all\nn1 slots=2\n\n n2:2 # two\nn3\n"), ["n1", "n2", "n3"]);
        assert!(hosts_in("#n1\n\n").is_empty());
    }
}
