//! libckpt_hijack.so: parks threads on a signal, guards that signal, finds its way into every process of a job.
//!
//! Law of this crate, which runs in other people's processes: no allocation, no lock, no descriptor, nothing from
//! outside; `errno` is left as the wrapped function leaves it; what is async-signal-safe (`exec` after `vfork`!) stays
//! so; the kernel is called raw. In a process that is of no job every wrapper only passes on.
#![cfg_attr(not(test), no_std)]

mod altstack;
mod environment;
mod exec;
mod exports;
mod libc;
mod objects;
mod search;
mod signal;
mod spawn;
mod stack;
mod strings;
mod threads;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    signal::end()
}
