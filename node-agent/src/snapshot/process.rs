//! One process.

use std::os::unix::ffi::OsStrExt;

use hijack_abi::{ProcessFacts, ThreadState};
use node_agent_image::model::{FileIdentity, MemoryLayout, Pid, PosixTimer, Process, Terminal};
use node_agent_proc::{limits, timers};

use super::memory::{MappedObjects, identify, vmas};
use super::{SnapshotError, read, read_text, threads};

/// A parked process as the control segment tells it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Pid in the agent's namespace.
    pub host_pid: u32,
    /// Pid in the job's.
    pub pid: Pid,
    /// Job control had stopped it.
    pub stopped: bool,
    /// From one of its threads.
    pub facts: ProcessFacts,
    /// siginfo_t of signals that wait for the process.
    pub pending: Vec<[u64; 16]>,
    /// The leader first, where it lives.
    pub threads: Vec<SourceThread>,
}

/// A parked thread.
#[derive(Clone, Debug)]
pub struct SourceThread {
    /// Tid in the agent's namespace.
    pub host_tid: u32,
    #[allow(missing_docs)]
    pub state: ThreadState,
    /// siginfo_t of signals that wait for it.
    pub pending: Vec<[u64; 16]>,
}

/// Fields of /proc/PID/stat behind the name, from the state (field 3) on.
struct Stat(Vec<i64>);

impl Stat {
    fn read(host: u32, pid: u32) -> Result<Self, SnapshotError> {
        let text = read_text(host, pid, "stat")?;
        let rest = text.rsplit_once(')').map(|it| it.1).unwrap_or_default();
        let numbers = rest
            .split_whitespace()
            .map(|it| it.parse::<i64>().unwrap_or_else(|_| it.parse::<u64>().unwrap_or(0) as i64));
        let stat = Self(numbers.collect());
        if stat.0.len() < 50 { Err(SnapshotError::Text { pid, what: "stat" }) } else { Ok(stat) }
    }

    /// By its number in proc_pid_stat(5).
    fn field(&self, number: usize) -> i64 {
        self.0[number - 3]
    }
}

/// Everything of a process but its descriptors and its pages.
///
/// # Errors
/// Names the file of /proc that cannot be read, or what cannot be kept.
pub fn process(source: &Source, objects: &mut dyn MappedObjects) -> Result<Process, SnapshotError> {
    let (host, pid) = (source.host_pid, source.pid);
    let status = read_text(host, pid, "status")?;
    let stat = Stat::read(host, pid)?;
    let facts = &source.facts;
    if facts.timers_len > 16 {
        return Err(SnapshotError::Refused { pid, reason: "it has more than 16 POSIX timers".into() });
    }
    let parent = ids(host, pid, &stat, &status);
    Ok(Process {
        pid,
        ppid: parent.0,
        pgid: parent.1,
        sid: parent.2,
        zombie: None,
        stopped: source.stopped,
        comm: read_text(host, pid, "comm")?.trim_end_matches('\n').into(),
        exe: exe(host, pid)?,
        cwd: link(host, pid, "cwd")?,
        umask: line(&status, "Umask:").and_then(|it| u32::from_str_radix(it, 8).ok()).unwrap_or(0o22),
        rlimits: limits::parse(&read_text(host, pid, "limits")?),
        oom_score_adj: read_text(host, pid, "oom_score_adj")?.trim().parse().unwrap_or(0),
        terminal: terminal(host, &stat),
        memory: layout(source, &stat, objects)?,
        descriptors: Vec::new(),
        actions: facts.actions.to_vec(),
        itimers: facts.itimers.map(wound_up),
        timers: posix_timers(source)?,
        pending: source.pending.clone(),
        child_subreaper: facts.child_subreaper != 0,
        dumpable: facts.dumpable,
        keepcaps: facts.keepcaps != 0,
        thp_disable: facts.thp_disable != 0,
        no_new_privs: facts.no_new_privs != 0,
        membarrier: facts.membarrier,
        xcomp_permitted: facts.xcomp_permitted,
        threads: source.threads.iter().map(|it| threads::thread(source, it)).collect::<Result<_, _>>()?,
    })
}

/// A process that has ended and that its parent has not asked for yet.
///
/// # Errors
/// When /proc does not show it any more.
pub fn zombie(host_pid: u32, pid: Pid) -> Result<Process, SnapshotError> {
    let stat = Stat::read(host_pid, pid)?;
    let status = read_text(host_pid, pid, "status")?;
    let (ppid, pgid, sid) = ids(host_pid, pid, &stat, &status);
    let comm = line(&status, "Name:").unwrap_or_default().into();
    Ok(Process { pid, ppid, pgid, sid, zombie: Some(stat.field(52) as i32), comm, ..Process::default() })
}

