//! System calls of guardian and agent that nix has not, or not for every signal number.
//!
//! # Safety
//! Unsafe because fork, pidfds, wait statuses of real-time signals, shared anonymous memory and prctl have no safe
//! wrapper that fits. Nothing unsafe gets out: every function here is safe to call, [`fork`] in a process of one thread.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// `_IOWR(0xFF, 11, struct pidfd_info)` with the struct of 64 bytes that the call began with (6.13).
const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;
/// Ask for the exit status (6.15); it is there once the process has been reaped.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// What a fork returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    #[allow(missing_docs)]
    Child,
    /// Its pid.
    Parent(u32),
}

/// fork(2).
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn fork() -> io::Result<Forked> {
    // SAFETY: callers have one thread (the guardian), so the child may do all that its parent might.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as u32)),
    }
}

/// FD_CLOEXEC.
pub fn close_on_exec(number: i32) {
    // SAFETY: takes numbers.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
}

/// _exit(2): no destructor, no buffer of the parent's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: takes a number, does not return.
    unsafe { libc::_exit(code) }
}

/// A change of one child's state, from waitpid(2) without waiting; `None` when there is none, or no child at all.
#[must_use]
pub fn reap() -> Option<(u32, i32)> {
    let mut status = 0;
    let flags = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED | libc::__WALL;
    // SAFETY: `status` is a live c_int for the call's time.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, flags) };
    (pid > 0).then_some((pid as u32, status))
}

/// kill(2) with any number; a process that is gone is no error.
pub fn kill(pid: u32, signal: i32) {
    if pid > 1 {
        // SAFETY: takes two numbers; `pid` is a process, never a group (it is greater than 1).
        unsafe { libc::kill(pid as libc::pid_t, signal) };
    }
}

/// pidfd_open(2), close-on-exec.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes two numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The wait status of a process that has been reaped, child or not; `None` where the kernel is older than 6.15, or
/// before it was reaped.
#[must_use]
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    // struct pidfd_info: mask, cgroup id, eleven ids, exit code.
    let mut info = [0_u32; 16];
    info[0] = PIDFD_INFO_EXIT as u32;
    // SAFETY: the request's size field says 64 bytes, which `info` has; it is aligned for u64 or copied by the kernel.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, info.as_mut_ptr()) };
    (done == 0 && u64::from(info[0]) & PIDFD_INFO_EXIT != 0).then_some(info[15] as i32)
}

/// Makes this process the parent of orphans below it.
///
/// # Errors
/// None known of kernels since 3.4.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: takes numbers.
    done(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) })
}

/// What the caller had set, for the program that it wants to run.
pub struct Inherited {
    mask: libc::sigset_t,
    /// SIGCHLD was ignored: then the kernel reaps children itself, and nobody hears of their end.
    children_ignored: bool,
}

/// Blocks every signal but those that a fault of our own raises, and hears of children; how it was before.
#[must_use]
pub fn block_signals() -> Inherited {
    // SAFETY: sigset_t is a plain array of words, for which zero is a value; the calls get live pointers to two of them.
    // SIG_DFL installs no code.
    unsafe {
        let children_ignored = libc::signal(libc::SIGCHLD, libc::SIG_DFL) == libc::SIG_IGN;
        let (mut all, mut old): (libc::sigset_t, libc::sigset_t) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        for fault in
            [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS]
        {
            libc::sigdelset(&raw mut all, fault);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        Inherited { mask: old, children_ignored }
    }
}

/// Undoes [`block_signals`].
pub fn hand_on(inherited: &Inherited) {
    // SAFETY: a live pointer to a mask that sigprocmask has filled; SIG_IGN installs no code.
    unsafe {
        if inherited.children_ignored {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        }
        libc::sigprocmask(libc::SIG_SETMASK, &raw const inherited.mask, ptr::null_mut());
    }
}

/// A descriptor from which all signals but SIGKILL and SIGSTOP are read. They have to be blocked.
///
/// # Errors
/// No descriptor left.
pub fn signal_descriptor() -> io::Result<OwnedFd> {
    // SAFETY: as in `block_signals`; the descriptor is new and nobody else's.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        let fd = libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// A signal that was sent to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    #[allow(missing_docs)]
    pub signal: i32,
    /// SI_USER, SI_TKILL or SI_QUEUE: a process sent it, not the terminal or the kernel.
    pub from_process: bool,
    /// Pid of the sender.
    pub sender: u32,
}

/// The next signal that waits in a [`signal_descriptor`].
#[must_use]
pub fn next_signal(descriptor: BorrowedFd<'_>) -> Option<Received> {
    // SAFETY: signalfd_siginfo is plain words, for which zero is a value.
    let mut info: libc::signalfd_siginfo = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: `info` is live, writable and `size` bytes long.
    let got = unsafe { libc::read(descriptor.as_raw_fd(), (&raw mut info).cast(), size) };
    (got == size as isize).then_some(Received {
        signal: info.ssi_signo as i32,
        from_process: info.ssi_code <= 0,
        sender: info.ssi_pid,
    })
}

/// SIGPIPE as a program expects it: Rust's runtime ignores it, and that would be inherited.
pub fn default_sigpipe() {
    // SAFETY: SIG_DFL installs no code.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Stops this process as a shell's job is stopped, until it is continued.
pub fn stop_self() {
    // SAFETY: takes a number; SIGSTOP runs no code of ours.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Zeroed memory that this process and its later children share; it lives as long as they.
///
/// # Errors
/// No memory left.
pub fn share<T: ZeroIsValid>() -> io::Result<&'static T> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at a place of the kernel's choice.
    let memory = unsafe { libc::mmap(ptr::null_mut(), size_of::<T>(), protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: page-aligned, big enough, never unmapped, all zero, which `T` promises to be a value of it.
    Ok(unsafe { &*memory.cast::<T>() })
}

/// Types of atomics only: zero is a value, and several processes may change it.
///
/// # Safety
/// Every field is an atomic number or a type that is one of these.
pub unsafe trait ZeroIsValid: Sync + 'static {}

// SAFETY: `Board` and all that is in it are atomic numbers.
unsafe impl ZeroIsValid for super::board::Board {}

fn done(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    #[test]
    fn the_status_of_a_reaped_process() {
        let mut child = Command::new("sh").args(["-c", "kill -9 $$"]).spawn().unwrap();
        let pidfd = pidfd_open(child.id()).unwrap();
        poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        let status = child.wait().unwrap();
        if let Some(seen) = exit_status(pidfd.as_fd()) {
            assert_eq!(seen, status.into_raw());
        }
    }
}
