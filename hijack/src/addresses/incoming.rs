//! Names that the kernel hands to a program: new → old, in the program's buffer.
//!
//! The kernel writes as much of a name as there is room for and says how long it is; so it is here. Where there was not room
//! for the whole name it is asked for once more; a datagram's comes into a buffer of ours.
#![allow(unsafe_code)] // the program's buffers

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;

use hijack_abi::addresses::{Addresses, Endpoint};

use super::names::{NAME_BYTES, Name};
use super::outgoing::{Counted, Message};
use super::through::{Frame, Outcome, as_int, real};
use super::{ports, table};
use crate::objects::Next;

/// The most messages that one call takes (UIO_MAXIOV of the kernel).
const MESSAGES: usize = 1024;
/// Bytes of the longest name of any family (`struct sockaddr_storage`).
const ANY_NAME_BYTES: usize = 128;

/// The sender of a datagram.
pub struct Sender {
    /// Room that the caller has for its name.
    room: u32,
    len: u32,
    name: MaybeUninit<[u8; ANY_NAME_BYTES]>,
}

/// Whose name it is.
#[derive(Clone, Copy)]
enum Of {
    /// The socket's own.
    Own(c_int),
    /// Of whom this socket is connected to.
    Peer(c_int),
    /// Of who has sent a datagram.
    Sender,
}

/// accept(fd, name, length), accept4, getpeername, getsockname. `round` is the room for the name.
///
/// # Safety
/// The arguments are those of a program's call, as everywhere here; see through.rs.
pub unsafe extern "C" fn before_name(frame: &mut Frame<()>, next: &Next) -> *const c_void {
    frame.pass_all();
    let [_, name, len, ..] = frame.given;
    if name != 0 && len != 0 {
        // SAFETY: the caller's length.
        frame.round = unsafe { (len as *const u32).read_unaligned() } as usize;
    }
    real(next)
}

/// # Safety
/// As above.
pub unsafe extern "C" fn after_getsockname(frame: &mut Frame<()>, result: isize) -> Outcome {
    if as_int(result) == 0 {
        // SAFETY: the kernel has written the caller's name.
        unsafe { translate_given(frame, Of::Own(frame.given[0] as c_int)) };
    }
    Outcome::over(result)
}

/// # Safety
/// As above.
pub unsafe extern "C" fn after_getpeername(frame: &mut Frame<()>, result: isize) -> Outcome {
    if as_int(result) == 0 {
        // SAFETY: as above.
        unsafe { translate_given(frame, Of::Peer(frame.given[0] as c_int)) };
    }
    Outcome::over(result)
}

/// # Safety
/// As above.
pub unsafe extern "C" fn after_accept(frame: &mut Frame<()>, result: isize) -> Outcome {
    if as_int(result) >= 0 {
        // SAFETY: as above.
        unsafe { translate_given(frame, Of::Peer(as_int(result))) };
    }
    Outcome::over(result)
}

/// recvfrom(fd, bytes, count, flags, name, length)
///
/// # Safety
/// As above.
pub unsafe extern "C" fn before_recvfrom(frame: &mut Frame<Sender>, next: &Next) -> *const c_void {
    frame.pass_all();
    let [.., name, len] = frame.given;
    if name != 0 && len != 0 {
        // SAFETY: the caller's length.
        let room = unsafe { (len as *const u32).read_unaligned() };
        let whole = ANY_NAME_BYTES as u32;
        let sender = frame.kept.write(Sender { room, len: whole, name: MaybeUninit::uninit() });
        if room < NAME_BYTES && table().is_some() {
            frame.passed[4] = sender.name.as_mut_ptr() as usize;
            frame.passed[5] = (&raw mut sender.len) as usize;
        }
    }
    real(next)
}

/// # Safety
/// As above.
pub unsafe extern "C" fn after_recvfrom(frame: &mut Frame<Sender>, result: isize) -> Outcome {
    let [.., name, len] = frame.given;
    if result >= 0 && name != 0 && len != 0 {
        let sender = frame.kept.as_mut_ptr();
        let (name, given_len) = (name as *mut u8, len as *mut u32);
        // SAFETY: the kernel has written a name, to where it was told: the caller's buffer, or ours.
        unsafe {
            let room = (*sender).room;
            if frame.passed[5] == len {
                translate(Of::Sender, name, room.min(given_len.read_unaligned()));
            } else {
                let (whole, len) = ((&raw mut (*sender).name).cast::<u8>(), (*sender).len);
                translate(Of::Sender, whole, len);
                ptr::copy_nonoverlapping(whole, name, room.min(len) as usize);
                given_len.write_unaligned(len);
            }
        }
    }
    Outcome::over(result)
}

