//! The fence: system calls on descriptors of other processes and on descriptors by number, as safe functions.
#![allow(unsafe_code)] // nix has no pidfd_getfd, kcmp, or descriptors by number across a fork

use std::cmp::Ordering;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

const KCMP_FILE: libc::c_int = 0;
const KCMP_EPOLL_TFD: libc::c_int = 7;
const TFD_IOC_SET_TICKS: libc::c_ulong = 0x4008_5400;
const TIOCGPTPEER: libc::c_ulong = 0x5441;
const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;
const F_GETOWN_EX: libc::c_int = 16;
const F_OWNER_PGRP: libc::c_int = 2;
/// Bytes of struct termios2.
pub const TERMIOS_BYTES: usize = 44;

/// errno of a call that returned a negative number.
pub fn check(result: libc::c_long) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let number = check(result)?;
    // SAFETY: the kernel has just made this descriptor for this call; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// pidfd_open(2).
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// pidfd_getfd(2): a duplicate of another process's descriptor, close-on-exec.
pub fn pidfd_getfd(pidfd: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })
}

/// Total order of open file descriptions: Equal = the same one. The order holds until the next boot.
pub fn compare_files(one: (u32, RawFd), other: (u32, RawFd)) -> io::Result<Ordering> {
    // SAFETY: takes no pointers for KCMP_FILE.
    let order =
        check(unsafe { libc::syscall(libc::SYS_kcmp, one.0, other.0, KCMP_FILE, one.1 as i64, other.1 as i64) })?;
    match order {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        _ => Err(io::Error::other("kcmp knows no order here")),
    }
}

#[repr(C)]
struct EpollSlot {
    epoll: u32,
    target: u32,
    offset: u32,
}

/// Whether `file` (pid, number) is what epoll file `epoll` (pid, number) watches under the number `target`, as its
/// `offset`th registration of that number.
pub fn watches(file: (u32, RawFd), epoll: (u32, RawFd), target: i32, offset: u32) -> io::Result<bool> {
    let slot = EpollSlot { epoll: epoll.1 as u32, target: target as u32, offset };
    // SAFETY: the slot outlives the call.
    let order = check(unsafe {
        libc::syscall(libc::SYS_kcmp, file.0, epoll.0, KCMP_EPOLL_TFD, file.1 as i64, &raw const slot as i64)
    })?;
    Ok(order == 0)
}

/// Raises this process's own limit of descriptors as far as it may: a job has many, and each process costs one here.
pub fn allow_descriptors() -> io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(())
}

/// fcntl(2) with a number as its argument.
pub fn fcntl(fd: RawFd, command: libc::c_int, argument: i64) -> io::Result<i32> {
    // SAFETY: every command used here takes a number.
    check(unsafe { libc::fcntl(fd, command, argument) } as i64)
}

/// F_SETSIG.
pub fn set_owner_signal(fd: RawFd, signal: i32) -> io::Result<()> {
    fcntl(fd, F_SETSIG, signal.into()).map(drop)
}

/// (F_GETOWN: pid, or group as a negative number; F_GETSIG).
pub fn owner(fd: RawFd) -> io::Result<(i32, i32)> {
    let mut owner = [0i32; 2];
    // SAFETY: struct f_owner_ex is two ints and outlives the call.
    check(unsafe { libc::fcntl(fd, F_GETOWN_EX, owner.as_mut_ptr()) } as i64)?;
    let [kind, pid] = owner;
    Ok((if kind == F_OWNER_PGRP { -pid } else { pid }, fcntl(fd, F_GETSIG, 0)?))
}

/// An ioctl that writes one int: FIONREAD, SIOCOUTQ, TIOCGPTN, TIOCGPTLCK.
pub fn ioctl_int(fd: RawFd, request: libc::c_ulong) -> io::Result<i32> {
    let mut value: libc::c_int = 0;
    // SAFETY: the kernel writes one int into a variable that outlives the call.
    check(unsafe { libc::ioctl(fd, request, &raw mut value) } as i64)?;
    Ok(value)
}

/// TIOCSPTLCK with 0: opens the lock of a pty's slave.
pub fn unlock_pty(master: RawFd) -> io::Result<()> {
    let zero: libc::c_int = 0;
    // SAFETY: the kernel reads one int that outlives the call.
    check(unsafe { libc::ioctl(master, libc::TIOCSPTLCK, &raw const zero) } as i64).map(drop)
}

/// The slave of a pty master, whatever is mounted at /dev/pts. Close-on-exec is set afterwards: given as a flag it would
/// stay among the flags of the *file* (here alone the kernel forgets to take it out), and fdinfo would show it for ever.
pub fn pty_peer(master: RawFd, flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes a number.
    let slave = owned(unsafe { libc::ioctl(master, TIOCGPTPEER, flags | libc::O_NOCTTY) } as i64)?;
    fcntl(slave.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC.into())?;
    Ok(slave)
}

/// TCGETS2.
pub fn termios(fd: RawFd) -> io::Result<[u8; TERMIOS_BYTES]> {
    let mut termios = [0; TERMIOS_BYTES];
    // SAFETY: struct termios2 has 44 bytes.
    check(unsafe { libc::ioctl(fd, libc::TCGETS2, termios.as_mut_ptr()) } as i64)?;
    Ok(termios)
}

