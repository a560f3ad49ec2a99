//! Bytes that were read out of TCP connections while draining, where they outlive the agent.
//!
//! The guardian makes the ledger (a memfd) before it forks an agent; agents write it, the guardian reads it when one has
//! died. A chunk is peeked, written down as *pending*, only then taken out of the socket, then *committed*: whoever comes
//! upon a pending chunk asks the receiving socket whether it was taken, and reads out the rest. How much has gone back is
//! asked of the sending socket. So it can be cut off at any instruction.
//!
//! ```text
//! 0        head: magic, number of directions
//! 4096     directions, 128 bytes each
//! 64 GiB·n and on: bytes of direction n-1 (sparse)
//! ```

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};

const MAGIC: u64 = u64::from_le_bytes(*b"slkdrain");
const DIRECTIONS_AT: u64 = 4096;
const DIRECTION_BYTES: u64 = 128;
const WORDS: usize = 11;
/// Directions that one drain can read out; more than a node's ranks have connections that are full at one moment.
pub const DIRECTIONS_MAX: u64 = 65536;
/// Room for one direction: a thousand times what the kernel lets a connection hold.
pub const REGION_BYTES: u64 = 64 << 30;

/// Bytes read out while draining. See the module.
#[derive(Debug)]
pub struct Ledger {
    file: File,
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its index.
    pub(super) index: u64,
    /// Sending end: pid as the agent sees it, descriptor.
    pub(super) sender: (u32, i32),
    /// Receiving end.
    pub(super) receiver: (u32, i32),
    /// Inodes of both sockets: a descriptor number may be another file by now.
    pub(super) inodes: (u64, u64),
    /// What the sender had ever written (bytes and SYN) when it was parked.
    pub(super) written: u64,
    /// Bytes safely here and out of the receiver.
    pub(super) committed: u64,
    /// Bytes here that were about to be taken out of the receiver.
    pub(super) pending: u64,
    /// What the receiver had consumed before that.
    pub(super) consumed: u64,
    /// How far it has come.
    pub(super) phase: Phase,
}

/// What has begun to be read out is read out to its end before anything goes back: the rest is still before it in the
/// stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Bytes are being read out.
    #[default]
    Draining,
    /// All are here, and go back.
    Refilling,
    /// Everything has gone back.
    Done,
}

impl Ledger {
    /// A new one, close-on-exec.
    ///
    /// # Errors
    /// When there is no memory or no descriptor left.
    pub fn create() -> io::Result<Self> {
        Self::from_memfd(memfd_create("slackwater-drain", MFdFlags::MFD_CLOEXEC)?)
    }

    /// One that another process has made, or a new memfd.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn from_memfd(memfd: OwnedFd) -> io::Result<Self> {
        let ledger = Self { file: memfd.into() };
        if ledger.word(0)? != MAGIC {
            ledger.clear()?;
        }
        Ok(ledger)
    }

    /// Whether no bytes wait to be put back.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.entries()?.iter().all(|it| it.phase == Phase::Done))
    }

    pub(super) fn clear(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all_at(&words(&[MAGIC, 0]), 0)
    }

    pub(super) fn entries(&self) -> io::Result<Vec<Entry>> {
        (0..self.word(8)?.min(DIRECTIONS_MAX)).map(|index| self.entry(index)).collect()
    }

    /// Adds a direction. It counts from the moment when the number of directions is written.
    pub(super) fn add(&self, mut entry: Entry) -> io::Result<Entry> {
        entry.index = self.word(8)?;
        if entry.index >= DIRECTIONS_MAX {
            return Err(io::Error::other(format!("more than {DIRECTIONS_MAX} full connections")));
        }
        self.put(&entry)?;
        self.file.write_all_at(&words(&[entry.index + 1]), 8)?;
        Ok(entry)
    }

    pub(super) fn put(&self, it: &Entry) -> io::Result<()> {
        let pair = |(pid, number): (u32, i32)| u64::from(pid) << 32 | u64::from(number as u32);
        let (sender, receiver) = (pair(it.sender), pair(it.receiver));
        let state = [it.written, it.committed, it.pending, it.consumed, it.phase as u64];
        let text = words(&[&[sender, receiver, it.inodes.0, it.inodes.1], state.as_slice()].concat());
        self.file.write_all_at(&text, DIRECTIONS_AT + it.index * DIRECTION_BYTES)
    }

    /// Writes bytes of a direction, from its `at`th on.
    pub(super) fn write(&self, index: u64, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at + bytes.len() as u64 > REGION_BYTES {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        self.file.write_all_at(bytes, (index + 1) * REGION_BYTES + at)
    }

    pub(super) fn read(&self, index: u64, at: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, (index + 1) * REGION_BYTES + at)?;
        Ok(bytes)
    }

    /// What was read out of the receiving socket with this inode, if anything was.
    pub(super) fn received(&self, inode: u64) -> io::Result<Option<Vec<u8>>> {
        match self.entries()?.into_iter().find(|it| it.inodes.1 == inode && it.phase != Phase::Done) {
            Some(entry) => self.read(entry.index, 0, entry.committed).map(Some),
            None => Ok(None),
        }
    }

    fn entry(&self, index: u64) -> io::Result<Entry> {
        let at = DIRECTIONS_AT + index * DIRECTION_BYTES;
        let mut values = [0; WORDS];
        for (value, at) in values.iter_mut().zip((at..).step_by(8)) {
            *value = self.word(at)?;
        }
        let pair = |value: u64| ((value >> 32) as u32, value as u32 as i32);
        let [sender, receiver, sending, receiving, written, committed, pending, consumed, phase, ..] = values;
        Ok(Entry {
            index,
            sender: pair(sender),
            receiver: pair(receiver),
            inodes: (sending, receiving),
            written,
            committed,
            pending,
            consumed,
            phase: match phase {
                0 => Phase::Draining,
                1 => Phase::Refilling,
                _ => Phase::Done,
            },
        })
    }

    /// The word at an offset; 0 beyond the end.
    fn word(&self, at: u64) -> io::Result<u64> {
        let mut bytes = [0; 8];
        match self.file.read_exact_at(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            other => other.map(|()| u64::from_ne_bytes(bytes)),
        }
    }
}

fn words(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|it| it.to_ne_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_was_put_in() {
        let ledger = Ledger::create().unwrap();
        assert!(ledger.is_empty().unwrap());
        let mut entry = Entry { sender: (7, 3), receiver: (8, -1), inodes: (70, 80), written: 9, ..Entry::default() };
        for index in 0..2 {
            entry = ledger.add(entry).unwrap();
            assert_eq!(entry.index, index);
        }
        ledger.write(1, 0, b"bytes").unwrap();
        entry.committed = 5;
        ledger.put(&entry).unwrap();
        assert_eq!(ledger.entries().unwrap()[1], entry);
        assert_eq!(ledger.read(1, 1, 3).unwrap(), b"yte");
        assert!(!ledger.is_empty().unwrap());
        let same = Ledger::from_memfd(ledger.file.try_clone().unwrap().into()).unwrap();
        assert_eq!(same.entries().unwrap().len(), 2);
        same.clear().unwrap();
        assert!(ledger.is_empty().unwrap());
    }
}
