//! Pseudo-terminals. They can be neither peeked nor tee'd: what is in them is read out and put back at once.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use node_agent_image::model::{FileIndex, FileKind, OpenFile};

use super::snapshot::Capture;
use super::table::{Description, Stat};
use super::{FilesError, path, sys};

const PTMX: (u32, u32) = (5, 2);
/// Majors of Unix98 slaves; each has 256 minors.
const SLAVE_MAJORS: std::ops::Range<u32> = 136..144;
/// Masters opened on the way to a certain number; in a fresh devpts the number is the next one.
const SKIPPED_MAX: usize = 4096;
/// More than a pty can hold (64 KiB in each direction, and a line discipline's 4 KiB).
const CONTENTS_MAX: usize = 1 << 20;
const READ_BYTES: usize = 4096;
// struct termios2: c_iflag, c_oflag, c_cflag, c_lflag as u32.
const C_IFLAG: usize = 0;
const C_OFLAG: usize = 4;
const C_LFLAG: usize = 12;

/// Opened through /dev/ptmx.
pub fn is_master(description: &Description) -> bool {
    let device = description.stat.rdev;
    (libc::major(device), libc::minor(device)) == PTMX
}

/// N of /dev/pts/N.
pub fn slave_index(description: &Description) -> Option<u32> {
    let device = description.stat.rdev;
    let major = libc::major(device);
    SLAVE_MAJORS.contains(&major).then(|| (major - SLAVE_MAJORS.start) * 256 + libc::minor(device))
}

/// Either end. The slave of a terminal that is not the job's is a device.
pub fn capture(capture: &mut Capture<'_>, index: FileIndex) -> Result<FileKind, FilesError> {
    let description = &capture.table.descriptions[index];
    if let Some(number) = slave_index(description)
        && !has_master(capture, number, description.stat.device)?
    {
        return Ok(FileKind::Device { path: description.link.clone() });
    }
    let master = is_master(description);
    let file = capture.table.open(index)?;
    look(file.as_raw_fd(), master, slave_index(description)).map_err(capture.table.error("look into", index))
}

