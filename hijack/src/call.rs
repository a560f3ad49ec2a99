//! The system calls of this library, by name. Results are the kernel's: a negative errno on failure.
#![allow(unsafe_code)] // raw system calls

use core::sync::atomic::AtomicU32;

const OPEN: usize = 2;
const CLOSE: usize = 3;
const MMAP: usize = 9;
const MUNMAP: usize = 11;
const BRK: usize = 12;
const RT_SIGACTION: usize = 13;
const RT_SIGPROCMASK: usize = 14;
const WRITE: usize = 1;
const SCHED_YIELD: usize = 24;
const GETITIMER: usize = 36;
const GETPID: usize = 39;
const WAIT4: usize = 61;
const GETSOCKOPT: usize = 55;
const GETPPID: usize = 110;
const RT_SIGPENDING: usize = 127;
const RT_SIGTIMEDWAIT: usize = 128;
const RT_SIGQUEUEINFO: usize = 129;
const SIGALTSTACK: usize = 131;
const PRCTL: usize = 157;
const ARCH_PRCTL: usize = 158;
const GETTID: usize = 186;
const FUTEX: usize = 202;
const TIMER_GETTIME: usize = 224;
const CLOCK_GETTIME: usize = 228;
const EXIT_GROUP: usize = 231;
const GET_ROBUST_LIST: usize = 274;
const RT_TGSIGQUEUEINFO: usize = 297;
const PRLIMIT64: usize = 302;
const MEMBARRIER: usize = 324;
const CLOSE_RANGE: usize = 436;

const FUTEX_WAIT: usize = 0;
const FUTEX_WAKE: usize = 1;
const EVERYBODY: usize = i32::MAX as usize;
/// Bytes of a kernel signal set.
const SET_BYTES: usize = 8;
const SIG_UNBLOCK: usize = 1;
const RLIMIT_NOFILE: usize = 7;

/// A call whose arguments are numbers, or addresses of live memory that the kernel reads or fills.
fn raw(number: usize, arguments: [usize; 6]) -> isize {
    // SAFETY: the callers below pass numbers and pointers made from references that outlive the call and are as long as
    // the kernel takes them to be; what the call does to the process is what each of them is for.
    unsafe { hijack_sys::syscall(number, arguments) }
}

/// getpid(2).
pub fn getpid() -> u32 {
    raw(GETPID, [0; 6]) as u32
}

/// getppid(2).
pub fn getppid() -> u32 {
    raw(GETPPID, [0; 6]) as u32
}

/// gettid(2).
pub fn gettid() -> u32 {
    raw(GETTID, [0; 6]) as u32
}

/// sched_yield(2).
pub fn sched_yield() {
    raw(SCHED_YIELD, [0; 6]);
}

/// exit_group(2).
pub fn exit_group(code: usize) -> ! {
    loop {
        raw(EXIT_GROUP, [code, 0, 0, 0, 0, 0]);
    }
}

/// Sleeps while `word` is `value`; may come back early. Not private: the other side is another process.
pub fn futex_wait(word: &AtomicU32, value: u32) {
    raw(FUTEX, [word.as_ptr() as usize, FUTEX_WAIT, value as usize, 0, 0, 0]);
}

/// Wakes everybody who sleeps on `word`.
pub fn futex_wake(word: &AtomicU32) {
    raw(FUTEX, [word.as_ptr() as usize, FUTEX_WAKE, EVERYBODY, 0, 0, 0]);
}

/// A kernel sigaction: handler, flags, restorer, mask.
pub type Action = [u64; 4];

/// The action of a signal.
pub fn action_of(signal: i32) -> Action {
    let mut action = [0; 4];
    raw(RT_SIGACTION, [signal as usize, 0, (&raw mut action) as usize, SET_BYTES, 0, 0]);
    action
}

/// Sets the action of a signal; the old one.
pub fn set_action(signal: i32, action: &Action) -> Action {
    let mut old = [0; 4];
    raw(RT_SIGACTION, [signal as usize, action.as_ptr() as usize, (&raw mut old) as usize, SET_BYTES, 0, 0]);
    old
}

