//! Memory on the stack whose size is known only when running: what C does with `alloca`.
//!
//! An exec wrapper needs a list as long as the caller's, may not allocate, and may run on a thread's smallest stack or
//! in a `vfork` child on its parent's. A fixed buffer would either be too small for somebody or too large for somebody.
#![allow(unsafe_code)] // moves the stack pointer

use core::arch::naked_asm;
use core::ffi::c_void;
use core::mem::ManuallyDrop;

/// Calls `work` with `bytes` bytes of stack, aligned to 16, uninitialised, and returns what it returns.
pub fn with<F: FnOnce(*mut u8) -> isize>(bytes: usize, work: F) -> isize {
    unsafe extern "C" fn call<F: FnOnce(*mut u8) -> isize>(memory: *mut u8, work: *mut c_void) -> isize {
        // SAFETY: `work` is the ManuallyDrop below, taken out of here once.
        let work = unsafe { ManuallyDrop::take(&mut *work.cast::<ManuallyDrop<F>>()) };
        work(memory)
    }
    let mut work = ManuallyDrop::new(work);
    // SAFETY: `call::<F>` gets the `work` that it is made for, which lives until `extend` returns.
    unsafe { extend(bytes, (&raw mut work).cast(), call::<F>) }
}

/// Makes room, touching every page on the way so that a guard page is met and not stepped over, and calls `call`.
#[unsafe(naked)]
unsafe extern "C" fn extend(
    bytes: usize,
    work: *mut c_void,
    call: unsafe extern "C" fn(*mut u8, *mut c_void) -> isize,
) -> isize {
    naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "add rdi, 15",
        "and rdi, -16",
        "mov rax, rsp",
        "sub rax, rdi",
        "2:",
        "lea rcx, [rsp - 4096]",
        "cmp rcx, rax",
        "jbe 3f",
        "mov rsp, rcx",
        "or qword ptr [rsp], 0",
        "jmp 2b",
        "3:",
        "mov rsp, rax",
        "mov rdi, rax",
        "call rdx",
        "leave",
        "ret",
    )
}
