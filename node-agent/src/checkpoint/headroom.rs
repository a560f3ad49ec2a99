//! Is there memory for copy-on-write twins? What the job writes to while they live exists twice.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::CheckpointError;

/// A twin is given up, not the job, when memory runs out; below this part of the job's private memory it is not even tried.
const PART: u64 = 4;
const KIB: u64 = 1024;

/// Refuses when less than a quarter of the job's private memory is free, on the node or in the job's cgroup.
pub(super) fn check(members: &BTreeSet<u32>) -> Result<(), CheckpointError> {
    let private: u64 = members.iter().map(|pid| private_bytes(*pid)).sum();
    let wanted = private / PART;
    let free = available().into_iter().chain(members.first().and_then(|pid| cgroup_left(*pid))).min();
    match free {
        Some(free) if free < wanted => Err(CheckpointError::TooLittleMemory { private, free }),
        _ => Ok(()),
    }
}

/// RssAnon of /proc/PID/status, bytes.
fn private_bytes(pid: u32) -> u64 {
    field(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), "RssAnon:").unwrap_or(0)
}

/// MemAvailable, bytes.
fn available() -> Option<u64> {
    field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// A line of `Name:   123 kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse::<u64>().ok().map(|it| it * KIB)
}

/// What the tightest memory.max above a process (cgroup v2) leaves, page cache not counted: that can be given up.
fn cgroup_left(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let leaf = Path::new("/sys/fs/cgroup").join(path);
    leaf.ancestors().take_while(|it| it.starts_with("/sys/fs/cgroup")).filter_map(left_in).min()
}

fn left_in(group: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let (most, now) = (number("memory.max")?, number("memory.current")?);
    let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let cache =
        statistics.lines().find_map(|line| line.strip_prefix("file ")).and_then(|it| it.parse().ok()).unwrap_or(0);
    Some(most.saturating_sub(now.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_in_bytes() {
        assert_eq!(field("Name:\tx\nRssAnon:\t     132 kB\n", "RssAnon:"), Some(132 << 10));
        assert_eq!(field("RssAnon: much\n", "RssAnon:"), None);
    }

    #[test]
    fn this_process_fits() {
        assert!(private_bytes(std::process::id()) > 0 && available().is_some());
        assert!(check(&BTreeSet::from([std::process::id()])).is_ok());
    }
}
