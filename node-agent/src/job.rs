//! A job's folder on its node, `/tmp/slackwater-UID/JOB/`: where its processes find the library and the segment, and
//! where commands find the job. The folders are the registry; there is no other.
//!
//! ```text
//! libckpt_hijack.so   copy of the installed one, or a link: the path that LD_PRELOAD names
//! segment             link to /proc/GUARDIAN/fd/N, the memfd of the control segment
//! ckpt-rsh            link to this program, for launchers
//! agent.sock          where `ckpt` asks
//! launch-N.*          daemons of launchers (guardian/daemons.rs)
//! join.json           how agents find the coordinator
//! job.json            JobRecord
//! ```
//!
//! A guardian holds a lock (flock) on its folder and its agents inherit it: a folder that can be locked is of a dead
//! job. It gets its final name only when it is locked, so that no command takes a new one for a dead one.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hijack_abi::{LIBRARY_FILE, SEGMENT_FILE};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::getuid;
use serde::{Deserialize, Serialize};
use thiserror::Error;

mod registry;

pub use registry::{LiveJob, Selector, find, list};

/// Name of the agent's socket.
pub const SOCKET: &str = "agent.sock";
/// What launchers call in place of ssh: a link to this program.
pub const LAUNCHER_FILE: &str = "ckpt-rsh";
/// How to reach the coordinator: a join file, 0600. There is none until there is a second node.
pub const JOIN_FILE: &str = "join.json";
/// Where the coordinator is asked.
pub const COORDINATOR_SOCKET: &str = "coordinator.sock";
const RECORD: &str = "job.json";
/// Not TMPDIR: the path is in every process's environment and has to be the same in a later life.
const BASE: &str = "/tmp";
/// Bytes of `job.json`, at most: a command line has at most 2 MiB, and escapes.
const RECORD_BYTES_MAX: u64 = 8 << 20;
/// Version of [`JobRecord`].
const RECORD_VERSION: u32 = 1;
/// How long a dead life's agent may take to end what is left of it.
const LAST_LIFE_ENDS: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What there is to know about a running job without asking it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Of this record.
    pub version: u32,
    /// Unique id, the same in every life.
    pub job: String,
    /// `--name`, or the program's name.
    pub name: String,
    /// Where generations go; absolute.
    pub dir: PathBuf,
    #[allow(missing_docs)]
    pub command: Vec<String>,
    /// Generations that are kept.
    pub keep: u32,
    /// Seconds between checkpoints by the clock; 0 = none.
    pub every_s: u64,
    /// Checkpoints by default without twins.
    pub stop: bool,
    /// Pid of ckpt-run or ckpt-restart.
    pub guardian: u32,
    /// Its start, clock ticks after boot: a pid alone may be another process by now.
    pub guardian_start: u64,
    /// ns since 1970.
    pub started_at_ns: u64,
    /// The generation that this life began from.
    pub restarted_from: Option<u64>,
    /// Number of the virtual node; 0 is the one where the job was started.
    #[serde(default)]
    pub node: u32,
    /// Of a restarted job: how many virtual nodes it has; else 0.
    #[serde(default)]
    pub nodes: u32,
    /// Of a restarted job of many nodes: the host of each, in their order.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// Of a restarted job: the pid by which it knows its guardian, in whose place a process of ours stands.
    #[serde(default)]
    pub stand_in: u32,
    /// Addresses of the host as the job knows them: where it began.
    #[serde(default)]
    pub addresses: Vec<std::net::IpAddr>,
    /// Of a restarted job: the generation's folder.
    #[serde(default)]
    pub generation: Option<PathBuf>,
    /// By which builders of a restarted job recognise each other.
    #[serde(default)]
    pub token: String,
    /// `--rsh`: what starts programs on other hosts; empty for ssh, or what launchers are told to take.
    #[serde(default)]
    pub rsh: String,
}

