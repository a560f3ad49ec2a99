//! posix_spawn: the environment keeps the job. The park signal needs no guard: glibc's child ignores it until the exec,
//! or has its default action from the start and is left alone by the agent, which looks for a handler first.
#![allow(unsafe_code)] // calls libc's function

use core::ffi::{c_char, c_int, c_void};

use crate::environment;
use crate::objects::Next;
use crate::strings::List;

/// Everything but the environment goes through unseen.
type Spawn = unsafe extern "C" fn(*mut c_int, *const c_char, *const c_void, *const c_void, List, List) -> c_int;

const ENOSYS: c_int = 38;

static POSIX_SPAWN: Next = Next::new(c"posix_spawn");
static POSIX_SPAWNP: Next = Next::new(c"posix_spawnp");

/// posix_spawn(3).
///
/// # Safety
/// As the C function.
pub unsafe fn posix_spawn(
    pid: *mut c_int,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: List,
    envp: List,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { spawn(&POSIX_SPAWN, envp, |real, envp| real(pid, path, actions, attributes, argv, envp)) }
}

/// posix_spawnp(3).
///
/// # Safety
/// As the C function.
pub unsafe fn posix_spawnp(
    pid: *mut c_int,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: List,
    envp: List,
) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { spawn(&POSIX_SPAWNP, envp, |real, envp| real(pid, file, actions, attributes, argv, envp)) }
}

unsafe fn spawn(next: &Next, envp: List, call: impl FnOnce(Spawn, List) -> c_int) -> c_int {
    let Some(real) = next.address() else { return ENOSYS };
    // SAFETY: libc's function of that name has this type.
    let real = unsafe { core::mem::transmute::<*const c_void, Spawn>(real) };
    // SAFETY: as the caller promises.
    unsafe { environment::repaired(envp, |envp| call(real, envp) as isize) as c_int }
}
