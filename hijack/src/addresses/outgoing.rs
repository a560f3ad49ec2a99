//! Names that a program hands to the kernel: old → new, in a copy.
#![allow(unsafe_code)] // the program's names and messages

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;

use hijack_abi::addresses::Addresses;

use super::names::Name;
use super::through::{Frame, Outcome, as_int, done, real};
use super::{ports, table};
use crate::libc;
use crate::objects::Next;

const EINTR: c_int = 4;
const EINPROGRESS: c_int = 115;
/// The most messages that one call takes (UIO_MAXIOV of the kernel).
const MESSAGES: usize = 1024;
/// So many of them are copied at a time: 800 bytes of a stack that may be small.
const AT_A_TIME: usize = 8;

/// struct msghdr, as libc and the kernel have it.
#[repr(C)]
pub struct Message {
    pub name: *mut u8,
    pub name_bytes: u32,
    rest: [usize; 5],
}

/// struct mmsghdr.
#[repr(C)]
pub struct Counted {
    pub message: Message,
    bytes: u32,
}

const _: () = assert!(size_of::<Message>() == 56 && size_of::<Counted>() == 64);

/// A message and its name.
pub struct Letter {
    message: Message,
    name: Name,
}

/// Messages and their names.
pub struct Letters {
    messages: [Counted; AT_A_TIME],
    names: [Name; AT_A_TIME],
}

/// `Frame::round` of a sendmmsg without table.
const AS_GIVEN: usize = usize::MAX;

/// bind(fd, name, length). `round` is the generation of the table.
///
/// # Safety
/// The arguments are those of a program's call, as everywhere here; see through.rs.
pub unsafe extern "C" fn before_bind(frame: &mut Frame<Name>, next: &Next) -> *const c_void {
    frame.pass_all();
    let Some(addresses) = table() else { return real(next) };
    frame.round = addresses.generation() as usize;
    let [fd, name, len, ..] = frame.given;
    // SAFETY: the caller's name.
    let name = frame.kept.write(unsafe { Name::copy(name as *const u8, len as u32) });
    let Some(old) = name.endpoint() else { return real(next) };
    let (target, slice) = addresses.read(|table| (table.to_new(old), table.ports()));
    let changed = target.is_some_and(|target| target.own && name.set(target.endpoint));
    if slice.count() != 0 && old.port == 0 {
        frame.passed[0] = ports::bind_in(fd as c_int, slice, name) as usize;
        return done();
    }
    if changed {
        [frame.passed[1], frame.passed[2]] = [name.start() as usize, name.len() as usize];
    }
    real(next)
}

/// connect(fd, name, length). `round` as above.
///
/// # Safety
/// As above.
pub unsafe extern "C" fn before_connect(frame: &mut Frame<Name>, next: &Next) -> *const c_void {
    frame.pass_all();
    if let Some(addresses) = table() {
        frame.round = addresses.generation() as usize;
        let [fd, name, len, ..] = frame.given;
        // SAFETY: the caller's name.
        let passed = unsafe { peer(addresses, fd, name, len, &mut frame.kept, true) };
        [frame.passed[1], frame.passed[2]] = passed;
    }
    real(next)
}

/// Once more, where the call has failed because its thread was parked in it, or just before, and has moved since.
///
/// # Safety
/// As above.
pub unsafe extern "C" fn after_name(frame: &mut Frame<Name>, result: isize) -> Outcome {
    let generation = table().map_or(0, Addresses::generation) as usize;
    let outdated = as_int(result) == -1 && generation != frame.round && ![EINTR, EINPROGRESS].contains(&libc::errno());
    Outcome { result, again: outdated.into() }
}

/// sendto(fd, bytes, count, flags, name, length)
///
/// # Safety
/// As above.
pub unsafe extern "C" fn before_sendto(frame: &mut Frame<Name>, next: &Next) -> *const c_void {
    frame.pass_all();
    if let Some(addresses) = table() {
        let [fd, .., name, len] = frame.given;
        // SAFETY: the caller's name.
        let passed = unsafe { peer(addresses, fd, name, len, &mut frame.kept, false) };
        [frame.passed[4], frame.passed[5]] = passed;
    }
    real(next)
}

/// The result is the caller's.
///
/// # Safety
/// As above.
pub unsafe extern "C" fn after_send<T>(_: &mut Frame<T>, result: isize) -> Outcome {
    Outcome::over(result)
}

