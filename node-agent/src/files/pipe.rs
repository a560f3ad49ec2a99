//! Pipes and FIFOs. What is in them is copied by tee(2), which leaves it there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::sys::stat::Mode;
use node_agent_image::model::{FileIndex, FileKind, OpenFile};

use super::snapshot::Capture;
use super::table::Description;
use super::{FilesError, path, sys};

/// /proc/sys/fs/pipe-max-size as it is everywhere; the kernel's own limit is higher, for root.
const READ_BYTES: usize = 1 << 20;
const DEFAULT_CAPACITY: u32 = 65536;

/// One end of a pipe.
pub fn capture(capture: &mut Capture<'_>, index: FileIndex) -> Result<FileKind, FilesError> {
    let Description { link, stat, .. } = &capture.table.descriptions[index];
    let named = Path::new(link).is_absolute() && stat.links > 0;
    let path = named.then(|| link.clone());
    let key = (stat.device, stat.inode);
    let next = capture.pipes.len();
    let pipe = *capture.pipes.entry(key).or_insert(next);
    let file = capture.table.open(index)?;
    if path.is_none() && other_end_is_outside(capture, index, &file)? {
        return Ok(capture.refuse(index, "a pipe whose other end is in no process of the job"));
    }
    let capacity = sys::fcntl(file.as_raw_fd(), libc::F_GETPIPE_SZ, 0);
    let capacity = capacity.map_err(capture.table.error("ask the capacity of", index))? as u32;
    let (mut contents, mut packets) = (Vec::new(), Vec::new());
    if reads(capture.table.descriptions[index].info.flags) {
        (contents, packets) = copy(&file, capacity).map_err(capture.table.error("copy the contents of", index))?;
    }
    Ok(FileKind::Pipe { pipe, path, capacity, contents, packets })
}

fn reads(flags: u32) -> bool {
    flags as i32 & libc::O_ACCMODE != libc::O_WRONLY
}

fn writes(flags: u32) -> bool {
    flags as i32 & libc::O_ACCMODE != libc::O_RDONLY
}

/// The kernel says HUP (no writer) or ERR (no reader) when the other end is closed: if it does not, and nobody in the
/// job has it, somebody else does.
fn other_end_is_outside(capture: &Capture<'_>, index: FileIndex, file: &OwnedFd) -> Result<bool, FilesError> {
    let own = &capture.table.descriptions[index];
    let wanted = if reads(own.info.flags) { writes } else { reads };
    let inside = capture.table.by_inode(own.stat.inode).any(|at| {
        let other = &capture.table.descriptions[at];
        other.stat == own.stat && wanted(other.info.flags)
    });
    if inside {
        return Ok(false);
    }
    let events = sys::poll(file.as_raw_fd(), 0, 0).map_err(capture.table.error("poll", index))?;
    Ok(events & (libc::POLLHUP | libc::POLLERR) == 0)
}

/// Bytes in the pipe and, where it holds packets, their lengths.
fn copy(file: &OwnedFd, capacity: u32) -> io::Result<(Vec<u8>, Vec<u32>)> {
    let waiting = sys::ioctl_int(file.as_raw_fd(), libc::FIONREAD)? as usize;
    if waiting == 0 {
        return Ok(Default::default());
    }
    let (reader, writer) = sys::pipe(libc::O_CLOEXEC | libc::O_NONBLOCK)?;
    // As many slots as the original has: a slot may hold a single byte.
    sys::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, capacity.into())?;
    let copied = sys::tee(file.as_raw_fd(), writer.as_raw_fd(), waiting)?;
    if copied != waiting {
        return Err(io::Error::other(format!("tee copied {copied} of {waiting} bytes")));
    }
    let (mut contents, mut packets) = (Vec::with_capacity(waiting), Vec::new());
    let mut buffer = vec![0; waiting.clamp(1, READ_BYTES)];
    while contents.len() < waiting {
        let length = sys::read(reader.as_raw_fd(), &mut buffer)?;
        contents.extend_from_slice(&buffer[..length]);
        packets.push(length as u32);
    }
    // Plain bytes come all at once.
    if packets.len() == 1 || waiting > READ_BYTES {
        packets.clear();
    }
    Ok((contents, packets))
}

