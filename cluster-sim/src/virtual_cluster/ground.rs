//! Bounded waits and bounded commands of the system.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::ClusterError;

/// The longest that `ip`, `tc` or `ssh-keygen` may take on a loaded machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// How often a bounded wait looks.
const LOOK: Duration = Duration::from_millis(2);
/// Where the system's programs are looked for.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is needed of the system, and the Debian package that has it.
const NEEDED: [(&str, &str); 8] = [
    ("bash", "bash"),
    ("setsid", "util-linux"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("ip", "iproute2"),
    ("ssh-keygen", "openssh-client"),
    ("sshd", "openssh-server"),
];

/// Looks until `ready` gives something, at most `limit`; `what` is for the error.
pub fn until<T>(
    what: impl FnOnce() -> String,
    limit: Duration,
    mut ready: impl FnMut() -> Result<Option<T>, ClusterError>,
) -> Result<T, ClusterError> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            return Err(ClusterError::Late { what: what(), limit });
        }
        thread::sleep(LOOK);
    }
}

/// A command of the system with a plain environment.
pub fn system(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", SYSTEM_PATH).env("LANG", "C.UTF-8");
    command.stdin(Stdio::null());
    command
}

/// Runs a command of the system to its end; what it says on standard error goes into the error. Such commands say a line or
/// two, which a pipe holds.
pub fn run(command: &mut Command) -> Result<(), ClusterError> {
    let spoken = spoken(command);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|source| ClusterError::Start { command: spoken.clone(), source })?;
    let ended = until(|| format!("the end of `{spoken}`"), COMMAND_LIMIT, || Ok(child.try_wait().unwrap_or(None)));
    let status = match ended {
        Ok(status) => status,
        Err(late) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(late);
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = child.stderr.take().and_then(|stderr| std::io::read_to_string(stderr).ok()).unwrap_or_default();
    Err(ClusterError::Command { command: spoken, status, said: said.trim().replace('\n', "; ") })
}

/// Refuses by name what is not installed.
pub fn check_programs() -> Result<(), ClusterError> {
    let there = |program: &str| SYSTEM_PATH.split(':').any(|folder| Path::new(folder).join(program).is_file());
    match NEEDED.into_iter().find(|(program, _)| !there(program)) {
        None => Ok(()),
        Some((program, package)) => Err(ClusterError::Missing { program, package }),
    }
}

/// A command as one would type it.
pub fn spoken(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{run, system, until};
    use crate::virtual_cluster::ClusterError;
    use std::time::Duration;

    #[test]
    fn a_command_that_fails_is_named_with_what_it_said() {
        let error = run(system("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("`sh -c ") && text.contains("exit status: 3: no such thing"), "{text}");
    }

    #[test]
    fn a_wait_ends() {
        let late = until::<()>(|| "the moon".into(), Duration::from_millis(3), || Ok(None)).unwrap_err();
        assert!(matches!(late, ClusterError::Late { .. }), "{late}");
    }
}
