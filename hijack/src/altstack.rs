//! sigaltstack: a stack on which no park fits is not handed to the kernel.
//!
//! The park handler runs on a thread's alternate stack where it has one (SA_ONSTACK), as glibc's own handler of this
//! signal does: runtimes with small stacks of their own (Go, OCaml, Erlang) keep a large one for signals and demand it.
//! But the kernel also accepts 2048 bytes, on which a signal frame with AVX-512 (AT_MINSIGSTKSZ: 3376) does not fit,
//! and then ends the process at the first park. A thread with such a stack goes on without: its handlers run on its
//! ordinary stack. All that is lost is the handling of a stack overflow on so small a stack.
#![allow(unsafe_code)] // a raw system call

use core::ffi::{c_int, c_void};

use hijack_sys::syscall;

use crate::environment;
use crate::libc;

/// `stack_t`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stack {
    start: *mut c_void,
    flags: c_int,
    bytes: usize,
}

/// The smallest alternate stack that the kernel is told of: SIGSTKSZ of <signal.h> (without the dynamic one of newer
/// glibc), what programs have been told to use for decades. A frame with AVX-512 and our handler take 5 KiB. With AMX
/// a frame alone is larger, but whoever asks the kernel for AMX is held to a stack large enough by the kernel.
const STACK_BYTES_MIN: usize = 8192;
/// MINSIGSTKSZ of the kernel: less is refused.
const KERNEL_BYTES_MIN: usize = 2048;
const SIGALTSTACK: usize = 131;
const SS_ONSTACK: c_int = 1;
const SS_DISABLE: c_int = 2;
const SS_AUTODISARM: c_int = 1 << 31;

/// sigaltstack(2).
///
/// # Safety
/// As the C function.
pub unsafe fn sigaltstack(new: *const Stack, old: *mut Stack) -> c_int {
    let none = Stack { start: core::ptr::null_mut(), flags: SS_DISABLE, bytes: 0 };
    // SAFETY: the caller's, if it is not null.
    let refused = !new.is_null() && environment::job_folder().is_some() && too_small(unsafe { &*new });
    let new = if refused { &raw const none } else { new };
    // SAFETY: the kernel checks the pointers.
    libc::result(unsafe { syscall(SIGALTSTACK, [new as usize, old as usize, 0, 0, 0, 0]) })
}

/// Whether the kernel would take this stack, and a park would not fit.
fn too_small(stack: &Stack) -> bool {
    let valid = matches!(stack.flags & !SS_AUTODISARM, 0 | SS_ONSTACK);
    valid && (KERNEL_BYTES_MIN..STACK_BYTES_MIN).contains(&stack.bytes)
}