/// Why a job's folder cannot be made or found.
#[derive(Debug, Error)]
pub enum JobError {
    /// Something of another user, or open to others, has the name that is ours.
    #[error("{path} is not a folder that only you can open: ask its owner (uid {owner}) or root to remove it")]
    Squatted {
        #[allow(missing_docs)]
        path: PathBuf,
        #[allow(missing_docs)]
        owner: u32,
    },
    /// A life of this job is running here.
    #[error("job {job} ({name}) runs already, under ckpt-run or ckpt-restart with pid {guardian}: end that one first")]
    Runs {
        #[allow(missing_docs)]
        job: String,
        #[allow(missing_docs)]
        name: String,
        #[allow(missing_docs)]
        guardian: u32,
    },
    /// A system call.
    #[error("cannot {deed} {path}: {source}")]
    Io {
        #[allow(missing_docs)]
        deed: &'static str,
        #[allow(missing_docs)]
        path: PathBuf,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// Bad bytes in job.json.
    #[error("{path} is not understood: {source}")]
    Record {
        #[allow(missing_docs)]
        path: PathBuf,
        #[allow(missing_docs)]
        source: serde_json::Error,
    },
    /// Nothing runs.
    #[error("no job of yours runs on this machine")]
    None,
    /// Nothing that was asked for runs.
    #[error("no job of yours {what} runs on this machine{}", registry::running(.jobs))]
    Unknown {
        #[allow(missing_docs)]
        what: String,
        #[allow(missing_docs)]
        jobs: Vec<(String, String)>,
    },
    /// More than one runs.
    #[error("which job? {} run: say its id or its name{}", .jobs.len(), registry::running(.jobs))]
    Several {
        #[allow(missing_docs)]
        jobs: Vec<(String, String)>,
    },
}

impl JobError {
    fn io(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { deed, path, source }
    }
}

/// The folder of a job that this process guards.
#[derive(Debug)]
pub struct JobFolder {
    path: PathBuf,
    /// Kept for its lock; close-on-exec.
    _lock: Flock<File>,
}

impl JobFolder {
    /// Makes the folder of `record.job` with its record and `library`.
    ///
    /// # Errors
    /// [`JobError::Runs`] when a life of the same job runs here; [`JobError::Squatted`]; [`JobError::Io`].
    pub fn create(record: &JobRecord, library: &Path) -> Result<Self, JobError> {
        let fresh_name = format!(".new-{}-{}", std::process::id(), record.job);
        let (fresh, lock) = loop {
            let parent = make_parent()?;
            let fresh = parent.join(&fresh_name);
            match DirBuilder::new().mode(0o700).create(&fresh).and_then(|()| File::open(&fresh)) {
                Ok(folder) => break (fresh, folder),
                // The last job of another command took the empty parent with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(JobError::io("make", &fresh)(error)),
            }
        };
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| JobError::io("lock", &fresh)(errno.into()))?;
        let filled = write_record(&fresh, record)
            .and_then(|()| put_library(library, &fresh).map_err(JobError::io("put the library into", &fresh)))
            .and_then(|()| put_launcher(&fresh).map_err(JobError::io("put ckpt-rsh into", &fresh)));
        let path = fresh.with_file_name(folder_name(record));
        if let Err(error) = filled
            .and_then(|()| make_way(&path))
            .and_then(|()| fs::rename(&fresh, &path).map_err(JobError::io("make", &path)))
        {
            let _ = fs::remove_dir_all(&fresh);
            return Err(error);
        }
        Ok(Self { path, _lock: lock })
    }

    /// `/tmp/slackwater-UID/JOB`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the link by which the library finds the segment: descriptor `number` of process `guardian`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn link_segment(&self, guardian: u32, number: i32) -> Result<(), JobError> {
        let at = self.path.join(SEGMENT_FILE);
        symlink(format!("/proc/{guardian}/fd/{number}"), &at).map_err(JobError::io("make", &at))
    }

    /// Writes the record anew.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn update(&self, record: &JobRecord) -> Result<(), JobError> {
        write_record(&self.path, record)
    }

    /// Takes the folder away, and the user's parent folder when it was the last.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.path);
        if let Some(parent) = self.path.parent() {
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Several virtual nodes of a restarted job may share a host: each has a folder of its own there, whatever it is called inside.
fn folder_name(record: &JobRecord) -> String {
    match (&record.generation, record.node) {
        (None, _) | (_, 0) => record.job.clone(),
        (Some(_), node) => format!("{}.{node}", record.job),
    }
}

/// Name of the file in the job's folder that has the wait status of a daemon that was launched on another node.
#[must_use]
pub fn remote_end(id: u64) -> String {
    format!("remote-{id}.ended")
}

/// `/tmp/slackwater-UID`.
#[must_use]
pub fn parent() -> PathBuf {
    Path::new(BASE).join(format!("slackwater-{}", getuid()))
}

/// Puts the library into a job's folder, and what launchers call: a copy, which an upgrade while the job runs does not touch, and whose path is the
/// shortest for every program that starts; a link where programs may not be loaded from that file system.
///
/// # Errors
/// When neither can be made.
pub fn put_library(library: &Path, folder: &Path) -> io::Result<()> {
    let at = folder.join(LIBRARY_FILE);
    let loadable = statvfs(folder).is_ok_and(|about| !about.flags().contains(FsFlags::ST_NOEXEC));
    if loadable && fs::copy(library, &at).is_ok() {
        return Ok(());
    }
    match fs::remove_file(&at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(library, at),
    }
}

/// Puts `ckpt-rsh` into a job's folder: one program that goes by the name it is called by.
///
/// # Errors
/// When the link cannot be made.
pub fn put_launcher(folder: &Path) -> io::Result<()> {
    symlink(std::env::current_exe()?, folder.join(LAUNCHER_FILE))
}

/// A new id: eight letters and digits, none that is taken for another.
///
/// # Errors
/// When the kernel gives no random numbers.
pub fn new_id() -> io::Result<String> {
    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut random = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect())
}

