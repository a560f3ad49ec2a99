//! The fence: forks with a chosen pid, shared memory, the jump into the restorer, as safe functions where that is possible.
#![allow(unsafe_code)] // nix has no clone3, no raw prctl, no mapping at a given address that outlives its value

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use node_agent_image::model::Pid;

/// errno of a call that returned a negative number.
pub fn check(result: libc::c_long) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// How a process comes to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kinship {
    /// A child of the caller.
    Child,
    /// A child of the caller's parent (CLONE_PARENT).
    Sibling,
}

/// clone3(2) without shared memory; `pid`: the number in the innermost pid namespace. None in the new process.
///
/// The caller has one thread, so the new process may go on as usual.
pub fn fork(kinship: Kinship, pid: Option<Pid>) -> io::Result<Option<Pid>> {
    #[repr(C)]
    #[derive(Default)]
    struct Arguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
    }
    let wish = pid.unwrap_or_default();
    let mut arguments = Arguments::default();
    match kinship {
        Kinship::Child => arguments.exit_signal = libc::SIGCHLD as u64,
        Kinship::Sibling => arguments.flags = libc::CLONE_PARENT as u64,
    }
    if pid.is_some() {
        arguments.set_tid = &raw const wish as u64;
        arguments.set_tid_size = 1;
    }
    // SAFETY: no memory is shared and no stack given: like fork(2) in a process of one thread. The arguments and the
    // wish outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<Arguments>()) };
    let child = check(result)? as Pid;
    Ok((child != 0).then_some(child))
}

/// Ends the process at once, without libc's tidying (its buffers belong to the process that it was forked from).
pub fn exit(code: i32) -> ! {
    // SAFETY: takes no pointers, does not return.
    unsafe { libc::_exit(code) }
}

/// prctl(2) with numbers only.
pub fn prctl(number: i32, value: u64) -> io::Result<i64> {
    // SAFETY: used with the calls that take numbers only.
    check(unsafe { libc::prctl(number, value, 0u64, 0u64, 0u64) }.into())
}

/// Blocks every signal, 32 and 33 too, which libc would leave out.
pub fn block_signals() {
    let all = u64::MAX;
    // SAFETY: the set outlives the call.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const all, 0, size_of::<u64>()) };
}

/// Unblocks every signal.
pub fn unblock_signals() {
    let none = 0u64;
    // SAFETY: the set outlives the call.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0, size_of::<u64>()) };
}

/// close_range(2).
pub fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: takes no pointers; who owns these numbers is the caller's care.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// A duplicate at `least` or above, close-on-exec.
pub fn dup_above(number: RawFd, least: RawFd) -> io::Result<RawFd> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, least) }.into()).map(|it| it as RawFd)
}

/// mmap(2) where the kernel likes.
pub fn map(length: usize, protection: i32, flags: i32, descriptor: RawFd) -> io::Result<u64> {
    // SAFETY: a new mapping that replaces none.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, flags, descriptor, 0) };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at as u64) }
}

/// Undoes [`map`]; no Rust value may live there.
pub fn unmap(address: u64, length: usize) -> io::Result<()> {
    // SAFETY: the callers pass what `map` gave them and have handed to no one in this process.
    check(unsafe { libc::munmap(address as *mut _, length) }.into()).map(drop)
}

/// madvise(MADV_DONTFORK): children will not have this mapping.
pub fn keep_from_children(address: u64, length: usize) -> io::Result<()> {
    // SAFETY: the callers pass what `map` or `shm_attach` gave them; nothing changes for this process.
    check(unsafe { libc::madvise(address as *mut _, length, libc::MADV_DONTFORK) }.into()).map(drop)
}

/// Anonymous memory at exactly `address`, readable and writable, holding `bytes` from its head on.
pub fn map_at(address: u64, length: usize, bytes: &[u8]) -> io::Result<()> {
    assert!(bytes.len() <= length);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: NOREPLACE: no mapping of ours is touched.
    let at = unsafe { libc::mmap(address as *mut _, length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the area was mapped just now, is `length` bytes long, and nobody else knows it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.cast(), bytes.len()) };
    Ok(())
}

/// mprotect(2) of memory that no Rust value lives in.
pub fn protect(address: u64, length: usize, protection: i32) -> io::Result<()> {
    // SAFETY: the callers pass the restorer's own area.
    check(unsafe { libc::mprotect(address as *mut _, length, protection) }.into()).map(drop)
}

