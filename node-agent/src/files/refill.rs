//! Bytes go back into the kernel's buffers, through the sending end.

use std::io;
use std::os::fd::RawFd;

use super::{sys, sys_socket as raw};

/// A fresh connection takes this much without having grown; see `grow`.
const SURE_BYTES: usize = 64 << 10;
const CHUNK_BYTES: usize = 64 << 10;
/// Rounds of growing: each lets the kernel double the receiver's buffer at most.
const ROUNDS_MAX: usize = 64;
/// How long one wait for room may take: acknowledgements on one machine take microseconds, delayed ones 40 ms.
const ROOM_MS: i32 = 1000;

/// Sends `bytes` into a fresh connection whose receiver does not read: its buffers are made to grow first.
pub(super) fn send_stream(sender: RawFd, receiver: RawFd, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > SURE_BYTES {
        grow(sender, receiver, bytes.len())?;
    }
    send_all(sender, bytes)
}

/// Sends all of it, waiting for room as long as there is hope for some.
pub(super) fn send_all(sender: RawFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match raw::send(sender, bytes, &[], &[], libc::MSG_DONTWAIT) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                if sys::poll(sender, libc::POLLOUT, ROOM_MS)? & libc::POLLOUT == 0 {
                    return Err(io::Error::other(format!("{} bytes do not fit into its buffers", bytes.len())));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The kernel enlarges the buffers of a connection whose receiver keeps up with its sender: dummy bytes are sent and read
/// out again, all of them, until as many as wanted fit in without being read.
fn grow(sender: RawFd, receiver: RawFd, wanted: usize) -> io::Result<()> {
    let dummy = vec![0; CHUNK_BYTES];
    let mut sink = vec![0; CHUNK_BYTES];
    for _ in 0..ROUNDS_MAX {
        let mut sent = 0;
        while sent < wanted {
            match raw::send(sender, &dummy, &[], &[], libc::MSG_DONTWAIT) {
                Ok(length) => sent += length,
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => break,
                Err(error) => return Err(error),
            }
        }
        let mut rest = sent;
        while rest > 0 {
            let part = rest.min(CHUNK_BYTES);
            rest -= raw::receive(receiver, &mut sink[..part], 0)?.length;
        }
        if sent >= wanted {
            break;
        }
    }
    Ok(())
}
