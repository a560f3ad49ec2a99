//! The scratch folder's owner, and what a cluster whose process was killed has left in it.

use std::fs;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::cgroups::Cgroups;
use super::error::ClusterError;
use super::ground::until;
use super::layout::Layout;
use super::process::Identity;

/// How long what was left may take to be gone after SIGKILL.
const GONE_LIMIT: Duration = Duration::from_secs(20);

/// Takes the scratch folder; refused while another live cluster has it.
pub fn lock(layout: &Layout) -> Result<Flock<File>, ClusterError> {
    let path = layout.scratch.join("lock");
    let file = File::create(&path).map_err(ClusterError::file("make", &path))?;
    let busy = || ClusterError::Busy { scratch: layout.scratch.clone() };
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, cause)| match cause {
        Errno::EWOULDBLOCK => busy(),
        other => ClusterError::file("lock", &path)(other.into()),
    })?;
    // Its last owner may have removed it between our opening and our locking it.
    let (have, named) = (lock.metadata(), fs::metadata(&path));
    let same = matches!((&have, &named), (Ok(have), Ok(named)) if have.ino() == named.ino());
    if same { Ok(lock) } else { Err(busy()) }
}

/// Gives the scratch folder up, and removes it when nothing of anybody's is in it.
pub fn unlock(layout: &Layout, lock: Flock<File>) -> Result<(), ClusterError> {
    let path = layout.scratch.join("lock");
    fs::remove_file(&path).map_err(ClusterError::file("remove", &path))?;
    drop(lock);
    // Not empty: then it was not made for us alone.
    let _ = fs::remove_dir(&layout.scratch);
    Ok(())
}

/// Ends and removes what an earlier cluster has left in this scratch folder.
pub fn clear(layout: &Layout, groups: &Cgroups) -> Result<(), ClusterError> {
    let recorded = recorded(layout);
    for process in &recorded {
        // What cannot be killed is found by the wait.
        let _ = process.kill();
    }
    groups.remove()?;
    let left = || {
        let pids = recorded.iter().filter(|process| process.lives()).map(|process| process.pid.to_string());
        pids.collect::<Vec<_>>().join(" ")
    };
    until(|| "the end of an earlier cluster".into(), GONE_LIMIT, || Ok(left().is_empty().then_some(())))
        .map_err(|_| ClusterError::ProcessesLeft { left: left(), limit: GONE_LIMIT })?;
    layout.remove()
}

/// The processes that the last cluster has recorded: every node's pid 1 and the network's holder.
fn recorded(layout: &Layout) -> Vec<Identity> {
    let entries = fs::read_dir(layout.records()).into_iter().flatten().flatten();
    let records = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "pid"));
    records.filter_map(|entry| Identity::from_record(&fs::read_to_string(entry.path()).ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::{clear, lock, unlock};
    use crate::virtual_cluster::ClusterError;
    use crate::virtual_cluster::cgroups::{Cgroups, Hierarchies};
    use crate::virtual_cluster::layout::{Layout, make_folder, write};
    use crate::virtual_cluster::process::Identity;

    #[test]
    fn one_cluster_in_one_folder() {
        let scratch = tempfile::tempdir().expect("a folder");
        let layout = Layout { scratch: scratch.path().to_path_buf() };
        let first = lock(&layout).expect("it is free");
        assert!(matches!(lock(&layout), Err(ClusterError::Busy { .. })));
        unlock(&layout, first).expect("it is ours");
        assert!(!scratch.path().exists());
    }

    #[test]
    fn what_is_left_is_ended_and_others_are_not() {
        let scratch = tempfile::tempdir().expect("a folder");
        let layout = Layout { scratch: scratch.path().to_path_buf() };
        let groups = Cgroups::make("slackwater-none", Hierarchies::Without);
        make_folder(&layout.records(), 0o755).expect("a folder for records");
        let sleeper = || std::process::Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let (mut left, mut other) = (sleeper(), sleeper());
        let identity = |pid: u32| Identity::of(pid.cast_signed()).expect("it is in /proc");
        let reused = Identity { start_ticks: 1, ..identity(other.id()) };
        let record = |name: &str, it: Identity| write(&layout.records().join(name), &it.to_record(), 0o644);
        record("n1.pid", identity(left.id())).and_then(|()| record("n2.pid", reused)).expect("records");
        clear(&layout, &groups).expect("cleared");
        assert!(left.wait().is_ok_and(|status| !status.success()));
        assert!(other.try_wait().is_ok_and(|status| status.is_none()), "a process with a reused pid was ended");
        assert!(!layout.records().exists());
        other.kill().and_then(|()| other.wait()).expect("it ends");
    }
}
