//! What belongs to a test: processes by a mark in their environment, files by their owner and time.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getuid};

use crate::ground::until;

/// The environment variable that marks a test's processes.
const VARIABLE: &str = "SLACKWATER_TEST";
/// How long the processes of an ended job may take to be gone.
const GRACE: Duration = Duration::from_secs(5);
/// How long processes that were sent SIGKILL may take to be gone; core dumps of big ranks take a while.
const KILL_LIMIT: Duration = Duration::from_secs(20);

/// Marks everything that a job starts, in all its lives.
#[derive(Clone, Debug)]
pub struct Mark {
    value: String,
    files: BTreeSet<PathBuf>,
}

impl Mark {
    /// A mark that no other process has; remembers which files of ours were there before.
    #[allow(clippy::new_without_default, reason = "each is another")]
    pub fn new() -> Mark {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        Mark { value: format!("{}-{count}", std::process::id()), files: files_of_ours() }
    }

    /// Name and value of the environment variable.
    pub fn variable(&self) -> (&'static str, &str) {
        (VARIABLE, &self.value)
    }

    /// Live processes with this mark.
    pub fn processes(&self) -> Vec<i32> {
        let wanted = format!("{VARIABLE}={}", self.value);
        let marked = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes())
        };
        let mut pids = processes();
        pids.retain(|pid| (alone() && *pid != std::process::id().cast_signed()) || marked(pid));
        pids
    }

    /// `kill -9` of all of them, and their shared memory with them: what a power cut leaves of one node.
    pub fn kill_all(&self) {
        let gone = until(KILL_LIMIT, || {
            let left = self.processes();
            for pid in &left {
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            left.is_empty().then_some(())
        });
        for file in self.files().into_iter().filter(|file| file.starts_with("/dev/shm")) {
            let _ = fs::remove_file(file);
        }
        assert!(gone.is_some(), "processes outlive SIGKILL: {:?}", self.named());
    }

    /// What is left of a job that has ended: processes, shared memory, folders in /tmp. Gives it a moment to go.
    pub fn leftovers(&self) -> Vec<String> {
        let all = || [self.named(), self.files().iter().map(|file| file.display().to_string()).collect()].concat();
        until(GRACE, || all().is_empty().then(Vec::new)).unwrap_or_else(all)
    }

    /// Removes what jobs that were killed with -9 have left in /tmp.
    pub fn sweep(&self) {
        for file in files_of_ours().difference(&self.files) {
            let _ = if file.is_dir() { fs::remove_dir_all(file) } else { fs::remove_file(file) };
        }
    }

    fn named(&self) -> Vec<String> {
        self.processes().into_iter().map(|pid| format!("{pid} {}", command_line(pid))).collect()
    }

    /// New files of ours in /dev/shm and new job folders of ours; session folders of an MPI that was killed are its own.
    fn files(&self) -> Vec<PathBuf> {
        let new = files_of_ours().difference(&self.files).cloned().collect::<Vec<_>>();
        new.into_iter().filter(|file| file.starts_with("/dev/shm") || file.starts_with(job_folders())).collect()
    }
}

/// The folder of all job folders of ours.
fn job_folders() -> PathBuf {
    PathBuf::from(format!("/tmp/slackwater-{}", getuid()))
}

/// True when `cargo xtask test` gave us a uid that nobody else has.
fn alone() -> bool {
    std::env::var_os("SLACKWATER_UID_ALONE").is_some_and(|value| !value.is_empty())
}

/// Live processes of our uid, zombies left out.
pub fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == getuid().as_raw()));
    ours.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| !matches!(state(*pid), None | Some('Z' | 'X')))
        .collect()
}

/// Third field of /proc/PID/stat.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

fn command_line(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").chars().take(80).collect()
}

fn files_of_ours() -> BTreeSet<PathBuf> {
    let folders = [PathBuf::from("/dev/shm"), PathBuf::from("/tmp"), job_folders()];
    let list = |folder: &PathBuf| {
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let ours = |path: &PathBuf| path.symlink_metadata().is_ok_and(|meta| meta.uid() == getuid().as_raw());
    folders.iter().flat_map(list).filter(|path| ours(path) && path != Path::new(&job_folders())).collect()
}