/// Moves a shared mapping to `to`, which must be free.
pub fn move_mapping(from: u64, length: usize, to: u64) -> io::Result<()> {
    // SAFETY: the callers pass a page-aligned part of the board that this process uses no more at its old place, and a
    // hole that they have found free.
    let at = unsafe {
        libc::mremap(from as *mut _, length, length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to as *mut libc::c_void)
    };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits on a word that other processes share, at most `limit`.
pub fn futex_wait(word: &AtomicU32, value: u32, limit: Duration) {
    let time = libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    // SAFETY: word and time outlive the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const time, 0, 0) };
}

/// Wakes all who wait on a word.
pub fn futex_wake(word: &AtomicU32) {
    // SAFETY: the word outlives the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX, 0, 0, 0) };
}

/// The rseq area that libc registered for this thread: address, length, signature; zeros where it has none.
pub fn own_rseq() -> [u64; 3] {
    const SIGNATURE: u64 = 0x5305_3053;
    const LENGTH: u64 = 32;
    // SAFETY: dlsym with constant strings; the symbols, where they exist, are libc's constants of these types. FS:0
    // holds the thread pointer itself in this ABI.
    unsafe {
        let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr()).cast::<isize>();
        let size = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()).cast::<u32>();
        if offset.is_null() || size.is_null() || *size == 0 {
            return [0; 3];
        }
        let thread: u64;
        std::arch::asm!("mov {}, fs:0", out(reg) thread, options(nostack, readonly));
        [thread.wrapping_add_signed(*offset as i64), LENGTH, SIGNATURE]
    }
}

/// Leaves this program for good.
///
/// # Safety
/// `entry` is the restorer's entry, `orders` complete orders, `stack` the end of a stack; all in the restorer's region.
pub unsafe fn jump(entry: u64, orders: u64, stack: u64) -> ! {
    // Registers by name: the compiler may take rbp for one that it may choose, and rbp is cleared before the jump.
    // SAFETY: the caller vouches for the three; the entry never returns. The return address keeps the stack as after a call.
    unsafe {
        std::arch::asm!("mov rsp, rsi", "xor ebp, ebp", "push rbp", "jmp rax", in("rsi") stack,
            in("rax") entry, in("rdi") orders, options(noreturn))
    }
}

/// memfd_create(2), close-on-exec.
pub fn memfd(name: &str, hugetlb: bool) -> io::Result<OwnedFd> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let kind = if hugetlb { libc::MFD_HUGETLB } else { 0 };
    // SAFETY: the name outlives the call.
    let number =
        check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | kind) }.into())?;
    // SAFETY: the kernel has just made it; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number as RawFd) })
}

/// fcntl(F_ADD_SEALS).
pub fn add_seals(number: RawFd, seals: u32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(number, libc::F_ADD_SEALS, seals) }.into()).map(drop)
}

/// tcsetpgrp(3).
pub fn set_foreground(number: RawFd, group: Pid) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::tcsetpgrp(number, group as i32) }.into()).map(drop)
}

/// shmget(2) with the id that was.
pub fn shm_create(key: i32, size: u64, mode: u32) -> io::Result<i32> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::shmget(key, size as usize, libc::IPC_CREAT | libc::IPC_EXCL | mode as i32) }.into())
        .map(|it| it as i32)
}

/// shmat(2) anywhere; stays attached.
pub fn shm_attach(id: i32) -> io::Result<u64> {
    // SAFETY: a new mapping that replaces none.
    let at = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    if at as isize == -1 { Err(io::Error::last_os_error()) } else { Ok(at as u64) }
}

/// shmctl(IPC_RMID).
pub fn shm_remove(id: i32) -> io::Result<()> {
    // SAFETY: IPC_RMID takes no pointer.
    check(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) }.into()).map(drop)
}

/// waitid(2) for the end of a child that stays a zombie.
pub fn wait_until_ended(pid: Pid) -> io::Result<()> {
    let mut information = std::mem::MaybeUninit::<libc::siginfo_t>::uninit();
    // SAFETY: the buffer is of the right type and outlives the call.
    check(unsafe { libc::waitid(libc::P_PID, pid, information.as_mut_ptr(), libc::WEXITED | libc::WNOWAIT) }.into())
        .map(drop)
}

/// wait4(2): pid and wait status; pid −1 = any child.
pub fn wait(pid: i32) -> io::Result<(Pid, i32)> {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    let got = check(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }.into())?;
    Ok((got as Pid, status))
}

/// Ends with a wait status that parents will read: by the same signal, or with the same code.
pub fn end_as(status: i32) -> ! {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        // SAFETY: default action and limits of a process that is about to end; the limit outlives its call.
        unsafe {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::signal(signal, libc::SIG_DFL);
            unblock_signals();
            libc::syscall(libc::SYS_kill, libc::getpid(), signal);
        }
    }
    exit(libc::WEXITSTATUS(status))
}
