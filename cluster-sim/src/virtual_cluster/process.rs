//! Processes as the host sees them: found in /proc, named by pid and start time, ended only when both still match.

use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One process: a pid alone may be somebody else's tomorrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its pid on the host.
    pub pid: i32,
    /// When it was started, in clock ticks since boot (field 22 of /proc/PID/stat).
    pub start_ticks: u64,
}

/// A process on a node of the cluster.
#[derive(Clone, Debug)]
pub struct Process {
    /// Pid on the host, and start time.
    pub identity: Identity,
    /// Number of its node.
    pub node: u32,
    /// The kernel's letter: R S D T t Z X.
    pub state: char,
    /// Its name (comm).
    pub name: String,
}

/// What /proc/PID/stat says.
pub struct Stat {
    pub name: String,
    pub state: char,
    pub parent: i32,
    pub start_ticks: u64,
}

impl Identity {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Identity> {
        Some(Identity { pid, start_ticks: stat(pid)?.start_ticks })
    }

    /// It is still there and not a zombie.
    pub fn lives(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.start_ticks == self.start_ticks && !matches!(stat.state, 'Z' | 'X'))
    }

    /// SIGKILL, if it is still that process. Nothing to do is no error.
    pub fn kill(self) -> Result<(), Errno> {
        if !self.lives() {
            return Ok(());
        }
        match kill(Pid::from_raw(self.pid), Signal::SIGKILL) {
            Err(Errno::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// The form in which it is recorded.
    pub fn to_record(self) -> String {
        format!("{} {}\n", self.pid, self.start_ticks)
    }

    /// Reads a record.
    pub fn from_record(text: &str) -> Option<Identity> {
        let (pid, start_ticks) = text.trim().split_once(' ')?;
        Some(Identity { pid: pid.parse().ok()?, start_ticks: start_ticks.parse().ok()? })
    }
}

impl Process {
    /// It runs or could run again: neither zombie nor dead.
    pub fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }
}

/// /proc/PID/stat of a process; `None` when there is none.
pub fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// All pids of the host.
pub fn pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The effective uid of a process. Not the owner of its folder in /proc, which is root for those that are not dumpable.
pub fn uid_of(pid: i32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// The children of a process. Its main thread's only, which is enough for programs that have but one.
pub fn children(pid: i32) -> Vec<i32> {
    match fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) {
        Ok(list) => list.split_whitespace().filter_map(|child| child.parse().ok()).collect(),
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(_) => pids().filter(|&child| stat(child).is_some_and(|stat| stat.parent == pid)).collect(),
    }
}

/// What names a process's network namespace; zombies have none any more.
pub fn network_of(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/net")).ok()
}

fn parse_stat(text: &str) -> Option<Stat> {
    let (head, rest) = text.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    // Field 22; 3 and 4 are taken.
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { name, state, parent, start_ticks })
}

#[cfg(test)]
mod tests {
    use super::{Identity, children, parse_stat, stat};

    #[test]
    fn names_with_brackets_and_spaces() {
        let text = "77 (a) b (c) S 5 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 10 11";
        let stat = parse_stat(text).expect("a stat line");
        assert_eq!((stat.name.as_str(), stat.state, stat.parent, stat.start_ticks), ("a) b (c", 'S', 5, 4242));
        assert!(parse_stat("77 (cut").is_none());
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let me = Identity::of(std::process::id().cast_signed()).expect("we are in /proc");
        assert!(me.lives());
        let other = Identity { start_ticks: me.start_ticks + 1, ..me };
        assert!(!other.lives());
        other.kill().expect("nothing to kill");
        assert_eq!(Identity::from_record(&me.to_record()), Some(me));
        assert_eq!(Identity::from_record("77"), None);
    }

    #[test]
    fn children_are_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep starts");
        let parent = stat(child.id().cast_signed()).expect("it is in /proc").parent;
        assert_eq!(parent, std::process::id().cast_signed());
        child.kill().expect("it can be killed");
        child.wait().expect("it can be waited for");
        assert!(children(i32::MAX).is_empty());
    }
}
