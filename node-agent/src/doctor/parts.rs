//! What an agent does to a process from outside, done to a child that sleeps.

use std::fs::{self, File};
use std::io;

use super::{Finding, Need, sys, trouble};
use crate::guardian::sys::{Forked, exit_now, fork, kill, pidfd_open};

/// A word in this program's memory that a child has, too, at the same address.
static WORD: u64 = 0x736c_6b77_6174_6572;

const YAMA: &str = "kernel.yama.ptrace_scope of 2 or 3, a hardened kernel or a container's seccomp profile forbids it";

/// Tries each on a child; the child is ended.
pub fn examine() -> Vec<Finding> {
    let child = match fork() {
        Ok(Forked::Child) => {
            sys::sleep_until_killed();
            exit_now(0)
        }
        Ok(Forked::Parent(pid)) => pid,
        Err(error) => {
            let trouble = Some(format!("{error}; RLIMIT_NPROC or the cgroup's pids.max is reached"));
            return vec![Finding { what: "fork", need: Need::Checkpoint, trouble }];
        }
    };
    let finding = |what, need, trouble| Finding { what, need, trouble };
    let findings = vec![
        finding(
            "reading another process's memory (process_vm_readv)",
            Need::Checkpoint,
            trouble(sys::read_word(child, &WORD).and_then(same_word), YAMA),
        ),
        finding(
            "writing it (/proc/PID/mem)",
            Need::Restart,
            trouble(File::options().read(true).write(true).open(format!("/proc/{child}/mem")), YAMA),
        ),
        finding(
            "another process's descriptors (pidfd_getfd, 5.6)",
            Need::Checkpoint,
            trouble(pidfd_open(child).and_then(|pidfd| sys::descriptor_of(&pidfd, 2)), YAMA),
        ),
        finding(
            "whether two files are one (kcmp)",
            Need::Checkpoint,
            trouble(sys::same_file(child, 2), "a kernel without CONFIG_KCMP, or a seccomp profile"),
        ),
        finding(
            "which pages are there (PAGEMAP_SCAN, 6.7)",
            Need::Speed,
            trouble(sys::scan_pages(child), "an older kernel: /proc/PID/pagemap is read instead"),
        ),
        finding(
            "which system call a thread waits in (/proc/PID/syscall)",
            Need::Checkpoint,
            trouble(fs::read(format!("/proc/{child}/syscall")), YAMA),
        ),
    ];
    kill(child, libc::SIGKILL);
    sys::wait(child);
    findings
}

fn same_word(word: u64) -> io::Result<()> {
    if word == WORD { Ok(()) } else { Err(io::Error::other("it read something else")) }
}