/// The signals that wait for this thread or its process and are blocked.
pub fn pending() -> u64 {
    let mut set = 0_u64;
    raw(RT_SIGPENDING, [(&raw mut set) as usize, SET_BYTES, 0, 0, 0, 0]);
    set
}

/// Sets this thread's signal mask.
pub fn set_mask(set: u64) {
    const SIG_SETMASK: usize = 2;
    raw(RT_SIGPROCMASK, [SIG_SETMASK, (&raw const set) as usize, 0, SET_BYTES, 0, 0]);
}

/// Takes signals out of this thread's mask.
pub fn unblock(set: u64) {
    raw(RT_SIGPROCMASK, [SIG_UNBLOCK, (&raw const set) as usize, 0, SET_BYTES, 0, 0]);
}

/// Takes one pending signal, those of the thread before those of the process; None when there is none.
pub fn take_pending(information: &mut [u64; 16]) -> Option<u32> {
    let (all, now) = (u64::MAX, [0_u64; 2]);
    let arguments =
        [(&raw const all) as usize, information.as_mut_ptr() as usize, now.as_ptr() as usize, SET_BYTES, 0, 0];
    u32::try_from(raw(RT_SIGTIMEDWAIT, arguments)).ok()
}

/// Queues a signal for this process. Addressed to the thread itself: what kill(2), the kernel or a timer has sent may only
/// be sent again to oneself, and for that the kernel looks at the thread's number, not the process's.
pub fn queue_for_process(signal: u32, information: &[u64; 16]) {
    raw(RT_SIGQUEUEINFO, [gettid() as usize, signal as usize, information.as_ptr() as usize, 0, 0, 0]);
}

/// Queues a signal for this thread.
pub fn queue_for_thread(signal: u32, information: &[u64; 16]) {
    let (pid, tid) = (getpid() as usize, gettid() as usize);
    raw(RT_TGSIGQUEUEINFO, [pid, tid, signal as usize, information.as_ptr() as usize, 0, 0]);
}

/// arch_prctl(2) that fills a number.
pub fn arch_value(code: usize) -> u64 {
    let mut value = 0_u64;
    raw(ARCH_PRCTL, [code, (&raw mut value) as usize, 0, 0, 0, 0]);
    value
}

/// prctl(2) that returns a number; 0 on failure.
pub fn prctl_number(code: usize) -> u64 {
    raw(PRCTL, [code, 0, 0, 0, 0, 0]).max(0) as u64
}

/// prctl(2) that fills a number.
pub fn prctl_value(code: usize) -> u64 {
    let mut value = 0_u64;
    raw(PRCTL, [code, (&raw mut value) as usize, 0, 0, 0, 0]);
    value
}

/// prctl(2) with an argument.
pub fn set_prctl(code: usize, value: usize) {
    raw(PRCTL, [code, value, 0, 0, 0, 0]);
}

/// Head and length of this thread's list of robust futexes.
pub fn robust_list() -> [u64; 2] {
    let (mut head, mut length) = (0_u64, 0_u64);
    raw(GET_ROBUST_LIST, [0, (&raw mut head) as usize, (&raw mut length) as usize, 0, 0, 0]);
    [head, length]
}

/// This thread's alternate signal stack: ss_sp, ss_flags, ss_size.
pub fn alternate_stack() -> [u64; 3] {
    let mut stack = [0; 3];
    raw(SIGALTSTACK, [0, (&raw mut stack) as usize, 0, 0, 0, 0]);
    // ss_flags is an int; what lies behind it is padding.
    stack[1] &= 0xffff_ffff;
    stack
}

/// brk(0).
pub fn program_break() -> u64 {
    raw(BRK, [0; 6]) as u64
}

