//! Every symbol that this library puts before libc's, and nothing else is visible (exports.txt, tests/tests/fence.rs).
//!
//! Not wrapped, and why: `system`, `popen` (they spawn inside libc with `environ`, and glibc's child ignores the park
//! signal until its exec); `pidfd_spawn` (who finds it takes the libc for one that has it); `dlopen` (it looks at its
//! caller); `syscall(SYS_execve, …)` (the agent sees a thread without handler and waits).
#![allow(unsafe_code)] // the names of C functions, and their callers' pointers
#![allow(clippy::missing_safety_doc)] // safe to call exactly as the C function of that name is

use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_void};

use crate::altstack::Stack;
use crate::strings::List;
use crate::{addresses, altstack, exec, libc, sockets, spawn, threads};

/// A function `name(first, …) -> int` that calls `$to(first, list of the rest)`.
///
/// Variable arguments come in rsi … r9 and go on above the return address. With that taken out and the registers pushed
/// in its place they are one list, however long, without copying.
macro_rules! variadic {
    ($($name:ident => $to:path),*) => {$(
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name() -> c_int {
            naked_asm!(
                "pop rax",
                "push r9", "push r8", "push rcx", "push rdx", "push rsi",
                "mov rsi, rsp",
                "push rax", // also aligns the stack
                "call {to}",
                "pop rcx",
                "add rsp, 40",
                "push rcx",
                "ret",
                to = sym $to,
            )
        }
    )*};
}

/// A function that passes its arguments on.
macro_rules! exported {
    ($($name:ident($($argument:ident: $of:ty),*) => $to:expr),* $(,)?) => {$(
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $of),*) -> c_int {
            // SAFETY: the caller calls the C function of this name and promises what that asks for.
            unsafe { $to }
        }
    )*};
}

/// A function that is one of addresses/through.rs, under its name.
macro_rules! through {
    ($($name:ident => $to:path),* $(,)?) => {$(
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name() {
            naked_asm!("jmp {to}", to = sym $to)
        }
    )*};
}

variadic! {
    execl => exec::execl,
    execle => exec::execle,
    execlp => exec::execlp
}

exported! {
    execv(path: *const c_char, argv: List) => exec::execve(path, argv, libc::environ()),
    execve(path: *const c_char, argv: List, envp: List) => exec::execve(path, argv, envp),
    execveat(folder: c_int, path: *const c_char, argv: List, envp: List, flags: c_int)
        => exec::execveat(folder, path, argv, envp, flags),
    execvp(file: *const c_char, argv: List) => exec::execvpe(file, argv, libc::environ()),
    execvpe(file: *const c_char, argv: List, envp: List) => exec::execvpe(file, argv, envp),
    fexecve(fd: c_int, argv: List, envp: List) => exec::fexecve(fd, argv, envp),

    posix_spawn(
        pid: *mut c_int, path: *const c_char, actions: *const c_void, attributes: *const c_void, argv: List, envp: List
    ) => spawn::posix_spawn(pid, path, actions, attributes, argv, envp),
    posix_spawnp(
        pid: *mut c_int, file: *const c_char, actions: *const c_void, attributes: *const c_void, argv: List, envp: List
    ) => spawn::posix_spawnp(pid, file, actions, attributes, argv, envp),

    pthread_create(thread: *mut c_void, attributes: *const c_void, start: *const c_void, argument: *mut c_void)
        => threads::pthread_create(thread, attributes, start, argument),
    thrd_create(thread: *mut c_void, start: *const c_void, argument: *mut c_void)
        => threads::thrd_create(thread, start, argument),

    sigaltstack(new: *const Stack, old: *mut Stack) => altstack::sigaltstack(new, old),

    listen(fd: c_int, backlog: c_int) => sockets::listen(fd, backlog),
}

through! {
    accept => addresses::accept,
    accept4 => addresses::accept4,
    bind => addresses::bind,
    connect => addresses::connect,
    getpeername => addresses::getpeername,
    getsockname => addresses::getsockname,
    sendto => addresses::sendto,
    sendmsg => addresses::sendmsg,
    sendmmsg => addresses::sendmmsg,
    recvfrom => addresses::recvfrom,
    __recvfrom_chk => addresses::recvfrom_chk,
    recvmsg => addresses::recvmsg,
    recvmmsg => addresses::recvmmsg,
}