/// recvmsg(fd, message, flags). `round` is the room for the name.
///
/// # Safety
/// As above.
pub unsafe extern "C" fn before_recvmsg(frame: &mut Frame<()>, next: &Next) -> *const c_void {
    frame.pass_all();
    let message = frame.given[1] as *const Message;
    if !message.is_null() {
        // SAFETY: the caller's message.
        frame.round = unsafe { (*message).name_bytes } as usize;
    }
    real(next)
}

/// # Safety
/// As above.
pub unsafe extern "C" fn after_recvmsg(frame: &mut Frame<()>, result: isize) -> Outcome {
    if result >= 0 {
        let message = frame.given[1] as *const Message;
        // SAFETY: the kernel has filled the caller's message, and the name in it.
        unsafe { translate(Of::Sender, (*message).name, (*message).name_bytes.min(frame.round as u32)) };
    }
    Outcome::over(result)
}

/// recvmmsg(fd, messages, count, flags, time-out). What is kept is the room for each name, as far as it counts.
///
/// # Safety
/// As above.
pub unsafe extern "C" fn before_recvmmsg(frame: &mut Frame<[u8; MESSAGES]>, next: &Next) -> *const c_void {
    frame.pass_all();
    let [_, messages, count, ..] = frame.given;
    if messages != 0 {
        let rooms = frame.kept.as_mut_ptr().cast::<u8>();
        for index in 0..(count as u32 as usize).min(MESSAGES) {
            // SAFETY: one of the caller's messages; a byte of the frame.
            unsafe {
                let message = &raw const (*(messages as *const Counted).add(index)).message;
                rooms.add(index).write((*message).name_bytes.min(NAME_BYTES) as u8);
            }
        }
    }
    real(next)
}

/// # Safety
/// As above.
pub unsafe extern "C" fn after_recvmmsg(frame: &mut Frame<[u8; MESSAGES]>, result: isize) -> Outcome {
    if table().is_some() {
        let (messages, rooms) = (frame.given[1] as *const Counted, frame.kept.as_ptr().cast::<u8>());
        for index in 0..usize::try_from(as_int(result)).unwrap_or(0).min(MESSAGES) {
            // SAFETY: the kernel has filled this one of the caller's messages; its room was written before.
            unsafe {
                let message = &raw const (*messages.add(index)).message;
                let room = u32::from(*rooms.add(index));
                translate(Of::Sender, (*message).name, (*message).name_bytes.min(room));
            }
        }
    }
    Outcome::over(result)
}

/// # Safety
/// The kernel has written a name to where the arguments say, unless they are null.
unsafe fn translate_given(frame: &Frame<()>, of: Of) {
    let [_, name, len, ..] = frame.given;
    if name != 0 && len != 0 {
        // SAFETY: the caller's.
        unsafe { translate(of, name as *mut u8, (len as *const u32).read_unaligned().min(frame.round as u32)) };
    }
}

/// Translates a name that the kernel has written, if there is a table by now.
///
/// # Safety
/// So many bytes of a name were written there; or it is null.
unsafe fn translate(of: Of, name: *mut u8, written: u32) {
    let Some(addresses) = table().filter(|_| !name.is_null()) else { return };
    // SAFETY: the caller's.
    let mut whole = unsafe { Name::copy(name, written) };
    if whole.endpoint().is_none() {
        let again = match of {
            Of::Own(fd) => ports::local_name(fd),
            Of::Peer(fd) => ports::peer_name(fd),
            Of::Sender => None,
        };
        let Some(again) = again else { return };
        whole = again;
    }
    if let Some(new) = whole.endpoint()
        && let Some(old) = remembered(addresses, of, new)
        && whole.set(old)
    {
        // SAFETY: the caller's.
        unsafe { whole.write(name, written) };
    }
}

fn remembered(addresses: &Addresses, of: Of, new: Endpoint) -> Option<Endpoint> {
    let other = |name: Option<Name>| name.and_then(|name| name.endpoint());
    let ends = match of {
        Of::Sender => None,
        _ if !addresses.read(|table| table.has_connections()) => None,
        Of::Own(fd) => other(ports::peer_name(fd)).map(|peer| [new, peer]),
        Of::Peer(fd) => other(ports::local_name(fd)).map(|own| [own, new]),
    };
    let own = matches!(of, Of::Own(_));
    addresses.read(|table| match ends.and_then(|ends| table.connection(ends)) {
        Some([local, remote]) => Some(if own { local } else { remote }),
        None if own => table.to_old_own(new),
        None => table.to_old_peer(new),
    })
}