/// Opens all pipes of the model.
pub fn open_all(files: &[OpenFile], opened: &mut [Option<OwnedFd>]) -> Result<(), FilesError> {
    let mut pipes: BTreeMap<usize, Vec<FileIndex>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        if let FileKind::Pipe { pipe, .. } = &file.kind {
            pipes.entry(*pipe).or_default().push(index);
        }
    }
    for ends in pipes.values() {
        open_pipe(files, ends, opened)?;
    }
    Ok(())
}

fn open_pipe(files: &[OpenFile], ends: &[FileIndex], opened: &mut [Option<OwnedFd>]) -> Result<(), FilesError> {
    let mut what = "a pipe".to_owned();
    let (mut reader, writer);
    match ends.iter().find_map(|at| fifo_path(&files[*at])) {
        Some(path) => {
            what.clone_from(path);
            make_fifo(path).map_err(FilesError::restore("make FIFO", path))?;
            // Both ways and without waiting, so that no open below waits for its other end.
            let both = (libc::O_RDWR | libc::O_NONBLOCK) as u32;
            writer = path::open_path(path, both).map_err(FilesError::restore("open", path))?;
            reader = None;
        }
        None => {
            let pair = sys::pipe(libc::O_CLOEXEC | libc::O_NONBLOCK).map_err(FilesError::restore("make", &what))?;
            (reader, writer) = (Some(pair.0), pair.1);
        }
    }
    let mut writer_free = reader.is_some();
    // Each description that reads has a copy of the same bytes.
    if let Some(at) = ends.iter().find(|at| reads(files[**at].flags)) {
        fill(&files[*at], &writer).map_err(FilesError::restore("fill", &what))?;
    }
    for at in ends {
        let flags = files[*at].flags;
        let end = match (reads(flags), writes(flags)) {
            (true, false) if reader.is_some() => reader.take(),
            (false, true) if std::mem::take(&mut writer_free) => {
                Some(sys::dup_above(writer.as_raw_fd(), 0).map_err(FilesError::restore("duplicate", &what))?)
            }
            _ => {
                let flags = flags | libc::O_NONBLOCK as u32;
                Some(path::reopen(writer.as_raw_fd(), flags).map_err(FilesError::restore("open again", &what))?)
            }
        };
        opened[*at] = end;
    }
    Ok(())
}

fn fifo_path(file: &OpenFile) -> Option<&String> {
    match &file.kind {
        FileKind::Pipe { path, .. } => path.as_ref(),
        _ => None,
    }
}

fn make_fifo(path: &str) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(it) if it.file_type().is_fifo() => return Ok(()),
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something else has its name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if let Some(folder) = Path::new(path).parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?)
}

fn fill(file: &OpenFile, writer: &OwnedFd) -> io::Result<()> {
    let FileKind::Pipe { capacity, contents, packets, .. } = &file.kind else { return Ok(()) };
    if *capacity != DEFAULT_CAPACITY {
        sys::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, (*capacity).into())?;
    }
    let packet_mode = !packets.is_empty();
    if packet_mode {
        sys::fcntl(writer.as_raw_fd(), libc::F_SETFL, (libc::O_NONBLOCK | libc::O_DIRECT).into())?;
    }
    let mut rest = contents.as_slice();
    let mut lengths = packets.iter();
    while !rest.is_empty() {
        let length = lengths.next().map_or(rest.len(), |it| (*it as usize).clamp(1, rest.len()));
        let written = sys::write(writer.as_raw_fd(), &rest[..length])?;
        rest = &rest[written..];
    }
    if packet_mode {
        sys::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK.into())?;
    }
    Ok(())
}