/// Numbers are unique within one devpts: a restarted job has its own, and its caller's terminal is of another.
fn has_master(capture: &Capture<'_>, number: u32, devpts: u64) -> Result<bool, FilesError> {
    let common = std::fs::metadata("/dev/pts").map(|it| Stat::from(it).device).ok();
    for index in 0..capture.table.descriptions.len() {
        let description = &capture.table.descriptions[index];
        let of_it = description.stat.device == devpts || (description.link == "/dev/ptmx" && common == Some(devpts));
        if description.stream.is_none() && is_master(description) && of_it {
            let file = capture.table.open(index)?;
            let own = sys::ioctl_int(file.as_raw_fd(), libc::TIOCGPTN);
            if own.map_err(capture.table.error("ask the number of", index))? as u32 == number {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn look(fd: RawFd, master: bool, number: Option<u32>) -> io::Result<FileKind> {
    let termios = sys::termios(fd)?;
    let (index, unlocked, contents);
    if master {
        index = sys::ioctl_int(fd, libc::TIOCGPTN)? as u32;
        unlocked = sys::ioctl_int(fd, libc::TIOCGPTLCK)? == 0;
        contents = read_out(fd)?;
        if !contents.is_empty() {
            let slave = sys::pty_peer(fd, libc::O_RDWR | libc::O_NONBLOCK)?;
            put_raw(slave.as_raw_fd(), slave.as_raw_fd(), &contents)?;
        }
    } else {
        index = number.unwrap_or_default();
        unlocked = true;
        contents = Vec::new();
    }
    Ok(FileKind::Pty { index, master, unlocked, termios: termios.to_vec(), window: sys::window(fd)?, contents })
}

/// All that can be read without waiting.
fn read_out(fd: RawFd) -> io::Result<Vec<u8>> {
    let mut contents = Vec::new();
    let mut buffer = [0; READ_BYTES];
    while contents.len() < CONTENTS_MAX && sys::poll(fd, libc::POLLIN, 0)? & libc::POLLIN != 0 {
        match sys::read(fd, &mut buffer) {
            Ok(0) => break,
            Ok(length) => contents.extend_from_slice(&buffer[..length]),
            // What a master reads when its last slave is closed and nothing is left.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(contents)
}

/// Writes through `fd` so that the bytes come out at the other end as they are; `terminal` is either end.
fn put_raw(fd: RawFd, terminal: RawFd, bytes: &[u8]) -> io::Result<()> {
    let termios = sys::termios(terminal)?;
    let mut raw = termios;
    for (at, bit) in [(C_IFLAG, u32::MAX), (C_OFLAG, libc::OPOST), (C_LFLAG, u32::MAX)] {
        let mut word = [0; 4];
        word.copy_from_slice(&raw[at..at + 4]);
        raw[at..at + 4].copy_from_slice(&(u32::from_ne_bytes(word) & !bit).to_ne_bytes());
    }
    sys::set_termios(terminal, &raw)?;
    let mut rest = bytes;
    let result = loop {
        if rest.is_empty() {
            break Ok(());
        }
        match sys::write(fd, rest) {
            Ok(length) => rest = &rest[length..],
            Err(error) => break Err(error),
        }
    };
    sys::set_termios(terminal, &termios)?;
    result
}

/// Opens all ptys of the model.
pub fn open_all(files: &[OpenFile], opened: &mut [Option<OwnedFd>]) -> Result<(), FilesError> {
    let mut masters: BTreeMap<u32, OwnedFd> = BTreeMap::new();
    for number in numbers(files) {
        masters.insert(number, open_master(number).map_err(FilesError::restore("open", format!("pty {number}")))?);
    }
    for (at, file) in files.iter().enumerate() {
        let FileKind::Pty { index, master, .. } = &file.kind else { continue };
        let pair = masters.get(index).ok_or_else(|| FilesError::Model(format!("pty {index} without a master")))?;
        let end = if *master {
            sys::dup_above(pair.as_raw_fd(), 0)
        } else {
            sys::pty_peer(pair.as_raw_fd(), file.flags as i32 & libc::O_ACCMODE)
        };
        opened[at] = Some(end.map_err(FilesError::restore("open", format!("pty {index}")))?);
    }
    for file in files {
        if let FileKind::Pty { index, master: true, .. } = &file.kind
            && let Some(master) = masters.get(index)
        {
            restore(master, &file.kind).map_err(FilesError::restore("restore", format!("pty {index}")))?;
        }
    }
    Ok(())
}

fn numbers(files: &[OpenFile]) -> Vec<u32> {
    let masters = files.iter().filter_map(|file| match &file.kind {
        FileKind::Pty { index, master: true, .. } => Some(*index),
        _ => None,
    });
    let mut numbers: Vec<u32> = masters.collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// Opens masters until one has the number; where that is taken (no devpts of the job's own), the first one does.
fn open_master(number: u32) -> io::Result<OwnedFd> {
    let mut skipped = Vec::new();
    while skipped.len() < SKIPPED_MAX {
        let flags = (libc::O_RDWR | libc::O_NOCTTY) as u32;
        let master = path::open_path("/dev/pts/ptmx", flags).or_else(|_| path::open_path("/dev/ptmx", flags))?;
        let got = sys::ioctl_int(master.as_raw_fd(), libc::TIOCGPTN)? as u32;
        sys::unlock_pty(master.as_raw_fd())?;
        if got == number {
            return Ok(master);
        }
        skipped.push(master);
        if got > number {
            break;
        }
    }
    skipped.into_iter().next().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOSPC))
}

fn restore(master: &OwnedFd, kind: &FileKind) -> io::Result<()> {
    let FileKind::Pty { termios, window, contents, .. } = kind else { return Ok(()) };
    let fd = master.as_raw_fd();
    let termios = termios.as_slice().try_into().map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    if !contents.is_empty() {
        let slave = sys::pty_peer(fd, libc::O_RDWR | libc::O_NONBLOCK)?;
        put_raw(slave.as_raw_fd(), slave.as_raw_fd(), contents)?;
    }
    sys::set_termios(fd, termios)?;
    sys::set_window(fd, window)
}
