//! What is left of a transfer that is described by a list of buffers: a shorter list, on the thread's stack.
#![allow(unsafe_code)] // reads the program's lists, writes to its stack

const WRITEV: u64 = 20;
/// Buffers that a rest may have: 1 KiB of a stack that may be small. More are a short count after all.
const MAX: u64 = 64;

/// struct iovec.
#[derive(Clone, Copy)]
#[repr(C)]
struct Buffer {
    address: u64,
    length: u64,
}

/// struct msghdr.
#[derive(Clone, Copy)]
#[repr(C)]
struct Message {
    name: u64,
    name_bytes: u64,
    buffers: u64,
    count: u64,
    control: u64,
    control_bytes: u64,
    flags: u64,
}

/// Second and third argument for the rest of a call whose were `rsi` and `rdx`; `top` goes down by what it took. None when
/// nothing is left, or too much to be described.
///
/// # Safety
/// The arguments are those of a call that has just returned `done`; below `top` the stack is free.
pub unsafe fn remaining(number: u64, rsi: u64, rdx: u64, done: u64, top: &mut u64) -> Option<(u64, u64)> {
    if number == WRITEV {
        // SAFETY: the kernel has just read this list.
        return unsafe { buffers(rsi, rdx, done, top) };
    }
    // SAFETY: as above; control messages have gone with the first part, and a stream has no name to send to.
    unsafe {
        let message = (rsi as *const Message).read();
        let (list, count) = buffers(message.buffers, message.count, done, top)?;
        let rest = Message { name: 0, name_bytes: 0, buffers: list, count, control: 0, control_bytes: 0, flags: 0 };
        *top = (*top - size_of::<Message>() as u64) & !15;
        (*top as *mut Message).write(rest);
        Some((*top, rdx))
    }
}

/// The same where the arguments are what [`remaining`] has made: its list becomes shorter.
///
/// # Safety
/// As [`remaining`], and nobody else has the list.
pub unsafe fn advance(number: u64, rsi: u64, rdx: u64, done: u64) -> Option<(u64, u64)> {
    if number == WRITEV {
        // SAFETY: the caller's.
        return unsafe { shorten(rsi, rdx, done) };
    }
    // SAFETY: the caller's.
    unsafe {
        let message = &mut *(rsi as *mut Message);
        (message.buffers, message.count) = shorten(message.buffers, message.count, done)?;
    }
    Some((rsi, rdx))
}

/// # Safety
/// `count` buffers, ours.
unsafe fn shorten(list: u64, count: u64, mut done: u64) -> Option<(u64, u64)> {
    let list = list as *mut Buffer;
    for first in 0..count {
        // SAFETY: one of them.
        let buffer = unsafe { &mut *list.add(first as usize) };
        if done < buffer.length {
            buffer.address += done;
            buffer.length -= done;
            return Some((&raw const *buffer as u64, count - first));
        }
        done -= buffer.length;
    }
    None
}

/// # Safety
/// As [`remaining`].
unsafe fn buffers(list: u64, count: u64, mut done: u64, top: &mut u64) -> Option<(u64, u64)> {
    let list = list as *const Buffer;
    let mut first = 0;
    // SAFETY: `count` buffers, as the kernel has just read them.
    unsafe {
        while first < count && done >= (*list.add(first as usize)).length {
            done -= (*list.add(first as usize)).length;
            first += 1;
        }
        let left = count - first;
        if left == 0 || left > MAX {
            return None;
        }
        *top = (*top - left * size_of::<Buffer>() as u64) & !15;
        let copy = *top as *mut Buffer;
        for index in 0..left as usize {
            copy.add(index).write((list.add(first as usize + index)).read());
        }
        (*copy).address += done;
        (*copy).length -= done;
        Some((*top, left))
    }
}
