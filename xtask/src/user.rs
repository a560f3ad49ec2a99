//! The ordinary user that runs jobs: ourselves, or, when we are root, a uid that nobody else has.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ground::{self, Outcome};

/// First uid to try; far above those that distributions hand out and below the ranges of subordinate uids.
const FIRST: u32 = 47_100;
/// How many to try.
const TRIES: u32 = 800;

/// Who runs the jobs.
pub struct User {
    /// Its uid, and its gid.
    pub uid: u32,
    /// True when we are root and put this uid on: then all processes of this uid are ours.
    pub ours_alone: bool,
    environment: BTreeMap<String, String>,
}

impl User {
    /// Ourselves, or as root a free uid.
    pub fn ordinary() -> Outcome<User> {
        let me = fs::metadata("/proc/self").map_err(|cause| format!("cannot read /proc/self: {cause}"))?.uid();
        if me != 0 {
            return Ok(User { uid: me, ours_alone: false, environment: BTreeMap::new() });
        }
        let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let taken = |uid: u32| known.lines().any(|line| line.split(':').nth(2) == Some(&uid.to_string()));
        // One that nothing is left of: what a run that was killed has left would be taken for this one's.
        let uid = (FIRST..FIRST + TRIES)
            .find(|&uid| !taken(uid) && processes_of(uid).is_empty() && files_of(uid).next().is_none());
        let uid = uid.ok_or_else(|| format!("no free uid among {FIRST}..{}", FIRST + TRIES))?;
        Ok(User { uid, ours_alone: true, environment: BTreeMap::new() })
    }

    /// Sets a variable of every later command.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.environment.insert(name.into(), value.into());
    }

    /// The variables that were set, as `NAME=VALUE`.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        self.environment.iter().map(|(name, value)| format!("{name}={value}"))
    }

    /// A command that will run as this user, with HOME in `home` and an otherwise plain environment.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>, home: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(home);
        if self.ours_alone {
            command.uid(self.uid).gid(self.uid).env_clear();
            command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8").env("HOME", home);
        }
        // Both launchers count cores and refuse or crawl when there are more ranks than those.
        command.env("OMPI_MCA_rmaps_base_oversubscribe", "1");
        command.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
        command.env("HYDRA_LAUNCHER", "fork");
        command.envs(&self.environment);
        command
    }

    /// Makes a folder of this user's.
    pub fn folder(&self, folder: PathBuf) -> Outcome<PathBuf> {
        ground::make_folder(&folder)?;
        self.give(&folder)?;
        Ok(folder)
    }

    /// Makes this user the owner of `path`.
    pub fn give(&self, path: &Path) -> Outcome<()> {
        if self.ours_alone {
            chown(path, Some(self.uid), Some(self.uid))
                .map_err(|cause| format!("cannot give {} to uid {}: {cause}", path.display(), self.uid))?;
        }
        Ok(())
    }

    /// What is left of this user although all its jobs have ended; empty when the uid is not ours alone.
    pub fn leftovers(&self) -> Vec<String> {
        if !self.ours_alone {
            return Vec::new();
        }
        let mut left: Vec<String> =
            processes_of(self.uid).into_iter().map(|(pid, name)| format!("process {pid} ({name})")).collect();
        left.extend(files_of(self.uid).map(|path| path.display().to_string()));
        left
    }

    /// Removes this user's files in shared folders: what `kill -9` leaves of MPI jobs. Nothing when the uid is not ours alone.
    pub fn sweep(&self) {
        for path in files_of(self.uid).filter(|_| self.ours_alone) {
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

/// Files and folders of `uid` where all users have theirs.
fn files_of(uid: u32) -> impl Iterator<Item = PathBuf> {
    let entries =
        ["/dev/shm", "/tmp", "/var/tmp"].into_iter().flat_map(|it| fs::read_dir(it).into_iter().flatten().flatten());
    entries.filter(move |entry| entry.metadata().is_ok_and(|meta| meta.uid() == uid)).map(|entry| entry.path())
}

/// Pids and names of the processes of `uid`.
fn processes_of(uid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == uid))
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            Some((pid, name.trim().to_owned()))
        })
        .collect()
}
