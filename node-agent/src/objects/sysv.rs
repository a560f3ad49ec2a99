//! What the kernel says of System V segments, in the job's own ipc namespace.
//!
//! Neither maps nor anything else of /proc/PID tells whether a segment is marked for removal. /proc/sysvipc/shm does,
//! for the namespace of whoever opens it. The namespaces of a restarted job belong to its user, who therefore may enter
//! them from outside: a child does it and reads for us.
#![allow(unsafe_code)] // forks a child that only makes system calls

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;

const TABLE: &CStr = c"/proc/sysvipc/shm";
/// SHM_DEST among the permission bits.
const REMOVED: u32 = 0o1000;

/// A segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub id: i32,
    /// Permission bits.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
    /// Marked for removal.
    pub removed: bool,
}

/// Tables that have been read, by namespace.
#[derive(Debug, Default)]
pub struct Segments(HashMap<PathBuf, Vec<Segment>>);

impl Segments {
    /// A segment that a process has attached; None where the table cannot be had.
    pub fn segment(&mut self, host_pid: u32, id: i32) -> Option<Segment> {
        let namespace = fs::read_link(format!("/proc/{host_pid}/ns/ipc")).ok()?;
        let table = self.0.entry(namespace).or_insert_with_key(|namespace| {
            let own = fs::read_link("/proc/self/ns/ipc").is_ok_and(|it| it == *namespace);
            let text = if own { fs::read_to_string("/proc/sysvipc/shm") } else { read_inside(host_pid) };
            parse(&text.unwrap_or_default())
        });
        table.iter().find(|it| it.id == id).copied()
    }
}

/// key, shmid, perms (octal), size, …; the first line is a heading.
fn parse(text: &str) -> Vec<Segment> {
    let segment = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let id = fields.next()?.parse().ok()?;
        let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
        let size = fields.next()?.parse().ok()?;
        Some(Segment { id, mode: mode & 0o777, size, removed: mode & REMOVED != 0 })
    };
    text.lines().filter_map(segment).collect()
}

/// The table as a process in the namespaces of `host_pid` sees it.
fn read_inside(host_pid: u32) -> io::Result<String> {
    let open = |name: &str| File::open(format!("/proc/{host_pid}/ns/{name}"));
    let own_user = fs::read_link("/proc/self/ns/user")?;
    // Entering the own one again is refused.
    let user = if fs::read_link(format!("/proc/{host_pid}/ns/user"))? == own_user { None } else { Some(open("user")?) };
    let ipc = open("ipc")?;
    let (mut output, input) = io::pipe()?;
    // SAFETY: the child makes only system calls that are safe in a copy of one thread of many, and does not return.
    let child = match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        // SAFETY: this is the child.
        0 => unsafe { copy_table(user.as_ref().map(AsRawFd::as_raw_fd), ipc.as_raw_fd(), input.as_raw_fd()) },
        child => child,
    };
    drop(input);
    let mut text = String::new();
    let read = output.read_to_string(&mut text);
    let mut status = 0;
    // SAFETY: our own child; the status outlives the call.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    read?;
    if status == 0 { Ok(text) } else { Err(io::Error::other("the job's ipc namespace cannot be entered")) }
}

/// # Safety
/// Only in the child of a fork.
unsafe fn copy_table(user: Option<RawFd>, ipc: RawFd, to: RawFd) -> ! {
    // SAFETY: descriptors are the caller's and open, the path is a C string, the buffer as long as said; nothing here
    // allocates or locks.
    unsafe {
        let mut buffer = [0u8; 4096];
        if user.is_some_and(|it| libc::setns(it, libc::CLONE_NEWUSER) != 0) || libc::setns(ipc, libc::CLONE_NEWIPC) != 0
        {
            libc::_exit(1);
        }
        let table = libc::open(TABLE.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        loop {
            let length = libc::read(table, buffer.as_mut_ptr().cast(), buffer.len());
            if length <= 0 {
                libc::_exit((length < 0).into());
            }
            // A pipe takes so little at once or not at all.
            if libc::write(to, buffer.as_ptr().cast(), length as usize) != length {
                libc::_exit(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table() {
        let text = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid\n\
                    \x20        0          0  1640                  5000  7527  7527      1     0     0     0     0\n\
                    \x20-559038737      32769   600             1048576  7527  7527      1     0     0     0     0\n";
        let [one, other] = parse(text)[..] else { panic!("two segments") };
        assert_eq!(one, Segment { id: 0, mode: 0o640, size: 5000, removed: true });
        assert_eq!(other, Segment { id: 32769, mode: 0o600, size: 1 << 20, removed: false });
    }
}
