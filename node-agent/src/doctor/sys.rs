//! System calls that nix has not.
//!
//! # Safety
//! Unsafe because they are raw system calls. Every function here is safe to call in a process of one thread.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::sched::CloneFlags;

/// Not in nix.
pub const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
/// `_IOWR('f', 16, struct pm_scan_arg)`, 96 bytes.
const PAGEMAP_SCAN: libc::c_ulong = 0xC060_6610;
/// PAGE_IS_PRESENT.
const PRESENT: u64 = 1 << 3;
const KCMP_FILE: libc::c_int = 0;

/// waitpid(2) for one child.
pub fn wait(pid: u32) {
    // SAFETY: no status is asked for.
    unsafe { libc::waitpid(pid as i32, ptr::null_mut(), 0) };
}

/// pause(2) for ever.
pub fn sleep_until_killed() {
    loop {
        // SAFETY: takes nothing. The parent's death ends this one: see prctl(2).
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            libc::pause();
        }
    }
}

/// Makes a child with a chosen pid, waits for its end.
///
/// # Errors
/// EPERM, EEXIST, or EINVAL of kernels before 5.5.
pub fn process_with_pid(pid: u32) -> io::Result<()> {
    let wanted = [pid as libc::pid_t];
    // SAFETY: clone_args is plain words, for which zero is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = wanted.as_ptr() as u64;
    arguments.set_tid_size = 1;
    // SAFETY: as fork: no CLONE_VM, no stack; `arguments` and `wanted` are live.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the child of a fork, at once gone.
        0 => unsafe { libc::_exit(0) },
        _ => {
            wait(pid);
            Ok(())
        }
    }
}

/// process_vm_readv of one word that lies at the same address here.
///
/// # Errors
/// EPERM.
pub fn read_word(pid: u32, at: &u64) -> io::Result<u64> {
    let mut word = 0_u64;
    let local = libc::iovec { iov_base: (&raw mut word).cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: ptr::from_ref(at).cast_mut().cast(), iov_len: 8 };
    // SAFETY: `word` is live and eight bytes long; the other address is only read, in the other process.
    let got = unsafe { libc::process_vm_readv(pid as i32, &raw const local, 1, &raw const remote, 1, 0) };
    if got == 8 { Ok(word) } else { Err(io::Error::last_os_error()) }
}

/// pidfd_getfd(2).
///
/// # Errors
/// EPERM; ENOSYS before 5.6.
pub fn descriptor_of(pidfd: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    // SAFETY: the descriptor is new, nobody else owns it.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) }) }
}

/// kcmp(2) of a descriptor of ours and the same of a child.
///
/// # Errors
/// EPERM, ENOSYS.
pub fn same_file(pid: u32, number: i32) -> io::Result<()> {
    // SAFETY: takes numbers.
    let same = unsafe { libc::syscall(libc::SYS_kcmp, std::process::id(), pid, KCMP_FILE, number, number) };
    if same < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// PAGEMAP_SCAN of the lower half, for one region.
///
/// # Errors
/// ENOTTY before 6.7.
pub fn scan_pages(pid: u32) -> io::Result<()> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut region = [0_u64; 3];
    // size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted, mask, any-of mask, returned.
    let (size, end) = (96, 1 << 46);
    let mut arguments = [size, 0, 0, end, 0, region.as_mut_ptr() as u64, 1, 0, 0, PRESENT, 0, PRESENT];
    // SAFETY: `arguments` is as long as the request says, `region` has room for the one region that it allows.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, arguments.as_mut_ptr()) };
    if found < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
