//! Pseudo-terminals. They can be neither peeked nor tee'd: what is in them is read out and put back at once, by a process
//! that goes on with it when the agent is killed meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use node_agent_image::model::{FileIndex, FileKind, OpenFile};

use super::snapshot::Capture;
use super::table::{Description, Stat};
use super::{FilesError, keeper, path, sys, typed};

const PTMX: (u32, u32) = (5, 2);
/// Majors of Unix98 slaves; each has 256 minors.
const SLAVE_MAJORS: std::ops::Range<u32> = 136..144;
/// Masters opened on the way to a certain number; in a fresh devpts the number is the next one.
const SKIPPED_MAX: usize = 4096;
/// More than a pty can hold (64 KiB in each direction, and a line discipline's 4 KiB).
const CONTENTS_MAX: usize = 1 << 20;
const READ_BYTES: usize = 4096;
/// The kernel hands bytes over to the other end in the background: room comes by itself where there was room.
const ROOM_MS: i32 = 1000;
// struct termios2: c_iflag, c_oflag, c_cflag, c_lflag as u32, c_line as u8, then the control characters.
pub(super) const C_IFLAG: usize = 0;
pub(super) const C_OFLAG: usize = 4;
pub(super) const C_LFLAG: usize = 12;
pub(super) const C_CC: usize = 17;

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
    let file = capture.table.open(index)?;
    let Some(number) = slave_index(description) else {
        return look_at_master(file.as_raw_fd()).map_err(capture.table.error("look into", index));
    };
    let Some(master) = master_of(capture, number, description.stat.device)? else {
        return Ok(FileKind::Device { path: description.link.clone() });
    };
    let is_first = !capture.table.descriptions[..index].iter().any(|it| it.stat.rdev == description.stat.rdev);
    let master = capture.table.open(master)?;
    let typed = if is_first { keeper::run(|| typed::look(master.as_raw_fd())) } else { Ok(Vec::new()) };
    typed.and_then(|typed| state(file.as_raw_fd(), number, typed)).map_err(capture.table.error("look into", index))
}

/// Numbers are unique within one devpts: a restarted job has its own, and its caller's terminal is of another.
fn master_of(capture: &Capture<'_>, number: u32, devpts: u64) -> Result<Option<FileIndex>, FilesError> {
    let common = std::fs::metadata("/dev/pts").map(|it| Stat::from(it).device).ok();
    for index in 0..capture.table.descriptions.len() {
        let description = &capture.table.descriptions[index];
        let of_it = description.stat.device == devpts || (description.link == "/dev/ptmx" && common == Some(devpts));
        if description.stream.is_none() && is_master(description) && of_it {
            let file = capture.table.open(index)?;
            let own = sys::ioctl_int(file.as_raw_fd(), libc::TIOCGPTN);
            if own.map_err(capture.table.error("ask the number of", index))? as u32 == number {
                return Ok(Some(index));
            }
        }
    }
    Ok(None)
}

fn look_at_master(fd: RawFd) -> io::Result<FileKind> {
    let index = sys::ioctl_int(fd, libc::TIOCGPTN)? as u32;
    let anything = sys::poll(fd, libc::POLLIN, 0)? & libc::POLLIN != 0;
    let contents = if anything { keeper::run(|| take_and_put_back(fd))? } else { Vec::new() };
    let unlocked = sys::ioctl_int(fd, libc::TIOCGPTLCK)? == 0;
    let termios = sys::termios(fd)?.to_vec();
    Ok(FileKind::Pty { index, master: true, unlocked, termios, window: sys::window(fd)?, contents })
}

fn take_and_put_back(fd: RawFd) -> io::Result<Vec<u8>> {
    let contents = read_out(fd)?;
    if !contents.is_empty() {
        let slave = sys::pty_peer(fd, libc::O_RDWR | libc::O_NONBLOCK)?;
        put_back(slave.as_raw_fd(), &contents)?;
    }
    Ok(contents)
}

fn state(fd: RawFd, index: u32, contents: Vec<u8>) -> io::Result<FileKind> {
    let termios = sys::termios(fd)?.to_vec();
    Ok(FileKind::Pty { index, master: false, unlocked: true, termios, window: sys::window(fd)?, contents })
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

/// Writes at the slave so that the bytes come out at the master as they are. Nothing but OPOST is touched: a line
/// discipline that loses ICANON for a moment forgets where the lines end that wait to be read.
fn put_back(slave: RawFd, bytes: &[u8]) -> io::Result<()> {
    let termios = sys::termios(slave)?;
    let mut raw = termios;
    raw[C_OFLAG..C_OFLAG + 4].copy_from_slice(&(word(&termios, C_OFLAG) & !libc::OPOST).to_ne_bytes());
    sys::set_termios(slave, &raw)?;
    let mut rest = bytes;
    let result = loop {
        if rest.is_empty() {
            break Ok(());
        }
        match sys::write(slave, rest) {
            Ok(length) => rest = &rest[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => match sys::poll(slave, libc::POLLOUT, ROOM_MS) {
                Ok(0) => break Err(error),
                Ok(_) => {}
                Err(error) => break Err(error),
            },
            Err(error) => break Err(error),
        }
    };
    sys::set_termios(slave, &termios)?;
    result
}

/// A word of a struct termios2.
pub(super) fn word(termios: &[u8; sys::TERMIOS_BYTES], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&termios[at..at + 4]);
    u32::from_ne_bytes(word)
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
    for file in files {
        if let FileKind::Pty { index, master: false, contents, .. } = &file.kind
            && let Some(master) = masters.get(index)
        {
            type_again(master, contents)
                .map_err(FilesError::restore("type again what waited in", format!("pty {index}")))?;
        }
    }
    Ok(())
}

fn type_again(master: &OwnedFd, typed: &[u8]) -> io::Result<()> {
    let slave = sys::pty_peer(master.as_raw_fd(), libc::O_RDWR | libc::O_NONBLOCK)?;
    typed::put_back(master.as_raw_fd(), slave.as_raw_fd(), typed)
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
        put_back(slave.as_raw_fd(), contents)?;
    }
    sys::set_termios(fd, termios)?;
    sys::set_window(fd, window)
}
