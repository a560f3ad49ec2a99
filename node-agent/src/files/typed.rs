//! The other direction of a pty: what was typed at the master and nobody has read yet.
//!
//! It has gone through the line discipline already (an erased letter is gone, a return is a newline, its echo is written),
//! so it goes back past it: with all of its processing off but that of lines, of which each read(2) takes one.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use super::pty::{C_CC, C_IFLAG, C_LFLAG, C_OFLAG, word};
use super::sys;

/// struct termios2 as bytes.
type Termios = [u8; sys::TERMIOS_BYTES];

const CONTROL_CHARACTERS: usize = 19;
const VEOF: usize = 4;
const VMIN: usize = 6;
/// A line discipline holds no more; what is typed beyond that has not gone through it yet.
const HELD_MAX: usize = 4095;
/// Written at once: the kernel then hands it to the line discipline at once, so that its end is there when its lines are.
const CHUNK: usize = 1024;
/// The kernel hands bytes over to the other end in the background.
const HANDED_OVER: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_micros(200);

/// Takes it out and puts it back. Lines that an end-of-file character has ended (or an EOL other than newline) have the
/// end-of-file character behind them; what follows the last line is not finished yet.
pub fn look(master: RawFd) -> io::Result<Vec<u8>> {
    // A slave is open somewhere: opening and closing another one is seen by nobody.
    let slave = sys::pty_peer(master, libc::O_RDWR | libc::O_NONBLOCK)?;
    let slave = slave.as_raw_fd();
    let termios = sys::termios(slave)?;
    let mut typed = Vec::new();
    if is_canonical(&termios) {
        take(slave, &mut typed, |line, typed| {
            typed.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                typed.push(termios[C_CC + VEOF]);
            }
        })?;
    }
    if !typed.is_empty() || unfinished(slave, &termios)? {
        sys::set_termios(slave, &quiet(&termios, 0))?;
        let rest = take(slave, &mut typed, |bytes, typed| typed.extend_from_slice(bytes));
        sys::set_termios(slave, &termios)?;
        rest?;
    }
    put_back(master, slave, &typed)?;
    Ok(typed)
}

/// Puts it where it was; the terminal has its settings.
pub fn put_back(master: RawFd, slave: RawFd, typed: &[u8]) -> io::Result<()> {
    if typed.is_empty() {
        return Ok(());
    }
    let termios = sys::termios(slave)?;
    let lines = word(&termios, C_LFLAG) & libc::ICANON;
    sys::set_termios(slave, &quiet(&termios, lines))?;
    let result = write_all(master, typed).and_then(|()| handed_over(slave, expected(&termios, typed)));
    sys::set_termios(slave, &termios)?;
    result
}

fn is_canonical(termios: &Termios) -> bool {
    word(termios, C_LFLAG) & libc::ICANON != 0
}

/// Without lines: something is there. With lines: something may have been begun, which only shows without.
fn unfinished(slave: RawFd, termios: &Termios) -> io::Result<bool> {
    Ok(is_canonical(termios) || sys::ioctl_int(slave, libc::FIONREAD)? > 0)
}

/// Settings under which bytes go in and come out as they are; `lines` is ICANON or 0.
fn quiet(termios: &Termios, lines: u32) -> Termios {
    let mut quiet = *termios;
    let output = word(termios, C_OFLAG) & !libc::OPOST;
    for (at, word) in [(C_IFLAG, 0), (C_OFLAG, output), (C_LFLAG, lines)] {
        quiet[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    quiet[C_CC..C_CC + CONTROL_CHARACTERS].fill(0);
    match lines {
        0 => quiet[C_CC + VMIN] = 1,
        _ => quiet[C_CC + VEOF] = termios[C_CC + VEOF],
    }
    quiet
}

/// Reads all that can be read without waiting; poll(2) also makes the kernel hand over what is on its way.
fn take(slave: RawFd, typed: &mut Vec<u8>, mut keep: impl FnMut(&[u8], &mut Vec<u8>)) -> io::Result<()> {
    let mut buffer = [0; HELD_MAX + 1];
    while sys::poll(slave, libc::POLLIN, 0)? & libc::POLLIN != 0 {
        match sys::read(slave, &mut buffer) {
            Ok(length) => keep(&buffer[..length], typed),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EIO)) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_all(master: RawFd, typed: &[u8]) -> io::Result<()> {
    for chunk in typed.chunks(CHUNK) {
        let mut rest = chunk;
        while !rest.is_empty() {
            if sys::poll(master, libc::POLLOUT, HANDED_OVER.as_millis() as i32)? & libc::POLLOUT == 0 {
                return Err(io::Error::from_raw_os_error(libc::EAGAIN));
            }
            rest = &rest[sys::write(master, rest)?..];
        }
    }
    Ok(())
}

/// Bytes that FIONREAD will tell of: those of whole lines, without end-of-file characters, where there are lines.
fn expected(termios: &Termios, typed: &[u8]) -> usize {
    if !is_canonical(termios) {
        return typed.len().min(HELD_MAX);
    }
    let end = termios[C_CC + VEOF];
    let is_end = |byte: u8| end != 0 && byte == end;
    let whole = typed.iter().rposition(|byte| *byte == b'\n' || is_end(*byte)).map_or(0, |at| at + 1);
    let marks = typed[..whole].iter().filter(|byte| is_end(**byte)).count();
    if typed.len() > HELD_MAX { 0 } else { whole - marks }
}

fn handed_over(slave: RawFd, expected: usize) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        sys::poll(slave, libc::POLLIN, 0)?;
        if sys::ioctl_int(slave, libc::FIONREAD)? as usize >= expected || begun.elapsed() > HANDED_OVER {
            return Ok(());
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
