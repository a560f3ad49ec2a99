//! listen: whoever serves may have its port back at a restart.
//!
//! A connection that its server closed stays in TIME_WAIT for a minute and keeps the server's port from everybody, unless
//! the *connection* had SO_REUSEADDR. When a job is killed and restarted on the same node at once that would keep it from
//! its own ports. What is open at a checkpoint gets the option then; what has been closed by that time can no longer be
//! reached. Accepted connections inherit the option from their listening socket, so it is set there, before there are
//! any. Nobody else can take a port by it while the socket listens: the kernel shares a listening port with no one.
#![allow(unsafe_code)] // raw system calls

use core::ffi::c_int;

use hijack_sys::syscall;

use crate::{addresses, environment, libc};

const LISTEN: usize = 50;
const SETSOCKOPT: usize = 54;
const SOL_SOCKET: usize = 1;
const SO_REUSEADDR: usize = 2;

/// listen(2).
///
/// # Safety
/// As the C function.
pub unsafe fn listen(fd: c_int, backlog: c_int) -> c_int {
    if environment::job_folder().is_some() {
        let on: c_int = 1;
        let arguments = [fd as usize, SOL_SOCKET, SO_REUSEADDR, (&raw const on) as usize, size_of::<c_int>(), 0];
        // What is no socket is refused here as it will be below, and errno is set there only.
        // SAFETY: the kernel reads the four bytes of `on`, which outlives the call.
        let _ = unsafe { syscall(SETSOCKOPT, arguments) };
    }
    addresses::before_listen(fd);
    // SAFETY: numbers only.
    libc::result(unsafe { syscall(LISTEN, [fd as usize, backlog as usize, 0, 0, 0, 0]) })
}
