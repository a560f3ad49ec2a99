//! System calls of parking that nix has not: a signal beyond its list, and whether two processes share their memory.
//!
//! # Safety
//! Unsafe because they are raw; both take numbers only.
#![allow(unsafe_code)]

use nix::errno::Errno;

const KCMP_VM: libc::c_long = 1;

/// tgkill(2) with any signal.
///
/// # Errors
/// ESRCH: there is no such thread. EPERM. EAGAIN: too many signals wait.
pub fn signal_thread(pid: u32, tid: u32, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes three numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) }).map(drop)
}

/// Whether two processes share all of their memory, as after vfork(2). Where the kernel does not tell: false.
#[must_use]
pub fn share_memory(one: u32, other: u32) -> bool {
    // SAFETY: takes numbers.
    unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) == 0 }
}
