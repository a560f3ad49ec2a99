//! Bytes go back into the kernel's buffers, through the sending end.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::drain::{consumed, take, written};
use super::ledger::{Entry, Ledger, Phase};
use super::{sys, sys_socket as raw};

/// A fresh connection takes this much without having grown; see `grow`.
const SURE_BYTES: usize = 64 << 10;
const CHUNK_BYTES: usize = 64 << 10;
/// The most that is held in memory at once.
const PART_BYTES: u64 = 4 << 20;
/// Rounds of growing: each lets the kernel double the receiver's buffer at most.
const ROUNDS_MAX: usize = 64;
/// How long one wait for room may take: acknowledgements on one machine take microseconds, delayed ones 40 ms.
const ROOM_MS: i32 = 250;
/// How long the rest of a half-drained stream may take to arrive.
const FINISH: Duration = Duration::from_secs(10);

/// SO_BUF_LOCK: which buffer sizes the kernel leaves alone (Linux 5.14).
const SO_BUF_LOCK: i32 = 72;

/// Why bytes could not be put back. They are in the ledger still.
#[derive(Debug, Error)]
pub enum RefillError {
    /// The ledger cannot be read or written.
    #[error("cannot use the ledger of drained bytes: {0}")]
    Ledger(#[source] io::Error),
    /// A connection does not take its bytes.
    #[error("cannot put {bytes} drained bytes back through descriptor {number} of (outer) pid {pid}: {source}")]
    Connection {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        number: i32,
        #[allow(missing_docs)]
        bytes: u64,
        #[allow(missing_docs)]
        source: io::Error,
    },
}

/// Puts everything in the ledger back, and empties it. The processes are still parked. Whoever comes after a dead agent,
/// in whatever it died, calls the same. Returns the number of bytes put back.
///
/// # Errors
/// Names the first connection that fails; the others are refilled all the same.
pub fn from_ledger(ledger: &Ledger) -> Result<u64, RefillError> {
    let (mut total, mut failed) = (0, None);
    for mut entry in ledger.entries().map_err(RefillError::Ledger)? {
        if entry.phase == Phase::Done {
            continue;
        }
        let (pid, number) = entry.sender;
        match put_back(ledger, &mut entry) {
            Ok(bytes) => total += bytes,
            Err(source) => {
                failed = failed.or(Some(RefillError::Connection { pid, number, bytes: entry.committed, source }));
                continue;
            }
        }
        entry.phase = Phase::Done;
        ledger.put(&entry).map_err(RefillError::Ledger)?;
    }
    match failed {
        Some(error) => Err(error),
        None => ledger.clear().map(|()| total).map_err(RefillError::Ledger),
    }
}

fn put_back(ledger: &Ledger, entry: &mut Entry) -> io::Result<u64> {
    // A dead process misses nothing, and nobody waits for what it had sent: the job is coming to its end.
    let Some(sender) = reach(entry.sender, entry.inodes.0)? else { return Ok(0) };
    if entry.phase == Phase::Draining {
        let Some(receiver) = reach(entry.receiver, entry.inodes.1)? else { return Ok(0) };
        finish_draining(ledger, entry, sender.as_raw_fd(), receiver.as_raw_fd())?;
        entry.phase = Phase::Refilling;
        ledger.put(entry)?;
    }
    let already = written(sender.as_raw_fd())?.saturating_sub(entry.written);
    let mut at = already;
    while at < entry.committed {
        let part = (entry.committed - at).min(PART_BYTES);
        send_enlarging(sender.as_raw_fd(), &ledger.read(entry.index, at, part)?)?;
        at += part;
    }
    Ok(at - already)
}

/// Whoever drained has died or given up in the middle: the rest of the stream has to come out before its head can go back
/// behind it.
fn finish_draining(ledger: &Ledger, entry: &mut Entry, sender: RawFd, receiver: RawFd) -> io::Result<()> {
    if entry.pending > 0 {
        let taken = interconnect_drain::taken(entry.consumed, consumed(receiver)?, entry.pending);
        entry.committed += taken.ok_or_else(|| io::Error::other("the receiver has consumed part of a chunk"))?;
        entry.pending = 0;
        ledger.put(entry)?;
    }
    let deadline = Instant::now() + FINISH;
    loop {
        let unread = sys::ioctl_int(receiver, libc::FIONREAD)? as u64;
        if unread > 0 {
            take(ledger, entry, receiver, unread)?;
        } else if sys::ioctl_int(sender, libc::TIOCOUTQ)? == 0 && sys::ioctl_int(receiver, libc::FIONREAD)? == 0 {
            return Ok(());
        } else if Instant::now() > deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the rest of the stream does not arrive"));
        } else {
            raw::set_option_int(receiver, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1)?;
            sys::poll(receiver, libc::POLLIN, 1)?;
        }
    }
}

/// A duplicate of a parked process's descriptor, if both still are what they were.
fn reach((pid, number): (u32, i32), inode: u64) -> io::Result<Option<OwnedFd>> {
    let file = match sys::pidfd_open(pid).and_then(|pidfd| sys::pidfd_getfd(&pidfd, number)) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ESRCH | libc::EBADF)) => return Ok(None),
        other => other?,
    };
    Ok((nix::sys::stat::fstat(&file)?.st_ino == inode).then_some(file))
}

/// The bytes came out of these buffers, so they fit; should the kernel account them otherwise this time, the send buffer
/// is enlarged for a moment.
fn send_enlarging(sender: RawFd, bytes: &[u8]) -> io::Result<()> {
    let before = written(sender)?;
    match send_all(sender, bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        other => return other,
    }
    let lock = raw::option_int(sender, libc::SOL_SOCKET, SO_BUF_LOCK)?;
    let size = raw::option_int(sender, libc::SOL_SOCKET, libc::SO_SNDBUF)?;
    raw::set_option_int(sender, libc::SOL_SOCKET, libc::SO_SNDBUF, size.saturating_add(bytes.len() as i32))?;
    let sent = (written(sender)? - before) as usize;
    let result = send_all(sender, &bytes[sent.min(bytes.len())..]);
    // The kernel doubles what it is given.
    raw::set_option_int(sender, libc::SOL_SOCKET, libc::SO_SNDBUF, size / 2)?;
    raw::set_option_int(sender, libc::SOL_SOCKET, SO_BUF_LOCK, lock)?;
    result
}

/// Sends `bytes` into a fresh connection whose receiver does not read: its buffers are made to grow first.
pub(super) fn send_stream(sender: RawFd, receiver: RawFd, bytes: &[u8]) -> io::Result<()> {
    if bytes.len() > SURE_BYTES {
        grow(sender, receiver, bytes.len() + bytes.len() / 4 + SURE_BYTES)?;
    }
    send_enlarging(sender, bytes)
}

/// Sends all of it, waiting for room as long as there is hope for some.
pub(super) fn send_all(sender: RawFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match raw::send(sender, bytes, &[], &[], libc::MSG_DONTWAIT) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                if sys::poll(sender, libc::POLLOUT, ROOM_MS)? & libc::POLLOUT == 0 {
                    let text = format!("{} bytes do not fit into its buffers", bytes.len());
                    return Err(io::Error::new(io::ErrorKind::WouldBlock, text));
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
