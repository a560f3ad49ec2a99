//! One thread, as /proc/PID/task/TID tells of it.

use std::fs;

use hijack_abi::SyscallHint;

/// /proc/PID/task/TID/status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskStatus {
    /// comm.
    pub name: String,
    /// R, S, D, T (stopped by job control), t (by a debugger), Z, X, I.
    pub state: char,
    /// Its process in the innermost pid namespace.
    pub pid: u32,
    /// Itself in the innermost pid namespace.
    pub tid: u32,
    /// Pid namespaces from that of this /proc to its own.
    pub depth: usize,
    /// Signals that wait for this thread: bit N - 1 is signal N.
    pub pending: u64,
    /// Signals that wait for the process.
    pub pending_process: u64,
    #[allow(missing_docs)]
    pub blocked: u64,
    #[allow(missing_docs)]
    pub ignored: u64,
    #[allow(missing_docs)]
    pub caught: u64,
}

impl TaskStatus {
    /// `None` when there is no such thread.
    #[must_use]
    pub fn read(pid: u32, tid: u32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/task/{tid}/status")).ok()?;
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// `None` when something is missing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut status = Self::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            let last = || value.split_whitespace().next_back().and_then(|it| it.parse().ok());
            let set = || u64::from_str_radix(value, 16).ok();
            match key {
                "Name" => status.name = value.to_owned(),
                "State" => status.state = value.chars().next()?,
                "NStgid" => status.pid = last()?,
                "NSpid" => (status.tid, status.depth) = (last()?, value.split_whitespace().count()),
                "SigPnd" => status.pending = set()?,
                "ShdPnd" => status.pending_process = set()?,
                "SigBlk" => status.blocked = set()?,
                "SigIgn" => status.ignored = set()?,
                "SigCgt" => status.caught = set()?,
                _ => {}
            }
        }
        (status.tid != 0 && status.state != '\0').then_some(status)
    }

    /// Ended: a zombie, perhaps the leader of threads that live.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn catches(&self, signal: i32) -> bool {
        self.caught & bit(signal) != 0
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn blocks(&self, signal: i32) -> bool {
        self.blocked & bit(signal) != 0
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn ignores(&self, signal: i32) -> bool {
        self.ignored & bit(signal) != 0
    }

    /// A signal waits for this thread alone.
    #[must_use]
    pub fn awaits(&self, signal: i32) -> bool {
        self.pending & bit(signal) != 0
    }
}

/// The system call in which a thread is blocked; `valid` is 0 when it runs, or nothing is known.
#[must_use]
pub fn call_of(pid: u32, tid: u32) -> SyscallHint {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).unwrap_or_default();
    parse_call(&text).unwrap_or_default()
}

/// "NR 0xA0 … 0xA5 0xSP 0xPC", "-1 0xSP 0xPC" or "running".
fn parse_call(text: &str) -> Option<SyscallHint> {
    let mut words = text.split_whitespace();
    let number = words.next()?.parse().ok()?;
    let mut word = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = word()?;
    }
    Some(SyscallHint { valid: 1, number, arguments, sp: word()?, pc: word()? })
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_calls() {
        let text = "35 0x7ffd 0x0 0x1 0x2 0x3 0x4 0x7ffd10 0x7f88\n";
        let arguments = [0x7ffd, 0, 1, 2, 3, 4];
        let expected = SyscallHint { valid: 1, number: 35, arguments, sp: 0x7ffd10, pc: 0x7f88 };
        assert_eq!(parse_call(text), Some(expected));
        for text in ["running", "-1 0x7ffd 0x7f88", "", "35 0x1", "35 1 2 3 4 5 6 7 8"] {
            assert_eq!(parse_call(text), None, "{text}");
        }
    }

    #[test]
    fn a_status_with_namespaces() {
        let text = "Name:\ta b\nState:\tt (tracing stop)\nNStgid:\t70\t3\nNSpid:\t71\t4\nSigPnd:\t0000000100000000\n\
                    ShdPnd:\t0000000000000200\nSigBlk:\t0000000100000000\nSigIgn:\t0000000000000001\nSigCgt:\t0000000100000000\n";
        let status = TaskStatus::parse(text).unwrap();
        assert_eq!((status.name.as_str(), status.state, status.pid, status.tid, status.depth), ("a b", 't', 3, 4, 2));
        assert!(status.awaits(33) && status.blocks(33) && status.catches(33) && !status.ignores(33));
        assert_eq!(status.pending_process, 1 << 9);
        assert_eq!(TaskStatus::parse("Name:\tx\n"), None);
    }

    #[test]
    fn this_thread() {
        let tid = nix::unistd::gettid().as_raw() as u32;
        let status = TaskStatus::read(std::process::id(), tid).unwrap();
        assert_eq!((status.tid, status.pid, status.state), (tid, std::process::id(), 'R'));
        assert!(!status.has_ended());
    }
}
