//! Finding jobs, and clearing away what dead ones left.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{JobError, JobRecord, check_owner, parent, read_record};

/// A job of this user that runs on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveJob {
    /// Its folder.
    pub folder: PathBuf,
    #[allow(missing_docs)]
    pub record: JobRecord,
}

/// Which job somebody means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The only one.
    Only,
    /// An id or a name.
    Named(String),
    /// The one whose generations go there; absolute.
    Dir(PathBuf),
}

/// Jobs of this user that run here, oldest first. Folders of dead ones are cleared away.
///
/// # Errors
/// When the folder is another user's or cannot be read.
pub fn list() -> Result<Vec<LiveJob>, JobError> {
    let parent = parent();
    check_owner(&parent)?;
    let mut jobs: Vec<LiveJob> = folders(&parent)
        .into_iter()
        .filter(|folder| !clear_if_dead(folder))
        .filter_map(|folder| Some(LiveJob { record: read_record(&folder).ok()?, folder }))
        .collect();
    // Of several virtual nodes of a job on one host the first speaks for all.
    let first: HashSet<String> = jobs.iter().filter(|it| it.record.node == 0).map(|it| it.record.job.clone()).collect();
    jobs.retain(|it| it.record.node == 0 || !first.contains(&it.record.job));
    jobs.sort_by_key(|job| job.record.started_at_ns);
    let _ = fs::remove_dir(&parent);
    Ok(jobs)
}

/// The job that is meant.
///
/// # Errors
/// [`JobError::None`], [`JobError::Unknown`], [`JobError::Several`]; see also [`list`].
pub fn find(selector: &Selector) -> Result<LiveJob, JobError> {
    let jobs = list()?;
    let names = |jobs: &[LiveJob]| jobs.iter().map(|it| (it.record.job.clone(), it.record.name.clone())).collect();
    let (what, mut found): (String, Vec<LiveJob>) = match selector {
        Selector::Only if jobs.is_empty() => return Err(JobError::None),
        Selector::Only => (String::new(), jobs.clone()),
        Selector::Named(word) => {
            let by_id: Vec<LiveJob> = jobs.iter().filter(|it| it.record.job == *word).cloned().collect();
            let by_name = || jobs.iter().filter(|it| it.record.name == *word).cloned().collect();
            (format!("called {word}"), if by_id.is_empty() { by_name() } else { by_id })
        }
        Selector::Dir(dir) => {
            (format!("with --dir {}", dir.display()), jobs.iter().filter(|it| it.record.dir == *dir).cloned().collect())
        }
    };
    match (found.pop(), found.is_empty()) {
        (Some(job), true) => Ok(job),
        (None, _) => Err(JobError::Unknown { what, jobs: names(&jobs) }),
        (Some(job), false) => {
            found.push(job);
            Err(JobError::Several { jobs: names(&found) })
        }
    }
}

/// Lines that list jobs, for the end of a message.
pub(super) fn running(jobs: &[(String, String)]) -> String {
    jobs.iter().map(|(job, name)| format!("\n  {job}  {name}")).collect()
}

/// Clears a folder away when nobody holds its lock; true when it is gone.
pub(super) fn clear_if_dead(folder: &Path) -> bool {
    let Ok(handle) = File::open(folder) else { return !folder.exists() };
    let Ok(_lock) = Flock::lock(handle, FlockArg::LockExclusiveNonblock) else { return false };
    // Another name first: the one that counts is free at once.
    let dead = folder.with_file_name(format!(".old-{}-{}", std::process::id(), name_of(folder)));
    match fs::rename(folder, &dead) {
        Ok(()) => drop(fs::remove_dir_all(&dead)),
        Err(_) => drop(fs::remove_dir_all(folder)),
    }
    !folder.exists()
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Folders of jobs; what commands that died left under a name with a dot is cleared away.
fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let (unnamed, named): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| name_of(path).starts_with('.'));
    for path in unnamed {
        let owner = name_of(&path).split('-').nth(1).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_none_or(|pid| super::start_of(pid).is_none()) {
            let _ = fs::remove_dir_all(&path);
        }
    }
    named
}