/// CLOCK_MONOTONIC, which goes on where it was after a restart.
pub fn monotonic_ns() -> u64 {
    const MONOTONIC: usize = 1;
    let mut time = [0_u64; 2];
    raw(CLOCK_GETTIME, [MONOTONIC, (&raw mut time) as usize, 0, 0, 0, 0]);
    time[0] * 1_000_000_000 + time[1]
}

/// A time-out of a socket: seconds and microseconds; None where it has none, or is no socket.
pub fn socket_time_out(descriptor: usize, option: usize) -> Option<[u64; 2]> {
    const SOL_SOCKET: usize = 1;
    let mut time = [0_u64; 2];
    let mut bytes = size_of_val(&time) as u32;
    let (value, length) = ((&raw mut time) as usize, (&raw mut bytes) as usize);
    let result = raw(GETSOCKOPT, [descriptor, SOL_SOCKET, option, value, length, 0]);
    (result == 0 && time != [0; 2]).then_some(time)
}

/// getitimer(2): interval s, µs, value s, µs.
pub fn interval_timer(which: usize) -> [u64; 4] {
    let mut setting = [0; 4];
    raw(GETITIMER, [which, (&raw mut setting) as usize, 0, 0, 0, 0]);
    setting
}

/// timer_gettime(2): interval s, ns, value s, ns.
pub fn posix_timer(id: u64) -> [u64; 4] {
    let mut setting = [0; 4];
    raw(TIMER_GETTIME, [id as usize, (&raw mut setting) as usize, 0, 0, 0, 0]);
    setting
}

/// membarrier(MEMBARRIER_CMD_GET_REGISTRATIONS); 0 where the kernel cannot tell.
pub fn membarrier_registrations() -> u32 {
    const GET_REGISTRATIONS: usize = 1 << 9;
    raw(MEMBARRIER, [GET_REGISTRATIONS, 0, 0, 0, 0, 0]).max(0) as u32
}

/// Reaps a child that was cloned without a signal.
pub fn reap_clone(pid: u32) {
    const WCLONE: usize = 0x8000_0000;
    const EINTR: isize = -4;
    while raw(WAIT4, [pid as usize, 0, WCLONE, 0, 0, 0]) == EINTR {}
}

/// munmap(2) of memory that belongs to nobody in this process.
pub fn unmap(address: u64, length: u64) -> isize {
    raw(MUNMAP, [address as usize, length as usize, 0, 0, 0, 0])
}

/// Maps `length` bytes of a file shared, for reading and writing.
pub fn map_shared(descriptor: usize, length: usize) -> isize {
    const READ_WRITE: usize = 3;
    const MAP_SHARED: usize = 1;
    raw(MMAP, [0, length, READ_WRITE, MAP_SHARED, descriptor, 0])
}

/// open(2) of a path that ends with a zero byte, for reading and writing, close-on-exec.
pub fn open(path: &[u8]) -> isize {
    const READ_WRITE_CLOEXEC: usize = 2 | 0o2_000_000;
    raw(OPEN, [path.as_ptr() as usize, READ_WRITE_CLOEXEC, 0, 0, 0, 0])
}

/// getrlimit(RLIMIT_NOFILE): soft and hard.
pub fn descriptor_limit() -> [u64; 2] {
    let mut limit = [0_u64; 2];
    raw(PRLIMIT64, [0, RLIMIT_NOFILE, 0, limit.as_mut_ptr() as usize, 0, 0]);
    limit
}

/// setrlimit(RLIMIT_NOFILE).
pub fn set_descriptor_limit(limit: [u64; 2]) {
    raw(PRLIMIT64, [0, RLIMIT_NOFILE, limit.as_ptr() as usize, 0, 0, 0]);
}

/// write(2).
pub fn write(descriptor: usize, bytes: &[u8]) -> isize {
    raw(WRITE, [descriptor, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0])
}

/// close(2).
pub fn close(descriptor: usize) {
    raw(CLOSE, [descriptor, 0, 0, 0, 0, 0]);
}

/// Closes every descriptor of this process.
pub fn close_all() {
    raw(CLOSE_RANGE, [0, u32::MAX as usize, 0, 0, 0, 0]);
}
