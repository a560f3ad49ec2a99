//! `libckpt_hijack.so`: what lives inside the processes of a job.
//!
//! ```text
//! constructor   installs the handler of signal 33, announces MPI ranks
//! segment       maps the control segment when it is first needed
//! signal        the signal: installed, held back across exec, chained to what glibc sends itself with it
//! park          the handler: publishes where the thread is, waits, does what the agent asks, leaves
//! commands      what can be asked: facts, pending signals, a twin, an unmapping
//! twin          a copy-on-write copy of the process that only waits to be read
//! interrupted   a system call that the signal cut short is made whole again before its caller sees it
//! addresses     calls of sockets that name an address: programs that were moved go on using what they remember
//! exports       the functions of libc that guard the signal and keep the job in the environment: exec, spawn, threads,
//!               altstack; beside them environment, search (PATH), libc and objects (what is behind a wrapper)
//! ```
//!
//! Law of this crate: it runs in other people's programs, at any instruction. No allocation, no lock, no descriptor that
//! stays open, no thread, no thread-local variable, no errno of its own, no function of libc but those that it guards; raw
//! system calls only. Nothing here can panic: the panic handler exists because the compiler asks for one.
#![cfg_attr(not(test), no_std)]

mod addresses;
mod altstack;
mod call;
mod commands;
mod constructor;
mod environment;
mod exec;
mod exports;
mod interrupted;
mod libc;
#[cfg(not(test))]
mod memory;
mod objects;
mod park;
mod search;
mod segment;
mod signal;
mod sockets;
mod spawn;
mod stack;
mod strings;
mod threads;
mod twin;

// Clippy looks at a test build too, where std has one.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    call::exit_group(127)
}
