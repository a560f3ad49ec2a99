//! exec: the park signal is held back, the environment keeps the job.
//!
//! exec(2) resets the handler of [`PARK_SIGNAL`] to its default action, so a park between the exec and our constructor
//! in the new program would end the process. A mask survives exec, and a signal that comes meanwhile stays pending
//! until the constructor unblocks it. When exec fails the mask is put back.
//!
//! The kernel is called, not libc's function: that has to be found first, and libc's `execvp` calls its own `execve`
//! inside anyway. What libc does besides, the search along PATH and the shell for a script without `#!`, is little and
//! long settled ([`crate::search`]). Other libraries that wrap exec are not skipped when they are preloaded before us.
#![allow(unsafe_code)] // raw system calls

use core::ffi::{CStr, c_char, c_int};

use hijack_abi::PARK_SIGNAL;
use hijack_sys::syscall;

use crate::environment;
use crate::libc;
use crate::search;
use crate::stack;
use crate::strings::{List, pointers};

const RT_SIGPROCMASK: usize = 14;
const EXECVE: usize = 59;
const EXECVEAT: usize = 322;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
const AT_EMPTY_PATH: c_int = 0x1000;
const E2BIG: isize = -7;
const ENOEXEC: isize = -8;
const EINVAL: isize = -22;
/// What runs a script without `#!`.
const SHELL: &CStr = c"/bin/sh";

/// execve(2).
///
/// # Safety
/// As the C function: so for all of these.
pub unsafe fn execve(path: *const c_char, argv: List, envp: List) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { guarded(envp, |envp| try_execve(path, argv, envp)) }
}

/// execveat(2).
///
/// # Safety
/// As the C function.
pub unsafe fn execveat(folder: c_int, path: *const c_char, argv: List, envp: List, flags: c_int) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { guarded(envp, |envp| try_execveat(folder, path, argv, envp, flags)) }
}

/// fexecve(3).
///
/// # Safety
/// As the C function.
pub unsafe fn fexecve(fd: c_int, argv: List, envp: List) -> c_int {
    if fd < 0 || argv.is_null() || envp.is_null() {
        return libc::result(EINVAL);
    }
    // SAFETY: as the caller promises.
    unsafe { guarded(envp, |envp| try_execveat(fd, c"".as_ptr(), argv, envp, AT_EMPTY_PATH)) }
}

/// execvpe(3), and with `environ` execvp(3).
///
/// # Safety
/// As the C function.
pub unsafe fn execvpe(file: *const c_char, argv: List, envp: List) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        guarded(envp, |envp| {
            search::along_path(CStr::from_ptr(file), |path| match try_execve(path, argv, envp) {
                ENOEXEC => try_shell(path, argv, envp),
                result => result,
            })
        })
    }
}

/// execl(3): `arguments` are the variable ones, up to and with the null pointer.
///
/// # Safety
/// As the C function.
pub unsafe extern "C" fn execl(path: *const c_char, arguments: List) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { execve(path, arguments, libc::environ()) }
}

/// execlp(3): likewise.
///
/// # Safety
/// As the C function.
pub unsafe extern "C" fn execlp(file: *const c_char, arguments: List) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { execvpe(file, arguments, libc::environ()) }
}

/// execle(3): likewise, and the environment behind the null pointer.
///
/// # Safety
/// As the C function.
pub unsafe extern "C" fn execle(path: *const c_char, arguments: List) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        let envp = *arguments.add(pointers(arguments).count() + 1);
        execve(path, arguments, envp.cast())
    }
}

/// Runs `exec`, which returns only when it fails, with the park signal blocked and the environment repaired.
unsafe fn guarded(envp: List, exec: impl FnOnce(List) -> isize) -> c_int {
    if environment::job_folder().is_none() {
        return libc::result(exec(envp));
    }
    let before = change_mask(SIG_BLOCK, 1 << (PARK_SIGNAL - 1));
    // SAFETY: as the caller promises.
    let result = unsafe { environment::repaired(envp, exec) };
    change_mask(SIG_SETMASK, before);
    libc::result(result)
}

/// Changes this thread's signal mask and returns the one before.
fn change_mask(how: usize, mask: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: both masks are of the kernel's eight bytes; blocking or restoring is what this module is for.
    unsafe {
        let arguments = [how, (&raw const mask) as usize, (&raw mut before) as usize, size_of::<u64>(), 0, 0];
        syscall(RT_SIGPROCMASK, arguments);
    }
    before
}

unsafe fn try_execve(path: *const c_char, argv: List, envp: List) -> isize {
    // SAFETY: the kernel checks the pointers.
    unsafe { syscall(EXECVE, [path as usize, argv as usize, envp as usize, 0, 0, 0]) }
}

unsafe fn try_execveat(folder: c_int, path: *const c_char, argv: List, envp: List, flags: c_int) -> isize {
    let arguments = [folder as usize, path as usize, argv as usize, envp as usize, flags as usize, 0];
    // SAFETY: the kernel checks the pointers.
    unsafe { syscall(EXECVEAT, arguments) }
}

/// Executes the shell with the script at `path`: arguments `/bin/sh`, the script, and the script's own ones.
unsafe fn try_shell(path: *const c_char, argv: List, envp: List) -> isize {
    // SAFETY: as the caller promises; execve(2) has just read this list.
    let own = unsafe { pointers(argv) }.skip(1);
    // SAFETY: as above.
    let count = unsafe { pointers(argv) }.count();
    if count >= c_int::MAX as usize - 1 {
        return E2BIG;
    }
    let bytes = (count + 3) * size_of::<*const c_char>();
    stack::with(bytes, |memory| {
        let list = memory.cast::<*const c_char>();
        let all = [SHELL.as_ptr(), path].into_iter().chain(own).chain([core::ptr::null()]);
        for (index, argument) in all.enumerate() {
            // SAFETY: two more than there were, and the null: `bytes` is for as many.
            unsafe { list.add(index).write(argument) };
        }
        // SAFETY: as the caller promises.
        unsafe { try_execve(SHELL.as_ptr(), list, envp) }
    })
}
