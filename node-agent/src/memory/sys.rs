//! The fence: the one system call that has no safe wrapper.
#![allow(unsafe_code)] // nix has no sync_file_range

use std::fs::File;
use std::os::fd::AsRawFd;

/// Lets the kernel begin to write `from..to` of a file to disk, so that fsync has less to wait for. Only a hint: errors
/// are told by fsync.
pub fn begin_writeback(file: &File, from: u64, to: u64) {
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the call takes no memory of ours.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), from as i64, (to - from) as i64, libc::SYNC_FILE_RANGE_WRITE);
    }
}
