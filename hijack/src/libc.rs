//! What this library uses of the program's own libc.
//!
//! It is linked with none (no `NEEDED`), so these names are found in whatever libc the program has: glibc of any age,
//! musl. They are *weak*: where one is missing its address is null and the program starts all the same. Rust has no
//! stable word for a weak reference, so each is made where it is used, by two lines of assembly; and a reference by the
//! global offset table is resolved when the library is loaded, so that no lazy binding happens in a `vfork` child.
#![allow(unsafe_code)] // calls into libc

use core::arch::asm;
use core::ffi::{c_int, c_void};

use crate::strings::List;

/// Address of a name of the program, null where it has none.
macro_rules! weak {
    ($name:literal) => {{
        let address: *const c_void;
        // SAFETY: reads the global offset table, nothing else.
        unsafe {
            asm!(concat!(".weak ", $name), concat!("mov {}, qword ptr [rip + ", $name, "@GOTPCREL]"),
                out(reg) address, options(pure, nomem, nostack, preserves_flags));
        }
        address
    }};
}

/// Turns the kernel's result into libc's: -1 and `errno`, or the result.
pub fn result(result: isize) -> c_int {
    if result >= 0 {
        return result as c_int;
    }
    set_errno(-result as c_int);
    -1
}

/// This thread's errno; 0 where there is none.
pub fn errno() -> c_int {
    let location = weak!("__errno_location");
    if location.is_null() {
        return 0;
    }
    // SAFETY: the function has this type in glibc and musl; its result is this thread's errno.
    unsafe {
        let location: extern "C" fn() -> *const c_int = core::mem::transmute(location);
        *location()
    }
}

/// The current environment: what `environ` points to. Null before libc has set it.
pub fn environ() -> List {
    let variable = weak!("environ").cast::<List>();
    if variable.is_null() {
        return core::ptr::null();
    }
    // SAFETY: `environ` is a pointer to a list in every libc. A program that changes its environment in one thread and
    // executes in another has the same race without us.
    unsafe { variable.read_volatile() }
}

/// The head of the dynamic linker's list of loaded objects (`struct r_debug`), null where it shows none.
pub fn loaded_objects() -> *const c_void {
    let glibc = weak!("_r_debug");
    if !glibc.is_null() {
        return glibc;
    }
    let musl = weak!("_dl_debug_addr").cast::<*const c_void>();
    // SAFETY: musl's variable holds the address of its `struct debug`.
    if musl.is_null() { core::ptr::null() } else { unsafe { *musl } }
}

fn set_errno(number: c_int) {
    let location = weak!("__errno_location");
    if !location.is_null() {
        // SAFETY: the function has this type in glibc and musl; its result is this thread's errno.
        unsafe {
            let location: extern "C" fn() -> *mut c_int = core::mem::transmute(location);
            *location() = number;
        }
    }
}
