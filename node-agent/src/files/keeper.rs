//! Work that must be finished once it is begun: bytes that are out of a terminal and not yet back exist nowhere else.
//!
//! A *keeper* is a fork of the agent that does it. When the agent is killed the keeper goes on, and the guardian, to whom
//! it falls, lets nobody of the job run before it is done: see [`wait_for_orphans`].
#![allow(unsafe_code)] // forks

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

/// Name of a keeper in ps(1).
const NAME: &std::ffi::CStr = c"ckpt-keeper";
/// How long orphaned keepers are waited for: they take microseconds, and a second where a terminal takes its time.
const ORPHANS_END: Duration = Duration::from_secs(3);
/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// Runs `work` in a process of its own; what it returns.
///
/// # Errors
/// Those of `work`, and of fork and pipe.
pub fn run(work: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    let (mut result, mut told) = io::pipe()?;
    // SAFETY: the child only makes system calls and allocates, which libc's fork allows for: it holds malloc's locks
    // while it forks. It ends by _exit.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(result);
            let _ = nix::sys::prctl::set_name(NAME);
            let (errno, bytes) = match work() {
                Ok(bytes) => (0, bytes),
                Err(error) => (error.raw_os_error().unwrap_or(libc::EIO), Vec::new()),
            };
            let _ = told.write_all(&errno.to_ne_bytes()).and_then(|()| told.write_all(&bytes));
            // SAFETY: does not return, runs nothing of the agent's.
            unsafe { libc::_exit(0) }
        }
        child => {
            drop(told);
            let mut answer = Vec::new();
            let read = result.read_to_end(&mut answer);
            let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None);
            read?;
            let (errno, bytes) =
                answer.split_first_chunk().ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            match i32::from_ne_bytes(*errno) {
                0 => Ok(bytes.to_vec()),
                errno => Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

/// Waits until the keepers of an agent that has died are done. In the guardian, whose children they have become.
pub fn wait_for_orphans() {
    let until = Instant::now() + ORPHANS_END;
    while any_orphan() && Instant::now() < until {
        thread::sleep(LOOK_AGAIN);
    }
}

fn any_orphan() -> bool {
    let mut text = String::new();
    let read = File::open("/proc/thread-self/children").and_then(|mut file| file.read_to_string(&mut text));
    // A kernel without that list: they are given their time.
    read.is_err() || text.split_whitespace().any(is_keeper)
}

/// Not one that has ended and that nobody has asked for yet.
fn is_keeper(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains("(ckpt-keeper)") && !stat.contains("(ckpt-keeper) Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_and_errors_come_through() {
        let much = vec![7; 300_000];
        assert_eq!(run(|| Ok(much.clone())).unwrap(), much);
        let error = run(|| Err(io::Error::from_raw_os_error(libc::ENOTTY))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
    }
}