/// When a process was started, clock ticks after boot; `None` when there is no such process or it is a zombie.
#[must_use]
pub fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // proc_pid_stat(5): state is the third field, starttime the 22nd.
    if matches!(*fields.first()?, "Z" | "X") {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// An absolute path without links as far as it exists, so that two ways to name a folder are one.
///
/// # Errors
/// When there is no working folder.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let whole = std::path::absolute(path)?;
    let mut missing = Vec::new();
    let mut there = whole.as_path();
    loop {
        if let Ok(real) = there.canonicalize() {
            return Ok(missing.iter().rev().fold(real, |path, name| path.join(name)));
        }
        match (there.file_name(), there.parent()) {
            (Some(name), Some(parent)) => {
                missing.push(name);
                there = parent;
            }
            _ => return Ok(whole),
        }
    }
}

/// The user's folder, made or found, and nobody else's.
fn make_parent() -> Result<PathBuf, JobError> {
    let path = parent();
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(JobError::io("make", &path)(error)),
        _ => {}
    }
    check_owner(&path)?;
    Ok(path)
}

/// Refuses a folder that another user has put where ours belongs.
fn check_owner(path: &Path) -> Result<(), JobError> {
    match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() && about.uid() == getuid().as_raw() && about.mode() & 0o077 == 0 => Ok(()),
        Ok(about) => Err(JobError::Squatted { path: path.to_path_buf(), owner: about.uid() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(JobError::io("look at", path)(error)),
    }
}

/// Clears away a dead life's folder; waits for its agent when that is still ending it.
fn make_way(path: &Path) -> Result<(), JobError> {
    let until = Instant::now() + LAST_LIFE_ENDS;
    loop {
        if !path.exists() || registry::clear_if_dead(path) {
            return Ok(());
        }
        let record = read_record(path).unwrap_or_default();
        let alive = start_of(record.guardian) == Some(record.guardian_start);
        if alive || Instant::now() > until {
            return Err(JobError::Runs { job: record.job, name: record.name, guardian: record.guardian });
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn write_record(folder: &Path, record: &JobRecord) -> Result<(), JobError> {
    let path = folder.join(RECORD);
    let fresh = folder.join(".job.json.new");
    let text = serde_json::to_vec_pretty(&JobRecord { version: RECORD_VERSION, ..record.clone() })
        .map_err(|source| JobError::Record { path: path.clone(), source })?;
    fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).map_err(JobError::io("write", &path))
}

fn read_record(folder: &Path) -> Result<JobRecord, JobError> {
    let path = folder.join(RECORD);
    let mut text = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(RECORD_BYTES_MAX).read_to_end(&mut text))
        .map_err(JobError::io("read", &path))?;
    serde_json::from_slice(&text).map_err(|source| JobError::Record { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(job: &str) -> JobRecord {
        let guardian = std::process::id();
        let guardian_start = start_of(guardian).unwrap();
        JobRecord { job: job.into(), name: "tide".into(), guardian, guardian_start, ..JobRecord::default() }
    }

    #[test]
    fn a_second_life_is_refused_and_a_dead_one_makes_way() {
        let id = new_id().unwrap();
        let folder = JobFolder::create(&record(&id), Path::new("/nowhere/lib.so")).unwrap();
        let again = JobFolder::create(&record(&id), Path::new("/nowhere/lib.so")).unwrap_err();
        assert!(matches!(&again, JobError::Runs { job, .. } if *job == id), "{again}");
        let found = find(&Selector::Named(id.clone())).unwrap();
        assert_eq!(found.record.name, "tide");
        let path = folder.path().to_path_buf();
        drop(folder); // the lock goes, the folder stays: as after kill -9
        assert!(path.exists());
        let folder = JobFolder::create(&record(&id), Path::new("/nowhere/lib.so")).unwrap();
        folder.remove();
        assert!(!path.exists());
        assert!(matches!(find(&Selector::Named(id)), Err(JobError::Unknown { .. } | JobError::None)));
    }

    #[test]
    fn a_link_is_not_our_folder() {
        let place = tempfile::tempdir().unwrap();
        let link = place.path().join("link");
        symlink(place.path(), &link).unwrap();
        assert!(matches!(check_owner(&link), Err(JobError::Squatted { .. })));
    }

    #[test]
    fn the_library_is_copied_and_linked_where_that_fails() {
        let place = tempfile::tempdir().unwrap();
        let library = place.path().join("installed.so");
        fs::write(&library, "library").unwrap();
        put_library(&library, place.path()).unwrap();
        let at = place.path().join(LIBRARY_FILE);
        fs::write(&library, "another").unwrap();
        assert_eq!(fs::read(&at).unwrap(), b"library");
        fs::remove_file(&at).unwrap();
        put_library(Path::new("/nowhere/lib.so"), place.path()).unwrap();
        assert_eq!(fs::read_link(&at).unwrap(), Path::new("/nowhere/lib.so"));
    }

    #[test]
    fn two_names_of_a_folder_are_one() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().canonicalize().unwrap();
        symlink(&real, real.join("link")).unwrap();
        assert_eq!(absolute(&real.join("link/a/b")).unwrap(), real.join("a/b"));
    }
}
