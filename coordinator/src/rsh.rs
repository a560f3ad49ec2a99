//! `ckpt-rsh`: what mpirun and mpiexec call in place of ssh. The daemon is started by the agent of its node, so that no
//! connection runs from inside the job to its outside.
//!
//! It is of the job: it may be parked, and wake up in a later life. So it has one thread and, while it waits for the daemon's
//! end, no connection, only a file to look for.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use coordinator_protocol::{Answer, Request};
use hijack_abi::JOB_FOLDER_VARIABLE;
use node_agent::job::{self, LAUNCHER_FILE};

use crate::{Failure, ask};

/// The name that this goes by.
pub const TOOL: &str = LAUNCHER_FILE;
/// How long an agent may take to come up on another node.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often the daemon's end is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Options of ssh(1) that have a value.
const WITH_VALUE: &str = "BbcDEeFIiJLlmOoPpQRSWw";

/// `ckpt-rsh` from its arguments to its exit code: the daemon's, as ssh's would be.
pub fn main() -> Result<ExitCode, Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    launch(&words).map_err(Failure::of(TOOL))
}

fn launch(words: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let request = request(words).ok_or("usage: ckpt-rsh [ssh's options] HOST COMMAND...")?;
    let folder = std::env::var_os(JOB_FOLDER_VARIABLE).map(PathBuf::from);
    let folder = folder.ok_or("not inside a job: it is called by mpirun and mpiexec under ckpt-run")?;
    let id = match ask::ask_at(&folder.join(job::SOCKET), &request, PATIENCE)? {
        Answer::Launched { id } => id,
        other => return Err(format!("the agent answered something else: {other:?}").into()),
    };
    Ok(ExitCode::from(ended(&folder, id)))
}

/// Waits for the daemon's end: its exit code, 255 when a signal ended it, as with ssh.
fn ended(folder: &Path, id: u64) -> u8 {
    let at = folder.join(job::remote_end(id));
    loop {
        if let Some(status) = fs::read_to_string(&at).ok().and_then(|it| it.trim().parse::<i32>().ok()) {
            return if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) as u8 } else { u8::MAX };
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// Options, host and line of an ssh command; the words of the line are joined by blanks, as ssh does.
fn request(words: &[String]) -> Option<Request> {
    let mut at = 0;
    while let Some(option) = words.get(at).and_then(|it| it.strip_prefix('-')) {
        // A value may follow at once, as in -l42.
        let takes_next = option.len() == 1 && WITH_VALUE.contains(option);
        at += if takes_next { 2 } else { 1 };
    }
    let host = words.get(at)?.clone();
    let line = words.get(at + 1..).filter(|it| !it.is_empty())?.join(" ");
    Some(Request::Launch { host, options: words[..at].to_vec(), line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, Vec<String>, String)> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        match request(&words)? {
            Request::Launch { host, options, line } => Some((host, options, line)),
            _ => None,
        }
    }

    #[test]
    fn as_ssh_takes_it() {
        let (host, options, line) = parsed("-x n2 /usr/bin/hydra_pmi_proxy --control-port n1:4000").unwrap();
        assert_eq!((host.as_str(), options.len()), ("n2", 1));
        assert_eq!(line, "/usr/bin/hydra_pmi_proxy --control-port n1:4000");
        let (host, options, line) = parsed("-l me -p22 -o A=b n3 orted -mca ess env").unwrap();
        assert_eq!((host.as_str(), options.len(), line.as_str()), ("n3", 5, "orted -mca ess env"));
        assert_eq!(parsed("-x n2"), None);
        assert_eq!(parsed("-l"), None);
    }
}
