//! Processes that only have to exist: the old guardian, its caller's session and group leaders.

use std::io;
use std::os::fd::RawFd;

use node_agent_image::model::NodeModel;

use super::board::Board;
use super::{builder, sys};

/// Closes everything from number `first` on but `keep` (any order).
pub fn close_all_but(mut first: u32, keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().map(|it| *it as u32).collect();
    keep.sort_unstable();
    for number in keep {
        if number > first {
            sys::close_range(first, number - 1)?;
        }
        first = first.max(number + 1);
    }
    sys::close_range(first, u32::MAX)
}

/// Exists until pid 1 ends.
pub fn outsider() -> ! {
    sys::block_signals();
    let _ = close_all_but(0, &[]);
    loop {
        // Siblings that it made are not its children, so there is nobody to reap.
        nix::unistd::pause();
    }
}

/// Reaps what it inherits and ends with the job's root.
pub fn guardian(model: &NodeModel, board: Board) -> ! {
    sys::block_signals();
    let _ = close_all_but(0, &[]);
    loop {
        match sys::wait(-1) {
            Ok((pid, status)) if pid == model.job.root => {
                builder::published(board, status);
                sys::exit(0);
            }
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(_) => sys::exit(0),
        }
    }
}