/// sendmsg(fd, message, flags)
///
/// # Safety
/// As above.
pub unsafe extern "C" fn before_sendmsg(frame: &mut Frame<Letter>, next: &Next) -> *const c_void {
    frame.pass_all();
    let [fd, message, ..] = frame.given;
    if message != 0
        && let Some(addresses) = table()
    {
        let letter = frame.kept.as_mut_ptr();
        // SAFETY: the caller's message and its name; room for both in the frame.
        frame.passed[1] = unsafe {
            let copy = &raw mut (*letter).message;
            address(addresses, fd, message, copy, &raw mut (*letter).name);
            copy as usize
        };
    }
    real(next)
}

/// sendmmsg(fd, messages, count, flags). `round` is how many have been sent.
///
/// # Safety
/// As above.
pub unsafe extern "C" fn before_sendmmsg(frame: &mut Frame<Letters>, next: &Next) -> *const c_void {
    frame.pass_all();
    let [fd, messages, count, ..] = frame.given;
    let Some(addresses) = table().filter(|_| messages != 0) else {
        frame.round = AS_GIVEN;
        return real(next);
    };
    let letters = frame.kept.as_mut_ptr();
    let now = (count as u32 as usize).min(MESSAGES).saturating_sub(frame.round).min(AT_A_TIME);
    for index in 0..now {
        let message = messages + (frame.round + index) * size_of::<Counted>();
        // SAFETY: one of the caller's messages; room for as many in the frame.
        unsafe {
            let copy = (&raw mut (*letters).messages).cast::<Counted>().add(index);
            let name = (&raw mut (*letters).names).cast::<Name>().add(index);
            address(addresses, fd, message, &raw mut (*copy).message, name);
        }
    }
    // SAFETY: a field of the frame.
    frame.passed[1] = unsafe { &raw mut (*letters).messages } as usize;
    frame.passed[2] = now;
    real(next)
}

/// Tells the caller how much of each message was sent, and sends the next ones.
///
/// # Safety
/// As above.
pub unsafe extern "C" fn after_sendmmsg(frame: &mut Frame<Letters>, result: isize) -> Outcome {
    let before = frame.round;
    let (Ok(done), false) = (usize::try_from(as_int(result)), before == AS_GIVEN) else {
        // An error after the first messages is for the next call to meet.
        let nothing = [0, AS_GIVEN].contains(&before);
        return Outcome::over(if nothing { result } else { before as isize });
    };
    let [_, messages, count, ..] = frame.given;
    let letters = frame.kept.as_ptr();
    for index in 0..done.min(AT_A_TIME) {
        let message = (messages + (before + index) * size_of::<Counted>()) as *mut Counted;
        // SAFETY: the kernel has sent this one of ours, and would have written this to the caller's.
        unsafe {
            let sent = (&raw const (*letters).messages).cast::<Counted>().add(index);
            (&raw mut (*message).bytes).write_unaligned((*sent).bytes);
        }
    }
    frame.round = before + done;
    let all = (count as u32 as usize).min(MESSAGES);
    Outcome { result: frame.round as isize, again: (done == AT_A_TIME && frame.round < all).into() }
}

/// Copies a message, with a name that says where its receiver is now.
///
/// # Safety
/// `message` is a program's; `copy` and `name` can be written to, and outlive the copy.
unsafe fn address(addresses: &Addresses, fd: usize, message: usize, copy: *mut Message, name: *mut Name) {
    // SAFETY: the caller's.
    unsafe {
        let message = (message as *const Message).read_unaligned();
        let (given, bytes) = (message.name as usize, message.name_bytes as usize);
        let [moved, bytes] = peer(addresses, fd, given, bytes, &mut *name.cast(), false);
        copy.write(Message { name: moved as *mut u8, name_bytes: bytes as u32, ..message });
    }
}

/// Where somebody is now whom a program has named, as address and length of a name: the program's where there is nothing
/// to change, else `copy`. Gives the socket what it must have first (ports.rs).
///
/// # Safety
/// The name is a program's: its bytes can be read, or it is null.
unsafe fn peer(
    addresses: &Addresses,
    fd: usize,
    name: usize,
    len: usize,
    copy: &mut MaybeUninit<Name>,
    connects: bool,
) -> [usize; 2] {
    // SAFETY: the caller's.
    let copy = copy.write(unsafe { Name::copy(name as *const u8, len as u32) });
    let Some(old) = copy.endpoint() else { return [name, len] };
    let (target, slice) = addresses.read(|table| (table.to_new(old), table.ports()));
    ports::before_peer(fd as c_int, slice, target.filter(|target| connects && target.own));
    match target {
        Some(target) if copy.set(target.endpoint) => [copy.start() as usize, copy.len() as usize],
        _ => [name, len],
    }
}
