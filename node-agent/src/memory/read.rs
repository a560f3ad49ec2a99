//! Reading a batch of pieces into a buffer.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use node_agent_image::contents::Owner;
use node_agent_image::limits::PAGE_BYTES;

use super::error::MemoryError;
use super::source::{BATCH_BYTES, Bytes, Piece, Source};

/// Reads pieces one behind the other into `buffer`, which has as many bytes as they.
pub fn read(source: &Source, pieces: &[Piece], buffer: &mut [u8]) -> Result<(), MemoryError> {
    match &source.bytes {
        Bytes::Memory { pid, base } => Memory { pid: *pid, base: *base }.read(pieces, buffer),
        Bytes::File(file) => {
            let mut rest = buffer;
            for piece in pieces {
                let (part, behind) = rest.split_at_mut(piece.bytes());
                read_file(source.owner, file, piece.start, part)?;
                rest = behind;
            }
            Ok(())
        }
        Bytes::Held(held) => {
            let mut rest = buffer;
            for piece in pieces {
                let (part, behind) = rest.split_at_mut(piece.bytes());
                let at = (piece.start - source.stretches[piece.stretch].start) as usize;
                part.copy_from_slice(&held.0[piece.stretch][at..][..part.len()]);
                rest = behind;
            }
            Ok(())
        }
    }
}

#[derive(Clone, Copy)]
struct Memory {
    pid: u32,
    base: u64,
}

impl Memory {
    fn read(self, pieces: &[Piece], buffer: &mut [u8]) -> Result<(), MemoryError> {
        let mut done = 0;
        while done < buffer.len() {
            let (first, within) = position(pieces, done);
            let remote: Vec<RemoteIoVec> = pieces[first..]
                .iter()
                .enumerate()
                .map(|(number, piece)| {
                    let skip = if number == 0 { within } else { 0 };
                    RemoteIoVec { base: self.base.wrapping_add(piece.start) as usize + skip, len: piece.bytes() - skip }
                })
                .collect();
            let mut local = [IoSliceMut::new(&mut buffer[done..])];
            match process_vm_readv(Pid::from_raw(self.pid as i32), &mut local, &remote) {
                Ok(read) if read > 0 => done += read,
                // No page there, or one that its process may not read: the kernel lets /proc/PID/mem read those.
                Ok(_) | Err(Errno::EFAULT) => {
                    let bytes = pieces[first].bytes() - within;
                    self.read_by_file(remote[0].base as u64, &mut buffer[done..][..bytes])?;
                    done += bytes;
                }
                Err(error) => return Err(self.error(remote[0].base as u64)(error.into())),
            }
        }
        Ok(())
    }

    fn read_by_file(self, address: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
        let file = File::open(format!("/proc/{}/mem", self.pid)).map_err(self.error(address))?;
        let mut done = 0;
        while done < buffer.len() {
            let at = address + done as u64;
            match file.read_at(&mut buffer[done..], at) {
                Ok(0) => return Err(self.error(at)(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(at)(error)),
            }
        }
        Ok(())
    }

    fn error(self, address: u64) -> impl FnOnce(io::Error) -> MemoryError {
        move |source| MemoryError::Process { pid: self.pid, address, source }
    }
}

/// Which piece byte `at` of all of them is in, and where in it.
fn position(pieces: &[Piece], mut at: usize) -> (usize, usize) {
    for (number, piece) in pieces.iter().enumerate() {
        match at.checked_sub(piece.bytes()) {
            Some(behind) => at = behind,
            None => return (number, at),
        }
    }
    unreachable!("a place behind the last piece")
}

fn read_file(owner: Owner, file: &File, offset: u64, buffer: &mut [u8]) -> Result<(), MemoryError> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let error = |source| MemoryError::File { owner, offset: at, source };
        match file.read_at(&mut buffer[done..], at) {
            Ok(0) if buffer.len() - done < PAGE_BYTES => {
                buffer[done..].fill(0);
                return Ok(());
            }
            Ok(0) => return Err(error(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends there"))),
            Ok(read) => done += read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(error(cause)),
        }
    }
    Ok(())
}

/// process_vm_readv takes no more pieces at once.
const IOV_MAX: usize = 1024;
const _: () = assert!(BATCH_BYTES / PAGE_BYTES <= IOV_MAX);
