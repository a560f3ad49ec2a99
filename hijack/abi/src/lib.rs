//! What a rank and its agent agree on, byte by byte.
//!
//! [`Segment`] is the *control segment*: one memfd per node and job, mapped shared by the agent and by every process of
//! the job. The agent finds what a thread published in it; a thread finds what the agent asks of it, and a program that was
//! moved its [`addresses`]. [`orders`] is what a restart tells the freestanding restorer. Plain data only: no IO, no clock, no pointer of this process.
//!
//! Rules: append fields, never move one; bump [`VERSION`] when a reader of the old layout would be wrong.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod addresses;
pub mod orders;
mod segment;

pub use segment::*;

/// Version of everything in this crate. An agent refuses an image whose library speaks another one.
pub const VERSION: u32 = 2;

/// The signal that parks a thread: glibc's `SIGSETXID`, the one signal that no program blocks, waits for or resets
/// (glibc leaves it out of every set that it is handed). See docs/hijack.md.
pub const PARK_SIGNAL: i32 = 33;

/// Environment variable with the job's folder on this node; the library maps `segment` in it.
pub const JOB_FOLDER_VARIABLE: &str = "SLACKWATER_JOB";

/// File names in the job's folder.
pub const SEGMENT_FILE: &str = "segment";
/// The preload library's name in the job's folder (a link to the installed one).
pub const LIBRARY_FILE: &str = "libckpt_hijack.so";