/// TCSETS2: at once, nothing is flushed.
pub fn set_termios(fd: RawFd, termios: &[u8; TERMIOS_BYTES]) -> io::Result<()> {
    // SAFETY: struct termios2 has 44 bytes.
    check(unsafe { libc::ioctl(fd, libc::TCSETS2, termios.as_ptr()) } as i64).map(drop)
}

/// TIOCGWINSZ.
pub fn window(fd: RawFd) -> io::Result<[u16; 4]> {
    let mut window = [0; 4];
    // SAFETY: struct winsize is four unsigned shorts.
    check(unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, window.as_mut_ptr()) } as i64)?;
    Ok(window)
}

/// TIOCSWINSZ.
pub fn set_window(fd: RawFd, window: &[u16; 4]) -> io::Result<()> {
    // SAFETY: struct winsize is four unsigned shorts.
    check(unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, window.as_ptr()) } as i64).map(drop)
}

/// tee(2) without waiting.
pub fn tee(from: RawFd, to: RawFd, bytes: usize) -> io::Result<usize> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::tee(from, to, bytes, libc::SPLICE_F_NONBLOCK) } as i64).map(|it| it as usize)
}

/// pipe2(2): read end, write end.
pub fn pipe(flags: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: the kernel writes two ints.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), flags) } as i64)?;
    Ok((owned(ends[0].into())?, owned(ends[1].into())?))
}

/// dup3(2) onto a number, closing what was there.
pub fn dup_to(fd: RawFd, number: RawFd, close_on_exec: bool) -> io::Result<()> {
    let flags = if close_on_exec { libc::O_CLOEXEC } else { 0 };
    // SAFETY: the numbers are those of a builder process that owns its whole table.
    check(unsafe { libc::dup3(fd, number, flags) } as i64).map(drop)
}

/// A duplicate at `base` or above, close-on-exec.
pub fn dup_above(fd: RawFd, base: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, base) } as i64)
}

/// close_range(2), both ends included.
pub fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: only a builder process calls this, for numbers that it owns and nothing refers to any more.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// read(2).
pub fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is ours and as long as said.
    check(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) } as i64).map(|it| it as usize)
}

/// write(2).
pub fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the buffer is ours and as long as said.
    check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) } as i64).map(|it| it as usize)
}

/// poll(2) of one descriptor: what holds of `events` and of POLLERR, POLLHUP, within `timeout_ms`.
pub fn poll(fd: RawFd, events: i16, timeout_ms: i32) -> io::Result<i16> {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    // SAFETY: one entry that outlives the call.
    check(unsafe { libc::poll(&raw mut entry, 1, timeout_ms) } as i64)?;
    Ok(entry.revents)
}

/// epoll_create1(2).
pub fn epoll() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } as i64)
}

/// EPOLL_CTL_ADD.
pub fn epoll_add(epoll: RawFd, fd: RawFd, events: u32, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: data };
    // SAFETY: the event outlives the call.
    check(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) } as i64).map(drop)
}

/// eventfd(2) that holds `count`.
pub fn eventfd(count: u64, semaphore: bool) -> io::Result<OwnedFd> {
    let flags = libc::EFD_CLOEXEC | if semaphore { libc::EFD_SEMAPHORE } else { 0 };
    // SAFETY: takes no pointers.
    let file = owned(unsafe { libc::eventfd(0, flags) } as i64)?;
    if count > 0 {
        write(file.as_raw_fd(), &count.to_ne_bytes())?;
    }
    Ok(file)
}

/// timerfd_create(2).
pub fn timerfd(clock: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::timerfd_create(clock, libc::TFD_CLOEXEC) } as i64)
}

/// timerfd_settime(2): nanoseconds.
pub fn set_timerfd(fd: RawFd, flags: i32, value_ns: u64, interval_ns: u64) -> io::Result<()> {
    let spec = |ns: u64| libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
    let setting = libc::itimerspec { it_interval: spec(interval_ns), it_value: spec(value_ns) };
    // SAFETY: the setting outlives the call; the old one is not asked for.
    check(unsafe { libc::timerfd_settime(fd, flags, &raw const setting, std::ptr::null_mut()) } as i64).map(drop)
}

/// TFD_IOC_SET_TICKS: expirations that nobody has read.
pub fn set_ticks(fd: RawFd, ticks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads eight bytes that outlive the call.
    check(unsafe { libc::ioctl(fd, TFD_IOC_SET_TICKS, &raw const ticks) } as i64).map(drop)
}

/// signalfd(2) for a kernel signal set.
pub fn signalfd(mask: u64) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads a set of eight bytes that outlives the call.
    owned(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask, 8, libc::SFD_CLOEXEC) })
}

/// inotify_init1(2).
pub fn inotify() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) } as i64)
}

/// inotify_add_watch(2), after INOTIFY_IOC_SETNEXTWD so that it gets the number `wd`.
pub fn add_watch(fd: RawFd, wd: i32, path: &std::ffi::CStr, mask: u32) -> io::Result<i32> {
    const INOTIFY_IOC_SETNEXTWD: libc::c_ulong = 0x4004_4900;
    // SAFETY: takes a number.
    check(unsafe { libc::ioctl(fd, INOTIFY_IOC_SETNEXTWD, wd) } as i64)?;
    // SAFETY: the path is a C string that outlives the call.
    check(unsafe { libc::inotify_add_watch(fd, path.as_ptr(), mask) } as i64)
}
