//! The park signal: stand-in for tests.
#![allow(unsafe_code)] // raw system calls

use core::arch::naked_asm;
use core::ffi::c_char;
use core::sync::atomic::{AtomicUsize, Ordering};

use hijack_abi::PARK_SIGNAL;
use hijack_sys::syscall;

/// What the kernel calls a sigaction.
#[repr(C)]
struct Action {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

static CHAINED: AtomicUsize = AtomicUsize::new(0);

#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn(i32, *const *const c_char, *const *const c_char) = constructor;

extern "C" fn constructor(_: i32, _: *const *const c_char, envp: *const *const c_char) {
    // SAFETY: this is the constructor.
    unsafe { crate::environment::remember(envp) };
    if crate::environment::job_folder().is_some() {
        install();
        unblock();
    }
}

/// Installs the handler where it is not.
pub fn install() {
    let mut now = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    let ours = handler as *const () as usize;
    // SAFETY: reads and sets the action of a signal that is ours.
    unsafe {
        syscall(13, [PARK_SIGNAL as usize, 0, (&raw mut now) as usize, 8, 0, 0]);
        if now.handler == ours {
            return;
        }
        CHAINED.store(now.handler, Ordering::Relaxed);
        let new = Action { handler: ours, flags: 0x1c00_0004, restorer: restorer as *const () as usize, mask: !0 };
        syscall(13, [PARK_SIGNAL as usize, (&raw const new) as usize, 0, 8, 0, 0]);
    }
}

/// Lets the signal through.
pub fn unblock() {
    let mask = 1u64 << (PARK_SIGNAL - 1);
    // SAFETY: as above.
    unsafe { syscall(14, [1, (&raw const mask) as usize, 0, 8, 0, 0]) };
}

/// Ends the process.
#[cfg(not(test))]
pub fn end() -> ! {
    loop {
        // SAFETY: exit_group.
        unsafe { syscall(231, [134, 0, 0, 0, 0, 0]) };
    }
}

extern "C" fn handler(signal: i32, info: *const i32, context: usize) {
    let chained = CHAINED.load(Ordering::Relaxed);
    // SAFETY: glibc's handler, for its own signals: from this very process.
    unsafe {
        if chained > 1 && *info.add(4) as isize == syscall(39, [0; 6]) {
            let chained: extern "C" fn(i32, *const i32, usize) = core::mem::transmute(chained);
            chained(signal, info, context);
        }
    }
}

#[unsafe(naked)]
extern "C" fn restorer() {
    naked_asm!(".byte 0x48, 0xc7, 0xc0, 0x0f, 0x00, 0x00, 0x00", "syscall")
}
