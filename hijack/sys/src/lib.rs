//! Raw system calls, for code that may call neither libc nor an allocator.
#![no_std]
#![allow(unsafe_code)]

use core::arch::asm;

/// Makes system call `number`. The result is the kernel's: a negative errno on failure.
///
/// # Safety
/// Whatever the call does to memory, descriptors, threads or signals of this process must be sound for the caller.
#[inline(always)]
pub unsafe fn syscall(number: usize, arguments: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the x86-64 system call convention: rcx and r11 are clobbered, all else is kept; what the call itself
    // does is vouched for by the caller.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
            in("rdi") arguments[0], in("rsi") arguments[1], in("rdx") arguments[2],
            in("r10") arguments[3], in("r8") arguments[4], in("r9") arguments[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}