/// Parent, group and session in the job's own numbers.
fn ids(host: u32, _pid: Pid, stat: &Stat, status: &str) -> (Pid, Pid, Pid) {
    let inner = |key: &str| line(status, key).and_then(|it| it.split_whitespace().last()?.parse().ok());
    let parent = translate(stat.field(4) as u32, host);
    let group = inner("NSpgid:").unwrap_or(stat.field(5) as Pid);
    let session = inner("NSsid:").unwrap_or(stat.field(6) as Pid);
    (parent, group, session)
}

/// A pid of this /proc as the process `as_seen_by` sees it: their common pid namespace is the innermost one.
fn translate(host: u32, as_seen_by: u32) -> Pid {
    let depth = |pid: u32| -> Vec<Pid> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = line(&text, "NSpid:").map(|it| it.split_whitespace().filter_map(|it| it.parse().ok()).collect());
        numbers.unwrap_or_default()
    };
    let (of, seen_by) = (depth(host), depth(as_seen_by));
    if seen_by.is_empty() { 0 } else { of.get(seen_by.len() - 1).copied().unwrap_or(0) }
}

fn line<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

fn link(host: u32, pid: Pid, name: &str) -> Result<String, SnapshotError> {
    let target = std::fs::read_link(format!("/proc/{host}/{name}"));
    let target = target.map_err(|source| SnapshotError::Read { pid, what: name.into(), source })?;
    match std::str::from_utf8(target.as_os_str().as_bytes()) {
        Ok(text) if !text.ends_with(" (deleted)") => Ok(text.into()),
        _ => Err(SnapshotError::Refused { pid, reason: format!("its {name} {} is gone", target.display()) }),
    }
}

fn exe(host: u32, pid: Pid) -> Result<FileIdentity, SnapshotError> {
    let path = link(host, pid, "exe")?;
    let seen = format!("/proc/{host}/root{path}");
    let identity = identify(&seen).map_err(|source| SnapshotError::Read { pid, what: "exe".into(), source })?;
    Ok(FileIdentity { path, ..identity })
}

fn terminal(host: u32, stat: &Stat) -> Option<Terminal> {
    let device = stat.field(7) as u64;
    let foreground = stat.field(8);
    (device != 0).then(|| Terminal {
        device: libc::makedev((device >> 8 & 0xfff) as u32, (device & 0xff | device >> 12 & 0xfff00) as u32),
        foreground: if foreground > 0 { translate(foreground as u32, host) } else { 0 },
    })
}

fn layout(source: &Source, stat: &Stat, objects: &mut dyn MappedObjects) -> Result<MemoryLayout, SnapshotError> {
    // start_code, end_code, start_data, end_data, start_brk, (brk), start_stack, arg_start … env_end.
    let field = |number| stat.field(number) as u64;
    let mm = [
        field(26),
        field(27),
        field(45),
        field(46),
        field(47),
        source.facts.brk,
        field(28),
        field(48),
        field(49),
        field(50),
        field(51),
    ];
    let auxv = read(source.host_pid, source.pid, "auxv")?;
    let words = auxv.chunks_exact(8).map(|it| it.try_into().map(u64::from_ne_bytes).unwrap_or_default());
    Ok(MemoryLayout {
        mm,
        auxv: words.collect(),
        segment_address: source.facts.segment_address,
        vmas: vmas(source, objects)?,
    })
}

/// An interval timer that fires again and again stands still while its last signal waits to be taken, and says that
/// nothing is left; the kernel winds it up when the signal is taken. One that is put back as it says it is never would be.
/// Switched off, a timer has no interval either (setitimer(2) of Linux).
fn wound_up([interval_s, interval_us, value_s, value_us]: [u64; 4]) -> [u64; 4] {
    match (value_s, value_us) {
        (0, 0) => [interval_s, interval_us, interval_s, interval_us],
        _ => [interval_s, interval_us, value_s, value_us],
    }
}

fn posix_timers(source: &Source) -> Result<Vec<PosixTimer>, SnapshotError> {
    let listed = timers::parse(&read_text(source.host_pid, source.pid, "timers").unwrap_or_default());
    let told = &source.facts.timers[..source.facts.timers_len as usize];
    let setting = |id: i32| told.iter().find(|it| it[0] as i32 == id).map(|it| [it[1], it[2], it[3], it[4]]);
    let timer = |it: &timers::Timer| {
        let own = source.threads.iter().find(|thread| thread.host_tid == it.tid).map_or(0, |it| it.state.tid);
        PosixTimer {
            id: it.id,
            clock: it.clock,
            notify: it.notify,
            signal: it.signal,
            value: it.value,
            tid: own,
            setting: setting(it.id).unwrap_or_default(),
        }
    };
    Ok(listed.iter().map(timer).collect())
}

#[cfg(test)]
mod tests {
    use super::wound_up;

    #[test]
    fn a_timer_whose_signal_waits_goes_on_after_a_restart() {
        assert_eq!(wound_up([0, 1000, 0, 0]), [0, 1000, 0, 1000]);
        assert_eq!(wound_up([1, 2, 0, 1]), [1, 2, 0, 1]);
        assert_eq!(wound_up([0; 4]), [0; 4]);
    }
}
